"""Where an unfinished training lives, and when it must stop.

`$TEXTVAE_STATE/<fingerprint>/` holds the last two states (`state-<step>.safetensors`, each complete in itself and with
a checksum: where the last is damaged, the one before it is taken), progress.json and curves.jsonl for whoever looks and
`lock` for other processes; once the training is over, what came of it (`outcome.safetensors`). It is no output of the
pipeline and goes when the model directory is complete.
"""

from __future__ import annotations

import json
import logging
import os
import select
import shutil
import signal
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from textvae.checkpoint import load_state, save_state
from textvae.config import TrainSettings
from textvae.environment import minutes_from_environment, state_root
from textvae.errors import (
    DataError,
    KeyboardStopError,
    StoppedError,
    TerminatedError,
    TimeLimitError,
    UnavailableError,
)
from textvae.files import fingerprint, remove, replaced, write_json
from textvae.locks import holder, sign, taken

STATES_KEPT = 2
OUTCOME = "outcome.safetensors"
DEFAULT_CHECKPOINT_MINUTES = 10.0
ERRORS = 2
"""The descriptor of standard error, on which a training says how far it is."""
log = logging.getLogger(__name__)


def training_fingerprint(settings: TrainSettings, corpus_sha256: str, seed: int) -> str:
    """What names the states of one training: of all that decides it, so that a change starts afresh."""
    return fingerprint({"settings": settings.model_dump(), "corpus_sha256": corpus_sha256, "seed": seed})


class StateStore:
    """The states of one training, found by its fingerprint (of settings, data and seed).

    `value` says which one it is of several of a run: "alpha 3.0, 3 of 7". `finished`: another folder like
    $TEXTVAE_STATE, in which the training may be over, and which is only read.
    """

    def __init__(self, fingerprint: str, value: str = "", finished: Path | None = None) -> None:
        self.fingerprint, self.value, self.finished = fingerprint, value, finished
        self.folder = state_root() / fingerprint
        self.curves = self.folder / "curves.jsonl"
        minutes = minutes_from_environment("TEXTVAE_CHECKPOINT_MINUTES", DEFAULT_CHECKPOINT_MINUTES)
        self._seconds_between = 60 * (minutes or 0)
        self._last_save = time.monotonic()

    @contextmanager
    def locked(self, training: str) -> Iterator[None]:
        """Keep other processes from `training` while the block runs; where this one is killed, the kernel lets go.

        Raises UnavailableError where another process has it, or where this one may not write. A volume without locks
        keeps nobody out.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            raise UnavailableError(
                f"{self.folder}, for the state of {training}, cannot be made ({error.strerror}): let this user write "
                "there, or set $TEXTVAE_STATE to another folder"
            ) from None
        file = self.folder / "lock"
        try:
            with file.open("a+", encoding="utf-8") as lock:
                if not taken(lock):
                    raise UnavailableError(
                        f"{training} is being trained by {holder(lock)}, its state is in "
                        f"{self.folder}: wait until it ends, or end it and run this again to go on from there"
                    )
                try:
                    sign(lock)
                    for left in self.folder.glob(".*.tmp"):  # of a writer that was killed or found the disk full
                        remove(left)
                    yield
                finally:
                    file.unlink(missing_ok=True)
        finally:
            with suppress(OSError):
                self.folder.rmdir()  # where nothing else was in it

    def due(self) -> bool:
        """Whether the last state is older than $TEXTVAE_CHECKPOINT_MINUTES."""
        return time.monotonic() - self._last_save >= self._seconds_between

    def files(self) -> list[Path]:
        """The states there are, oldest first."""
        return sorted(self.folder.glob("state-*.safetensors"))

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write a state, then remove all but the last two. Later ones are damaged: the training went back past them."""
        self.folder.mkdir(parents=True, exist_ok=True)
        written = self.folder / f"state-{step:010}.safetensors"
        save_state(written, {"fingerprint": self.fingerprint, **state})
        kept = [file for file in self.files() if file <= written][-STATES_KEPT:]
        for file in self.files():
            if file not in kept:
                file.unlink()
        self._last_save = time.monotonic()

    def finish(self, outcome: dict[str, Any]) -> None:
        """Keep what came of a training that is over until its model directory is complete: see `remove`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_state(self.folder / OUTCOME, {"fingerprint": self.fingerprint, **outcome})
        (self.folder / "progress.json").unlink(missing_ok=True)

    def outcomes(self) -> list[Path]:
        """The file of what came of the training, here or below `finished`; empty while it is not over."""
        folders = [self.folder] if self.finished is None else [self.folder, self.finished / self.fingerprint]
        return [folder / OUTCOME for folder in folders if (folder / OUTCOME).exists()]

    def take_outcome(self, take: Callable[[dict[str, Any]], None]) -> bool:
        """Let `take` have what came of a training that is over; False where it is not. Otherwise as `resume`."""
        return any(self._taken(file, take, "the training is done again") for file in self.outcomes())

    def resume(self, take: Callable[[dict[str, Any]], None]) -> bool:
        """Let `take` go on from the newest state that is whole; False where there is none.

        `take` raises one of Python's errors for a state that it cannot go on from (another version's). Each state that
        is passed over is told in a line. Raises DataError for one of another training.
        """
        for place, file in reversed(list(enumerate(self.files()))):
            then = "the training goes on from the state before it" if place else "the training starts anew"
            if self._taken(file, take, then):
                return True
        return False

    def _taken(self, file: Path, take: Callable[[dict[str, Any]], None], otherwise: str) -> bool:
        """Whether `take` has taken what is in `file`; where not, a line has said why, and what happens then."""
        try:
            state = load_state(file)
        except DataError as error:
            log.warning("%s: %s", error, otherwise)
            return False
        if state.pop("fingerprint", None) != self.fingerprint:
            raise DataError(f"{file} belongs to another training: remove {file.parent} to start afresh")
        try:
            take(state)
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            log.warning("%s is not a state of this version's training (%s): %s", file, error, otherwise)
            return False
        return True

    def report(self, **values: Any) -> None:
        """Write progress.json, which `make status` reads."""
        self.folder.mkdir(parents=True, exist_ok=True)
        about = {"value": self.value, "pid": os.getpid(), "updated": time.time()}
        write_json(self.folder / "progress.json", {**values, **about})

    def write_curves(self, identity: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the learning curve so far, which whatever shows the training reads: as a whole and through a temporary
        name, so that a kill leaves no half a line and going on from a state no epoch that is not done."""
        with replaced(self.curves) as temporary:
            temporary.write_text(curve_lines(identity, rows), encoding="utf-8")

    def remove(self) -> None:
        """Forget this training: its model directory is complete."""
        shutil.rmtree(self.folder, ignore_errors=True)


