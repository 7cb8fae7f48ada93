"""The settings of the steps of a run: model, training, evaluation, samples, examples, n-gram models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, field_validator, model_validator

from textvae.errors import SettingsError
from textvae.strict import (
    Count,
    Frozen,
    Length,
    Location,
    Name,
    Rate,
    Seed,
    Several,
    Size,
    Steps,
    Times,
    Weight,
    distinct,
    dotted,
)

MOST_EXAMPLES = 1000
Few = Annotated[int, Field(ge=1, le=MOST_EXAMPLES)]
"""What a report shows."""
LEAST_TEMPERATURE = 0.001
MOST_COMMITTED = 20
"""Nats a dimension: a posterior whose variance is at most exp(-41)."""
MOST_BLOCKS = 64
Dilation = Annotated[int, Field(ge=1, le=1000)]
"""Positions; of a sentence that is generated twice as many are in memory, for every block."""
LMPLZ_BYTES = (25 * 2**20, 4 * 2**40)
"""It refuses less, whatever the text: its table of words alone takes 24 MiB."""


class ModelSettings(Frozen):
    """Sizes of encoder and decoder (section 5.2 of the paper)."""

    embedding: Size = 128
    hidden: Size = 512
    latent: Size = 64
    dropout: float = Field(default=0.5, ge=0, lt=1)
    initialisation: Literal["uniform", "pytorch"] = "uniform"
    """`uniform`: He et al.'s, made for SGD with a rate of 1. `pytorch`: its defaults, embeddings N(0, 1), for adam."""
    means_deviation: Weight = 0.0
    """Standard deviation of posterior means over a batch, kept by batch norm (gamma of Zhu et al. 2020); 0: free."""
    committed_rate: Weight = 0.0
    """Nats below which the KL cannot fall, whatever the weights (delta of Razavi et al. 2019); 0: none."""

    posterior: Literal["gaussian", "vmf"] = "gaussian"
    """The family of q(z|x) and p(z): N(mu, diag sigma^2) and N(0, I), or von Mises-Fisher and uniform on a sphere (Xu &
    Durrett 2018)."""
    kappa: float = Field(default=23.0, gt=0, le=10_000)
    """Concentration of a von Mises-Fisher posterior, which decides its KL: at 0 it would be the prior for any x."""
    skip_connections: bool = False
    """Whether the decoder's output layer reads the code, too, beside the LSTM's states (Dieng et al. 2019)."""
    svi_steps: Steps = 0
    """By which a posterior is better than the encoder's answer: steps on its sentence's own loss (Kim et al. 2018)."""
    svi_learning_rate: Rate = 0.06
    """Of these steps."""
    decoder: Literal["lstm", "dilated"] = "lstm"
    """`dilated`: causal convolutions (Yang et al. 2017), which see the `dilations`' reach of the words before."""
    dilations: Annotated[list[Dilation], Field(min_length=1, max_length=MOST_BLOCKS)] = Field(default=[1, 2, 4])
    """One block each: it reads the position itself, so many before it and twice as many."""

    @model_validator(mode="after")
    def fits_the_posterior(self) -> ModelSettings:
        if self.posterior == "gaussian":
            return self
        if self.latent < 2:
            raise ValueError("`latent` is 1, which has no sphere: `posterior: vmf` needs 2 or more")
        for name in ("means_deviation", "committed_rate", "svi_steps"):
            if getattr(self, name):
                raise ValueError(f"`{name}` moves the parameters of a Gaussian: leave it out, or `posterior: vmf`")
        return self

    @model_validator(mode="after")
    def can_commit(self) -> ModelSettings:
        if self.committed_rate > MOST_COMMITTED * self.latent:
            raise ValueError(
                f"`committed_rate` {self.committed_rate:g} is more than {self.latent} dimensions (`latent`) can "
                f"commit: at most {MOST_COMMITTED} nats each"
            )
        return self

    @model_validator(mode="after")
    def can_step(self) -> ModelSettings:
        for name, value in (("means_deviation", self.means_deviation), ("committed_rate", self.committed_rate)):
            if self.svi_steps and value:
                raise ValueError(
                    f"`svi_steps` {self.svi_steps} would leave the posteriors that `{name}` {value:g} allows: "
                    "set one of the two to 0"
                )
        return self

    def check_reach(self, longest: int, where: str, key: Callable[[Location], str] = dotted) -> None:
        """Raise SettingsError where a dilation is longer than the longest sentence, of so many words, as `where` says.
        `key` names a setting."""
        furthest = max(self.dilations)
        if self.decoder == "dilated" and furthest > longest:
            raise SettingsError(
                f"{key(('model', 'dilations'))} has {furthest}, and {where} has {longest} words at most: that block "
                f"would see no word before the current one: take it out, or {longest} at most"
            )


