"""What the tests of fetch and preprocess share: texts on disk, fetched."""

import gzip
import json
import zipfile
from pathlib import Path
from typing import Any

from components.fetch import fetch
from textvae.config import FetchSettings

SPLITS = ("train", "valid", "test")
NUMBERED = [f"sentence number {n} ." for n in range(400)]
NUMBERED_TEXT = ("\n".join(NUMBERED) + "\n").encode()


def fetched(folder: Path, **source: Any) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """The lines of each split and source.json, after fetch with these settings."""
    settings = FetchSettings(**{"dataset": "mine", "tokenizer": "spaces", **source})
    fetch(settings=settings, raw=folder / "raw")
    lines = {s: (folder / "raw" / f"{s}.txt").read_bytes().decode().split("\n") for s in SPLITS}
    assert all(split.pop() == "" for split in lines.values())
    return lines, json.loads((folder / "raw/source.json").read_text())


def write(path: Path, content: bytes) -> Path:
    """Write a file; the path again."""
    path.write_bytes(content)
    return path


def three_splits(folder: Path, train: bytes, valid: bytes = b"v w\nw\n", test: bytes = b"t u\nu\n") -> dict[str, Any]:
    """A folder with named splits; the settings that name them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in zip(SPLITS, (train, valid, test), strict=True):
        (folder / f"{name}.txt").write_bytes(content)
    return {"path": str(folder), "splits": {name: f"{name}.txt" for name in SPLITS}}


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    """A zip archive; a member whose name ends in .gz is gzipped."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, gzip.compress(content) if name.endswith(".gz") else content)
    return path
