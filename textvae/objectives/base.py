"""What the trainer knows of a system: `loss`, `kl_weight`, `update` and when its schedule has settled.

A system is one file beside this one: a class with its settings (`Config`) and one entry in params.yaml. Losses are
means over the sentences of a batch of sums over their tokens, in nats. Shapes: B sentences, T positions, D latent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from textvae import svi
from textvae.corpus import Batch
from textvae.divergence import Divergence
from textvae.errors import SettingsError
from textvae.graphs import Graphs
from textvae.networks import Kind, Network
from textvae.noise import Noise
from textvae.posteriors import Posterior
from textvae.step_settings import ModelSettings, TrainingSettings
from textvae.strict import Epochs, Frozen, Location, Weight, dotted
from textvae.turns import Turns, awaited, run_out


@dataclass(frozen=True)
class Losses:
    """One batch's losses (scalars, nats per sentence); `total` is what is minimised, `extra` what else is shown."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor | None = None
    extra: dict[str, Tensor] = field(default_factory=dict)

    def terms(self) -> dict[str, Tensor]:
        """The losses by the names under which learning curves show them."""
        named = {"loss": self.total, "reconstruction": self.reconstruction, **self.extra}
        return named if self.kl is None else {**named, "kl": self.kl}

    def detached(self) -> Losses:
        """The same without their graph."""
        kl = None if self.kl is None else self.kl.detach()
        extra = {name: value.detach() for name, value in self.extra.items()}
        return Losses(self.total.detach(), self.reconstruction.detach(), kl, extra)


@dataclass(frozen=True)
class Code:
    """The encoder's answer to a batch."""

    posterior: Posterior
    hidden_BH: Tensor
    z_BD: Tensor
    kl: Tensor


@dataclass(frozen=True)
class Taken:
    """What a step says of itself: its losses, and the norms of its gradients before clipping, by group."""

    losses: Losses
    gradient_norms: dict[str, Tensor]


