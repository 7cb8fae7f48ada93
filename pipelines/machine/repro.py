"""Run the experiment of dvc.yaml on this machine, independent runs side by side; called by `make repro`.

`dvc repro` alone gives the same results, one stage after the other. A run that fails stops neither the others nor
the report.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Annotated

import typer

from pipelines.machine.outlook import Outlook
from pipelines.machine.stages import mended, remove_outdated, to_run, to_train
from pipelines.machine.stopping import stopped_with_this
from textvae.command_line import run
from textvae.config import Grid, GridPoint, Params, TrainGroupSettings
from textvae.environment import state_root
from textvae.errors import (
    INTERRUPTED_EXIT_CODE,
    TerminatedError,
    TimeLimitError,
    exit_codes,
)
from textvae.files import read_json, write_json
from textvae.progress import duration

LOCK_MESSAGE = "Unable to acquire lock"
LOCK_RETRIES = 20
KILLED = re.compile(r"exited with (-9|137)\b")
"""What dvc says of a step that was killed."""
ELSEWHERE = re.compile(r"is busy, it is being blocked by|is being (trained|written) by")
"""What dvc and the steps say where another process, another `make repro` say, has what they would write."""
RECENT_LINES = 40
FORECAST_SECONDS = 60.0
"""After which the estimate is done without: a step at the paper's size takes long on a CPU."""
FAILED, NOTHING_FINISHED = 1, 2
RESULTS = Path("reports/results.csv")
STOPPED = (TimeLimitError.exit_code, INTERRUPTED_EXIT_CODE, TerminatedError.exit_code)


def followed(command: list[str], prefix: str = "", log: Path | None = None) -> tuple[int, list[str]]:
    """Run a command, its output shown line by line behind `prefix` and kept in `log`. Returns its exit code and last
    lines. Ctrl-C and SIGTERM, which go to the command too, are raised once that has ended.
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
                    show(f"{prefix}{line}")
                    kept.write(line)
                code = process.wait()
                break
            except KeyboardInterrupt as error:
                interrupted = error
    if interrupted is not None:
        raise interrupted
    return code, recent


def show(text: str) -> None:
    """Print it; where nobody can read it any more (`make repro | head`), this and all that follows goes nowhere."""
    try:
        print(text, end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def dvc(arguments: list[str], prefix: str = "", log: Path | None = None, stop: threading.Event | None = None) -> int:
    """Run dvc as `followed` does; until `stop` waits where another dvc holds the lock, and mends what a dead one has
    left. Returns its exit code.
    """
    stop = stop or threading.Event()
    for attempt in range(LOCK_RETRIES):
        code, recent = followed([sys.executable, "-m", "dvc", *arguments], prefix, log)
        locked = any(LOCK_MESSAGE in line for line in recent)
        if code == 0 or stop.wait(1 + attempt if locked else 0) or not (locked or mended()):
            return code
    return code


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
    lock, stop = threading.Lock(), threading.Event()
    logs = state_root() / "logs"
    logs.mkdir(parents=True, exist_ok=True)

    def one(name: str) -> None:
        log = logs / f"{name}.log"
        log.unlink(missing_ok=True)
        with lock:
            outlook.begin(name)
        code = dvc(["repro", "--single-item", "--glob", f"*@{name}"], f"[{name}] ", log, stop)
        with lock:
            if said := outlook.end(name):
                show(f"{said}\n")
            if code != 0:
                failed.append(name)
        if code == 0:
            log.unlink()

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        futures = [pool.submit(one, point.name) for point in points]
        try:
            wait(futures)
        except KeyboardInterrupt:  # or Terminated: the trainings have received it too, and save their states
            stop.set()
            for future in futures:
                future.cancel()
            raise
    for future in futures:
        future.result()  # raises what a thread has raised
    return failed


def main(
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side, one thread each.")] = 2,
    runs_per_gpu: Annotated[
        int, typer.Option(min=1, help="Trainings side by side on a GPU, in one process; 1: each stage by itself.")
    ] = 8,
    results: Annotated[bool, typer.Option("--results", help="Then publish to MLflow, and print the results.")] = False,
) -> None:
    """Bring the whole experiment up to date: corpora, then all runs side by side, then the report.

    Before the runs begin a line says how long they will take here, by a few steps of each system measured then, and
    after each run one what is left. On a machine with a GPU the runs of a data set are first trained side by side, in
    one process (`components.train_group`); their stages then write out what came of it.

    Exit code 0: everything is up to date. 1: some runs failed; the report shows which, their output is in .state/logs.
    2: a corpus could not be made. 74: a folder cannot be written. 130: Ctrl-C. 143: SIGTERM, or SIGHUP; both go to what
    it has started, and the trainings have saved their states. 75: so did trainings on a GPU, which
    $TEXTVAE_MAX_MINUTES has ended.

    \b
    Examples:
      python -m pipelines.machine.repro --jobs 2
      python -m pipelines.machine.repro --jobs 8 --runs-per-gpu 16
    """
    go_on = "run it again to go on where it stopped"
    with exit_codes(interrupted=f"interrupted: {go_on}"), stopped_with_this(f"terminated: {go_on}"):
        code = reproduce(jobs, runs_per_gpu)
        raise SystemExit(shown(code) if results and code <= FAILED and RESULTS.exists() else code)


def shown(code: int) -> int:
    """Bring MLflow up to date and print the results. Returns `code`, or publish's where that fails."""
    published = called("components.publish --runs runs --reports reports --settings settings/report.json")
    called(f"reporting.terminal {RESULTS}")
    show(f"report: {Path('reports/report.html').absolute()}\nMLflow runs: make ui\n")
    return published or code


def called(module: str) -> int:
    """Run a module with its options, as on a command line. Returns its exit code."""
    return subprocess.run([sys.executable, "-m", *module.split()]).returncode


def reproduce(jobs: int, runs_per_gpu: int = 1, gpu: Callable[[], bool] = gpu_is_here) -> int:
    """What `main` says, but for `--results`. Returns the exit code. `gpu`: whether there is one.

    Raises SystemExit where it ends before the report.
    """
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
        show(f"{said}\n")
    failed = run_all([point for point in grid.points() if point.name in whose], jobs, outlook)
    texts = {name: (state_root() / "logs" / f"{name}.log").read_text(encoding="utf-8") for name in failed}
    if failed:
        remove_outdated([name for name, text in texts.items() if not ELSEWHERE.search(text)])
    # Where a run failed, dvc would refuse the report, which depends on all of them: make it of what there is.
    code = dvc(["repro", "--single-item", "report"] if failed else ["repro"])
    show(f"took {duration(time.monotonic() - started)} with {jobs} jobs\n")
    for name, text in sorted(texts.items()):
        why = "killed, most likely because memory ran out (JOBS=1 takes less), " if KILLED.search(text) else ""
        why = "another process is at work on it, " if ELSEWHERE.search(text) else why
        print(f"FAILED: {name}: {why}see {state_root() / 'logs' / f'{name}.log'}", file=sys.stderr)
    return FAILED if failed or code else 0


if __name__ == "__main__":
    run(main)
