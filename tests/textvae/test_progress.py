"""Progress on a terminal, of one piece of work and of several side by side."""

from __future__ import annotations

import sys

import pytest

from textvae import progress as module
from textvae.progress import progress


def test_work_side_by_side_has_a_bar_each_in_one_display(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever ends first: two displays would overwrite each other."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    def shown() -> list[tuple[str, float]]:
        display = module._terminal.display
        return [] if display is None else [(task.description, task.completed) for task in display.tasks]

    for _ in range(2):
        first, second = progress("first", 10, "tokens"), progress("second", 20, "tokens")
        first.__enter__().advance(3)
        display = module._terminal.display
        bar = second.__enter__()
        assert shown() == [("first", 3), ("second", 0)]
        first.__exit__(None, None, None)
        bar.advance(5)
        assert shown() == [("second", 5)]
        assert module._terminal.display is display
        second.__exit__(None, None, None)
        assert shown() == []


def test_where_nobody_can_read_it_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(sys.stderr, "write", gone)
    progress_of_one = module.Progress("one", 2, "tokens", None)
    progress_of_one._last_line -= module.SECONDS_BETWEEN_LINES
    progress_of_one.advance()
    assert progress_of_one.done == 1
