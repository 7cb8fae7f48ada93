"""Break the pipeline on purpose, a fault at a time, and look whether anything is lost; called by `make faults`."""

from __future__ import annotations

import gc
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers"), str(ROOT / "tests/textvae")]

from tests.fault_injection.kinds import COUNTS, KINDS  # noqa: E402
from tests.fault_injection.project import Case, Project, cases, opened  # noqa: E402
from tests.fault_injection.results import Key, Results, markdown, write_tables  # noqa: E402
from textvae.command_line import run  # noqa: E402
from textvae.errors import SettingsError, exit_codes  # noqa: E402


def chosen(given: str, among: list[str], what: str) -> list[str]:
    """The names in a list with commas; all where it is empty. Raises SettingsError for one that there is not."""
    names = [name for name in given.split(",") if name]
    if unknown := sorted(set(names) - set(among)):
        raise SettingsError(f"--{what} {', '.join(unknown)}: choose among {', '.join(among)}")
    return names or among


def main(
    kinds: Annotated[str, typer.Option(help=f"Of {', '.join(KINDS)}; with commas. All, if empty.")] = "",
    steps: Annotated[str, typer.Option(help="Names of steps, with commas. All, if empty.")] = "",
    count: Annotated[
        int,
        typer.Option(
            min=0, help="Trials of each kind for each step, or of flips for each file; 0: 50 kills, 200 flips."
        ),
    ] = 0,
    seed: Annotated[int, typer.Option(help="Decides where each fault comes.")] = 1,
    minutes: Annotated[
        float, typer.Option(min=0, help="Begin no trial after so many minutes; 0: go on to the end.")
    ] = 0,
    folder: Annotated[
        Path, typer.Option(help="Where results and copies are kept; what is done is not done again.")
    ] = Path(".faults"),
) -> None:
    """Make faults in a tiny copy of the project. Each step that has met one is run again, and its files are compared,
    byte for byte, with those of an undisturbed run.

    Ends with a table (also FOLDER/table.md and table.csv) and with exit code 1 where anything was lost, silently wrong
    or a traceback. It goes on where it was stopped; where the code has changed it begins anew.

    \b
    Examples:
      python -m tests.fault_injection
      python -m tests.fault_injection --kinds kill,pair --steps train,evaluate --count 5
      python -m tests.fault_injection --minutes 10
    """
    with exit_codes():
        wanted = chosen(kinds, list(KINDS), "kinds"), chosen(steps, list(cases()), "steps")
        gc.freeze()  # what is here, no forked process needs to look through
        project, _ = opened(folder.resolve())
        results = Results(project.folder / f"results-{seed}.jsonl")
        deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
        finished = all(
            tried(project, kind, cases()[step], count or COUNTS[kind], seed, results, deadline)
            for kind in wanted[0]
            for step in wanted[1]
        )
        write_tables(project.folder, results.rows())
        print(markdown(results.rows()))
        for line in results.lost():
            print(line)
        if not finished:
            print("stopped: call it again to go on")
        raise SystemExit(1 if results.lost() else 0)


def tried(project: Project, kind: str, one: Case, count: int, seed: int, results: Results, deadline: float) -> bool:
    """Do the trials of a kind on a step that have not been done. False where time was over."""
    started, number = time.monotonic(), 0
    for trial in KINDS[kind](project, one, count, seed):
        key = Key(kind, one.name, trial.what)
        if key in results.done and results.done[key].tried >= trial.least:
            continue
        if time.monotonic() > deadline:
            return False
        number += 1
        results.add(key, trial.do())
        for lost in results.done[key].lost:
            print(f"LOST: {kind} {one.name} {trial.what}: {lost}", flush=True)
    if number:
        print(f"{kind} {one.name}: {number} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return True


if __name__ == "__main__":
    run(main)
