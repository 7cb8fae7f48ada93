"""Errors meant for the person at the keyboard: one message that names the thing, the reason and the remedy.

Each class carries the exit code of a step that ends with it (the codes of sysexits.h where one fits).
"""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

IO_ERROR_EXIT_CODE = 74
INTERRUPTED_EXIT_CODE = 130


class TextVAEError(Exception):
    """Base of the errors that a command line prints without a traceback."""

    exit_code = 1


class SettingsError(TextVAEError):
    """A setting, a key of params.yaml or an argument is wrong."""

    exit_code = 2


class DataError(TextVAEError):
    """An input (corpus, model, state, samples) is damaged or is not what it should be."""

    exit_code = 65


class UnavailableError(TextVAEError):
    """A server, a download, a device or a program that is needed is not there, or another process has it."""

    exit_code = 69


class BrokenResultError(TextVAEError):
    """A result contradicts mathematics (MI above log N, say): nothing is written."""

    exit_code = 70


class StoppedError(TextVAEError):
    """A training was told to stop: its state is saved, nothing else was written; run it again to go on."""


class TimeLimitError(StoppedError):
    """$TEXTVAE_MAX_MINUTES are over."""

    exit_code = 75


class KeyboardStopError(StoppedError):
    """Ctrl-C."""

    exit_code = 130


class TerminatedError(StoppedError):
    """SIGTERM."""

    exit_code = 143


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn the errors meant for people into one line and an exit code; others keep their traceback."""
    try:
        yield
    except TextVAEError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        place = error.filename or "the disk"
        print(f"error: no space left for {place}: free some and run this step again", file=sys.stderr)
        raise SystemExit(IO_ERROR_EXIT_CODE) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED_EXIT_CODE) from None
