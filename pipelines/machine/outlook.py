"""How long is left of runs that go side by side: by what was expected of each and what those took that are over."""

import heapq
import os
import time
from collections.abc import Iterable, Mapping

from textvae.progress import duration


def together(seconds: Iterable[float], jobs: int) -> float:
    """How long runs take side by side, `jobs` at a time in their order, on no more cores than there are."""
    free = [0.0] * min(jobs, os.cpu_count() or 1)
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)


class Outlook:
    """Says after each run how many are over and what is left. `expected`: seconds, by a run's name; not of those that
    are up to date."""

    def __init__(self, expected: Mapping[str, float], jobs: int) -> None:
        self.left, self.jobs = dict(expected), jobs
        self.total = len(expected)
        self.began: dict[str, float] = {}
        self.expected = self.took = 0.0
        """Of all runs that are over."""

    def __str__(self) -> str:
        """The first line; empty where nothing is expected."""
        if not self.left:
            return ""
        runs, seconds = f"{self.total} run{'s' * (self.total > 1)}", together(self.left.values(), self.jobs)
        return (
            f"{runs} to make, {min(self.jobs, self.total)} at a time: about {duration(seconds)} at most, if nothing "
            "else is running (an estimate, from a few steps of each system)"
        )

    def begin(self, name: str) -> None:
        """A run begins."""
        self.began[name] = time.monotonic()

    def end(self, name: str) -> str | None:
        """What to say when a run is over; nothing of one that nothing was expected of."""
        if name not in self.left:
            return None
        self.took += time.monotonic() - self.began.pop(name)
        self.expected += self.left.pop(name)
        running = {one: time.monotonic() - began for one, began in self.began.items()}
        pace = self.took / self.expected
        ahead = (max(pace * seconds - running.get(one, 0.0), 0.0) for one, seconds in self.left.items())
        said = f"{self.total - len(self.left)} of {self.total} made"
        return f"{said}, about {duration(together(ahead, self.jobs))} left" if self.left else said
