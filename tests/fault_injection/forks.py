"""An action in a process of its own, forked from one that has imported everything: a trial costs no imports."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 300.0
HOUSE_CODES = {0, 1, 2, 65, 69, 70, 71, 74, 75, 130, 143}
"""The exit codes of docs/reproducibility.md and of textvae/errors.py."""


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal), and what it has printed."""

    code: int
    said: str

    @property
    def wrong(self) -> str:
        """What is not as promised: a traceback, an exit code of nobody's; "" where all is well."""
        if "Traceback (most recent call last)" in self.said:
            return f"a traceback: {self.said.strip().splitlines()[-1][:200]}"
        if self.code not in HOUSE_CODES:
            return f"exit code {self.code}: {self.said[-200:]!r}"
        return ""


class Fork:
    """A running action; `log` is where its standard output and error go."""

    def __init__(self, action: Callable[[], object], log: Path, variables: Mapping[str, str] | None = None) -> None:
        self.log, self.started = log, time.monotonic()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            run_and_exit(action, log, variables or {})

    def kill(self, number: int = signal.SIGKILL, group: bool = False) -> None:
        """Send a signal to it, or to all that it has started, too; nothing where it has ended."""
        with suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> Ended:
        """Until it ends; one that takes TIMEOUT_S is killed."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - self.started > TIMEOUT_S:
                self.kill(group=True)
            time.sleep(0.001)
        return Ended(os.waitstatus_to_exitcode(status), self.log.read_text(encoding="utf-8", errors="replace"))


def run_and_exit(action: Callable[[], object], log: Path, variables: Mapping[str, str]) -> None:
    """What the forked process does: never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with log.open("w", encoding="utf-8") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
        os.environ.update(variables)
        action()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}
"""Of Python's audit events those that touch files. What libraries in C++ open by themselves is not among them."""


def touched(name: str, arguments: tuple[object, ...], below: str) -> str:
    """The path below a folder that an audit event touches, else ""."""
    if name not in EVENTS or isinstance(arguments[0], int):
        return ""
    path = os.path.join(os.getcwd(), os.fsdecode(arguments[0]))  # type: ignore[arg-type]  # noqa: PTH118, PTH109
    return path if path.startswith(f"{below}/") else ""


def dies_at(event: int, below: Path, number: int = signal.SIGKILL) -> None:
    """From now on this process counts its openings, renamings, removals below a folder, and gets a signal at one."""
    counted, place = 0, str(below)

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        nonlocal counted
        if touched(name, arguments, place):
            counted += 1
            if counted == event:
                os.kill(os.getpid(), number)

    sys.addaudithook(hook)


def counted_events(below: Path, into: Path) -> None:
    """From now on this process notes them in a file, a line each: read or write, path."""
    place, notes = str(below), os.open(into, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)

    def hook(name: str, arguments: tuple[object, ...]) -> None:
        if path := touched(name, arguments, place):
            reads = name == "open" and str(arguments[1]).strip("rbtU") in ("", "None")
            os.write(notes, f"{'read' if reads else 'write'}\t{path}\n".encode(errors="replace"))

    sys.addaudithook(hook)
