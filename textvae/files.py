"""JSON files and hashes, in the one form in which they are written here."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
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
    """The value in `path`. Raises DataError where the file is missing, not UTF-8 or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run the step that writes it") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path} is not JSON ({error}); remove it and run the step that writes it again") from None


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Hexadecimal SHA-256 of a JSON value: the same for equal values, whatever the order of their keys."""
    return hashlib.sha256(json_text(parts).encode()).hexdigest()
