"""The runs of the paper's grid: trained side by side for a while, measured as far as they are. See paper.py."""

import importlib.util
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from components.evaluate import evaluate
from components.sample import sample
from components.train import train, write_run
from components.train_group import train_group
from textvae.config import EvaluationSettings, SamplingSettings, TrainGroupSettings, TrainSettings
from textvae.errors import DataError, StoppedError, TextVAEError, TimeLimitError, UnavailableError, explanation
from textvae.files import parsed_json, remove, replaced
from textvae.kenlm_lm import find_lmplz
from textvae.outputs import written_when_complete
from textvae.progress import duration
from textvae.provenance import Stopwatch
from textvae.records import ModelConfig, Timings, checked_record, read_record
from textvae.selection import Candidate
from textvae.side_by_side import Training, TrainingData, kept_outcome, trainings_of
from textvae.training import Outcome, Trainer

STEPS = ("evaluate", "sample", "ngram")
FAILED = 1


@dataclass(frozen=True)
class Paper:
    """One folder: a corpus, systems, a seed."""

    folder: Path
    dataset: str
    systems: tuple[str, ...]
    seed: int
    files: dict[str, dict[str, Any]]
    """The settings of every step, by the names that components.settings gives them."""

    @property
    def corpus(self) -> Path:
        """The encoded corpus."""
        return self.folder / "corpora" / self.dataset / "corpus"

    def run(self, system: str) -> Path:
        """A run directory."""
        return self.folder / "runs" / self.dataset / system / str(self.seed)

    def settings(self, system: str, step: str) -> dict[str, Any]:
        """Of a step of a run."""
        return self.files[f"{self.dataset}/{system}/{step}"]

    def trained(self, system: str) -> dict[str, Any] | None:
        """What the run's model says of itself, None where there is no model yet."""
        about = self.run(system) / "model" / "config.json"
        return read_record(about, ModelConfig) if about.exists() else None

    def is_over(self, system: str) -> bool:
        """Whether the model is that of a training that is over."""
        config = self.trained(system)
        return config is not None and not config.get("unfinished")


# --- training ----------------------------------------------------------------------------------------------------


def train_a_slice(paper: Paper, minutes: float | None) -> int:
    """Train all runs that are not over, side by side, for so many minutes. Returns 0 where all are over now, the exit
    code of a time limit, or FAILED where one failed. Raises StoppedError for Ctrl-C and SIGTERM: states saved."""
    runs: list[dict[str, Any]] = [
        {"seed": paper.seed, "settings": paper.settings(system, "train")}
        for system in paper.systems
        if not paper.is_over(system)
    ]
    if not runs:
        return 0
    stopwatch, code, data = Stopwatch("train"), 0, TrainingData(paper.corpus)
    trainings = sum(len(trainings_of(TrainSettings(**run["settings"]), paper.seed, data)) for run in runs)
    with environment(TEXTVAE_MAX_MINUTES=minutes):
        group = TrainGroupSettings.model_validate({"runs": runs, "at_once": trainings})
        try:
            train_group(corpus=paper.corpus, settings=group)
        except TimeLimitError as stopped:
            print(f"{minutes:g} minutes are over: the states are saved", file=sys.stderr)
            code = stopped.exit_code
        except StoppedError:
            raise
        except TextVAEError as error:  # of some runs; the others are over
            print(f"error: {error}", file=sys.stderr)
            code = FAILED
    said = {**stopwatch.read(), **card(), "trainings": trainings}
    add_slice(paper.folder, said)
    return code


class Slice(Timings):
    """What a slice of training says of itself, a line of slices.jsonl."""

    written_by = "make paper"
    trainings: int
    driver: str | None = None
    cuda: str | None = None
    cudnn: int | None = None


def slices(folder: Path) -> list[dict[str, Any]]:
    """Every slice of training, in their order. Raises DataError for a line that is none."""
    file = folder / "slices.jsonl"
    found = []
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines() if file.exists() else [], start=1):
        try:
            found.append(checked_record(parsed_json(text), Slice, f"{file}, line {number},"))
        except ValueError as error:
            raise DataError(f"{file}, line {number}: not JSON ({error}): remove the line") from None
    return found


