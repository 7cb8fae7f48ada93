"""Whether results hang on the seed only: the same trainings under several instruction sets, and from initial weights
that differ by 1e-7.

Processors round sums differently: a result that last bits decide is another one on another machine. Each run is a
process of its own, kept as one JSON file named by the hash of all that decides it: run the command again to go on.
Of the code only the objective's own file is in that hash: remove robustness/ after another change.
"""

import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from components.settings import resolve
from reporting.verdict import IN_USE, state
from textvae.config import EvaluationSettings, Grid, Params, TrainSettings
from textvae.corpus_folder import CorpusFolder
from textvae.errors import SettingsError, exit_codes
from textvae.evaluation import measure
from textvae.files import fingerprint, read_json, replaced, write_json
from textvae.progress import progress
from textvae.training import Trainer, stream

INSTRUCTION_SETS = {
    "native": {},
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "default": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
PERTURBATION = 1e-7
"""Standard deviation of what is added to every initial weight: about the last bit of a float32 near 1."""
MEASURED = ("nll", "nll_iw", "kl", "mi", "mi_se", "au", "gain", "gain_se")
COLUMNS = ("system", "seed", "instruction_set", "perturbation", "code", *MEASURED, "largest_rise", "rise_epoch")


@dataclass(frozen=True)
class Run:
    """One training of the table. `perturbation` numbers the noise on the initial weights, 0: none."""

    system: str
    seed: int
    instruction_set: str
    perturbation: int
    train: dict[str, Any]
    evaluate: dict[str, Any]
    corpus: str
    corpus_sha256: str

    @property
    def file(self) -> Path:
        """Where its row is, once it has ended."""
        return Path("robustness", self.train["dataset"], self.system, f"{fingerprint(asdict(self))[:12]}.json")

    def make(self) -> None:
        """Train and measure in a process of its own, on one thread, if that has not been done."""
        if self.file.exists():
            return
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **INSTRUCTION_SETS[self.instruction_set]}
        command = [sys.executable, "-m", "benchmarks.robustness", "run", json.dumps(asdict(self))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr, file=sys.stderr)
            raise SystemExit(done.returncode)

    def row(self) -> dict[str, Any]:
        """Train and measure in this process."""
        corpus = CorpusFolder.open(Path(self.corpus))
        splits = [corpus.sentences(name) for name in ("train", "valid", "test")]
        trainer = Trainer(TrainSettings(**self.train), *splits[:2], len(corpus.vocabulary), self.seed)
        if self.perturbation:
            perturb([trainer.network, trainer.objective.heads], self.perturbation)
        outcome = trainer.run()
        about = {key: getattr(self, key) for key in ("system", "seed", "instruction_set", "perturbation")}
        if outcome.failure is not None:
            return {**dict.fromkeys(COLUMNS), **about, "code": outcome.failure["message"]}
        outcome.network.load_state_dict(outcome.weights)
        found = measure(outcome.network, splits[2], EvaluationSettings(**self.evaluate), self.seed).columns
        measured = {name: found.get(name) for name in MEASURED}
        rise, epoch = largest_rise([row["valid_nll"] for row in outcome.curves])
        code = state({"status": "finished", **measured})
        return {**about, "code": code, **measured, "largest_rise": rise, "rise_epoch": epoch}


def perturb(modules: Sequence[torch.nn.Module], number: int) -> None:
    """Add normal noise of PERTURBATION to every weight."""
    generator = torch.Generator().manual_seed(stream(number, 0))
    with torch.no_grad():
        for module in modules:
            for weight in module.parameters():
                weight += PERTURBATION * torch.randn(weight.shape, generator=generator)


def largest_rise(valid_nll: Sequence[float]) -> tuple[float, int]:
    """The most that the validation NLL rises from one epoch to the next (negative: it always falls), and that epoch."""
    rises = [(later - earlier, epoch) for epoch, (earlier, later) in enumerate(pairwise(valid_nll), 2)]
    return max(rises, default=(0.0, 1))


