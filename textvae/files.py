"""JSON files and hashes, in the one form in which they are written here."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from textvae.errors import DataError


def json_text(value: Any) -> str:
    """`value` as this project writes JSON: sorted keys, so that equal values are equal files. NaN is refused."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` through a temporary name, so that no reader meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json_text(value), encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any:
    """The value in `path`. Raises DataError where the file is missing, may not be read, or is not JSON as it is written
    here, without NaN."""
    try:
        return parsed_json(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing; run the step that writes it") from None
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): let this user read it") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}); remove it and run the step that writes it again") from None


def parsed_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError where it is none, or has a number that is none."""

    def refused(number: str) -> None:
        raise ValueError(f"{number} is no number")

    try:
        return json.loads(text, parse_constant=refused)
    except RecursionError:
        raise ValueError("nested without end") from None


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of a JSON value: the same for equal values, whatever the order of their keys."""
    return hashlib.sha256(json_text(parts).encode()).hexdigest()


@contextmanager
def written_when_complete(outputs: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Temporary names for `outputs`, renamed to the final ones when the block ends well and removed otherwise."""
    temporary = {name: path.with_name(f".{path.name}.tmp") for name, path in outputs.items()}
    for path in temporary.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(path)
    try:
        yield temporary
        for name, path in temporary.items():
            if not path.exists():
                raise AssertionError(f"the step did not write its output {name!r}")
        for name, path in temporary.items():
            remove(outputs[name])
            path.replace(outputs[name])
    finally:
        for path in temporary.values():
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
