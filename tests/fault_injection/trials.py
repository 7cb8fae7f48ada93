"""What a trial is, and what becomes of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple


class Result(NamedTuple):
    """Of one trial, or of several that are kept as one: how many, and what was lost in those that did not survive."""

    tried: int
    lost: list[str]


class Trial(NamedTuple):
    """`what` names it: with the kind and the step it is what is kept, so that none is done twice."""

    what: str
    do: Callable[[], Result]
    least: int = 1
    """How many are in it: one that was kept with fewer is done again."""


def chance(*what: object) -> random.Random:
    """The same numbers for the same trial, whichever others are done."""
    return random.Random(" ".join(map(str, what)))


def one_result(lost: str, about: str) -> Result:
    """Of one trial."""
    return Result(1, [f"{about}: {lost}"] if lost else [])
