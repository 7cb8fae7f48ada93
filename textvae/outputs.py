"""Outputs that appear whole, under their names, or not at all; each written by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from textvae.errors import SettingsError, UnavailableError
from textvae.files import refuse_device, remove
from textvae.locks import holder, sign, taken

LOCK = ".writer"


@contextmanager
def written_when_complete(outputs: Mapping[str, Path]) -> Iterator[dict[str, Path]]:
    """Temporary names for `outputs`, renamed to the final ones when the block ends well and removed otherwise: files
    first, so that whoever finds a model directory finds its learning curves, also after a kill between the two.

    Raises UnavailableError where another process is writing one of them, SettingsError for a path that is no name, and
    where a file would take the place of a folder or a folder that of a file.
    """
    with ExitStack() as folders:
        temporary = {name: folders.enter_context(own_folder(path)) / path.name for name, path in outputs.items()}
        yield temporary
        for name, path in temporary.items():
            if not path.exists():
                raise AssertionError(f"the step did not write its output {name!r}")
            if (final := outputs[name]).exists() and final.is_dir() != path.is_dir():
                is_, is_not = ("folder", "file") if final.is_dir() else ("file", "folder")
                raise SettingsError(f"{final} is a {is_}, and this writes a {is_not}: move it away, or name another")
        for name, path in sorted(temporary.items(), key=lambda item: item[1].is_dir()):
            remove(outputs[name])
            path.replace(outputs[name])


@contextmanager
def own_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that is this process's own while the block runs, and gone afterwards.

    It is `.NAME.tmp`, its lock is in it; what a killed process has left in it goes. Raises UnavailableError where
    another process has it.
    """
    if path.name in ("", ".."):
        raise SettingsError(f"{path} cannot be written: give the name of a file or folder")
    refuse_device(path)
    folder = path.with_name(f".{path.name}.tmp")
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder.is_symlink() or folder.is_file():
            folder.unlink(missing_ok=True)
        folder.mkdir(exist_ok=True)
        try:
            lock = (folder / LOCK).open("a+", encoding="utf-8")
        except FileNotFoundError:  # whoever had it has just removed it
            continue
        with lock:
            if not taken(lock):
                raise UnavailableError(
                    f"{path} is being written by {holder(lock)}: wait until it ends, or end it, and run this again"
                )
            if not same_file(lock.fileno(), folder / LOCK):  # the lock of one that has ended since
                continue
            try:
                sign(lock)
                empty(folder)
                yield folder
            finally:
                empty(folder)
                (folder / LOCK).unlink(missing_ok=True)
                with suppress(OSError):  # the next one is in it already
                    folder.rmdir()
        return


def same_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def empty(folder: Path) -> None:
    """Remove all but the lock."""
    for path in folder.iterdir():
        if path.name != LOCK:
            remove(path)
