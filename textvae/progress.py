"""Progress with rate and time left: a bar on a terminal, a plain line now and then elsewhere (logs, Kubeflow).

Work that goes on side by side in one process has a bar each, one below the other.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

SECONDS_BETWEEN_LINES = 15.0
SECONDS_BETWEEN_NOTES = 0.2


def duration(seconds: float) -> str:
    """`75` -> `1:15`, `3700` -> `1:01:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(line: str) -> None:
    """Print a line of progress on standard error; where nobody can read it any more, the work goes on without."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


class Progress:
    """Counts units of work. Use `progress(...)`, which closes it."""

    def __init__(self, name: str, total: int | None, unit: str, bar: RichProgress | None) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0
        self._started = self._last_line = self._last_note = time.monotonic()
        self._note = ""
        self._bar = bar
        self.task: TaskID | None = None
        if bar is not None:
            self.task = bar.add_task(name, total=total, unit=unit, rate="", note="")

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return self.done / max(time.monotonic() - self._started, 1e-9)

    def advance(self, count: int = 1, note: Callable[[], str] = str) -> None:
        """Count `count` more units; `note` is asked, when it is to be shown, for what is behind the rate (a loss)."""
        self.done += count
        now = time.monotonic()
        if self._bar is not None and self.task is not None:
            if now - self._last_note >= SECONDS_BETWEEN_NOTES:
                self._last_note, self._note = now, note()
            self._bar.update(self.task, advance=count, rate=f"{self.rate:,.0f} {self.unit}/s", note=self._note)
        elif now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            self._print_line(note())

    def _print_line(self, note: str) -> None:
        parts = [f"{self.done:,}" + (f"/{self.total:,}" if self.total else "") + f" {self.unit}"]
        parts.append(f"{self.rate:,.0f} {self.unit}/s")
        if self.total and self.done:
            parts.append(f"{duration((self.total - self.done) / self.rate)} left")
        if note:
            parts.append(note)
        say(f"{self.name}: {', '.join(parts)}")


class _Terminal:
    """The terminal's bars: two displays would overwrite each other, so there is one while there is any bar."""

    def __init__(self) -> None:
        self.display: RichProgress | None = None
        self.bars = 0

    def begin(self) -> RichProgress:
        """The display, for one bar more."""
        if self.display is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            self.display = RichProgress(*columns, console=Console(stderr=True), transient=True)
            self.display.start()
        self.bars += 1
        return self.display

    def end(self, bar: Progress) -> None:
        """Take a bar away; with the last one the display goes."""
        assert self.display is not None
        assert bar.task is not None
        self.bars -= 1
        self.display.remove_task(bar.task)
        if self.bars == 0:
            self.display.stop()
            self.display = None


_terminal = _Terminal()


@contextmanager
def progress(name: str, total: int | None, unit: str) -> Iterator[Progress]:
    """A `Progress` for a block of work: `with progress("sample", 1000, "sentences") as bar: bar.advance(10)`."""
    if not sys.stderr.isatty():
        yield Progress(name, total, unit, None)
        return
    bar = Progress(name, total, unit, _terminal.begin())
    try:
        yield bar
    finally:
        _terminal.end(bar)
