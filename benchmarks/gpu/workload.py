"""What is trained and measured: a made corpus of PTB's sizes, the paper's settings, trainers, and a clock for them.

Of the project only what its older versions have, too, is used without asking: the same code measures both.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from textvae.config import EvaluationSettings, ModelSettings, TrainingSettings, TrainSettings
from textvae.corpus import IntArray, Sentences, training_batches
from textvae.errors import StoppedError
from textvae.networks import Network
from textvae.objectives import objective_class
from textvae.state import StateStore, StopRequest
from textvae.training import Outcome, Trainer
from textvae.vocabulary import EOS, FIRST_TARGET, UNK, Vocabulary

CUDA = torch.cuda.is_available()


@dataclass(frozen=True)
class Sizes:
    """How much is trained, sampled and evaluated."""

    sentences: tuple[int, int, int] = (42_068, 3_370, 3_761)
    """Of train, valid and test: PTB's."""
    vocabulary: int = 10_000
    mean_length: float = 21.0
    deviation: float = 10.0
    longest: int = 82
    model: Mapping[str, int] | None = None
    """Smaller ones than the paper's."""
    objective: Mapping[str, int] | None = None
    """Likewise, for those settings that a system has."""
    batch: int = 32
    warm: int = 300
    """Steps before the clock, which capture the shapes that occur."""
    steps: int = 100
    """In a round."""
    rounds: int = 5
    eager_warm: int = 15
    eager_steps: int = 40
    eager_rounds: int = 3
    seconds: float = 3.0
    """Of trainings side by side: so few that the fastest does not end its epoch, where it would be validated."""
    check_steps: int = 60
    check_sentences: int = 810
    seed_steps: int = 300
    samples: int = 100_000
    iw_sentences: int = 1000
    iw_samples: int = 500
    test_sentences: int = 3_761
    compared: int = 300
    """Sentences whose NLL is compared between CPU and GPU."""
    many: int = 14


SIZES = {
    "full": Sizes(),
    "tiny": Sizes(
        sentences=(400, 30, 30),
        vocabulary=50,
        mean_length=6,
        deviation=2,
        longest=12,
        model={"embedding": 6, "hidden": 10, "latent": 3},
        objective={"inner_steps": 4, "window": 2, "energy_hidden": 8, "bow_hidden": 8, "hold_steps": 3},
        batch=8,
        warm=4,
        steps=4,
        rounds=2,
        eager_warm=2,
        eager_steps=4,
        eager_rounds=2,
        seconds=0.2,
        check_steps=10,
        check_sentences=41,
        seed_steps=12,
        samples=50,
        iw_sentences=5,
        iw_samples=4,
        test_sentences=30,
        compared=20,
        many=3,
    ),
}


@dataclass(frozen=True)
class Splits:
    """A corpus."""

    train: Sentences
    valid: Sentences
    test: Sentences
    vocabulary: int
    """Ids, the special ones included."""


def made_corpus(sizes: Sizes, seed: int = 0) -> Splits:
    """Words by Zipf's law, lengths by a gamma distribution of PTB's mean and deviation."""
    rng = np.random.default_rng(seed)
    words = sizes.vocabulary - UNK
    weights = 1 / np.arange(1, words + 1)
    shape = (sizes.mean_length / sizes.deviation) ** 2

    def split(count: int) -> Sentences:
        lengths = rng.gamma(shape, sizes.mean_length / shape, count).round().clip(1, sizes.longest).astype(np.int64)
        ids = UNK + rng.choice(words, lengths.sum(), p=weights / weights.sum())
        return Sentences(ids.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))

    train, valid, test = map(split, sizes.sentences)
    return Splits(train, valid, test, sizes.vocabulary)


def read_corpus(folder: Path) -> Splits:
    """One that preprocess wrote."""
    size = len(Vocabulary.load(folder / "vocabulary.json"))
    train, valid, test = (Sentences.load(folder / f"{name}.parquet", size) for name in ("train", "valid", "test"))
    return Splits(train, valid, test, size)


