"""Several trainings in one process: they take turns, a step each, so that a GPU works for all of them at once.

A step's numbers depend on its own training alone (its generator is seeded for each step, its weights are its own): who
else takes turns changes none. A training that diverges or fails ends by itself.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from textvae.checkpoint import kinds_of
from textvae.config import TrainSettings
from textvae.corpus_folder import CorpusFolder
from textvae.device import resolve_device
from textvae.errors import DataError, SettingsError
from textvae.files import fingerprint
from textvae.live import shown_live
from textvae.networks import Network
from textvae.objectives import alternatives, objective_class
from textvae.progress import say
from textvae.provenance import Stopwatch, cpu_seconds, imported_by
from textvae.records import Failure, Number, Timings
from textvae.state import StateStore, StopRequest, training_fingerprint
from textvae.state_parts import check_curve
from textvae.training import Outcome, Trainer
from textvae.turns import Turns, Working

K = TypeVar("K")
T = TypeVar("T")
WAIT_SECONDS = 1e-4
"""Before the device is asked again, while it still works on a step of every training."""


def take_turns(tasks: Iterable[tuple[K, Turns[T]]], at_once: int) -> Iterator[tuple[K, T | Exception]]:
    """Run generators to their ends, `at_once` at a time, one `next` each in turn. A new one is taken from `tasks`, each
    with whose it is, when one has ended.

    Where one yields something `Working`, its next turn waits until that is done, so that one with long steps does not
    fill the device's queue before the others.

    Yields: as each ends, whose it was and what it returned, or the exception that it raised.
    """
    waiting = iter(tasks)
    turns: deque[tuple[K, Turns[T], Working | None]] = deque()
    passed = 0
    while True:
        turns.extend((key, task, None) for key, task in islice(waiting, at_once - len(turns)))
        if not turns:
            return
        key, task, working = turns.popleft()
        try:
            if working is not None and not working.query():
                turns.append((key, task, working))
                passed += 1
                if passed == len(turns):
                    time.sleep(WAIT_SECONDS)
                    passed = 0
                continue
            passed = 0
            turns.append((key, task, next(task)))
        except StopIteration as end:
            yield key, end.value
        except Exception as error:
            yield key, error


class TrainingData:
    """What the trainings on one corpus share: its encoded sentences, read once."""

    def __init__(self, folder: Path) -> None:
        """Raises DataError where the corpus is missing or damaged."""
        self.folder, data = folder, CorpusFolder.open(folder)
        self.dataset, self.vocabulary, self.sha256 = data.dataset, data.vocabulary, data.sha256
        self.train, self.valid = data.sentences("train"), data.sentences("valid")


@dataclass(frozen=True)
class Training:
    """One training of a run; of a run whose objective has a list, that of one value."""

    settings: TrainSettings
    seed: int
    setting: str | None
    """The setting that is a list."""
    which: str
    """`alpha 3.0, 3 of 7` of such a list, else empty."""

    @property
    def value(self) -> Any:
        """Of the setting that is a list."""
        return None if self.setting is None else self.settings.objective[self.setting]

    @property
    def candidate(self) -> str:
        """`alpha=3.0` of a list, else empty."""
        return "" if self.setting is None else f"{self.setting}={self.value}"

    @property
    def name(self) -> str:
        """As messages say it."""
        return f"{self.settings.dataset} {self.settings.system} seed {self.seed} {self.candidate}".rstrip()

    def store(self, data: TrainingData, finished: Path | None = None) -> StateStore:
        """Where its states are; see StateStore."""
        return StateStore(training_fingerprint(self.settings, data.sha256, self.seed), self.which, finished)


def trainings_of(settings: TrainSettings, seed: int, data: TrainingData) -> list[Training]:
    """The trainings of one run: more than one where a setting of the objective is a list.

    Raises DataError for another data set's corpus, SettingsError for a list of which none could be selected.
    """
    if data.dataset != settings.dataset:
        raise DataError(
            f"{data.folder} is the data set {data.dataset}, the settings are for {settings.dataset}: give its own"
        )
    setting, objectives = alternatives(settings.objective)
    if setting is not None and min(settings.training.iw_sentences, len(data.valid)) < 2:
        raise SettingsError(
            f"{setting} is selected by NLL-IW with its standard error: set training.iw_sentences to 2 or more"
        )
    return [
        Training(
            settings.model_copy(update={"objective": objective}),
            seed,
            setting,
            "" if setting is None else f"{setting} {objective[setting]}, {number} of {len(objectives)}",
        )
        for number, objective in enumerate(objectives, 1)
    ]


@dataclass(frozen=True)
class Trained:
    """A training that is over."""

    outcome: Outcome
    timings: dict[str, Any]
    """When, where and with which code, as a timings file has it."""
    before: bool
    """By an earlier process."""


def trained(
    training: Training,
    data: TrainingData,
    store: StateStore,
    stop: StopRequest,
    on_epoch: Callable[[dict[str, Any]], None],
) -> Turns[Trained]:
    """Train to the end, a step for each `next`, and keep the outcome in `store`; one that is over is not done again.

    Each epoch is shown by `on_epoch` and, as it happens, in MLflow. Raises StoppedError: state saved.
    """
    settings, seed = training.settings, training.seed
    about = {"dataset": settings.dataset, "system": settings.system, "seed": seed, "settings": shown(settings)}
    about |= {"corpus_sha256": data.sha256, "candidate": training.candidate}
    if (kept := kept_outcome(settings, len(data.vocabulary), store)) is not None:
        return kept
    stopwatch, code, own_cpu = Stopwatch("train"), code_of_training(settings), 0.0
    steps = Trainer(settings, data.train, data.valid, len(data.vocabulary), seed, store, on_epoch, stop).steps()
    with shown_live({**about, "code_sha256": code}, store.curves):
        while True:
            cpu = cpu_seconds()
            try:
                working = next(steps)
            except StopIteration as end:
                outcome: Outcome = end.value
                break
            own_cpu += cpu_seconds() - cpu
            yield working
    timings = {**stopwatch.read(), "cpu_s": round(own_cpu, 3), "code_sha256": code}
    parts = {key: value for key, value in vars(outcome).items() if key != "network"} | {"timings": timings}
    store.finish(parts if outcome.failure is None else {**parts, "weights": {}, "weights_iw": {}})
    return Trained(outcome, timings, before=False)


def code_of_training(settings: TrainSettings) -> str:
    """One hash of the code that a run's training runs, whichever step it is trained by and whatever beside it."""
    return fingerprint(
        imported_by("components.train") | imported_by(f"textvae.objectives.{settings.objective['name']}")
    )


