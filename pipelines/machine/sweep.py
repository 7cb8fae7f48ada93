"""Train the settings listed in sweep.yaml and measure each on the validation set; called by `make sweep`.

A trial is a run directory below sweeps/DATASET/SYSTEM/HASH, the hash being that of all its settings and of the corpus:
one that is complete is not done again, an unfinished training goes on from its state. Of the code only the objective's
own file is in the hash: remove sweeps/ after another change. The test set is never touched.
"""

import csv
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from components.publish import run_record
from components.settings import resolve
from pipelines.machine.stopping import stopped_with_this
from textvae.command_line import run
from textvae.config import DatasetEntry, Grid, Params, merge
from textvae.errors import SettingsError, exit_codes
from textvae.files import check_links, fingerprint, replaced, write_json
from textvae.progress import progress
from textvae.records import CorpusFile, Metrics, read_record
from textvae.strict import Frozen, Name, Seed, read_yaml, validated
from tracking import connect

EXPERIMENT = "textvae-sweep"
MEASURES = ("nll", "nll_iw", "nll_iw_se", "kl", "mi", "mi_se", "gain", "gain_se", "au")
COLUMNS = ("dataset", "system", "seed", "changes", "status", *MEASURES)


class Sweep(Frozen):
    """sweep.yaml."""

    dataset: Name
    seed: Seed
    trials: dict[Name, list[dict[str, Any]]]
    """System -> for each of its trials, what differs from its settings in params.yaml."""

    @classmethod
    def load(cls, path: Path) -> "Sweep":
        """Raises SettingsError naming the key and the reason."""
        return validated(cls, read_yaml(path), str(path))


@dataclass(frozen=True)
class Trial:
    """One training and its measurement."""

    system: str
    index: int
    """Its place in the system's list."""
    seed: int
    changes: str
    """What differs from params.yaml, as text: `alpha 3.0`."""
    train: dict[str, Any]
    evaluate: dict[str, Any]
    corpus: Path
    corpus_sha256: str
    reduced: bool

    @property
    def folder(self) -> Path:
        """Where its run directory is."""
        plan = {"train": self.train, "evaluate": self.evaluate, "seed": self.seed, "corpus": self.corpus_sha256}
        return Path("sweeps", self.train["dataset"], self.system, fingerprint(plan)[:12])

    @property
    def metrics(self) -> Path:
        """The last file that a trial writes."""
        return self.folder / "evaluation" / "metrics.json"

    def run(self) -> None:
        """Train and measure, what is there already excepted. Raises SystemExit with the failing step's exit code."""
        write_json(self.folder / "train.json", self.train)
        write_json(self.folder / "evaluate.json", self.evaluate)
        model = self.folder / "model"
        shared = ["--corpus", self.corpus, "--model", model]
        if not model.exists():
            curves, timings = self.folder / "curves.jsonl", self.folder / "timings" / "train.json"
            settings = ["--settings", self.folder / "train.json", "--seed", self.seed]
            self.step("train", *shared, *settings, "--curves", curves, "--timings", timings)
        if not self.metrics.exists():
            settings = ["--settings", self.folder / "evaluate.json", "--split", "valid"]
            self.step("evaluate", *shared, *settings, "--evaluation", self.metrics.parent)

    def step(self, name: str, *options: object) -> None:
        """One step in a process of its own, on one thread; its output goes to the trial's log."""
        log = self.folder / f"{name}.log"
        command = [sys.executable, "-m", f"components.{name}", *map(str, options)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_EXPERIMENT_NAME": EXPERIMENT}
        with log.open("w") as output:
            code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment).returncode
        if code:
            print(f"{self.system} ({self.changes}): {name} ended with exit code {code}: see {log}", file=sys.stderr)
            raise SystemExit(code)

    def row(self) -> dict[str, Any]:
        """Its line of the table."""
        metrics = read_record(self.metrics, Metrics)
        return {key: self.changes if key == "changes" else metrics.get(key) for key in COLUMNS}