class Objective:
    """A network, what is minimised, and the optimisers that do it.

    Args:
        config: the system's own settings.
        network: built for `kind`.
        training: optimiser settings.
        steps_per_epoch: how schedules given in epochs become steps.
        draw: a random training batch, for the systems that need more than the current one.
        noise: the training's; by default torch's global one.

    A step must not ask a GPU anything, and what it keeps there it changes in place (textvae/graphs.py).
    """

    class Config(Frozen):
        """The settings that every system has."""

        name: str

    kind: ClassVar[Kind] = "vae"
    least_batch: ClassVar[int] = 1
    """Sentences that a batch needs for the objective to be what its name says."""
    gaussian_only: ClassVar[bool] = False
    """Whether it changes a Gaussian's KL, by dimension or as a whole: of a von Mises-Fisher one kappa alone decides."""

    @classmethod
    def check(cls, config: Any, training: TrainingSettings, key: Callable[[Location], str] = dotted) -> None:
        """Raise SettingsError where the objective's settings cannot work with the training's. `key` names a setting."""
        if training.batch_size < cls.least_batch:
            raise SettingsError(
                f"{key(('training', 'batch_size'))} is {training.batch_size}: {config.name} compares the sentences of "
                f"a batch, and with fewer than {cls.least_batch} it would be another system: set it to "
                f"{cls.least_batch} or more"
            )

    @classmethod
    def check_model(cls, model: ModelSettings, key: Callable[[Location], str] = dotted) -> None:
        """Raise SettingsError where the objective cannot work with the model's settings. `key` names a setting."""
        if cls.gaussian_only and model.posterior != "gaussian":
            raise SettingsError(
                f"{key(('model', 'posterior'))} is {model.posterior}, whose KL is fixed by `kappa`: "
                f"{cls.__name__} works on the KL of a Gaussian; set it to gaussian, or choose another objective"
            )

    def __init__(
        self,
        config: Any,
        network: Network,
        training: TrainingSettings,
        steps_per_epoch: int,
        draw: Callable[[], Batch],
        noise: Noise | None = None,
    ) -> None:
        self.config, self.network, self.training = config, network, training
        self.steps_per_epoch, self.draw = steps_per_epoch, draw
        self.noise = noise or Noise(network.device, own=False)
        self.graphs = Graphs(network.device, self.noise.generator)
        self.divergence = Divergence(network.device, lambda: self.largest_energy)
        self.beta = torch.zeros((), dtype=network.decoder.output.weight.dtype, device=network.device)
        """The current step's."""
        self.heads: nn.ModuleDict = nn.ModuleDict()
        """Networks of the objective's own (a bag-of-words head, an energy); not part of the trained model."""
        self.gradient_norms: dict[str, Tensor] = {}
        """Of the last step, by group, before clipping."""
        self.learning_rate = training.learning_rate
        self.build()
        if network.settings.svi_steps:
            self.capturable = False  # a backward pass within another one: not tried in a graph
        self.heads.to(network.device)
        self.optimizers = self.make_optimizers()

    # -- what a system defines -----------------------------------------------------------------------------------------

    def build(self) -> None:
        """Create `heads`, with PyTorch's initialisation."""

    capturable = True
    """Whether a step can be a CUDA graph: nothing in it is decided on the CPU."""

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """The losses of a batch at a weight of the KL, with gradients."""
        raise NotImplementedError

    def kl_weight(self, step: int) -> float:
        """beta at a step (0-based)."""
        return 1.0

    def settled(self, step: int) -> bool:
        """Whether annealing and such are over: learning-rate decay and early stopping begin only then."""
        return True

    def selectable(self, step: int) -> bool:
        """Whether the weights after `step` steps may become the best ones."""
        return True

    def after_epoch(self, columns: dict[str, float]) -> None:
        """Told the epoch's row of the learning curve, validation included."""

    def state(self) -> dict[str, Any]:
        """What else (JSON) decides the steps to come; `load_state` takes it back."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `state`."""

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The heads' parameters that the main optimiser trains."""
        return self.heads.parameters()

    @property
    def largest_energy(self) -> float | None:
        """For a DivergedError: the largest finite |f| of the last batch, where there is an energy."""
        return None

    # -- one step ------------------------------------------------------------------------------------------------------

    def update(self, batch: Batch, step: int) -> Losses:
        """One optimisation step on a batch. A non-finite loss never reaches the weights: where the step is waited for
        (on a CPU) this raises DivergedError, else `ask` does."""
        return run_out(self.turns(batch, step))

    def turns(self, batch: Batch, step: int) -> Turns[Losses]:
        """`update`, which pauses where it is long: other trainings may take their turns."""
        yield from ()
        self.begin(step)
        return self.perform("joint", self.optimise, batch)

    def begin(self, step: int) -> None:
        """Put what changes from step to step (0-based) where the step reads it."""
        self.divergence.step.fill_(step)
        self.beta.fill_(self.kl_weight(step))

    def perform(self, kind: str, act: Callable[[Batch], Taken], batch: Batch) -> Losses:
        """Let a kind of step act on a batch, on a GPU as a graph."""
        taken = self.graphs.run(kind, act, batch) if self.capturable else act(batch)
        self.gradient_norms |= taken.gradient_norms
        if not self.divergence.deferred:
            self.ask()
        return taken.losses

    def ask(self) -> None:
        """Wait for the steps so far and hear what they have to say. Raises DivergedError."""
        self.divergence.ask()

    def asked(self) -> Turns[None]:
        """`ask`, with turns for others while it waits."""
        yield from awaited(self.divergence.found)
        self.ask()

    def optimise(self, batch: Batch) -> Taken:
        """The losses, their gradients, and a step of every optimiser."""
        losses = self.loss(batch, self.beta)
        self.divergence.check(dict(reversed(losses.terms().items())))
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        return Taken(losses.detached(), self.step_clipped(self.groups()))

    def groups(self) -> dict[str, dict[str, list[nn.Parameter]]]:
        """For each optimiser that steps, the groups of parameters whose gradients are clipped to one norm."""
        main = {"decoder": list(self.network.decoder.parameters()), "head": list(self.head_parameters())}
        if self.network.encoder is not None:
            main["encoder"] = list(self.network.encoder.parameters())
        return {"main": main}

    def step_clipped(self, groups: dict[str, dict[str, list[nn.Parameter]]]) -> dict[str, Tensor]:
        """Clip the gradients of each optimiser to `clip_norm` together and let it step. Returns each group's norm."""
        norms: dict[str, Tensor] = {}
        totals: dict[str, Tensor] = {}
        for optimizer, of_optimizer in groups.items():
            for name, parameters in of_optimizer.items():
                gradients = [p.grad for p in parameters if p.grad is not None]
                if gradients:
                    norms[name] = nn.utils.get_total_norm(gradients)
                    square = norms[name].double().square()
                    totals[optimizer] = totals[optimizer] + square if optimizer in totals else square
        totals = {optimizer: total.sqrt() for optimizer, total in totals.items()}
        about = {f"the gradient norm ({optimizer})": total for optimizer, total in totals.items()}
        self.divergence.check(about)  # of all of them, before any steps
        for optimizer, total in totals.items():
            everything = [p for parameters in groups[optimizer].values() for p in parameters if p.grad is not None]
            nn.utils.clip_grads_with_norm_(everything, self.training.clip_norm, total.float())
            self.optimizers[optimizer].step()
        return norms

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Fresh optimisers at the current learning rate (also after a decay, as He et al. do)."""
        parameters = [*self.network.parameters(), *self.head_parameters()]
        return {"main": self.optimizer_of(self.training.optimizer, parameters, self.learning_rate)}

    def optimizer_of(
        self, name: Literal["sgd", "adam"], parameters: Iterable[nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """SGD without momentum, or Adam with its usual moments; where divergence is noticed later, one that heeds it.

        Whoever replaces an optimiser makes the graphs anew: they know the old one's moments and rate.
        """
        self.graphs.clear()
        if not self.divergence.deferred:
            return optimizer_of(name, parameters, learning_rate)
        optimizer = optimizer_of(name, parameters, learning_rate, fused=True)
        optimizer.found_inf = self.divergence.found  # type: ignore[attr-defined]
        return optimizer

    def decay_learning_rate(self) -> None:
        """Lower the learning rate and begin with fresh optimisers."""
        self.learning_rate *= self.training.decay_factor
        self.optimizers = self.make_optimizers()

    # -- what most systems share ---------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Code:
        """One sample of the posterior of each sentence, and the mean KL(q(z|x) || p(z))."""
        posterior, hidden_BH = svi.posterior(self.network, batch, self.svi_noise(batch), self.beta)
        z_BD = posterior.sample(self.noise.normal_like(posterior.mean))
        return Code(posterior, hidden_BH, z_BD, posterior.kl().mean())

    def svi_noise(self, batch: Batch) -> Tensor | None:
        """Noise (K, B, D) for a batch's SVI steps, if there are any."""
        steps, latent = self.network.settings.svi_steps, self.network.latent
        return self.noise.normal_like(self.beta.expand(steps, len(batch), latent)) if steps else None

    def reconstruct(self, batch: Batch, z_BD: Tensor | None, inputs_BT: Tensor | None = None) -> Tensor:
        """The mean reconstruction loss -log p(x|z)."""
        total: Tensor = self.network.decoder(batch, z_BD, inputs_BT)[0]
        return total / len(batch)