def timings_with(trainings: Sequence[Trained], timings: dict[str, Any]) -> dict[str, Any]:
    """`timings` of a step with those of the trainings in its outputs: their time, if it was before, and their place."""
    if not trainings:
        return timings
    before = [one.timings for one in trainings if one.before]
    began = [datetime.fromisoformat(one["started"]).timestamp() for one in before]
    ended = [start + one["wall_s"] for start, one in zip(began, before, strict=True)]
    place = {
        key: trainings[0].timings[key] for key in ("host", "device", "threads", "commit", "code_sha256", "versions")
    }
    return {
        **timings,
        **place,
        "started": min([one["started"] for one in before] or [timings["started"]]),
        "wall_s": round(timings["wall_s"] + (max(ended) - min(began) if before else 0), 3),
        "cpu_s": round(timings["cpu_s"] + sum(one["cpu_s"] for one in before), 3),
        "peak_rss_mb": max([timings["peak_rss_mb"], *(one["peak_rss_mb"] for one in before)]),
    }


def train_side_by_side(
    trainings: Sequence[Training], data: TrainingData, stop: StopRequest, at_once: int
) -> Iterator[tuple[Training, Trained | Exception]]:
    """Train them all, `at_once` at a time, each locked while it lasts and its outcome kept in its store.

    Returns each as it ends, with what came of it or the exception that it raised: keep that no longer than needed, it
    may hold the training's memory. Told to stop, those that have begun save their states and end with StoppedError; the
    others do not begin.
    """

    def alone(training: Training) -> Turns[Trained]:
        def on_epoch(row: dict[str, Any]) -> None:
            say(f"{training.name}: {epoch_line(row)}")

        store = training.store(data)
        with store.locked(training.name):
            return (yield from trained(training, data, store, stop, on_epoch))

    def begun() -> Iterator[tuple[Training, Turns[Trained]]]:
        for training in trainings:
            if stop.reason() is not None:
                return
            gc.collect()  # a trainer and its objective know each other: the memory of one that has ended goes only now
            yield training, alone(training)

    return take_turns(begun(), at_once)


def epoch_line(row: dict[str, Any]) -> str:
    """What a terminal shows of an epoch."""
    names = {"train_loss": "loss", "valid_nll": "NLL", "valid_kl": "KL", "valid_mi": "MI", "valid_au": "AU"}
    shown = [f"{label} {row[name]:.2f}" for name, label in names.items() if name in row]
    return f"epoch {row['epoch']}: {', '.join(shown)}"


def kept_outcome(settings: TrainSettings, vocabulary_size: int, store: StateStore) -> Trained | None:
    """A training that is over, by its store. Its network is to be loaded with one of the weights."""
    found: list[Trained] = []

    def take(parts: dict[str, Any]) -> None:
        timings = parts.pop("timings")
        Timings.model_validate(timings)
        network = Network(objective_class(settings.objective["name"]).kind, vocabulary_size, settings.model)
        outcome = Outcome(network, **parts)
        check_curve(outcome.curves)
        TypeAdapter(dict[str, Number]).validate_python(outcome.selected, strict=True)
        TypeAdapter(Failure | None).validate_python(outcome.failure)
        both = (outcome.weights, outcome.weights_iw)
        if outcome.failure is None and any(kinds_of(one) != kinds_of(network.state_dict()) for one in both):
            raise ValueError("its weights are other tensors")
        # Trained on a GPU it may be taken where there is none.
        network.to(resolve_device("cpu" if settings.training.device == "cpu" else "auto"))
        found.append(Trained(outcome, timings, before=True))

    return found[0] if store.take_outcome(take) else None


def shown(settings: TrainSettings) -> dict[str, Any]:
    """The settings that a model directory and MLflow name."""
    return {key: settings.model_dump()[key] for key in ("model", "training", "objective")}
