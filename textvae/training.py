"""The training loop: epochs, validation, model selection, learning-rate decay, and going on where it stopped.

It knows hooks (textvae/objectives/base.py), not systems. All randomness of step s comes from the generator seeded
with (seed, s), and the order of epoch e from (seed, e): a training that goes on from a state takes the same steps,
bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from textvae.checkpoint import cloned, kinds_of
from textvae.config import TrainSettings, validated
from textvae.corpus import Batch, Batches, Sentences, training_batches
from textvae.device import float32_precision, resolve_device
from textvae.divergence import DivergedError
from textvae.epoch_sums import EpochSums
from textvae.errors import SettingsError
from textvae.estimators import uselessness
from textvae.graphs import WIDTHS
from textvae.inference import validation
from textvae.networks import Network
from textvae.noise import Noise
from textvae.objectives import objective_class
from textvae.objectives.base import Losses, Objective
from textvae.progress import Progress, progress
from textvae.state import StateStore, StopRequest
from textvae.state_parts import check_curve, check_moments, of_this_device
from textvae.turns import Turns, Working, run_out

Weights = dict[str, torch.Tensor]
STEPS_BETWEEN_REPORTS = 50


@dataclass
class Position:
    """Where a training stands: everything but tensors that decides the steps to come."""

    epoch: int = 0
    position: int = 0
    """Batches of the epoch that are done."""
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    """Of the epoch's losses and gradient norms, each weighted by its batch's sentences."""
    counts: dict[str, int] = field(default_factory=dict)
    """The sentences in each sum: a batch of one has no Ihat, for example."""
    not_improved: int = 0
    reference: float = math.inf
    """The validation loss that the next one is compared with."""
    decays: int = 0
    best_nll: float = math.inf
    best_epoch: int = 0
    best_iw: float = math.inf
    best_iw_epoch: int = 0


@dataclass
class Outcome:
    """A finished or diverged training; one that learned nothing counts as diverged."""

    network: Network
    weights: Weights
    weights_iw: Weights
    curves: list[dict[str, Any]]
    selected: dict[str, Any]
    failure: dict[str, Any] | None


class Trainer:
    """Trains one (data set, system, seed).

    Args:
        settings: model, training and objective.
        train, valid: encoded splits.
        vocabulary_size: ids, special ones included.
        seed: of the initialisation, the data order and all noise.
        store: where unfinished states live; None keeps none.
        on_epoch: called with each row of the learning curve.
        stop: asked before every step whether to stop.

    Raises SettingsError for settings that the objective does not know, or under which no epoch could be selected.
    """

    def __init__(
        self,
        settings: TrainSettings,
        train: Sentences,
        valid: Sentences,
        vocabulary_size: int,
        seed: int,
        store: StateStore | None = None,
        on_epoch: Callable[[dict[str, Any]], None] = lambda row: None,
        stop: StopRequest | None = None,
    ) -> None:
        self.settings, self.training, self.seed = settings, settings.training, seed
        self.train, self.valid = train, valid
        self.store, self.on_epoch, self.stop = store, on_epoch, stop
        self.device = resolve_device(self.training.device)
        self.stream = torch.cuda.Stream() if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        """Of its own: trainings that take turns overlap."""
        self.last: torch.cuda.Event | None = None
        """Behind the last step."""
        self.at = Position()
        self.sums = EpochSums(self.device)
        self.curves: list[dict[str, Any]] = []
        self.batches = self.batches_of_epoch(0)
        objective = objective_class(settings.objective.get("name"))
        config = validated(objective.Config, settings.objective, f"{settings.system}: objective")
        objective.check(config, self.training)
        objective.check_model(settings.model)
        if len(train) < objective.least_batch:
            raise SettingsError(
                f"{settings.system} compares the sentences of a batch: the corpus needs 2 or more for training"
            )
        settings.model.check_reach(int(train.lengths.max()), "a sentence of the corpus")
        torch.manual_seed(stream(seed, -1))
        self.noise = Noise(self.device)
        with self.turn():
            network = Network(objective.kind, vocabulary_size, settings.model).to(self.device)
            network.decoder.generator = self.noise.generator
            self.objective: Objective = objective(
                config, network, self.training, len(self.batches), self.draw_batch, self.noise
            )
            self.network = network
            self.best, self.best_iw = cloned(network), cloned(network)
        ends = range(len(self.batches), self.training.epochs * len(self.batches) + 1, len(self.batches))
        if not any(self.objective.selectable(step) for step in ends):
            raise SettingsError(
                f"training.epochs is {self.training.epochs}, and the schedule of {settings.system} ends none of them "
                "at beta = 1, where weights can be selected: train longer or shorten the objective's schedule"
            )

    def batches_of_epoch(self, epoch: int) -> Batches:
        """The epoch's batches, in order."""
        batches = training_batches(self.train.lengths, self.training.batch_size, self.seed, epoch)
        return Batches(self.train, batches, self.device, WIDTHS if self.device.type == "cuda" else 1)

    def draw_batch(self) -> Batch:
        """A random one of the epoch's batches."""
        return self.batches[int(torch.randint(len(self.batches), (), generator=self.noise.choices))]

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Within the block this training's stream and precision are in force, on a GPU."""
        if self.stream is None:
            yield
            return
        with torch.cuda.stream(self.stream), float32_precision(tf32=self.training.precision == "tf32"):
            yield

    def run(self) -> Outcome:
        """Train to the end, or to the first non-finite loss. Raises TimeLimitError, TerminatedError: state saved."""
        return run_out(self.steps())

    def steps(self) -> Turns[Outcome]:
        """`run`, one step of the training at a time (or a part of one, where steps are long), for whoever lets several
        trainings take turns."""
        turns = self.all_steps()
        while True:
            with self.turn():
                try:
                    working = next(turns)
                except StopIteration as end:
                    outcome: Outcome = end.value
                    return outcome
            yield working

    def all_steps(self) -> Turns[Outcome]:
        """`steps`, whose turns are under this training's stream and precision."""
        self.resume()
        remaining = (self.training.epochs - self.at.epoch) * self.train.target_tokens
        name = f"train {self.settings.dataset} {self.settings.system} seed {self.seed}"
        failure = None
        try:
            with progress(name, remaining, "tokens") as bar:
                while self.at.epoch < self.training.epochs and self.at.decays < self.training.max_decays:
                    yield from self.run_epoch(bar)
                    yield from self.objective.asked()
                    self.end_epoch()
        except DivergedError as error:
            # `at.step` counts the steps done: the next one diverged, or the validation after the epoch's last, or on a
            # GPU one that the error knows.
            step = self.at.step + (self.at.position < len(self.batches)) if error.step is None else error.step + 1
            failure = {
                "message": f"diverged in epoch {self.at.epoch + 1}, step {step}: {error}",
                "epoch": self.at.epoch + 1,
                "step": step,
                "term": error.term,
                "largest_energy": error.largest_energy,
            }
        if self.stream is not None:
            self.stream.synchronize()
        reason = uselessness(self.at.best_nll * len(self.valid), self.valid.target_tokens)
        if failure is None and reason is not None:
            failure = {
                "message": f"diverged: the best epoch, {self.at.best_epoch}, has {reason}",
                "epoch": self.at.best_epoch,
                "step": self.at.step,
                "term": "valid_nll",
                "largest_energy": self.objective.largest_energy,
            }
        selected = self.selected
        if failure is not None and not math.isfinite(self.at.best_nll + self.at.best_iw):
            selected = {}  # diverged before a first validation: nothing was selected
        return Outcome(self.network, self.best, self.best_iw, self.curves, selected, failure)

    @property
    def selected(self) -> dict[str, Any]:
        """Which epochs' weights are the best so far, by what, and how many epochs there were."""
        return {
            "epoch": self.at.best_epoch,
            "valid_nll": self.at.best_nll,
            "iw_epoch": self.at.best_iw_epoch,
            "valid_nll_iw": self.at.best_iw,
            "epochs": self.at.epoch,
        }

    def run_epoch(self, bar: Progress) -> Turns[None]:
        """The rest of an epoch's steps, one at a time."""
        self.batches = self.batches_of_epoch(self.at.epoch)
        self.network.train()
        while self.at.position < len(self.batches):
            self.stop_or_save(bar)
            batch = self.batches[self.at.position]
            self.noise.seed(stream(self.seed, self.at.step))
            self.objective.gradient_norms.clear()
            losses = yield from self.objective.turns(batch, self.at.step)
            self.count(batch, losses, bar)
            if self.at.step % STEPS_BETWEEN_REPORTS == 0:
                yield from self.objective.asked()
                if self.store is not None:
                    self.report(bar)
            yield self.queued()

    def count(self, batch: Batch, losses: Losses, bar: Progress) -> None:
        """A step is done."""
        norms = {f"grad_norm_{name}": norm for name, norm in self.objective.gradient_norms.items()}
        self.sums.add({**losses.terms(), **norms}, len(batch))
        self.at.step += 1
        self.at.position += 1
        epoch = f"epoch {self.at.epoch + 1}/{self.training.epochs}"
        bar.advance(batch.target_tokens, lambda: f"{epoch}, loss {float(losses.total):.2f}")

    def queued(self) -> Working | None:
        """The end of the step before this one: a GPU that is not there yet has enough to do."""
        if self.stream is None:
            return None
        before, self.last = self.last, torch.cuda.Event()  # type: ignore[no-untyped-call]
        self.last.record(self.stream)
        return before

    def end_epoch(self) -> None:
        """Validate, write the epoch's row, select weights, decay the learning rate."""
        step, objective = self.at.step, self.objective
        row: dict[str, Any] = {"epoch": self.at.epoch + 1, "step": step, "lr": objective.learning_rate}
        if self.network.kind == "vae":
            row |= {"beta": objective.kl_weight(step - 1), "log_batch_size": math.log(self.training.batch_size)}
        own = {"loss": "train_loss", "reconstruction": "train_reconstruction", "kl": "train_kl"}
        row |= {own.get(name, name): value / self.sums.counts[name] for name, value in self.sums.sums.items()}
        row |= validation(self.network, self.valid, self.seed, self.training.iw_sentences, self.training.iw_samples)
        for name, value in row.items():
            if not math.isfinite(value):
                raise DivergedError(name, value, objective.largest_energy)
        self.select(row)
        self.objective.after_epoch(row)
        self.curves.append(row)
        self.write_curves()
        self.on_epoch(row)
        self.at.epoch += 1
        self.at.position = 0
        self.sums.load({}, {})

    def select(self, row: dict[str, Any]) -> None:
        """Keep the best weights; He et al.'s schedule: after `decay_patience` epochs in a row without improvement,
        reload the
        best weights, lower the learning rate, and compare from then on with the current loss."""
        epoch, nll = row["epoch"], row["valid_nll"]
        if self.objective.selectable(self.at.step):
            if nll < self.at.best_nll:
                self.at.best_nll, self.at.best_epoch, self.best = nll, epoch, cloned(self.network)
            if row["valid_nll_iw"] < self.at.best_iw:
                self.at.best_iw, self.at.best_iw_epoch = row["valid_nll_iw"], epoch
                self.best_iw = cloned(self.network)
        if not self.objective.settled(self.at.step):
            return
        if nll <= self.at.reference:
            self.at.reference, self.at.not_improved = nll, 0
            return
        self.at.not_improved += 1
        if self.at.not_improved >= self.training.decay_patience and epoch >= self.training.decay_from_epoch:
            self.at.reference, self.at.not_improved = nll, 0
            self.at.decays += 1
            self.network.load_state_dict(self.best)
            self.objective.decay_learning_rate()

    # -- stopping and going on -----------------------------------------------------------------------------------------

    def stop_or_save(self, bar: Progress) -> None:
        """At a step boundary: save the state where it is due, and raise where the run must stop."""
        reason = None if self.stop is None else self.stop.reason()
        if self.store is not None and (reason is not None or self.store.due()):
            self.objective.ask()
            self.store.save(self.at.step, self.state())
            self.report(bar)  # a state that nobody knows of is taken for a failed run
        if reason is not None:
            raise reason

    def state(self) -> dict[str, Any]:
        """Everything that decides what comes next."""
        self.at.sums, self.at.counts = self.sums.sums, self.sums.counts
        return {
            "at": vars(self.at),
            "curves": self.curves,
            "network": cloned(self.network),
            "heads": cloned(self.objective.heads),
            "best": self.best,
            "best_iw": self.best_iw,
            "learning_rate": self.objective.learning_rate,
            "optimizers": {name: o.state_dict() for name, o in self.objective.optimizers.items()},
            "objective": self.objective.state(),
        }

    def resume(self) -> None:
        """Go on from the last state that is whole, if there is one."""
        if self.store is None or not self.store.files():
            return
        fresh = self.state()
        if not self.store.resume(self.restore):
            self.restore(fresh)  # of a state that does not fit, a part may have been taken
        self.write_curves()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state. Raises KeyError, TypeError or ValueError where it is not as `state` makes it."""
        own = self.state()
        for name in ("network", "heads", "best", "best_iw"):
            if kinds_of(state[name]) != kinds_of(own[name]):
                raise ValueError(f"its {name} has other tensors")
        if state.keys() != own.keys() or state["at"].keys() != own["at"].keys():
            raise ValueError("it has other parts")
        at = Position(**state["at"])
        for name, value in own["at"].items():
            if type(getattr(at, name)) is not type(value) or (isinstance(value, int) and getattr(at, name) < 0):
                raise ValueError(f"its {name} is {getattr(at, name)!r}")
        if type(state["learning_rate"]) is not float:
            raise TypeError("its learning rate is none")
        check_curve(state["curves"])
        self.at, self.curves = at, state["curves"]
        self.sums.load(at.sums, at.counts)
        self.network.load_state_dict(state["network"])
        self.objective.heads.load_state_dict(state["heads"])
        self.best, self.best_iw = state["best"], state["best_iw"]
        self.objective.learning_rate = state["learning_rate"]
        self.objective.optimizers = self.objective.make_optimizers()
        for name, optimizer in self.objective.optimizers.items():
            optimizer.load_state_dict(of_this_device(state["optimizers"][name], optimizer))
            check_moments(optimizer)
        self.objective.load_state(state["objective"])

    def write_curves(self) -> None:
        """The learning curve so far, for whatever shows it."""
        if self.store is not None:
            about = {"dataset": self.settings.dataset, "system": self.settings.system, "seed": self.seed}
            self.store.write_curves(about, self.curves)

    def report(self, bar: Progress) -> None:
        """Tell `make status` where this run stands."""
        assert self.store is not None
        left = (bar.total - bar.done) / bar.rate if bar.total and bar.done else None
        self.store.report(
            dataset=self.settings.dataset,
            system=self.settings.system,
            seed=self.seed,
            epoch=self.at.epoch + 1,
            epochs=self.training.epochs,
            position=self.at.position / len(self.batches),
            tokens_per_second=bar.rate,
            seconds_left=left,
        )


def stream(seed: int, step: int) -> int:
    """The seed of a step's generator; step -1 is the initialisation."""
    return int(np.random.SeedSequence([seed, step + 1]).generate_state(1, np.uint64)[0] >> 1)
