"""Run the experiment of dvc.yaml on this machine, independent runs side by side; called by `make repro`.

`dvc repro` alone gives the same results, one stage after the other. A run that fails stops neither the others nor
the report.
"""

import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage import Stage
from dvc.stage.cache import RunCacheNotFoundError

from pipelines.machine.outlook import Outlook
from textvae.command_line import run
from textvae.config import Grid, GridPoint, Params, TrainGroupSettings
from textvae.environment import state_root
from textvae.errors import (
    INTERRUPTED_EXIT_CODE,
    TerminatedError,
    TimeLimitError,
    UnavailableError,
    exit_codes,
    one_line,
)
from textvae.files import read_json, remove, write_json
from textvae.progress import duration

RUN_STAGES = ("train", "evaluate", "sample", "examples", "ngram")
LOCK_MESSAGE = "Unable to acquire lock"
LOCK_RETRIES = 20
KILLED = re.compile(r"exited with (-9|137)\b")
"""What dvc says of a step that was killed."""
RECENT_LINES = 40
FORECAST_SECONDS = 60.0
"""After which the estimate is done without: a step at the paper's size takes long on a CPU."""
FAILED, NOTHING_FINISHED = 1, 2
STOPPED = (TimeLimitError.exit_code, INTERRUPTED_EXIT_CODE, TerminatedError.exit_code)


def followed(command: list[str], prefix: str = "", log: Path | None = None) -> tuple[int, list[str]]:
    """Run a command, its output shown line by line behind `prefix` and kept in `log`. Returns its exit code and last
    lines. Ctrl-C, which goes to the command too, is raised once that has ended.
    """
    recent: list[str] = []
    interrupted: KeyboardInterrupt | None = None
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
    assert process.stdout is not None
    with (log or Path(os.devnull)).open("a", encoding="utf-8") as kept:
        while True:
            try:
                for line in process.stdout:
                    recent = [*recent, line][-RECENT_LINES:]
                    print(f"{prefix}{line}", end="", flush=True)
                    kept.write(line)
                code = process.wait()
                break
            except KeyboardInterrupt as error:
                interrupted = error
    if interrupted is not None:
        raise interrupted
    return code, recent


def dvc(arguments: list[str], prefix: str = "", log: Path | None = None) -> int:
    """Run dvc as `followed` does; waits where another dvc holds the lock. Returns its exit code."""
    for attempt in range(LOCK_RETRIES):
        code, recent = followed([sys.executable, "-m", "dvc", *arguments], prefix, log)
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


def train_side_by_side(grid: Grid, dataset: str, at_once: int) -> None:
    """Train what is to be trained on a data set, so many at a time, in one process on this machine's GPU.

    The stages of the runs then find what came of each, and write it out; where this fails they train by themselves.
    Ends the process where the trainings were told to stop.
    """
    runs = []
    for point in to_train(point for point in grid.points() if point.dataset == dataset):
        settings = read_json(Path("settings", dataset, point.system, "train.json"))
        if settings["training"]["device"] != "cpu":
            runs.append({"settings": settings, "seed": int(point.seed)})
    if not runs:
        return
    file, log = state_root() / "groups" / f"{dataset}.json", state_root() / "logs" / f"group-{dataset}.log"
    write_json(file, TrainGroupSettings.model_validate({"runs": runs, "at_once": at_once}).model_dump())
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    command = [sys.executable, "-m", "components.train_group", "--corpus", f"corpora/{dataset}/corpus"]
    code, _ = followed([*command, "--settings", str(file)], f"[{dataset}] ", log)
    file.unlink()
    if code in STOPPED:
        print("stopped: run it again to go on where it stopped", file=sys.stderr)
        raise SystemExit(code)
    if code == 0:
        log.unlink()
    else:
        print(f"not all were trained side by side, see {log}; each goes on by itself", file=sys.stderr)


def gpu_is_here() -> bool:
    """Whether torch sees a GPU."""
    import torch

    return torch.cuda.is_available()