def add_slice(folder: Path, said: dict[str, Any]) -> None:
    """Note one more."""
    lines = [json.dumps(one, sort_keys=True) + "\n" for one in [*slices(folder), said]]
    with replaced(folder / "slices.jsonl") as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def card() -> dict[str, Any]:
    """The GPU, its driver and libraries; `device` alone where there is none."""
    if not torch.cuda.is_available():
        return {}
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return {
        "device": torch.cuda.get_device_name(),
        "driver": driver,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


@contextmanager
def environment(**values: Any) -> Iterator[None]:
    """Environment variables for a block; None takes one away."""
    before = {name: os.environ.get(name) for name in values}

    def put(given: dict[str, Any]) -> None:
        for name, value in given.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = str(value)

    put(values)
    try:
        yield
    finally:
        put(before)


# --- models ------------------------------------------------------------------------------------------------------


def write_models(paper: Paper) -> None:
    """The model of every run that has got further: of a training that is over by the step itself, else so far."""
    data = TrainingData(paper.corpus)
    for system in paper.systems:
        if paper.is_over(system):
            continue
        settings = TrainSettings(**paper.settings(system, "train"))
        trainings = trainings_of(settings, paper.seed, data)
        model, curves = paper.run(system) / "model", paper.run(system) / "curves.jsonl"
        if all(training.store(data).outcomes() for training in trainings):
            forget_measures(paper, system)
            train(corpus=paper.corpus, settings=settings, seed=paper.seed, model=model, curves=curves)
            continue
        candidates = [found for training in trainings if (found := so_far(training, data)) is not None]
        if not candidates:
            print(f"{system}: no epoch is over yet", file=sys.stderr)
            continue
        far = f"epoch {min(len(one.outcome.curves) for one in candidates)} of {settings.training.epochs}"
        if (paper.trained(system) or {}).get("unfinished") == far:
            continue
        forget_measures(paper, system)
        with written_when_complete({"model": model, "curves": curves}) as temporary:
            write_run(temporary["model"], temporary["curves"], candidates, trainings[0], data, far)


def so_far(training: Training, data: TrainingData) -> Candidate | None:
    """What a training has come to: its outcome where it is over, else the best weights so far, or where none could be
    selected (beta is still below 1) those of the moment. None before its first epoch's end."""
    settings, store = training.settings, training.store(data)
    kept = kept_outcome(settings, len(data.vocabulary), store)
    if kept is not None:
        outcome = kept.outcome
    else:
        trainer = Trainer(settings, data.train, data.valid, len(data.vocabulary), training.seed, store)
        trainer.resume()
        if not trainer.curves:
            return None
        selected, last = trainer.selected, trainer.curves[-1]
        weights, weights_iw = trainer.best, trainer.best_iw
        if not selected["epoch"]:
            of_the_moment = {"epoch": last["epoch"], "valid_nll": last["valid_nll"]}
            selected |= of_the_moment | {"iw_epoch": last["epoch"], "valid_nll_iw": last["valid_nll_iw"]}
            weights = weights_iw = {name: value.clone() for name, value in trainer.network.state_dict().items()}
        outcome = Outcome(trainer.network, weights, weights_iw, trainer.curves, selected, None)
    return Candidate(training.value, settings, outcome)


def forget_measures(paper: Paper, system: str) -> None:
    """Remove what was measured of a model that is about to be another."""
    for name in ("model", "curves.jsonl", "evaluation", "samples.parquet", "ngram.json", "timings"):
        remove(paper.run(system) / name)


# --- measuring ---------------------------------------------------------------------------------------------------


def measure_all(paper: Paper, jobs: int) -> list[str]:
    """Evaluate, sample and, where KenLM is, measure the text of every model. Returns what failed."""
    failed: list[str] = []
    lacking = kenlm_is_lacking()
    if lacking:
        print(f"FPPL and RPPL are left out ({lacking}): run this again where KenLM is", file=sys.stderr)
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        ngrams: dict[str, Future[None]] = {}
        for system in paper.systems:
            if paper.trained(system) is None:
                continue
            failed += [name for name in STEPS[:2] if not done(paper, system, name)]
            samples = paper.run(system) / "samples.parquet"
            if not lacking and samples.exists() and not (paper.run(system) / "ngram.json").exists():
                ngrams[system] = pool.submit(perplexities, paper, system)
        for system, future in ngrams.items():
            if (error := future.exception()) is not None:
                print(f"FAILED: ngram of {system}: {error}", file=sys.stderr)
                failed.append("ngram")
    return failed


def done(paper: Paper, system: str, step: str) -> bool:
    """Run evaluate or sample, if that has not been done; a failure is told, and costs only its own run."""
    folder, started = paper.run(system), time.monotonic()
    output = folder / ("evaluation" if step == "evaluate" else "samples.parquet")
    if output.exists():
        return True
    try:
        if step == "evaluate":
            settings = EvaluationSettings(**paper.settings(system, step))
            evaluate(model=folder / "model", corpus=paper.corpus, settings=settings, evaluation=output, split="test")
        else:
            sample(model=folder / "model", settings=SamplingSettings(**paper.settings(system, step)), samples=output)
    except Exception as error:
        said = explanation(error, "evaluate on another device")
        why = said[0] if said else "".join(traceback.format_exception(error)).rstrip()
        print(f"FAILED: {step} of {system}: {why}", file=sys.stderr)
        return False
    print(f"{step} of {system}: {duration(time.monotonic() - started)}", file=sys.stderr, flush=True)
    return True


def kenlm_is_lacking() -> str:
    """What of KenLM is not on this machine; empty where all is."""
    if importlib.util.find_spec("kenlm") is None:
        return "the Python module kenlm is not here"
    try:
        find_lmplz()
    except UnavailableError as error:
        return str(error)
    return ""


def perplexities(paper: Paper, system: str) -> None:
    """The step ngram in a process of its own. Raises RuntimeError with what it said where it fails."""
    folder = paper.run(system)
    command = [
        sys.executable,
        "-m",
        "components.ngram",
        "--samples",
        folder / "samples.parquet",
        "--corpus",
        paper.corpus,
    ]
    command += ["--settings", json.dumps(paper.settings(system, "ngram")), "--ngram", folder / "ngram.json"]
    ended = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(ended.stderr.strip()[-2000:])
