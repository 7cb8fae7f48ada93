"""What disks, copies and hands do to files: a bit flipped, an end missing, another's file in the place of one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file; a negative position counts from its end."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def flips(path: Path, count: int, seed: int = 0) -> Iterator[tuple[int, int]]:
    """Flip one bit of a file after the other, at random: (position, bit). Each is undone when the next is asked for."""
    whole = path.read_bytes()
    rng = random.Random(seed)
    try:
        for _ in range(count):
            position, bit = rng.randrange(len(whole)), rng.randrange(8)
            flip(path, position, bit)
            yield position, bit
            path.write_bytes(whole)
    finally:
        path.write_bytes(whole)


def truncate(path: Path, share: float = 0.9) -> None:
    """Keep the first part of a file only."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def take(path: Path, other: Path) -> None:
    """Put another's file in the place of one."""
    path.unlink()
    shutil.copyfile(other, path)
