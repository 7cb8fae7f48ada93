"""What a JSON file says of itself and of the files beside it: the one place that writes hashes and checks them.

`checksum` is the SHA-256 of all else that the file says, `files` that of each file of its folder. Whoever reads checks
first: a bit that a disk or a copy has flipped, and another run's file, are told before a number is made of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textvae.errors import DataError
from textvae.files import fingerprint, read_json, sha256_of_file, write_json
from textvae.strict import shown

CHECKSUM, FILES = "checksum", "files"


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` with its checksum."""
    stated = {key: value for key, value in content.items() if key != CHECKSUM}
    return {**stated, CHECKSUM: fingerprint(stated)}


def write_sealed(path: Path, content: Mapping[str, Any], whole_folder: bool = False) -> dict[str, Any]:
    """Write `path` with its checksum. Returns what it says.

    `whole_folder`: and with the hash of every file beside it, which is there already; hidden ones are no part of it.
    """
    beside = [one for one in path.parent.iterdir() if one != path and one.name[0] != "."] if whole_folder else []
    hashes = {one.name: sha256_of_file(one) for one in beside}
    written = sealed({**content, FILES: hashes} if whole_folder else content)
    write_json(path, written)
    return written


def read_sealed(path: Path, step: str, version: int | None = None) -> dict[str, Any]:
    """What `path` says, without its checksum (what is made by hand has none).

    Raises DataError where it is missing, no JSON object, of another `format_version` than `version`, or not what was
    written. `step` is what writes it again.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} is not as {step} writes it (no JSON object): run {step} again")
    if version is not None and (found := content.get("format_version")) != version:
        raise DataError(f"{path} has format version {shown(found)}; this textvae reads {version}: run {step} again")
    stated = content.pop(CHECKSUM, None)
    if stated is not None and stated != fingerprint(content):
        raise DataError(f"{path} is damaged: it is not what {step} wrote, by the checksum in it: run {step} again")
    return content


def checked_file(path: Path, about: Path, files: Mapping[str, str], step: str) -> Path:
    """`path`, of which `about` (beside it) states the hash among `files`. Raises DataError where it has another one."""
    if path.name not in files:
        raise DataError(f"{about} does not state the hash of {path.name}: run {step} again")
    try:
        found = sha256_of_file(path)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing: run {step} again") from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): let this user read it, or run {step} again"
        ) from None
    if found != files[path.name]:
        raise DataError(
            f"{path} is damaged, or another's: it has another hash than {about.name} states: copy it again, "
            f"or run {step} again"
        )
    return path
