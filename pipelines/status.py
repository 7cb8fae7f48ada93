"""Where every run of the grid stands: done, diverged, running, interrupted, failed or pending."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines.repro import RUN_STAGES
from textvae.config import GridPoint, Params
from textvae.errors import TextVAEError
from textvae.files import read_json
from textvae.progress import duration
from textvae.state import state_root


def changed_stages() -> set[str]:
    """The stages that `dvc repro` would run."""
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(result.stdout.strip().splitlines()[-1] or "{}"))


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


def state_of(point: GridPoint, changed: set[str], unfinished: dict[str, dict[str, Any]]) -> str:
    """One run's state in words."""
    name = point.name
    todo = [stage for stage in RUN_STAGES if f"{stage}@{name}" in changed]
    if not todo:
        status = read_json(point.folder / "model" / "config.json")["status"]
        return "done" if status == "finished" else "failed (diverged: see the report)"
    if name in unfinished and "train" in todo:
        said = unfinished[name]
        where = f"epoch {said['epoch']}/{said['epochs']}, {said['tokens_per_second']:,.0f} tokens/s"
        if alive(said["pid"]):
            return f"running ({where}, {duration(said['seconds_left'])} of training left)"
        return f"interrupted ({where}; `make repro` goes on)"
    log = state_root() / "logs" / f"{name}.log"
    if log.exists() and "ERROR" in log.read_text(encoding="utf-8", errors="replace"):
        return f"failed (see {log})"
    return "pending" if len(todo) == len(RUN_STAGES) else f"pending ({', '.join(todo)})"


def main() -> None:
    """Print one line per run."""
    try:
        params = Params.load(Path("params.yaml"))
        changed, unfinished = changed_stages(), unfinished_trainings()
    except TextVAEError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    points = params.grid.points()
    width = max(len(point.name) for point in points)
    for point in points:
        print(f"{point.name:<{width}}  {state_of(point, changed, unfinished)}")
    states = state_root()
    used = sum(file.stat().st_size for file in states.rglob("*") if file.is_file())
    print(f"training states: {used / 1e6:,.1f} MB in {states}")


if __name__ == "__main__":
    main()
