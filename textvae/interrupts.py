"""Ctrl-C while a program is still importing what it needs, which takes seconds."""

import sys
from types import TracebackType


def answer_with_a_line() -> None:
    """From now on a Ctrl-C that nothing catches is one line, not a screen of whatever was being imported."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print("interrupted", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = hook