class TrainingSettings(Frozen):
    """Optimiser, schedule and model selection, for every system alike."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: Rate = 1.0
    batch_size: Size = 32
    clip_norm: Rate = 5.0
    epochs: Times = 100
    decay_from_epoch: Times = 16
    """The first epoch whose validation may lower the learning rate."""
    decay_patience: Times = 2
    decay_factor: float = Field(default=0.5, gt=0, lt=1)
    max_decays: Times = 5
    """Training ends at this many decays."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["tf32", "float32"] = "tf32"
    """Of a GPU's matrix products in training: 10 bits of mantissa, or 23, as validation and CPUs always have."""
    iw_sentences: Count = 200
    """Validation sentences (chosen by a hash) for the NLL-IW after each epoch."""
    iw_samples: Times = 20


class EvaluationSettings(Frozen):
    """How the test set is measured."""

    elbo_samples: Times = 1
    iw_sentences: Several = 1000
    iw_samples: Times = 500
    gain_sentences: Several = 1000
    gain_codes: int = Field(default=32, ge=2, le=1_000_000)
    """To begin with: fourfold as many, up to `max_gain_codes`, while a pilot says that they are too few."""
    max_gain_codes: int = Field(default=1024, ge=2, le=1_000_000)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class SamplingSettings(Frozen):
    """How sentences are generated from the prior. Temperature 0 is greedy, 1 with nothing else ancestral."""

    sentences: Count = 100_000
    temperature: float = Field(default=1.0, ge=0, le=1000)
    top_k: Count | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_length: Length = 200
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @field_validator("temperature")
    @classmethod
    def not_near_zero(cls, temperature: float) -> float:
        if 0 < temperature < LEAST_TEMPERATURE:
            raise ValueError(f"logits divided by less than {LEAST_TEMPERATURE} overflow: 0 is greedy decoding")
        return temperature

    @property
    def decoding(self) -> str:
        """The name of the decoding, as the report prints it."""
        if self.temperature == 0:
            return "greedy"
        parts = [] if self.temperature == 1 else [f"temperature {self.temperature:g}"]
        parts += [] if self.top_k is None else [f"top-{self.top_k}"]
        parts += [] if self.top_p is None else [f"nucleus {self.top_p:g}"]
        return ", ".join(parts) or "ancestral"


class ExamplesSettings(Frozen):
    """The sentences that show a latent space, decoded greedily."""

    sentences: Few = 4
    """Drawn from the test set; as many are generated from the prior."""
    seed: Seed = 0
    """Decides which ones."""
    texts: Annotated[list[str], Field(max_length=MOST_EXAMPLES), AfterValidator(distinct)] = Field(default=[])
    """Named ones, in place of drawn ones: words between spaces, as the report prints them."""
    samples: int = Field(default=3, ge=0, le=MOST_EXAMPLES)
    """Reconstructions of each from samples of its posterior."""
    steps: int = Field(default=6, ge=2, le=MOST_EXAMPLES)
    """Points of an interpolation, its ends among them."""
    neighbours: Few = 3
    max_length: Length = 200
    device: Literal["auto", "cpu", "cuda"] = "auto"


class NgramSettings(Frozen):
    """The KenLM language model behind FPPL and RPPL."""

    order: int = Field(default=5, ge=2, le=6)
    memory: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,15}[%bKMGT]?$")] = "1G"
    """lmplz's sorting memory: without a unit in K, as a share (%) of the machine's."""

    @field_validator("memory")
    @classmethod
    def what_lmplz_takes(cls, memory: str) -> str:
        number, unit = int(memory.rstrip("%bKMGT")), memory.lstrip("0123456789") or "K"
        if unit == "%":
            if not 1 <= number <= 100:
                raise ValueError("a share of the machine's memory is from 1% to 100%")
        elif not LMPLZ_BYTES[0] <= number * 1024 ** "bKMGT".index(unit) <= LMPLZ_BYTES[1]:
            raise ValueError("lmplz needs 25M at the least, and no machine has more than 4T")
        return memory


class TrainSettings(Frozen):
    """Everything that decides one training but the corpus and the seed."""

    dataset: Name
    system: Name
    model: ModelSettings
    training: TrainingSettings
    objective: dict[str, Any]
    """`name` is a file of textvae/objectives; the rest is checked by the class in it."""
    objective_sha256: str = ""
    """Of that file and of what it imports, so that a pipeline sees when a system's code changed."""


class GroupedRun(Frozen):
    """One of the runs that are trained side by side."""

    settings: TrainSettings
    seed: Seed


class TrainGroupSettings(Frozen):
    """Runs on one corpus that are trained side by side. Nothing but which ones decides a number."""

    runs: Annotated[list[GroupedRun], Field(min_length=1)]
    at_once: int = Field(default=8, ge=1)
    """Trainings that share the device at a time; a run whose objective has a list is several."""

    @model_validator(mode="after")
    def each_once(self) -> Self:
        for number, run in enumerate(self.runs):
            if run in self.runs[:number]:
                raise ValueError(
                    f"runs.{number} is there twice, and a training has its state for itself: leave one out"
                )
        return self
