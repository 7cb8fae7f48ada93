"""Ways of doing one thing, timed in turns on one thread; and the rows of the table that says how they compare."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch

HEAD = ("work", "project", "reference", "ratio (of the rounds)", "target", "reached", "share of the limit")


def rates(ways: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way does in a second of the processor's time, in each round. A way returns how much it has done.

    The ways take turns, so that a machine that slows down does so for all; what other processes do is not counted; a
    round before the first one warms up.
    """
    torch.set_num_threads(1)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            started = time.process_time()
            done = way()
            if number:
                found[name].append(done / (time.process_time() - started))
    return found


@dataclass(frozen=True)
class Row:
    """What was found of one kind of work, per second of the processor's time."""

    work: str
    """With its unit."""
    project: Sequence[float]
    """In each round."""
    reference: Sequence[float] = ()
    target: float | None = None
    costs: bool = False
    """Whether the ratio is how many times the reference's time the project takes, and the target the most of it; else
    how many times as fast it is, and the least."""
    limit: Sequence[float] = ()
    """As many as the matrix products alone would let through."""

    @property
    def ratios(self) -> list[float]:
        """In each round."""
        pairs = zip(self.project, self.reference, strict=False)
        return sorted(theirs / ours if self.costs else ours / theirs for ours, theirs in pairs)

    @property
    def reached(self) -> bool | None:
        """Whether the median of the ratios reaches the target; None where there is none."""
        if self.target is None:
            return None
        ratio = statistics.median(self.ratios)
        return ratio <= self.target if self.costs else ratio >= self.target

    def cells(self) -> tuple[str, ...]:
        """As HEAD names them."""
        ratios, reference = self.ratios, statistics.median(self.reference) if self.reference else None
        sign = "at most" if self.costs else "at least"
        share = statistics.median(o / m for o, m in zip(self.project, self.limit, strict=True)) if self.limit else None
        return (
            self.work,
            f"{statistics.median(self.project):,.0f}",
            "" if reference is None else f"{reference:,.0f}",
            f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios else "",
            "" if self.target is None else f"{sign} {self.target}",
            {None: "", True: "yes", False: "no"}[self.reached],
            "" if share is None else f"{share:.0%}",
        )


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown."""
    lines = [HEAD, ("---", *("---:",) * 4, "---", "---:"), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
