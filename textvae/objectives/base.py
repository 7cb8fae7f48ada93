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

from textvae import estimators
from textvae.corpus import Batch
from textvae.errors import SettingsError
from textvae.networks import Kind, Network, reparameterised
from textvae.step_settings import TrainingSettings
from textvae.strict import Epochs, Frozen, Location, Weight, dotted


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


@dataclass(frozen=True)
class Code:
    """The encoder's answer to a batch."""

    mu_BD: Tensor
    log_var_BD: Tensor
    hidden_BH: Tensor
    z_BD: Tensor
    kl: Tensor


class DivergedError(ArithmeticError):
    """A loss is not finite. It is a result, not a crash: the run ends as `diverged`."""

    def __init__(self, term: str, value: float, largest_energy: float | None) -> None:
        self.term, self.value, self.largest_energy = term, value, largest_energy
        super().__init__(f"{term} is {value}")


class Objective:
    """A network, what is minimised, and the optimisers that do it.

    Args:
        config: the system's own settings.
        network: built for `kind`.
        training: optimiser settings.
        steps_per_epoch: how schedules given in epochs become steps.
        draw: a random training batch, for the systems that need more than the current one.
    """

    class Config(Frozen):
        """The settings that every system has."""

        name: str

    kind: ClassVar[Kind] = "vae"
    least_batch: ClassVar[int] = 1
    """Sentences that a batch needs for the objective to be what its name says."""

    @classmethod
    def check(cls, config: Any, training: TrainingSettings, key: Callable[[Location], str] = dotted) -> None:
        """Raise SettingsError where the objective's settings cannot work with the training's. `key` names a setting."""
        if training.batch_size < cls.least_batch:
            raise SettingsError(
                f"{key(('training', 'batch_size'))} is {training.batch_size}: {config.name} compares the sentences of "
                f"a batch, and with fewer than {cls.least_batch} it would be another system: set it to "
                f"{cls.least_batch} or more"
            )

    def __init__(
        self,
        config: Any,
        network: Network,
        training: TrainingSettings,
        steps_per_epoch: int,
        draw: Callable[[], Batch],
    ) -> None:
        self.config, self.network, self.training = config, network, training
        self.steps_per_epoch, self.draw = steps_per_epoch, draw
        self.heads: nn.ModuleDict = nn.ModuleDict()
        """Networks of the objective's own (a bag-of-words head, an energy); not part of the trained model."""
        self.gradient_norms: dict[str, float] = {}
        """Of the last step, by group, before clipping."""
        self.largest_energy: float | None = None
        """For a DivergedError: the largest finite |f| of the last batch, where there is an energy."""
        self.learning_rate = training.learning_rate
        self.build()
        self.optimizers = self.make_optimizers()

    # -- what a system defines -----------------------------------------------------------------------------------------

    def build(self) -> None:
        """Create `heads`, with PyTorch's initialisation."""

    def loss(self, batch: Batch, step: int) -> Losses:
        """The losses of a batch at a step (0-based), with gradients."""
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

    # -- one step ------------------------------------------------------------------------------------------------------

    def update(self, batch: Batch, step: int) -> Losses:
        """One optimisation step on a batch. Raises DivergedError before a non-finite loss reaches the weights."""
        losses = self.loss(batch, step)
        self.check_finite(losses)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
        self.apply_gradients()
        return losses

    def apply_gradients(self) -> None:
        """Clip the main optimiser's gradients to one norm and let it step."""
        groups = {"decoder": list(self.network.decoder.parameters()), "head": list(self.head_parameters())}
        if self.network.encoder is not None:
            groups["encoder"] = list(self.network.encoder.parameters())
        self.step_clipped("main", groups)

    def step_clipped(self, optimizer: str, groups: dict[str, list[nn.Parameter]]) -> None:
        """Clip the groups' gradients to `clip_norm` together, note each group's norm, and step the optimiser."""
        total = 0.0
        for name, parameters in groups.items():
            gradients = [p.grad for p in parameters if p.grad is not None]
            if gradients:
                norm = float(nn.utils.get_total_norm(gradients))
                self.gradient_norms[name] = norm
                total += norm**2
        if not total**0.5 < float("inf"):
            raise DivergedError(f"the gradient norm ({optimizer})", total**0.5, self.largest_energy)
        everything = [p for parameters in groups.values() for p in parameters if p.grad is not None]
        nn.utils.clip_grads_with_norm_(everything, self.training.clip_norm, torch.tensor(total**0.5))
        self.optimizers[optimizer].step()

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Fresh optimisers at the current learning rate (also after a decay, as He et al. do)."""
        parameters = [*self.network.parameters(), *self.head_parameters()]
        return {"main": optimizer_of(self.training.optimizer, parameters, self.learning_rate)}

    def decay_learning_rate(self) -> None:
        """Lower the learning rate and begin with fresh optimisers."""
        self.learning_rate *= self.training.decay_factor
        self.optimizers = self.make_optimizers()

    # -- what most systems share ---------------------------------------------------------------------------------------

    def encode(self, batch: Batch) -> Code:
        """One sample of the posterior of each sentence, and the mean KL(q(z|x) || p(z))."""
        assert self.network.encoder is not None
        mu_BD, log_var_BD, hidden_BH = self.network.encoder(batch)
        z_BD = reparameterised(mu_BD, log_var_BD, torch.randn_like(mu_BD))
        return Code(mu_BD, log_var_BD, hidden_BH, z_BD, estimators.gaussian_kl(mu_BD, log_var_BD).mean())

    def reconstruct(self, batch: Batch, z_BD: Tensor | None, inputs_BT: Tensor | None = None) -> Tensor:
        """The mean reconstruction loss -log p(x|z)."""
        total: Tensor = self.network.decoder(batch, z_BD, inputs_BT)[0]
        return total / len(batch)

    def check_finite(self, losses: Losses) -> None:
        """Raises DivergedError naming the first term that is not finite."""
        for name, value in reversed(losses.terms().items()):
            if not torch.isfinite(value):
                raise DivergedError(name, float(value.detach()), self.largest_energy)


def optimizer_of(
    name: Literal["sgd", "adam"], parameters: Iterable[nn.Parameter], learning_rate: float
) -> torch.optim.Optimizer:
    """SGD without momentum, or Adam with its usual moments."""
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=learning_rate)
    return torch.optim.Adam(parameters, lr=learning_rate)


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

    first_step: int = 0
    """The step at which beta starts to rise."""

    def kl_weight(self, step: int) -> float:
        """beta at a step: beta_start up to `first_step`, beta_end from annealing_epochs * steps_per_epoch later on."""
        steps = self.config.annealing_epochs * self.steps_per_epoch
        start, end = self.config.beta_start, self.config.beta_end
        done = max(step - self.first_step, 0)
        return end if done >= steps else start + (end - start) * done / steps

    def settled(self, step: int) -> bool:
        """Whether beta has reached `beta_end`."""
        return step - self.first_step >= self.config.annealing_epochs * self.steps_per_epoch
