"""VAE-MINE: the ELBO plus a neural estimate of I(x, z) (Qian & Cheung 2019, eq. 17 and Algorithm 1).

Settings undo, one by one, what we do differently from the paper's Algorithm 1: docs/systems.md has the reasons.
Shapes: M sentences of a batch, D latent, H the encoder's hidden state, F the energy's hidden units.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from textvae import mutual_information as mi
from textvae.corpus import Batch
from textvae.objectives.base import Annealed, AnnealedConfig, Code, Losses, Taken
from textvae.strict import Rate, Size, Steps, Times, Weight
from textvae.turns import Turns

ENERGY_MEAN_LIMIT = 50.0
RISEN = 0.2
"""In nats: an average Ihat above this ends the hold. The energy of a code that says nothing stays within 0.01 of 0."""
AVERAGING = 0.98
"""Share of the average Ihat that a step keeps: some 50 steps are averaged."""
log = logging.getLogger(__name__)


class Energy(nn.Module):
    """f(x, z): an MLP with two hidden layers of F units and ReLU on [encoder's last hidden state; z]."""

    def __init__(self, hidden: int, latent: int, units: int) -> None:
        super().__init__()
        # The first layer is split into a part of x and a part of z, so that M x M pairs cost M + M products, not M * M.
        self.from_x = nn.Linear(hidden, units)
        self.from_z = nn.Linear(latent, units, bias=False)
        self.second = nn.Linear(units, units)
        self.output = nn.Linear(units, 1)

    def _top(self, first: Tensor) -> Tensor:
        scores: Tensor = self.output(torch.relu(self.second(torch.relu(first))))
        return scores.squeeze(-1)

    def pairs(self, hidden_MH: Tensor, z_MD: Tensor) -> Tensor:
        """f(x_i, z_i) (M)."""
        return self._top(self.from_x(hidden_MH) + self.from_z(z_MD))

    def all_pairs(self, hidden_MH: Tensor, z_MD: Tensor) -> Tensor:
        """f(x_i, z_j) (M, M)."""
        return self._top(self.from_x(hidden_MH)[:, None] + self.from_z(z_MD)[None])


class VAEMINE(Annealed):
    """Minimises reconstruction + beta KL - alpha Ihat; the energy maximises Ihat."""

    class Config(AnnealedConfig):
        """`alpha` and how Ihat is estimated."""

        hold_steps: Steps = 2000
        """beta stays at `beta_start` until the energy hears the code (Ihat, averaged, above RISEN), at most so many
        steps. Not epochs: the energy learns by the step, however small the corpus. 0: beta rises at once."""
        alpha: Weight = 2.0
        """Weight of Ihat in the encoder's objective; the energy's own is never scaled."""
        divergence: Literal["kl", "jsd"] = "kl"
        """From the joint distribution to the marginals: `kl` is eq. 12's. `jsd`, Jensen & Shannon's, is bounded and
        has no xi; it grows with the MI but does not estimate it."""
        marginal: mi.Marginal = "all_pairs_with_self"
        """The pairs that stand for q(x) q(z). `all_pairs_with_self` bounds Ihat by log M; `shuffle` is the paper's."""
        xi: mi.XiKind = "reciprocal"
        """xi = 1/Z (optimal), or xi = Z as the paper's eq. 13 says."""
        xi_decay: float = Field(default=0.0, ge=0, lt=1)
        """Moving average of Z over batches, in log space; 0: this batch's."""
        stale_xi: bool = False
        """Use the xi of the batch before, as Algorithm 1's line 7 and 12 do."""
        energy_hidden: Size = 512
        energy_optimizer: Literal["sgd", "adam"] = "adam"
        energy_learning_rate: Rate = 1e-4
        energy_steps: Times = 1
        """Updates of the energy per update of the encoder."""
        energy_trained: bool = True
        """False leaves the energy at its initialisation (a control)."""

        @model_validator(mode="after")
        def xi_has_a_meaning(self) -> VAEMINE.Config:
            if self.divergence == "jsd" and (self.xi, self.xi_decay, self.stale_xi) != ("reciprocal", 0.0, False):
                raise ValueError("`divergence: jsd` has no xi: leave `xi`, `xi_decay` and `stale_xi` at their defaults")
            return self

    config: Config
    least_batch = 2

    def build(self) -> None:
        """The energy, with PyTorch's initialisation: uniform(-0.01, 0.01) would kill its signal."""
        settings = self.network.settings
        self.energy = Energy(settings.hidden, settings.latent, self.config.energy_hidden)
        self.heads["energy"] = self.energy
        self.bound_name = "mi_estimate" if self.config.divergence == "kl" else "jsd_bound"
        self.log_z: Tensor | None = None
        self.capturable = self.config.marginal != "shuffle"  # its permutations are found on the CPU
        # What decides when beta rises is kept where the losses are: asking a GPU for it would cost a wait every step.
        self._first_step = self.scalar(self.config.hold_steps)
        self._average_estimate = self.scalar(0.0)
        self._largest_energy = self.scalar(math.nan)
        self._drifted = self.scalar(math.nan)
        self._warned = False

    def scalar(self, value: float) -> Tensor:
        """A number on the network's device."""
        return torch.full((), value, dtype=torch.float64, device=self.network.device)

    @property
    def first_step(self) -> int:
        """The step at which beta starts to rise."""
        return int(self._first_step)

    @property
    def average_estimate(self) -> float:
        """Of Ihat, until beta rises."""
        return float(self._average_estimate)

    @property
    def largest_energy(self) -> float | None:
        """The largest finite |f| of the last batch that had one."""
        largest = float(self._largest_energy)
        return None if math.isnan(largest) else largest

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """None: the energy has an optimiser of its own."""
        return ()

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The main one, and the energy's, which keeps its learning rate and its moments through decays."""
        optimizers = super().make_optimizers()
        previous = getattr(self, "optimizers", {}).get("energy")
        optimizers["energy"] = previous or self.optimizer_of(
            self.config.energy_optimizer, self.energy.parameters(), self.config.energy_learning_rate
        )
        return optimizers

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + beta KL - alpha Ihat."""
        return self.loss_of(self.encode(batch), batch, beta)

    def loss_of(self, code: Code, batch: Batch, beta: Tensor | float) -> Losses:
        """The loss of a batch's code. The gradients: theta sees the reconstruction; phi everything, through z, z' and
        the shared hidden state; psi only -Ihat, unscaled. A batch of one has no Ihat."""
        reconstruction = self.reconstruct(batch, code.z_BD)
        total = reconstruction + beta * code.kl
        if len(batch) == 1:
            return Losses(total, reconstruction, code.kl)
        alpha = self.config.alpha
        bound = self.bound(scaled_gradient(code.hidden_BH, alpha), scaled_gradient(code.z_BD, alpha))
        # `scaled_gradient` has put alpha into phi's gradient; this puts it into the value as well.
        total = total - bound + (1 - alpha) * bound.detach()
        return Losses(total, reconstruction, code.kl, {self.bound_name: bound})

    def bound(self, hidden_MH: Tensor, z_MD: Tensor) -> Tensor:
        """Ihat of one batch: eq. 12, which moves the average of Z, or the Jensen-Shannon bound in its place."""
        if self.config.marginal == "shuffle":
            order_M = mi.derangement(len(z_MD), self.noise.choices).to(z_MD.device)
            f_joint_M, marginal_scores = self.energy.pairs(hidden_MH, z_MD), self.energy.pairs(hidden_MH, z_MD[order_M])
        else:
            marginal_scores = self.energy.all_pairs(hidden_MH, z_MD)
            f_joint_M = marginal_scores.diagonal()
        self.watch(f_joint_M, marginal_scores)
        if self.config.divergence == "jsd":
            f_marginal = mi.marginal_scores(marginal_scores, self.config.marginal)
            return mi.jensen_shannon_bound(f_joint_M, f_marginal)
        log_z = mi.log_partition(marginal_scores, self.config.marginal)
        before = torch.zeros_like(log_z) if self.log_z is None else self.log_z.clone()
        after = mi.update_log_z(self.log_z, log_z, self.config.xi_decay)
        self.log_z = after.clone() if self.log_z is None else self.log_z.copy_(after)
        return mi.tangent_bound(f_joint_M, log_z, mi.log_xi(before if self.config.stale_xi else after, self.config.xi))

    def watch(self, f_joint_M: Tensor, marginal_scores: Tensor) -> None:
        """Note the largest |f| for the error of a diverging run, and when f drifts."""
        scores = torch.cat([f_joint_M.detach(), marginal_scores.detach().flatten()]).abs()
        finite = torch.isfinite(scores)
        # NaN is no JSON, and says nothing: the batch before then does. So it does once the run has diverged.
        largest = torch.where(finite, scores, -1.0).amax().double()
        self._largest_energy.copy_(
            torch.where((largest >= 0) & (self.divergence.found == 0), largest, self._largest_energy)
        )
        mean = f_joint_M.detach().mean().double()
        self._drifted.copy_(torch.where(mean.abs() > ENERGY_MEAN_LIMIT, mean, self._drifted))

    def ask(self) -> None:
        """Warn once of an energy that drifts. Raises DivergedError."""
        super().ask()
        if not self._warned and not math.isnan(mean := float(self._drifted)):
            self._warned = True
            log.warning("the energy drifts: its mean is %.1f (outside [-50, 50]); a run like this often diverges", mean)

    def begin(self, step: int) -> None:
        """beta, where it is known when it rises."""
        super().begin(step)
        steps = self.config.annealing_epochs * self.steps_per_epoch
        start, end = self.config.beta_start, self.config.beta_end
        done = (self.divergence.step - self._first_step).clamp_min(0)
        risen = done >= steps
        self.beta.copy_(torch.where(risen, end, start + (end - start) * done / steps))

    def turns(self, batch: Batch, step: int) -> Turns[Losses]:
        """The energy's extra steps, then one step of everything."""
        self.begin(step)
        if self.config.energy_trained and len(batch) > 1:
            for _ in range(self.config.energy_steps - 1):
                self.perform("energy", self.optimise_energy, batch)
                yield None
        return self.perform("joint", self.optimise, batch)

    def optimise(self, batch: Batch) -> Taken:
        """A step of everything, after which beta may rise."""
        taken = super().optimise(batch)
        if self.bound_name in taken.losses.extra:
            self.listen(taken.losses.extra[self.bound_name])
        return taken

    def listen(self, bound: Tensor) -> None:
        """Let beta rise from the next step on if Ihat has risen. Where f is 0 the encoder hears nothing, and in a
        collapsed code f finds nothing: an annealing that did not wait could be over before the energy has begun."""
        independent = 0.0 if self.config.divergence == "kl" else -2 * math.log(2)
        average = AVERAGING * self._average_estimate + (1 - AVERAGING) * (bound.double() - independent)
        held = self.divergence.step < self._first_step
        self._average_estimate.copy_(torch.where(held, average, self._average_estimate))
        rises = held & (average > RISEN)
        self._first_step.copy_(torch.where(rises, self.divergence.step + 1, self._first_step))

    def optimise_energy(self, batch: Batch) -> Taken:
        """One step of the energy alone, at fresh samples of the posteriors."""
        with torch.no_grad():
            code = self.encode(batch)
        self.optimizers["energy"].zero_grad(set_to_none=True)
        bound = self.bound(code.hidden_BH, code.z_BD)
        (-bound).backward()  # type: ignore[no-untyped-call]
        norms = self.step_clipped({"energy": {"energy": list(self.energy.parameters())}})
        return Taken(Losses(-bound.detach(), -bound.detach()), norms)

    def groups(self) -> dict[str, dict[str, list[nn.Parameter]]]:
        """The main ones, and the energy's, clipped by itself."""
        energy = {"energy": {"energy": list(self.energy.parameters())}} if self.config.energy_trained else {}
        return super().groups() | energy

    def state(self) -> dict[str, Any]:
        """The averages of log Z and Ihat, exactly (hexadecimal), and when beta may rise."""
        return {
            "log_z": None if self.log_z is None else float(self.log_z).hex(),
            "average_estimate": self.average_estimate.hex(),
            "first_step": self.first_step,
            "warned": self._warned,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """See `state`."""
        device = self.network.device
        self.log_z = None if state["log_z"] is None else torch.tensor(float.fromhex(state["log_z"]), device=device)
        self._average_estimate.fill_(float.fromhex(state["average_estimate"]))
        self._first_step.fill_(state["first_step"])
        self._warned = state["warned"]


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.scale, None


def scaled_gradient(value: Tensor, scale: float) -> Tensor:
    """`value`, whose gradient is multiplied by `scale` on its way back."""
    scaled: Tensor = _ScaledGradient.apply(value, scale)  # type: ignore[no-untyped-call]
    return scaled


OBJECTIVE = VAEMINE