def expected(stages: dict[str, bool]) -> dict[str, float]:
    """Seconds that the runs of which stages are to be run would take by themselves; none where that cannot be measured.

    Where a training comes from dvc's cache, so does most likely what was made of it.
    """
    cached = {name.partition("@")[2] for name, found in stages.items() if found and name.startswith("train@")}
    names = [name for name, found in stages.items() if not found and name.partition("@")[2] not in cached]
    if not names:
        return {}
    command = [sys.executable, "-m", "pipelines.machine.forecast", *names]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=FORECAST_SECONDS)
        return {str(name): float(seconds) for name, seconds in json.loads(said.stdout).items()}
    except (subprocess.SubprocessError, ValueError):
        print("how long this will take could not be measured")
        return {}


def run_all(points: list[GridPoint], jobs: int, outlook: Outlook) -> list[str]:
    """Bring runs up to date, `jobs` at a time. Returns the names of those that failed."""
    failed: list[str] = []
    lock = threading.Lock()
    logs = state_root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        log = logs / f"{name}.log"
        log.unlink(missing_ok=True)
        with lock:
            outlook.begin(name)
        code = dvc(["repro", "--single-item", "--glob", f"*@{name}"], f"[{name}] ", log)
        with lock:
            if said := outlook.end(name):
                print(said, flush=True)
            if code != 0:
                failed.append(name)
        if code == 0:
            log.unlink()

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(one, point.name) for point in points]
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
        outdated = set(repo.status()) & {f"{stage}@{name}" for name in names for stage in RUN_STAGES}
        for stage in repo.index.stages:
            if stage.addressing.split(":")[-1] in outdated:
                for out in stage.outs:
                    remove(Path(out.fs_path))


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side, one thread each.")] = 2,
    runs_per_gpu: Annotated[
        int, typer.Option(min=1, help="Trainings side by side on a GPU, in one process; 1: each stage by itself.")
    ] = 8,
) -> None:
    """Bring the whole experiment up to date: corpora, then all runs side by side, then the report.

    Before the runs begin a line says how long they will take here, by a few steps of each system measured then, and
    after each run one what is left. On a machine with a GPU the runs of a data set are first trained side by side, in
    one process (`components.train_group`); their stages then write out what came of it.

    Exit code 0: everything is up to date. 1: some runs failed; the report shows which, their output is in .state/logs.
    2: a corpus could not be made. 74: a folder cannot be written. 130: interrupted; trainings have saved their states.
    75, 143: trainings on a GPU were ended by $TEXTVAE_MAX_MINUTES or SIGTERM, and have saved theirs.

    \b
    Examples:
      python -m pipelines.machine.repro --jobs 2
      python -m pipelines.machine.repro --jobs 8 --runs-per-gpu 16
    """
    with exit_codes(interrupted="interrupted: run it again to go on where it stopped"):
        reproduce(jobs, runs_per_gpu)


def reproduce(jobs: int, runs_per_gpu: int = 1, gpu: Callable[[], bool] = gpu_is_here) -> None:
    """What `main` says; ends the process. `gpu`: whether there is one."""
    started = time.monotonic()
    grid = Params.load(Path("params.yaml")).grid
    for dataset in grid.datasets:
        if dvc(["repro", f"preprocess@{dataset}"]):
            raise SystemExit(NOTHING_FINISHED)
    stages = to_run(grid.points())
    untrained = [name for name, cached in stages.items() if name.startswith("train@") and not cached]
    on_gpu = runs_per_gpu > 1 and bool(untrained) and gpu()
    if on_gpu:
        for dataset in grid.datasets:
            train_side_by_side(grid, dataset, runs_per_gpu)
    whose = {name.partition("@")[2] for name in stages}
    # What is trained side by side on a GPU takes another time than by itself, and is trained by now.
    outlook = Outlook({} if on_gpu else expected(stages), jobs)
    if said := str(outlook):
        print(said, flush=True)
    failed = run_all([point for point in grid.points() if point.name in whose], jobs, outlook)
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
