"""What of dvc.yaml is up to date, as dvc knows it."""

import logging
import re
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dvc.dvcfile import Lockfile
from dvc.exceptions import DvcException
from dvc.lock import LockError, make_lock
from dvc.repo import Repo
from dvc.stage import Stage
from dvc.stage.cache import RunCacheNotFoundError

from textvae.config import GridPoint
from textvae.errors import UnavailableError, one_line
from textvae.files import parsed_json, remove
from textvae.locks import alive

_mending = threading.Lock()
RUN_STAGES = ("train", "evaluate", "sample", "examples", "ngram")


@contextmanager
def repository() -> Iterator[Repo]:
    """What dvc knows of this folder, which need not be a git repository. Raises UnavailableError where dvc fails."""
    here = Path.cwd()
    git = any((folder / ".git").exists() for folder in (here, *here.parents))
    try:
        with Repo(config=None if git else {"core": {"no_scm": True}}) as repo:
            yield repo
    except DvcException as error:
        raise UnavailableError(f"dvc: {one_line(error)}: run this in the project's folder") from None


def to_run(points: Iterable[GridPoint]) -> dict[str, bool]:
    """The runs' stages that are not up to date -> whether dvc would take what they write from its cache.

    Where another dvc is at work, whatever it does: all, to be run.
    """
    names = [f"{stage}@{point.name}" for point in points for stage in RUN_STAGES]
    with repository() as repo:
        try:
            outdated = set(repo.status())  # of targets, dvc would read all its files anew for each
        except LockError:
            return dict.fromkeys(names, False)
        stages = {stage.addressing.split(":")[-1]: stage for stage in repo.index.stages}
        return {name: in_cache(repo, stages[name]) for name in names if name in outdated}


def to_train(points: Iterable[GridPoint]) -> list[GridPoint]:
    """The runs that `dvc repro` would train: not up to date, nor in dvc's cache from an earlier time."""
    points = list(points)
    stages = to_run(points)
    return [point for point in points if stages.get(f"train@{point.name}") is False]


def in_cache(repo: Repo, stage: Stage) -> bool:
    """Whether dvc has what the stage would write from an earlier time, and would take that."""
    if not all(dep.exists for dep in stage.deps):  # what it reads is not there yet
        return False
    if not stage.deps_cached():
        stage.save_deps()  # in memory, as everything here
        for out in stage.outs:  # dvc.lock knows what came of other inputs
            out.clear()
    logging.getLogger("dvc.stage.cache").setLevel(logging.WARNING)  # it tells of what it would do as if it did it
    try:
        repo.stage_cache.restore(stage, dry=True)
    except RunCacheNotFoundError:
        return False
    return True


def mended() -> bool:
    """Whether dvc's own files were left by a dead process so that dvc refuses each later call: they are moved away now.

    It writes them in place: a kill or a full disk in that moment leaves a half of one. And who works on what it knows
    by numbers of processes, which others have after a reboot. Without dvc.lock it finds in its cache what is up to
    date; who works on what, the steps' own locks know as well.
    """
    found = []
    with _mending, repository() as repo, suppress(LockError):
        lockfile, locks = Path("dvc.lock"), Path(repo.tmp_dir or "", "rwlock")
        with suppress(FileNotFoundError), make_lock(f"{locks}.lock", tmp_dir=repo.tmp_dir):  # nobody is writing it
            pids = {int(pid) for pid in re.findall(rb'"pid": (\d+)', locks.read_bytes())}
            try:
                parsed_json(locks.read_bytes())
            except ValueError:
                found.append(locks)
            else:
                found += [locks] if pids and not any(map(may_be_dvc, pids)) else []
        try:
            Lockfile(repo, str(lockfile)).load()
        except DvcException:
            found.append(lockfile)
        for file in found:
            moved = file.replace(file.with_name(f"{file.name}.left"))
            print(f"{file} of dvc was left by a dead process: moved to {moved}, and made again", file=sys.stderr)
    return bool(found)


def may_be_dvc(pid: int) -> bool:
    """Whether a process of that number is there and, as far as can be seen, dvc."""
    try:
        return b"dvc" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return not Path("/proc/self").exists() and alive(pid)


def remove_outdated(names: list[str]) -> None:
    """Remove what failed runs have left of an earlier one (dvc's cache keeps it): the report must not show numbers of
    other settings. dvc itself would not make the report at all.
    """
    with repository() as repo:
        outdated = set(repo.status()) & {f"{stage}@{name}" for name in names for stage in RUN_STAGES}
        for stage in repo.index.stages:
            if stage.addressing.split(":")[-1] in outdated:
                for out in stage.outs:
                    remove(Path(out.fs_path))
