"""JSON files and hashes, in the one form in which they are written here."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textvae.errors import DataError, SettingsError

IN_DVCS_CACHE = re.compile(r"/[0-9a-f]{2}/[0-9a-f]{30}$")
"""Named by its content: where DVC is told to link (`cache.type symlink`), outputs are links to such files."""
LEFT_SECONDS = 3600.0
"""A temporary file of this age was left by a process that was killed: one is there for as long as a write takes."""


def json_text(value: Any) -> str:
    """`value` as this project writes JSON: sorted keys, so that equal values are equal files. NaN is refused."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` through a temporary name, so that no reader meets half a file."""
    with replaced(path) as temporary:
        temporary.write_text(json_text(value), encoding="utf-8")


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary name of this process for the file `path`: renamed when the block ends well, else removed.

    Of what killed processes have left of it, removes what is older than LEFT_SECONDS. A device is a SettingsError.
    """
    refuse_device(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if left.is_file() and time.time() - left.stat().st_mtime > LEFT_SECONDS:
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_device(path: Path) -> None:
    """Raise SettingsError for a device or a pipe: a rename would put a file in its place, as in root's /dev/null's."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise SettingsError(f"{path} is a device or a pipe, and outputs are files: name one")


def read_json(path: Path) -> Any:
    """The value in `path`. Raises DataError where the file is missing, may not be read, or is not JSON as it is written
    here, without NaN."""
    try:
        with named(path):
            return parsed_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing; run the step that writes it") from None
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): let this user read it") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); remove it and run the step that writes it again") from None


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Let a system error of the block name the file, as that of reading it does not: a bad sector, a lost volume."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def parsed_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError where it is none, or has a number or a character that is none."""

    def refused(number: str) -> None:
        raise ValueError(f"{number} is no number")

    try:
        value = json.loads(text, parse_constant=refused)
        refuse_lone_surrogates(value)
    except RecursionError:
        raise ValueError("nested without end") from None
    return value


def refuse_lone_surrogates(value: Any) -> None:
    """Raise ValueError where a text in `value` has half a character (a lone surrogate, which JSON and YAML can escape):
    no file can be written with it."""
    try:
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"half a character, {error.object[error.start]!r}, in a text") from None
    except ValueError:  # an integer of thousands of digits: refused by its key
        pass


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with named(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of a JSON value: the same for equal values, whatever the order of their keys."""
    return hashlib.sha256(json_text(parts).encode()).hexdigest()


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_links(folder: Path) -> None:
    """Raises DataError for a link in `folder` to something outside of it: whoever can write there would decide what of
    this machine is copied, packed or served."""
    inside = folder.resolve()
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            target = Path(os.path.realpath(path))  # of links in a circle: one of them
            if not target.is_relative_to(inside) and not IN_DVCS_CACHE.search(str(target)):
                raise DataError(
                    f"{path} is a link to {target}, outside of {folder}, and is not followed: put the file itself "
                    "there, or remove the link"
                )