def known(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `values` that are settings of `kind`: an older version lacks some."""
    return {name: value for name, value in values.items() if name in kind.model_fields}


class Workload:
    """The corpus, the sizes, and each system's settings.

    Args:
        sizes: `full` or `tiny`.
        settings: model, training and objective by the system's name, as params.yaml resolves them for PTB.
        corpus: a folder that preprocess wrote; None for a made one.
    """

    def __init__(self, sizes: str, settings: Mapping[str, Mapping[str, Any]], corpus: str | None = None) -> None:
        self.sizes, self.settings, self.folder = SIZES[sizes], settings, corpus

    @cached_property
    def corpus(self) -> Splits:
        """The whole one."""
        return made_corpus(self.sizes) if self.folder is None else read_corpus(Path(self.folder))

    @cached_property
    def few_lengths(self) -> Splits:
        """Its training sentences of the eight lengths in the middle: batches of few shapes."""
        train = self.corpus.train
        middle = int(np.median(train.lengths))
        indices = np.flatnonzero((train.lengths >= middle - 4) & (train.lengths < middle + 4))
        return replace(self.corpus, train=train.subset(indices))

    @cached_property
    def few_shapes(self) -> Splits:
        """So few of them that an epoch is short; its last batch has another size."""
        few = np.arange(min(50, len(self.corpus.valid)))
        train = self.few_lengths.train.subset(np.arange(min(self.sizes.check_sentences, len(self.few_lengths.train))))
        return replace(self.corpus, train=train, valid=self.corpus.valid.subset(few))

    @property
    def model(self) -> ModelSettings:
        """The network's sizes."""
        one = next(iter(self.settings.values()))["model"]
        return ModelSettings(**known(ModelSettings, {**one, **(self.sizes.model or {})}))

    def trainer(
        self,
        system: str,
        *,
        captured: bool = True,
        corpus: Splits | None = None,
        objective: Mapping[str, Any] | None = None,
        seed: int = 1,
        store: StateStore | None = None,
        **training: Any,
    ) -> Trainer:
        """A training that has not begun. `captured` False: eager, where the version knows anything else."""
        own, splits = self.settings[system], corpus or self.corpus
        config = objective_class(own["objective"]["name"]).Config
        shorter = known(config, {**(self.sizes.objective or {}), **(objective or {})})
        settings = TrainSettings(
            dataset="ptb",
            system=system,
            model=self.model,
            training=TrainingSettings(
                **known(TrainingSettings, {**own["training"], "batch_size": self.sizes.batch, **training})
            ),
            objective={**known(config, own["objective"]), **shorter},
        )
        trainer = Trainer(settings, splits.train, splits.valid, splits.vocabulary, seed, store)
        graphs = getattr(trainer.objective, "graphs", None)
        if graphs is not None and not captured:
            graphs.enabled = False
        return trainer

    def talking_network(self) -> Network:
        """A VAE with random weights that makes text of about the corpus's mean length, its words by Zipf's law.

        The output layer has no bias: one hidden unit, which its gates keep at tanh(1), stands for it.
        """
        torch.manual_seed(0)
        network = Network("vae", self.corpus.vocabulary, self.model)
        length = float(self.corpus.train.lengths.mean())
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.normal_(0, 0.1)
            network.decoder.output.weight.mul_(0.1)  # so that the bias decides
            lstm, hidden = network.decoder.lstm, self.model.hidden
            for gate, bias in enumerate((20.0, -20.0, 20.0, 20.0)):  # input, forget, cell, output
                row = gate * hidden
                for weight in (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0, lstm.bias_hh_l0):
                    weight[row] = 0
                lstm.bias_ih_l0[row] = bias
            zipf = 1 / torch.arange(1.0, network.decoder.output.weight.shape[0])
            logits = torch.cat([torch.tensor([1 / length]), zipf / zipf.sum()]).log()
            network.decoder.output.weight[:, 0] = logits / float(torch.tanh(torch.tensor(1.0)))
        assert EOS == FIRST_TARGET
        return network.to("cuda" if CUDA else "cpu").eval()


def measured(network: Network, sentences: Sentences, settings: EvaluationSettings, seed: int) -> Any:
    """All that the step evaluate says of them: `textvae.evaluation.measure`, or what older versions had for it."""
    evaluation = import_module("textvae.evaluation")
    if hasattr(evaluation, "measure"):
        return evaluation.measure(network, sentences, settings, seed)
    older = import_module("components.evaluate")
    return older.measure(network, sentences, *older.posteriors(network, sentences), settings, seed)


def synchronise() -> None:
    """Wait for the GPU."""
    if CUDA:
        torch.cuda.synchronize()


def cleared() -> None:
    """Give back what a measurement held, and start the memory's peak anew."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def memory() -> dict[str, float]:
    """Peaks since `cleared`, in GB: what tensors took, and what the allocator held."""
    if not CUDA:
        return {}
    return {
        "allocated_gb": torch.cuda.max_memory_allocated() / 1e9,
        "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
    }


class Pace(StopRequest):
    """Ends a training after warm + steps * rounds steps, and notes the time before each round and after the last.

    `before_step` is called with the number of steps done.
    """

    def __init__(
        self, warm: int, steps: int = 1, rounds: int = 0, before_step: Callable[[int], None] = lambda done: None
    ) -> None:
        self.warm, self.steps, self.rounds, self.before_step = warm, steps, rounds, before_step
        self.done = -1
        self.times: list[float] = []

    def reason(self) -> StoppedError | None:
        """Asked before each step."""
        self.done += 1
        self.before_step(self.done)
        timed = self.done - self.warm
        if timed >= 0 and timed % self.steps == 0:
            synchronise()
            self.times.append(time.perf_counter())
        return StoppedError("measured") if timed >= self.steps * self.rounds else None


class Until(StopRequest):
    """Ends a training at a time of `time.perf_counter`."""

    def __init__(self, end: float) -> None:
        self.end = end

    def reason(self) -> StoppedError | None:
        """Asked before each step."""
        return StoppedError("time is up") if time.perf_counter() >= self.end else None


def advance(trainer: Trainer, pace: StopRequest) -> Outcome | None:
    """Train until `pace` says stop (None), or to the end."""
    trainer.stop = pace
    outcome = None
    with suppress(StoppedError):
        outcome = trainer.run()
    synchronise()  # a training has a stream of its own
    return outcome


def tokens_between(trainer: Trainer, first: int, last: int) -> int:
    """Target tokens of the epoch's batches `first` to `last` - 1."""
    batches = batches_of(trainer, trainer.at.epoch)[first:last]
    return sum(int(trainer.train.lengths[batch].sum()) + len(batch) for batch in batches)


def batches_of(trainer: Trainer, epoch: int) -> list[IntArray]:
    """The batches of an epoch, as positions."""
    return training_batches(trainer.train.lengths, trainer.training.batch_size, trainer.seed, epoch)


def weights(trainer: Trainer) -> torch.Tensor:
    """All that a training has learned, as one vector on the CPU."""
    parameters = [*trainer.network.parameters(), *trainer.objective.heads.parameters()]
    return torch.cat([parameter.detach().flatten().cpu() for parameter in parameters])


def compared(one: torch.Tensor, other: torch.Tensor) -> dict[str, Any]:
    """Whether two vectors are the same bytes, and how far they are apart."""
    return {
        "passed": torch.equal(one.view(torch.int32), other.view(torch.int32)),
        "largest_difference": float((one - other).abs().max()),
        "relative_difference": float((one - other).norm() / one.norm()),
    }
