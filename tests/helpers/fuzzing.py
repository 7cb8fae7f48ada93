"""How `make fuzz` gives inputs to a reader, and what it counts.

A reader may take an input or refuse it with one of the project's errors in one line. What it takes is worked on by the
next step at a tiny size (of the costly ones every so-many-th). Anything else is a surprise.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis.strategies import SearchStrategy

from textvae.errors import explanation

ROOT = Path(__file__).resolve().parents[2]
USAGE_ERROR = 2
Read = Callable[[Any], Any]


@dataclass(frozen=True)
class Reader:
    """One kind of input."""

    name: str
    inputs: SearchStrategy[Any]
    read: Read
    """What the input is to the project; raises where it is refused. Returns what the next step works on."""
    run_on: Read
    every: int = 1
    """Of what is taken, each so-many-th is worked on."""
    share: float = 1.0
    """Of the inputs, where other readers have 1."""


@dataclass
class Tally:
    """What came of the inputs of one reader."""

    inputs: int = 0
    refused: int = 0
    taken: int = 0
    ran_on: int = 0
    refused_later: int = 0
    """By the next step, with an error of the project."""
    surprises: Counter[str] = field(default_factory=Counter)
    smallest: dict[str, str] = field(default_factory=dict)
    """Of each surprise: an input, the shortest that was met."""
    later: Counter[str] = field(default_factory=Counter)

    def add(self, reader: Reader, made: Any) -> None:
        """Give one input to its reader."""
        self.inputs += 1
        taken, said, surprise = attempt(reader.read, made)
        if surprise is None and said is None:
            self.taken += 1
            if self.taken % reader.every == 0:
                self.ran_on += 1
                _, said, surprise = attempt(reader.run_on, taken)
                if said is not None:
                    self.refused_later += 1
                    self.later[said[:100]] += 1
        elif surprise is None:
            self.refused += 1
        if surprise is not None:
            self.surprises[surprise] += 1
            shown = repr(made)
            if len(shown) < len(self.smallest.get(surprise, shown + " ")):
                self.smallest[surprise] = shown

    def merge(self, other: Tally) -> None:
        """Count what `other` has counted."""
        for name in ("inputs", "refused", "taken", "ran_on", "refused_later"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.surprises += other.surprises
        self.later += other.later
        for surprise, shown in other.smallest.items():
            if len(shown) < len(self.smallest.get(surprise, shown + " ")):
                self.smallest[surprise] = shown


class Unsaid(Exception):
    """What a reader did that is no error of the project and no right result."""


def attempt(action: Read, given: Any) -> tuple[Any, str | None, str | None]:
    """What `action` makes of `given`; what it refused it with; what surprised: an exception, or no line."""
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return action(given), None, None
    except Exception as error:
        found = explanation(error, "less")
        if found is None:
            return None, None, whose(error)
        if "\n" in found[0] or not found[0]:
            return None, None, f"a refusal that is not one line: {found[0][:80]!r}"
        return None, found[0], None
    except SystemExit as ended:
        return None, None, f"SystemExit({ended.code})"


def whose(error: Exception) -> str:
    """The class of an exception, the last line of the project that it passed, and the beginning of its text."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(ROOT)]
    own = [f for f in frames if "/tests/" not in f.filename and "/.venv/" not in f.filename] or frames
    place = f"{Path(own[-1].filename).relative_to(ROOT)}:{own[-1].lineno}" if own else "?"
    return f"{type(error).__name__} at {place}: {' '.join(str(error).split())[:80]}"


def fuzz(reader: Reader, seed: int, count: int) -> Tally:
    """Give `count` inputs to a reader: the same ones for the same seed (and version of hypothesis)."""
    tally = Tally()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(reader.inputs)
    def one(made: Any) -> None:
        tally.add(reader, made)

    one()
    return tally


@contextlib.contextmanager
def at(folder: Path) -> Iterator[None]:
    """In this working directory, without looking at code: its hashes are read for each of thousands of settings."""
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        with (
            mock.patch("components.settings.imported_by", return_value={}),
            mock.patch("components.settings.objective_sha256", return_value=""),
            mock.patch.dict(os.environ, {"TEXTVAE_STATE": str(folder / "state"), "OMP_NUM_THREADS": "1"}),
        ):
            yield
    finally:
        os.chdir(before)


def emptied(folder: Path) -> Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
