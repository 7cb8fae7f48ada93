"""SIGTERM and SIGHUP to a command that has started steps: they are to hear of it, as of Ctrl-C, before it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from textvae.errors import TerminatedError
from textvae.progress import say
from textvae.state import terminations

SECONDS_BETWEEN_LOOKS = 0.2


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: raised where Ctrl-C would be, so that what has been started is waited for as after that."""


@contextmanager
def stopped_with_this(said: str) -> Iterator[None]:
    """While the block runs, SIGTERM and SIGHUP go to every step that this process has started or is about to start, and
    are raised as Terminated; ends the process with 143 and the line `said` once the block has waited for them.

    dvc, between this process and a step, is told nothing: it ends by itself, in order, when its step does.
    """
    came: list[int] = []
    over = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        first = not came
        came.append(number)
        if first:
            threading.Thread(target=tell, daemon=True).start()
            raise Terminated

    def tell() -> None:
        told: set[tuple[int, int]] = set()
        while not over.wait(SECONDS_BETWEEN_LOOKS):
            times = len(came)  # each signal is passed on
            for pid in steps():
                if (pid, times) not in told:
                    told.add((pid, times))
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGTERM)

    previous = {number: signal.signal(number, on_signal) for number in terminations()}
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not came:
            raise
        say(said)
        raise SystemExit(TerminatedError.exit_code) from None
    finally:
        over.set()
        for number, handler in previous.items():
            signal.signal(number, handler)


def steps() -> list[int]:
    """This process's descendants to which Ctrl-C would come, too, but for dvc; none where there is no /proc."""
    parents, found = {}, []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            # pid (name) state parent group ...: the name may hold anything
            about = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if int(about[2]) == os.getpgrp():
                parents[int(folder.name)] = int(about[1])
    for pid in parents:
        ancestor = pid
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid() != pid and not is_dvc(pid):
            found.append(pid)
    return found


def is_dvc(pid: int) -> bool:
    """Whether a process is `python -m dvc ...`."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:3] == [b"-m", b"dvc"]
    return False
