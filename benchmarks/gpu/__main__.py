"""What a GPU keeps and what it is worth: checks, then rates in one call, each beside the eager path's.

This process touches no GPU. Workers (worker.py) do, one after the other: a section that hangs, or that spoils the
device for its process, costs itself alone.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.gpu import SEVEN, table
from textvae.command_line import run
from textvae.config import Params
from textvae.errors import DataError, SettingsError, exit_codes
from textvae.files import write_json
from textvae.objectives import alternatives

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).resolve().parents[2]
STOPPED = ("vae_05", "vae_mine", "lagging")
"""One optimiser, two, and an inner loop."""
CONTROLS = ("free_bits", "vae_mine_paper", "mine_bow", "mine_jsd")
"""Checked beside the seven."""
ALPHA = 2.0
"""Where a list is to be selected from."""
LEFT = 5.0
"""Seconds under which no section is begun."""
SHOWN = 400
"""Characters of a section's result on the terminal; the JSON file has all."""
ENDING = 3.0
"""Seconds for a worker's way out."""


@dataclass(frozen=True)
class Section:
    """A part of the benchmark: a function of checks.py or measures.py, most often of one system."""

    which: str
    """`now`, or `baseline`: of the other checkout."""
    name: str
    limit: float
    """Seconds after which it is given up."""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name in the JSON file."""
        return " ".join([self.which, self.name, *([self.options["system"]] if "system" in self.options else [])])


def of_systems(name: str, systems: Sequence[str], limit: float, which: str = "now", **options: Any) -> list[Section]:
    """The same of each system."""
    return [Section(which, name, limit, {"system": system, **options}) for system in systems]


SECTIONS = (
    Section("now", "machine", 60),
    Section("now", "nll_on_cpu_and_gpu", 40),
    *of_systems("captured_against_eager", (*SEVEN, *CONTROLS), 30),
    *of_systems("same_seed", STOPPED, 40),
    *of_systems("stop_and_resume", STOPPED, 30),
    *of_systems("divergence", STOPPED[:2], 20),
    *of_systems("steps", ("vae_05", "vae_mine", "lstm_lm", "vae_bow", "infovae", "cyclical", "lagging"), 40),
    Section("now", "aggressive", 40),
    Section("now", "side_by_side", 80),
    Section("now", "samples", 60),
    Section("now", "evaluation", 60),
    *of_systems("steps", ("vae_05", "vae_mine"), 30, "baseline", ways=[False]),
    Section("baseline", "aggressive", 30, {"ways": [False]}),
    Section("baseline", "in_processes", 60),
    Section("baseline", "samples", 60),
    Section("baseline", "evaluation", 60),
    *of_systems("precision", ("vae_05", "vae_mine"), 40),
    *of_systems("profile", ("vae_05", "vae_mine"), 40),
    Section("now", "many", 60),
)
"""The most important first: what the time does not suffice for is skipped."""


def settings_by_system() -> dict[str, dict[str, Any]]:
    """Model, training and objective of each system for PTB, as params.yaml has them; of a list, ALPHA."""
    params = Params.load(ROOT / "params.yaml")
    resolved = {}
    for system in (*SEVEN, *CONTROLS):
        settings = params.settings("ptb", system)
        listed, _ = alternatives(settings.objective)
        objective = {**settings.objective, **({} if listed is None else {listed: ALPHA})}
        model, training = settings.model.model_dump(), settings.training.model_dump()
        resolved[system] = {"model": model, "training": training, "objective": objective}
    return resolved


class Worker:
    """A process that runs sections of one checkout; its complaints go to `log`."""

    def __init__(self, plan: dict[str, Any], log: Path) -> None:
        self.checkout = plan["checkout"]
        self.output: queue.Queue[str | None] = queue.Queue()
        with log.open("a", encoding="utf-8") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(WORKER), json.dumps(plan)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={"OMP_NUM_THREADS": "1", **os.environ},
                start_new_session=True,  # it has children, which must end with it
            )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.put(line)
        self.output.put(None)

    def awaited(self, section: Section, seconds: float) -> dict[str, Any]:
        """What a section gave."""
        end = time.monotonic() + seconds
        try:
            while (line := self.output.get(timeout=max(end - time.monotonic(), 0.01))) is not None:
                said = json.loads(line) if line.startswith("{") else {}
                if said.get("ends") == section.name:
                    return said
        except queue.Empty:
            self.kill()
            return {"error": f"not done after {seconds:.0f} s"}
        return {"error": f"its process ended (code {self.process.wait()}): see the log"}

    def end(self) -> None:
        """Let it end by itself, or end it."""
        try:
            self.process.wait(timeout=ENDING)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it and its children at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def results(
    sections: Sequence[Section], plan: dict[str, Any], checkouts: dict[str, str], end: float, log: Path
) -> Iterator[tuple[Section, dict[str, Any]]]:
    """Run the sections, one worker for as many in a row as are of one checkout and go well. Yields what each gave:
    `result` and `seconds`, or `error`."""
    worker: Worker | None = None
    for number, section in enumerate(sections):
        seconds = min(section.limit, end - time.monotonic())
        if end - time.monotonic() < LEFT:
            yield section, {"error": "skipped: no time left"}
            continue
        if worker is not None and worker.checkout != checkouts[section.which]:
            worker.end()
            worker = None
        if worker is None:
            of_one = takewhile(partial(of_checkout, section.which), sections[number:])
            asked = [[one.name, one.options] for one in of_one]
            worker = Worker({**plan, "checkout": checkouts[section.which], "sections": asked}, log)
        outcome = worker.awaited(section, seconds)
        yield section, {key: outcome[key] for key in ("result", "seconds", "error") if key in outcome}
        if "error" in outcome and not outcome.get("goes_on"):
            worker.end()
            worker = None
    if worker is not None:
        worker.end()


def of_checkout(which: str, section: Section) -> bool:
    """Whether a section is of that checkout."""
    return section.which == which


def main(
    against: Annotated[
        Path | None, typer.Option(help="A checkout (a git worktree, say) that is measured, too.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="No section is begun or goes on after so many.")] = 8.0,
    out: Annotated[Path, typer.Option(help="The JSON file to write, after each section anew.")] = Path("gpu.json"),
    tiny: Annotated[bool, typer.Option(help="Tiny sizes: whether it all runs, also on a CPU.")] = False,
    corpus: Annotated[
        Path | None, typer.Option(help="A folder that preprocess wrote; a made corpus by default.")
    ] = None,
    only: Annotated[str, typer.Option(help="Sections by name, with commas between.")] = "",
) -> None:
    """Check and measure this machine's GPU: captured against eager, CPU against GPU, stops, rates, memory.

    Ends with one table: of each row the baseline (`--against`), the eager path and now. Exit code 1: a check failed.

    \b
    Examples:
      git worktree add /tmp/old bc1445d && python -m benchmarks.gpu --against /tmp/old
      python -m benchmarks.gpu --tiny
    """
    with exit_codes():
        chosen = [name for name in only.split(",") if name]
        if unknown := set(chosen) - {section.name for section in SECTIONS}:
            names = ", ".join(dict.fromkeys(section.name for section in SECTIONS))
            raise SettingsError(f"--only {min(unknown)}: choose of {names}")
        if against is not None and not (against / "textvae").is_dir():
            raise DataError(f"--against {against}: no checkout of this project: give a folder with textvae/ in it")
        which = {"now": str(ROOT)} | ({} if against is None else {"baseline": str(against.resolve())})
        sections = [one for one in SECTIONS if one.which in which and one.name in ["machine", *(chosen or [one.name])]]
        folder = None if corpus is None else str(corpus.resolve())
        plan = {"sizes": "tiny" if tiny else "full", "corpus": folder, "settings": settings_by_system()}
        raise SystemExit(measured(sections, plan, which, time.monotonic() + 60 * minutes, out))


def measured(
    sections: Sequence[Section],
    plan: dict[str, Any],
    checkouts: dict[str, str],
    end: float,
    out: Path,
) -> int:
    """Run all, write `out` after each section, print the table. Returns the exit code."""
    found: dict[str, Any] = {}
    out.parent.mkdir(parents=True, exist_ok=True)
    log = out.with_suffix(".log")
    for section, outcome in results(sections, plan, checkouts, end, log):
        found[section.key] = outcome
        rows = table.rows(found)
        write_json(out, {"sizes": plan["sizes"], "checkouts": checkouts, "sections": found, "table": rows})
        said = json.dumps(outcome.get("result", outcome.get("error")))
        print(f"{section.key}: {outcome.get('seconds', '-')} s: {said[:SHOWN]}", flush=True)
    print(table.text(table.rows(found)))
    failed = [key for key, one in found.items() if one.get("result", {}).get("passed") is False]
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