def planned(
    params: Params, dataset: str, systems: Sequence[str], seeds: int, sets: Sequence[str], perturbations: int
) -> list[Run]:
    """Every seed under every instruction set, then the perturbations of seed 1 under the first one."""
    grid = Grid(datasets=[dataset], systems=list(systems), seeds=["1"])
    files = resolve(params.model_copy(update={"grid": grid}))
    corpus = Path("corpora", dataset, "corpus")
    sha256 = CorpusFolder.open(corpus).sha256
    cases = [(seed, name, 0) for seed in range(1, seeds + 1) for name in sets]
    cases += [(1, sets[0], number) for number in range(1, perturbations + 1)]
    runs = []
    for system in systems:
        train, evaluate = (files[f"{dataset}/{system}/{step}"] for step in ("train", "evaluate"))
        runs += [Run(system, *case, train, evaluate, str(corpus), sha256) for case in cases]
    return runs


def write_table(runs: Sequence[Run], path: Path) -> list[dict[str, Any]]:
    """The runs that have ended, as CSV."""
    rows = [read_json(run.file) for run in runs if run.file.exists()]
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as output:
        writer = csv.DictWriter(output, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """One line per system and kind of run: how many codes are in use, NLL, MI, gain, the largest rise of an epoch."""
    kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        kind = f"weights moved by {PERTURBATION}" if row["perturbation"] else row["instruction_set"]
        kinds.setdefault((row["system"], kind), []).append(row)
    for row in rows:
        kinds.setdefault((row["system"], "all"), []).append(row)
    lines = [("system", "runs", "code in use", "NLL", "MI", "gain", "largest rise of the validation NLL"), ("---",) * 7]
    for (system, kind), own in kinds.items():
        used = sum(row["code"] == IN_USE for row in own)
        rises = [row["largest_rise"] for row in own if row["largest_rise"] is not None]
        shown = [spread([row[name] for row in own if row[name] is not None]) for name in ("nll", "mi", "gain")]
        lines.append(
            (f"`{system}`", f"{len(own)}, {kind}", f"{used} of {len(own)}", *shown, f"{max(rises, default=0):.2f}")
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def spread(values: Sequence[float]) -> str:
    """`66.53 ± 0.02 (66.51 to 66.55)`."""
    if not values:
        return "–"
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{deviation} ({min(values):.2f} to {max(values):.2f})"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def run(plan: Annotated[str, typer.Argument(help="A run as JSON, as `table` starts it.")]) -> None:
    """Make one run of the table in this process."""
    with exit_codes():
        one = Run(**json.loads(plan))
        write_json(one.file, one.row())


@app.command()
def table(
    dataset: Annotated[str, typer.Option(help="A corpus that preprocess has made.")] = "sotu",
    system: Annotated[list[str], typer.Option(help="What to train.")] = ["vae_mine"],  # noqa: B006
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 1, 2, ...")] = 10,
    instruction_set: Annotated[list[str], typer.Option(help="Of native, avx2, default.")] = list(INSTRUCTION_SETS),  # noqa: B006
    perturbations: Annotated[int, typer.Option(min=0, help="Of the initial weights, of seed 1.")] = 10,
    jobs: Annotated[int, typer.Option(min=1, help="Runs side by side, one thread each.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The CSV; results/robustness-DATASET.csv by default.")] = None,
) -> None:
    """Train every seed under every instruction set, and from perturbed weights: some three minutes a run by default.

    \b
    Examples:
      dvc repro preprocess@sotu && python -m benchmarks.robustness table
      python -m benchmarks.robustness table --system vae_bow --system lagging --seeds 1 --perturbations 0
    """
    with exit_codes():
        if unknown := [name for name in instruction_set if name not in INSTRUCTION_SETS]:
            raise SettingsError(f"--instruction-set {unknown[0]}: choose of {', '.join(INSTRUCTION_SETS)}")
        runs = planned(Params.load(Path("params.yaml")), dataset, system, seeds, instruction_set, perturbations)
        out = out or Path("results", f"robustness-{dataset}.csv")
        with progress("robustness", len(runs), "runs") as bar, ThreadPoolExecutor(max_workers=jobs) as pool:

            def one(run: Run) -> None:
                run.make()
                bar.advance(1, lambda run=run: f"{run.system} seed {run.seed}, {run.instruction_set}")

            for _ in pool.map(one, runs):
                write_table(runs, out)
        print(summary(write_table(runs, out)))
        print(f"table: {out}")


if __name__ == "__main__":
    app()
