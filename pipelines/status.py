"""Where every run of the grid stands: done, diverged, running, interrupted, failed or pending."""

import os
import sys
from pathlib import Path
from typing import Any

from dvc.lock import LockError
from dvc.repo import Repo

from pipelines.repro import RUN_STAGES
from textvae.config import GridPoint, Params
from textvae.errors import TextVAEError
from textvae.files import read_json
from textvae.progress import duration
from textvae.state import state_root


def stages_to_run(repo: Repo, point: GridPoint) -> set[str] | None:
    """The run's stages that `dvc repro` would run; None while another process runs one of them."""
    try:
        return {name.split("@")[0] for name in repo.status(targets=[f"{stage}@{point.name}" for stage in RUN_STAGES])}
    except LockError:
        return None


def unfinished_trainings() -> dict[str, dict[str, Any]]:
    """What each training with a kept state last said, by its run's name."""
    found = {}
    for file in state_root().glob("*/progress.json"):
        said = read_json(file)
        found[f"{said['dataset']}-{said['system']}-{said['seed']}"] = said
    return found


def alive(pid: int) -> bool:
    """Whether a process of that number runs on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def state_of(point: GridPoint, todo: set[str] | None, unfinished: dict[str, dict[str, Any]]) -> str:
    """One run's state in words. `todo`: see `stages_to_run`."""
    said = unfinished.get(point.name)
    where, left = "", "of training left"
    if said is not None:
        where = f"epoch {said['epoch']}/{said['epochs']}, {said['tokens_per_second']:,.0f} tokens/s"
        if said.get("value"):  # one of several: what the others take is not known before they are trained
            where, left = f"{said['value']}: {where}", "left of this one's training"
    if todo == set():
        status = read_json(point.folder / "model" / "config.json")["status"]
        return "done" if status == "finished" else "failed (diverged: see the report)"
    if said is not None and alive(said["pid"]):
        return f"running ({where}, {duration(said['seconds_left'])} {left})"
    if todo is None:
        return "running"
    if said is not None and "train" in todo:
        return f"interrupted ({where}; `make repro` goes on)"
    log = state_root() / "logs" / f"{point.name}.log"
    if log.exists() and "ERROR" in log.read_text(encoding="utf-8", errors="replace"):
        return f"failed (see {log})"
    return "pending" if len(todo) == len(RUN_STAGES) else f"pending ({', '.join(sorted(todo))})"


def main() -> None:
    """Print one line per run."""
    try:
        params = Params.load(Path("params.yaml"))
        unfinished = unfinished_trainings()
    except TextVAEError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    points = params.grid.points()
    width = max(len(point.name) for point in points)
    with Repo() as repo:
        for point in points:
            print(f"{point.name:<{width}}  {state_of(point, stages_to_run(repo, point), unfinished)}", flush=True)
    states = state_root()
    used = sum(file.stat().st_size for file in states.rglob("*") if file.is_file())
    print(f"training states: {used / 1e6:,.1f} MB in {states}")


if __name__ == "__main__":
    main()
