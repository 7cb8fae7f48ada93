"""Disks that are full or read-only, really: small ones in memory, mounted where only this process sees them."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fault_injection.forks import Fork
from tests.fault_injection.project import Case, Project, every_file, judged
from tests.fault_injection.trials import Result, Trial, chance, one_result

OUTPUTS_MB = 64
PAGE = 4096
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000


def own_mounts() -> None:
    """From now on this process sees mounts of its own, which go with it. Raises OSError where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if user else 0)):
        raise OSError(ctypes.get_errno(), "unshare: no mounts of one's own here")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    mount("--make-rprivate", "/")


def mount(*arguments: str) -> None:
    """Call `mount`. Raises OSError where it refuses."""
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


def small_disk(place: Path, size: int) -> None:
    """A disk of so many bytes at `place`, whose content it hides."""
    mount("-t", "tmpfs", "-o", f"size={size}", "none", str(place))


def filled(place: Path, free_pages: int) -> Path:
    """Fill the disk of a folder but for some pages; the file that does so is in its `tmp`, to be removed."""
    filler, space = place / "tmp/filler", os.statvfs(place)
    size = max(0, space.f_bfree * space.f_frsize - free_pages * PAGE)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(size, 1))
    return filler


def read_only(place: Path) -> None:
    """Let nothing below a folder be written any more."""
    mount("--bind", str(place), str(place))
    mount("-o", "remount,bind,ro", str(place))


def unmount(place: Path) -> None:
    """Undo it."""
    subprocess.run(["umount", str(place)], check=True)


def on_a_disk(project: Project, one: Case, spoil: Callable[[Path], Callable[[], None]]) -> Result:
    """Run the step on a disk of its own that `spoil` spoils; what that returns mends it, and it is run again."""
    said = project.folder / "said.json"
    said.unlink(missing_ok=True)
    place = project.copy(without=one.outputs)
    kept = project.folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(place, kept)

    def action() -> None:
        own_mounts()
        small_disk(place, OUTPUTS_MB * 2**20)
        shutil.copytree(kept, place, dirs_exist_ok=True)
        project.variables(place)
        mend = spoil(place)
        ended = project.start(one, place).wait()
        lines = [line for line in ended.said.splitlines() if line.startswith("error: ")]
        wrong = "" if ended.code in (0, 69, 74) else f"exit code {ended.code}: {ended.said[-200:]}"
        if ended.code and len(lines) != 1:
            wrong = f"no single line: {ended.said[-300:]}"
        mend()
        left = [str(path) for output in one.outputs for path in (place / output).parent.glob(f".{output.name}.tmp*")]
        wrong = wrong or (f"left behind: {left}" if left and ended.code != 0 else "")
        said.write_text(json.dumps([ended.code, wrong or judged(project, one, place, [ended])]))

    ended = Fork(action, project.folder / "disk.log").wait()
    if not said.exists():
        raise OSError(f"no such disk can be made here: {ended.said.strip().splitlines()[-1:]}")
    code, lost = json.loads(said.read_text())
    return one_result(lost, f"exit code {code}")


def full_disks(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """The disk of the outputs, the states and the temporary files has from no page to all that are needed."""

    def do(trial: int) -> Result:
        sizes = [path.stat().st_size for out in one.outputs for path in every_file(project.path / out)]
        needed = sum(size // PAGE + 2 for size in sizes) + 4
        free = 0 if trial == 0 else chance(seed, one.name, "full", trial).randint(0, needed)

        def spoil(place: Path) -> Callable[[], None]:
            filler = filled(place, free)
            return lambda: filler.unlink()

        return on_a_disk(project, one, spoil)

    for trial in range(count):
        yield Trial(str(trial), lambda trial=trial: do(trial))  # type: ignore[misc]


def read_only_disks(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """Each output's folder, the states', the temporary files', and all at once."""
    parents = sorted({str(output.parent) for output in one.outputs} | {".", "tmp", ".state"})

    def do(folder: str) -> Result:
        def spoil(place: Path) -> Callable[[], None]:
            (place / folder).mkdir(parents=True, exist_ok=True)
            read_only(place / folder)
            return lambda: unmount(place / folder)

        return on_a_disk(project, one, spoil)

    for folder in parents:
        yield Trial(folder, lambda folder=folder: do(folder))  # type: ignore[misc]
