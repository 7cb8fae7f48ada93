"""Run the experiment of dvc.yaml on this machine, independent runs side by side; called by `make repro`.

`dvc repro` alone gives the same results, one stage after the other. A run that fails stops neither the others nor
the report.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from dvc.exceptions import DvcException
from dvc.repo import Repo

from textvae.command_line import run
from textvae.config import Grid, Params
from textvae.errors import UnavailableError, exit_codes, one_line
from textvae.files import remove
from textvae.progress import duration
from textvae.state import state_root

RUN_STAGES = ("train", "evaluate", "sample", "examples", "ngram")
LOCK_MESSAGE = "Unable to acquire lock"
LOCK_RETRIES = 20
KILLED = re.compile(r"exited with (-9|137)\b")
"""What dvc says of a step that was killed."""
RECENT_LINES = 40
FAILED, NOTHING_FINISHED = 1, 2


def dvc(arguments: list[str], prefix: str = "", log: Path | None = None) -> int:
    """Run dvc, its output shown line by line behind `prefix` and kept in `log`; waits where another dvc holds the
    lock.
    """
    for attempt in range(LOCK_RETRIES):
        command = [sys.executable, "-m", "dvc", *arguments]
        recent: list[str] = []
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
        assert process.stdout is not None
        with (log or Path(os.devnull)).open("a", encoding="utf-8") as kept:
            for line in process.stdout:
                recent = [*recent, line][-RECENT_LINES:]
                print(f"{prefix}{line}", end="", flush=True)
                kept.write(line)
        code = process.wait()
        if code == 0 or not any(LOCK_MESSAGE in line for line in recent):
            return code
        time.sleep(1 + attempt)
    return code


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


def run_all(grid: Grid, jobs: int) -> list[str]:
    """Bring every run up to date, `jobs` at a time. Returns the names of those that failed."""
    failed: list[str] = []
    lock = threading.Lock()
    logs = state_root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        log = logs / f"{name}.log"
        log.unlink(missing_ok=True)
        code = dvc(["repro", "--single-item", *(f"{stage}@{name}" for stage in RUN_STAGES)], f"[{name}] ", log)
        if code == 0:
            log.unlink()
        else:
            with lock:
                failed.append(name)

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(one, point.name) for point in grid.points()]
        try:
            wait(futures)
        except KeyboardInterrupt:  # the trainings have received it too, and save their states
            for future in futures:
                future.cancel()
            raise
    for future in futures:
        future.result()  # raises what a thread has raised
    return failed


def remove_outdated(names: list[str]) -> None:
    """Remove what failed runs have left of an earlier one (dvc's cache keeps it): the report must not show numbers of
    other settings. dvc itself would not make the report at all.
    """
    with repository() as repo:
        for name in names:
            outdated = set(repo.status(targets=[f"{stage}@{name}" for stage in RUN_STAGES]))
            for stage in repo.index.stages:
                if stage.addressing.split(":")[-1] in outdated:
                    for out in stage.outs:
                        remove(Path(out.fs_path))


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side, one thread each.")] = 2,
) -> None:
    """Bring the whole experiment up to date: corpora, then all runs side by side, then the report.

    Exit code 0: everything is up to date. 1: some runs failed; the report shows which, their output is in .state/logs.
    2: a corpus could not be made. 74: a folder cannot be written. 130: interrupted; trainings have saved their states.

    \b
    Examples:
      python -m pipelines.machine.repro --jobs 2
    """
    with exit_codes(interrupted="interrupted: run it again to go on where it stopped"):
        reproduce(jobs)


def reproduce(jobs: int) -> None:
    """What `main` says; ends the process."""
    started = time.monotonic()
    grid = Params.load(Path("params.yaml")).grid
    for dataset in grid.datasets:
        if dvc(["repro", f"preprocess@{dataset}"]):
            raise SystemExit(NOTHING_FINISHED)
    failed = run_all(grid, jobs)
    if failed:
        remove_outdated(failed)
    # Where a run failed, dvc would refuse the report, which depends on all of them: make it of what there is.
    code = dvc(["repro", "--single-item", "report"] if failed else ["repro"])
    print(f"took {duration(time.monotonic() - started)} with {jobs} jobs")
    for name in sorted(failed):
        log = state_root() / "logs" / f"{name}.log"
        killed = KILLED.search(log.read_text(encoding="utf-8")) is not None
        why = "killed, most likely because memory ran out (JOBS=1 takes less), " if killed else ""
        print(f"FAILED: {name}: {why}see {log}", file=sys.stderr)
    raise SystemExit(FAILED if failed or code else 0)


if __name__ == "__main__":
    run(main)