def planned(sweep: Sweep, params: Params) -> list[Trial]:
    """The trials in the order of the file.

    Raises SettingsError for changes that the settings do not know, and for two trials that are the same; DataError
    where the corpus is not there.
    """
    unknown = [name for name in (sweep.dataset,) if name not in params.datasets]
    unknown += [name for name in sweep.trials if name not in params.systems]
    if unknown:
        raise SettingsError(f"the sweep: params.yaml has no entry for {', '.join(unknown)}")
    trials: list[Trial] = []
    corpus = Path("corpora", sweep.dataset, "corpus")
    for system, listed in sweep.trials.items():
        for index, changes in enumerate(listed):
            grid = Grid(datasets=[sweep.dataset], systems=[system], seeds=[str(sweep.seed)])
            whole = params.datasets[sweep.dataset]
            systems = {**whole.systems, system: merge(whole.systems.get(system, {}), changes)}
            where = f"trials.{system}.{index} ({described(changes)})"
            entry = validated(DatasetEntry, {**whole.model_dump(), "systems": systems}, where)
            tried = params.model_copy(update={"grid": grid, "datasets": {sweep.dataset: entry}})
            try:
                files = resolve(tried)
            except SettingsError as error:
                raise SettingsError(f"{where}: {error}") from None
            train, evaluate = (files[f"{sweep.dataset}/{system}/{step}"] for step in ("train", "evaluate"))
            sha256 = read_record(corpus / "corpus.json", CorpusFile)["sha256"]
            trial = Trial(system, index, sweep.seed, described(changes), train, evaluate, corpus, sha256, entry.reduced)
            for other in trials:
                if other.folder == trial.folder:
                    raise SettingsError(f"{system}: `{other.changes}` and `{trial.changes}` are the same trial")
            trials.append(trial)
    return trials


def described(changes: dict[str, Any]) -> str:
    """`{"objective": {"alpha": 3.0}}` -> `alpha 3.0`; no changes: `as in params.yaml`."""
    parts = [described(v) if isinstance(v, dict) else f"{key} {v}" for key, v in changes.items()]
    return ", ".join(parts) or "as in params.yaml"


def write_table(trials: list[Trial], path: Path) -> None:
    """The finished trials as CSV, in the order of sweep.yaml."""
    with replaced(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(trial.row() for trial in trials if trial.metrics.exists())


def publish(trial: Trial) -> None:
    """Show a finished trial in MLflow, in an experiment beside the runs'. Raises DataError for a link out of it."""
    check_links(trial.folder)
    os.environ["MLFLOW_EXPERIMENT_NAME"] = EXPERIMENT
    record = run_record(trial.folder, trial.reduced)
    tags = {**record.tags, "kind": "trial", "split": "valid", "changes": trial.changes}
    connect().publish(replace(record, name=f"{trial.system}: {trial.changes}", tags=tags))


def main(
    sweep: Annotated[Path, typer.Option(help="The trials.")] = Path("sweep.yaml"),
    jobs: Annotated[int, typer.Option(min=1, help="Trials side by side, one thread each.")] = 2,
    table: Annotated[Path | None, typer.Option(help="The CSV to write; results/SWEEP-DATASET.csv by default.")] = None,
) -> None:
    """Train every trial of sweep.yaml and measure it on the validation set. Run it again to go on where it stopped.

    The corpus must be there: `dvc repro preprocess@sotu` makes the default one. Trials are shown in MLflow's
    experiment `textvae-sweep`.

    \b
    Examples:
      python -m pipelines.machine.sweep
      python -m pipelines.machine.sweep --sweep my-sweep.yaml --jobs 4 --table my-sweep.csv
    """
    with exit_codes(), stopped_with_this("terminated: run it again to go on where it stopped"):
        plan = Sweep.load(sweep)
        params = Params.load(Path("params.yaml"))
        trials = planned(plan, params)
        table = table or Path("results", f"{sweep.stem}-{plan.dataset}.csv")
        run_all(trials, jobs, table)


def run_all(trials: list[Trial], jobs: int, table: Path) -> None:
    """Bring all trials up to date, `jobs` at a time. Raises SystemExit with the exit code of the first that failed."""
    lock = threading.Lock()
    codes: list[int] = []

    def one(trial: Trial) -> None:
        try:
            trial.run()
        except SystemExit as stopped:
            codes.append(int(stopped.code or 1))
        else:
            with lock:
                write_table(trials, table)
                publish(trial)
        bar.advance(1, lambda: f"{trial.system}: {trial.changes}")

    with progress("sweep", len(trials), "trials") as bar, ThreadPoolExecutor(max_workers=jobs) as pool:
        # each system's first trial before any system's second: an interrupted sweep compares what it has
        futures = [pool.submit(one, trial) for trial in sorted(trials, key=lambda trial: trial.index)]
        try:
            for future in futures:
                future.result()
        except KeyboardInterrupt:  # or Terminated: the trainings have received it too, and save their states
            pool.shutdown(cancel_futures=True)
            raise
    print(f"{sum(trial.metrics.exists() for trial in trials)} of {len(trials)} trials: {table}")
    if codes:
        raise SystemExit(codes[0])


if __name__ == "__main__":
    run(main)
