"""What makes sentences of a file, by the name that params.yaml gives as a source's `reader`: one module here each.

A new one is one file: its `READER` says how, and what settings of the source it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from textcorpus.sources import TextFile
from textvae.corpus_settings import FetchSettings
from textvae.errors import SettingsError


@dataclass(frozen=True)
class Reader:
    """How a kind of file is read."""

    lines: Callable[[TextFile], Iterator[str]]
    """The sentences of a file, one after the other. Raises DataError naming file and line for what is another kind."""
    tokenizer: str | None = None
    """The `tokenizer` that it takes; None: either."""
    published_splits: bool = False
    """Whether the source must name its `splits`."""
    distinct_held_out: bool = False
    """Whether of the published valid and test sentences only the first of equal ones is kept."""


def reader_names() -> list[str]:
    """Every reader that has a file."""
    return sorted(file.stem for file in Path(__file__).parent.glob("*.py") if file.stem != "__init__")


def reader_named(name: str, key: str = "reader") -> Reader:
    """The reader of that name, which stands at `key`. Raises SettingsError naming those there are."""
    if name not in reader_names():
        raise SettingsError(f"{key}: there is no reader {name!r} (there are: {', '.join(reader_names())})")
    found: Reader = import_module(f"textcorpus.readers.{name}").READER
    return found


def reader_of(settings: FetchSettings) -> Reader:
    """The reader that a source names. Raises SettingsError where there is none, or for settings that it cannot take."""
    key = f"datasets.{settings.dataset}.source"
    found = reader_named(settings.reader, f"{key}.reader")
    if found.tokenizer not in (None, settings.tokenizer) or (found.published_splits and settings.splits is None):
        needed = [f"`tokenizer: {found.tokenizer}`"] * (found.tokenizer is not None)
        needed += ["the names of its `splits`"] * found.published_splits
        raise SettingsError(f"{key}: `reader: {settings.reader}` takes {' and '.join(needed)}")
    return found
