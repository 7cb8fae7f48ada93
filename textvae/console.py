"""What a program does with the console before it imports what it needs, which takes seconds."""

import os
import sys
from types import TracebackType


def prepare() -> None:
    """Make Ctrl-C, while nothing catches it, one line and not a screen of what was being imported; and give a program
    that was started with closed standard streams (`2>&-`) some that go nowhere: a file that it opens would be taken for
    one, and libraries would print into it.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))
    sys.excepthook = on_error


def on_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """An error that nothing has caught."""
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)
