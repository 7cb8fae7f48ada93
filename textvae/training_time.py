"""How long a training would take on this machine: a second of steps of each system, extrapolated. Needs torch.

And what decoding a sentence and sampling a word take, from which the rest of a run follows.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from textvae.config import Params, SamplingSettings, TrainSettings
from textvae.corpus import Sentences, hashed_subset
from textvae.device import resolve_device
from textvae.errors import SettingsError, StoppedError
from textvae.generation import prior_samples
from textvae.inference import validation
from textvae.objectives import alternatives, checked
from textvae.state import StopRequest
from textvae.training import Trainer

SECONDS = 1.0
"""Of steps per system, after a first one that warms up."""
FEWEST_STEPS = 4
FEWEST_BATCHES = 4
"""In an epoch: with fewer there is nothing to time."""
VALIDATION_SENTENCES, IW_SENTENCES = 100, 5
SAMPLED = SamplingSettings(sentences=512, max_length=4)
"""A network that has learned nothing hardly ever ends a sentence."""
SEED = 1


@dataclass(frozen=True)
class Estimate:
    """What was measured of one system, and what follows."""

    system: str
    steps: int
    """That were timed."""
    tokens_per_second: float
    epochs: int
    epoch_seconds: float
    validation_seconds: float
    """After every epoch."""
    decoding_seconds: float
    """Of one sentence with one code, its loss only; a posterior and what a validation computes besides are in it."""
    sampled_words_per_second: float
    trainings: int
    """More than one where a setting is a list to select from."""

    @property
    def seconds(self) -> float:
        """All epochs of all trainings."""
        return self.trainings * self.epochs * (self.epoch_seconds + self.validation_seconds)


class Enough(StopRequest):
    """Stops a training before its first epoch's end, and remembers when each step began."""

    def __init__(self, steps: int, seconds: float, clock: Callable[[], float]) -> None:
        self.steps, self.seconds, self.clock = steps, seconds, clock
        self.times: list[float] = []

    def reason(self) -> StoppedError | None:
        """An error once enough is measured: so many seconds and FEWEST_STEPS, or all steps but the epoch's last."""
        self.times.append(self.clock())
        timed = len(self.times) - 2
        enough = timed >= FEWEST_STEPS and self.times[-1] - self.times[1] >= self.seconds
        return StoppedError("measured") if enough or timed >= self.steps - 2 else None


def estimates(
    params: Params,
    dataset: str,
    corpus: Path,
    vocabulary_size: int,
    systems: Sequence[str] | None = None,
    seconds: float | None = None,
) -> Iterator[Estimate]:
    """One for each of `systems` (of the grid's), with the settings that `params` has for `dataset`, on an encoded
    corpus, each measured for `seconds` (SECONDS) of steps.

    Raises SettingsError for settings that a system refuses.
    """
    train, valid = (Sentences.load(corpus / f"{split}.parquet", vocabulary_size) for split in ("train", "valid"))
    for system in params.grid.systems if systems is None else systems:
        merged = params.settings(dataset, system)
        objectives = alternatives(checked(merged.objective, merged.training))[1]
        settings = TrainSettings(
            dataset=dataset, system=system, model=merged.model, training=merged.training, objective=objectives[0]
        )
        yield estimate(settings, train, valid, vocabulary_size, len(objectives), seconds)


def estimate(
    settings: TrainSettings,
    train: Sentences,
    valid: Sentences,
    vocabulary_size: int,
    trainings: int = 1,
    seconds: float | None = None,
) -> Estimate:
    """Measure one system: the first steps of a training, a validation of a part of `valid`, and a few samples."""
    batches = -(-len(train) // settings.training.batch_size)
    # one thread's own time does not depend on what else runs; what a GPU does is seen by the wall clock only
    clock = time.process_time if resolve_device(settings.training.device).type == "cpu" else time.perf_counter
    enough = Enough(batches, SECONDS if seconds is None else seconds, clock)
    trainer = Trainer(settings, train, valid, vocabulary_size, SEED, stop=enough)
    with suppress(StoppedError):
        trainer.run()
    timed = range(1, len(enough.times) - 1)
    if not timed:
        raise SettingsError(f"{settings.system}: the first steps diverge with these settings; lower the learning rate")
    tokens = sum(trainer.batches[n].target_tokens for n in timed)
    rate = tokens / (enough.times[-1] - enough.times[1])
    sample = valid.subset(hashed_subset(valid, VALIDATION_SENTENCES, "inspect"))
    started = clock()
    validation(trainer.network, sample, SEED, IW_SENTENCES, settings.training.iw_samples)
    validating = clock() - started
    started = clock()
    words = sum(samples.sentences.target_tokens for samples in prior_samples(trainer.network, SAMPLED, SEED))
    sampling = clock() - started
    # a validation decodes each sentence once, and some of them `iw_samples` times
    codes = 1 if trainer.network.kind == "lstm_lm" else settings.training.iw_samples
    decoded, all_decoded = (
        len(split) + codes * min(chosen, len(split))
        for split, chosen in ((sample, IW_SENTENCES), (valid, settings.training.iw_sentences))
    )
    return Estimate(
        system=settings.system,
        steps=len(timed),
        tokens_per_second=rate,
        epochs=settings.training.epochs,
        epoch_seconds=train.target_tokens / rate,
        validation_seconds=validating * all_decoded / decoded,
        decoding_seconds=validating / decoded,
        sampled_words_per_second=words / max(sampling, 1e-9),
        trainings=trainings,
    )
