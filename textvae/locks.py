"""One process at a time: by a lock on a file, which the kernel lets go of where its holder is killed.

A child of the holder has the lock, too, from its fork until it runs another program, which closes what it inherited (no
lock can be had that is neither that nor each thread's own). Where the holder is killed within these milliseconds, the
child keeps the lock for their rest: whoever finds a lock whose holder is gone asks again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import time
from typing import IO

NO_LOCKS_HERE = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)
"""What some network volumes answer to a lock."""
ASKED_AGAIN, SECONDS_BETWEEN = 200, 0.05
"""How often, where the holder is gone: ten seconds are enough on a machine that is busy with other things."""


def taken(lock: IO[str]) -> bool:
    """Whether this process now has the file for itself, or is on a volume that knows no locks."""
    for _ in range(ASKED_AGAIN):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not is_gone(holder(lock)):
                return False
            time.sleep(SECONDS_BETWEEN)
        except OSError as error:
            if error.errno not in NO_LOCKS_HERE:
                raise
            return True
        else:
            return True
    return False


def sign(lock: IO[str]) -> None:
    """Write into a lock who has it."""
    lock.truncate(0)
    lock.write(signature(os.getpid()))
    lock.flush()


def signature(pid: int) -> str:
    """A process of this machine, as a lock and a message name it."""
    return f"process {pid} on {platform.node()}"


def holder(lock: IO[str]) -> str:
    """Who has a lock, as a message names it."""
    lock.seek(0)
    return lock.read() or "another process"


def is_gone(holder: str) -> bool:
    """Whether a holder was a process of this machine that is no more. Of other machines' none is known to be."""
    pid = re.match(r"process (\d{1,9}) ", holder)
    return pid is not None and holder == signature(int(pid[1])) and not alive(int(pid[1]))


def alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