def curve_lines(identity: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """A learning curve as its file has it: a line of JSON per epoch, each with the run's data set, system and seed."""
    return "".join(json.dumps({**identity, **row}, sort_keys=True) + "\n" for row in rows)


class StopRequest:
    """Whether to stop at the next step boundary: a signal has come, $TEXTVAE_MAX_MINUTES are over, or nobody reads any
    more what is printed: who has called this was killed."""

    def __init__(self) -> None:
        self.interrupted = False
        self.terminated: signal.Signals | None = None
        minutes = minutes_from_environment("TEXTVAE_MAX_MINUTES", None)
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def reason(self) -> StoppedError | None:
        """The error to end with once the state is saved, None to go on."""
        saved = "the training state is saved; run the same command again to go on"
        if self.interrupted:
            return KeyboardStopError(f"interrupted: {saved}")
        if self.terminated is not None:
            return TerminatedError(f"{self.terminated.name}: {saved}")
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return TimeLimitError(f"$TEXTVAE_MAX_MINUTES are over: {saved}")
        if unread(ERRORS):
            return TerminatedError(f"nobody reads this any more: {saved}")
        return None


def unread(descriptor: int) -> bool:
    """Whether a descriptor is a pipe whose reader is gone. A terminal that is gone is none: SIGHUP tells of that."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0)) and stat.S_ISFIFO(os.fstat(descriptor).st_mode)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """A StopRequest that SIGTERM, SIGHUP (unless it is ignored, as by nohup) and Ctrl-C set while the block runs; a
    second Ctrl-C does not wait."""
    request = StopRequest()

    def on_termination(number: int, frame: FrameType | None) -> None:
        request.terminated = signal.Signals(number)

    def on_sigint(number: int, frame: FrameType | None) -> None:
        request.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    handlers: dict[signal.Signals, Callable[[int, FrameType | None], None]] = {signal.SIGINT: on_sigint}
    handlers |= dict.fromkeys(terminations(), on_termination)
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield request
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


def terminations() -> list[signal.Signals]:
    """The signals that ask a process to end: SIGTERM, and SIGHUP of a terminal that is gone, unless it is ignored."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]