def optimizer_of(
    name: Literal["sgd", "adam"], parameters: Iterable[nn.Parameter], learning_rate: float, fused: bool = False
) -> torch.optim.Optimizer:
    """SGD without momentum, or Adam with its usual moments. `fused`: in a graph, and with torch's `found_inf`."""
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate, fused=fused or None)
    return torch.optim.Adam(parameters, lr=learning_rate, fused=fused or None, capturable=fused)


class AnnealedConfig(Objective.Config):
    """Linear KL annealing, per step (Bowman et al. 2016)."""

    beta_start: Weight = 0.1
    beta_end: Weight = 1.0
    """1 for the ELBO; anything else is a beta-VAE (Higgins et al. 2017)."""
    annealing_epochs: Epochs = 10


class Annealed(Objective):
    """beta goes linearly from `beta_start` to `beta_end` over `annealing_epochs`, then stays: recon + beta KL."""

    Config = AnnealedConfig
    config: AnnealedConfig

    @property
    def first_step(self) -> int:
        """The step at which beta starts to rise."""
        return 0

    def kl_weight(self, step: int) -> float:
        """beta at a step: beta_start up to `first_step`, beta_end from annealing_epochs * steps_per_epoch later on."""
        steps = self.config.annealing_epochs * self.steps_per_epoch
        start, end = self.config.beta_start, self.config.beta_end
        done = max(step - self.first_step, 0)
        return end if done >= steps else start + (end - start) * done / steps

    def settled(self, step: int) -> bool:
        """Whether beta has reached `beta_end`."""
        return step - self.first_step >= self.config.annealing_epochs * self.steps_per_epoch
