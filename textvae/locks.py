"""One process at a time: by a lock on a file, which the kernel lets go of where its holder is killed."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
from typing import IO

NO_LOCKS_HERE = (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS)
"""What some network volumes answer to a lock."""


def taken(lock: IO[str]) -> bool:
    """Whether this process now has the file for itself, or is on a volume that knows no locks."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS_HERE:
            raise
    return True


def sign(lock: IO[str]) -> None:
    """Write into a lock who has it."""
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {platform.node()}")
    lock.flush()


def holder(lock: IO[str]) -> str:
    """Who has a lock, as a message names it."""
    lock.seek(0)
    return lock.read() or "another process"
