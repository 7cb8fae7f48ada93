"""Errors meant for the person at the keyboard: one message that names the thing, the reason and the remedy.

Each class carries the exit code of a step that ends with it (the codes of sysexits.h where one fits).
"""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from textvae.control_characters import visible

MEMORY_EXIT_CODE = 71
IO_ERROR_EXIT_CODE = 74
INTERRUPTED_EXIT_CODE = 130
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_MEMORY = re.compile(
    r"(can't|cannot) allocate memory|not enough memory|out of memory|std::bad_alloc|_ALLOC_FAILED", re.IGNORECASE
)
"""What PyTorch, CUDA, KenLM and their like say where memory runs out: their errors are of no class of its own."""


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


class MemoryLackError(TextVAEError):
    """Memory ran out, in this process or in a program that it ran."""

    exit_code = MEMORY_EXIT_CODE


@contextmanager
def exit_codes(lighter: str = "make what it works on smaller", interrupted: str = "interrupted") -> Iterator[None]:
    """Turn what people or their machine must put right into one line and an exit code; bugs keep their traceback.

    `lighter`: what takes less memory. `interrupted`: what Ctrl-C is answered with.
    """
    try:
        yield
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        raise SystemExit(INTERRUPTED_EXIT_CODE) from None
    except Exception as error:
        said = explanation(error, lighter)
        if said is None:
            raise
        print(f"error: {visible(said[0])}", file=sys.stderr)
        raise SystemExit(said[1]) from None


LINE_ENDS = re.compile(r"\s*[\r\n]+\s*")
"""Of another library's text, or a file's, in an error's: an error is one line."""


def explanation(error: Exception, lighter: str) -> tuple[str, int] | None:
    """The line and the exit code for an error that is no bug; None for one that may be."""
    if isinstance(error, TextVAEError):
        return LINE_ENDS.sub(" ", str(error)), error.exit_code
    if lacks_memory(error):
        where = "the GPU" if re.search("cuda|cublas|cudnn", str(error), re.IGNORECASE) else "this machine"
        return f"too little memory on {where} ({one_line(error)}): free some, or {lighter}", MEMORY_EXIT_CODE
    if isinstance(error, OSError) and error.errno is not None:
        return f"{system_error(error)} and run this again", IO_ERROR_EXIT_CODE
    return None


def lacks_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out: Python's, NumPy's and Arrow's by their class, others in words."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return isinstance(error, RuntimeError | OSError) and NO_MEMORY.search(str(error)) is not None


def system_error(error: OSError) -> str:
    """What the operating system has refused, and the remedy: `.../samples.parquet: Read-only file system: let ...`."""
    assert error.errno is not None
    place = error.filename2 or error.filename  # of a renaming, the new name
    if error.errno in NO_SPACE:
        return f"no space left for {place or 'the disk'}: free some"
    # Of other libraries' errors the place is in the text.
    what = f"{place}: {os.strerror(error.errno)}" if place else one_line(error)
    if error.errno in NO_PERMISSION:
        return f"{what}: let this user read and write there, or name another place,"
    return f"{what}: put that right, or name another place,"


def one_line(error: BaseException) -> str:
    """The text of an error, or the name of its class, without line breaks and not longer than three lines."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]
