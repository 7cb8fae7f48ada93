"""Errors meant for the person at the keyboard: one message that names the thing, the reason and the remedy.

Each class carries the exit code of a step that ends with it (the codes of sysexits.h where one fits).
"""


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
