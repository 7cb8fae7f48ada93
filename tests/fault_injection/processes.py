"""What is done to processes: they are killed, interrupted, and run beside another."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tiny_project import copy_of_the_project

from tests.fault_injection.forks import Ended, Fork, dies_at
from tests.fault_injection.project import RUN, Case, Project, judged
from tests.fault_injection.trials import Result, Trial, chance, one_result

CALL, MOMENT = "at a call", "at a moment"


def undisturbed_seconds(project: Project, one: Case) -> float:
    """How long a step takes."""
    place, started = project.copy(without=one.outputs), time.monotonic()
    project.start(one, place).wait()
    return time.monotonic() - started


def stopped(project: Project, one: Case, count: int, seed: int, number: int) -> Iterator[Trial]:
    """The signal comes at a call that touches a file, or at any moment; then to all that the step has started, too."""
    seconds: list[float] = []

    def do(trial: int) -> Result:
        draw = chance(seed, one.name, number, trial)
        place = project.copy(without=one.outputs)
        if trial % 2:
            event = draw.randint(1, project.reads(one)[1])
            place = project.copy(without=one.outputs)
            about = f"{CALL} {event}"
            ended = project.start(one, place, lambda: dies_at(event, place, number)).wait()
        else:
            if not seconds:
                seconds.append(undisturbed_seconds(project, one))
                place = project.copy(without=one.outputs)
            moment = draw.uniform(0, seconds[0])
            about = f"{MOMENT}, {moment:.3f} s"
            running = project.start(one, place)
            time.sleep(moment)
            running.kill(number, group=True)
            ended = running.wait()
        return one_result(judged(project, one, place, [ended]), about)

    for trial in range(count):
        yield Trial(str(trial), lambda trial=trial: do(trial))  # type: ignore[misc]


def kills(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """SIGKILL."""
    return stopped(project, one, count, seed, signal.SIGKILL)


def interrupts(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """Ctrl-C."""
    return stopped(project, one, count, seed, signal.SIGINT)


def pairs(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """The same step twice at once, the later one a little later."""
    seconds: list[float] = []

    def do(trial: int) -> Result:
        if not seconds:
            seconds.append(undisturbed_seconds(project, one))
        place = project.copy(without=one.outputs)
        later = chance(seed, one.name, "pair", trial).uniform(0, seconds[0]) if trial else 0.0
        first = project.start(one, place, log="first")
        time.sleep(later)
        ended = [project.start(one, place, log="second").wait(), first.wait()]
        about = f"the second {later:.3f} s later, exit codes {[each.code for each in ended]}"
        return one_result(of_two(project, one, place, ended), about)

    for trial in range(count):
        yield Trial(str(trial), lambda trial=trial: do(trial))  # type: ignore[misc]


def of_two(project: Project, one: Case, place: Path, ended: list[Ended]) -> str:
    """What two processes have lost: one at least ends well, the other is told, and the outputs are whole."""
    wrong = next((each.wrong for each in ended if each.wrong), "")
    if not wrong and (0 not in [each.code for each in ended] or {each.code for each in ended} - {0, 69}):
        wrong = " / ".join(each.said[-200:] for each in ended)
    return wrong or "; ".join(project.differences(place)[:5]) or judged(project, one, place, ended)


def whole_pipeline(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """`python -m pipelines.machine.repro` is killed, with all that it has started or alone, and called again until it
    has ended: all of its outputs are then as undisturbed. Tried once for all steps: where `one` is the report."""
    if one.name != "report":
        return
    place = project.folder / "whole"

    def called() -> None:
        os.chdir(place)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "PYTHONPATH": str(place)}
        os.execve(sys.executable, [sys.executable, "-m", "pipelines.machine.repro", "--jobs", "1"], environment)

    def do(trial: int) -> Result:
        if not place.exists():
            place.mkdir()
            copy_of_the_project(place)
            subprocess.run(["git", "init", "-q"], cwd=place, check=True)
            for name in ("params.yaml", "data"):
                shutil.copytree(
                    project.path / name, place / name, dirs_exist_ok=True
                ) if name == "data" else shutil.copy(project.path / name, place / name)
        moment = chance(seed, "whole", trial).uniform(2, 60)
        running = Fork(called, project.folder / "log", project.variables(place))
        time.sleep(moment)
        running.kill(group=trial % 2 == 0)
        ended = running.wait()
        if ended.code == 0 or trial == count - 1:  # it came to its end
            last = Fork(called, project.folder / "log", project.variables(place)).wait()
            wrong = last.wrong or (f"exit code {last.code}: {last.said[-300:]}" if last.code else "")
            roots = [Path(name) for name in ("settings", "corpora", str(RUN))]
            wrong = wrong or "; ".join(project.differences(place, roots)[:5])
            shutil.rmtree(place)
            return one_result(wrong, f"{MOMENT}, {moment:.1f} s, then to the end")
        return one_result(ended.wrong if ended.code != -9 else "", f"{MOMENT}, {moment:.1f} s")

    for trial in range(count):
        yield Trial(str(trial), lambda trial=trial: do(trial))  # type: ignore[misc]
