"""Parquet files that say the SHA-256 of themselves: samples.parquet, which lies beside no JSON that could.

The file's own checksums are of its pages only: a bit flipped in its footer can give other values. So the footer has the
hash of the whole file, in which the hash's own digits count as zeros.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from textvae.errors import DataError
from textvae.files import parsed_json
from textvae.records import Samples, checked_record

MARK, ZEROS = b"textvae-sha256:", b"0" * 64
FOOTER_END = 8
"""Bytes behind a Parquet footer: its length and a magic word."""
CHUNK = 2**20


@contextmanager
def sealed_writer(path: Path, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
    """A writer of a Parquet file that has its hash when the block ends."""
    with pq.ParquetWriter(path, schema) as writer:
        yield writer
        writer.add_key_value_metadata({"seal": (MARK + ZEROS).decode()})
    with path.open("r+b") as file:
        place = place_of_hash(file)
        digest = hash_without(file, place)
        file.seek(place)
        file.write(digest)


def place_of_hash(file: BinaryIO) -> int:
    """Where the digits of the hash begin in a sealed file; -1 where it has none."""
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - FOOTER_END))
    footer = int.from_bytes(file.read(4), "little")
    start = file.seek(max(0, end - FOOTER_END - footer))
    found = file.read().rfind(MARK)
    return start + found + len(MARK) if found >= 0 else -1


def hash_without(file: BinaryIO, place: int) -> bytes:
    """The file's SHA-256 in hexadecimal digits, with zeros at `place`."""
    digest = hashlib.sha256()
    file.seek(0)
    left = place
    while chunk := file.read(min(left, CHUNK)):
        digest.update(chunk)
        left -= len(chunk)
    digest.update(ZEROS)
    file.seek(place + len(ZEROS))
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest().encode()


def check_seal(path: Path, step: str) -> None:
    """Raise DataError where a file is missing, or is not as its hash says. `step` is what writes it again."""
    try:
        with path.open("rb") as file:
            place = place_of_hash(file)
            expected = hash_without(file, place) if place >= 0 else b""
            file.seek(max(place, 0))
            stated = file.read(len(ZEROS))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing: run {step} again") from None
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): let this user read it") from None
    if place < 0 or stated != expected:
        raise DataError(f"{path} is damaged: it is not what {step} wrote, by the hash in it: run {step} again")


def samples_metadata(path: Path) -> dict[str, Any]:
    """What samples.parquet says of itself. Raises DataError where it is damaged, or says something else."""
    check_seal(path, Samples.written_by)
    try:
        about = parsed_json(pq.read_schema(path).metadata[b"textvae"])
    except MemoryError:  # Arrow's own is an ArrowException
        raise
    except (OSError, pa.ArrowException, TypeError, KeyError, ValueError):
        raise DataError(f"{path} does not say whose samples it has; run sample again") from None
    return checked_record(about, Samples, str(path))
