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
from textvae.objectives.base import Annealed, AnnealedConfig, Code, Losses, optimizer_of
from textvae.strict import Rate, Size, Steps, Times, Weight

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
        self.first_step = self.config.hold_steps
        self.average_estimate = 0.0
        self._warned = False

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """None: the energy has an optimiser of its own."""
        return ()

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The main one, and the energy's, which keeps its learning rate and its moments through decays."""
        optimizers = super().make_optimizers()
        previous = getattr(self, "optimizers", {}).get("energy")
        optimizers["energy"] = previous or optimizer_of(
            self.config.energy_optimizer, self.energy.parameters(), self.config.energy_learning_rate
        )
        return optimizers

    def loss(self, batch: Batch, step: int) -> Losses:
        """reconstruction + beta KL - alpha Ihat."""
        return self.loss_of(self.encode(batch), batch, step)

    def loss_of(self, code: Code, batch: Batch, step: int) -> Losses:
        """The loss of a batch's code. The gradients: theta sees the reconstruction; phi everything, through z, z' and
        the shared hidden state; psi only -Ihat, unscaled. A batch of one has no Ihat."""
        reconstruction = self.reconstruct(batch, code.z_BD)
        total = reconstruction + self.kl_weight(step) * code.kl
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
            order_M = mi.derangement(len(z_MD), torch.default_generator).to(z_MD.device)
            f_joint_M, marginal_scores = self.energy.pairs(hidden_MH, z_MD), self.energy.pairs(hidden_MH, z_MD[order_M])
        else:
            marginal_scores = self.energy.all_pairs(hidden_MH, z_MD)
            f_joint_M = marginal_scores.diagonal()
        self.watch(f_joint_M, marginal_scores)
        if self.config.divergence == "jsd":
            f_marginal = mi.marginal_scores(marginal_scores, self.config.marginal)
            return mi.jensen_shannon_bound(f_joint_M, f_marginal)
        log_z = mi.log_partition(marginal_scores, self.config.marginal)
        before = torch.zeros_like(log_z) if self.log_z is None else self.log_z
        self.log_z = mi.update_log_z(self.log_z, log_z, self.config.xi_decay)
        log_xi = mi.log_xi(before if self.config.stale_xi else self.log_z, self.config.xi)
        return mi.tangent_bound(f_joint_M, log_z, log_xi)

    def watch(self, f_joint_M: Tensor, marginal_scores: Tensor) -> None:
        """Note the largest |f| for the error of a diverging run; warn once when f drifts."""
        scores = torch.cat([f_joint_M.detach(), marginal_scores.detach().flatten()]).abs()
        finite = scores[torch.isfinite(scores)]
        if len(finite):  # NaN is no JSON, and says nothing: the batch before then does
            self.largest_energy = float(finite.max())
        mean = float(f_joint_M.detach().mean())
        if not self._warned and not math.isnan(mean) and abs(mean) > ENERGY_MEAN_LIMIT:
            self._warned = True
            log.warning("the energy drifts: its mean is %.1f (outside [-50, 50]); a run like this often diverges", mean)

    def update(self, batch: Batch, step: int) -> Losses:
        """The energy's extra steps, then one step of everything."""
        if self.config.energy_trained and len(batch) > 1:
            for _ in range(self.config.energy_steps - 1):
                self.update_energy(batch)
        losses = super().update(batch, step)
        if step < self.first_step and self.bound_name in losses.extra:
            self.listen(float(losses.extra[self.bound_name].detach()), step)
        return losses

    def listen(self, bound: float, step: int) -> None:
        """Let beta rise from the next step on if Ihat has risen. Where f is 0 the encoder hears nothing, and in a
        collapsed code f finds nothing: an annealing that did not wait could be over before the energy has begun."""
        independent = 0.0 if self.config.divergence == "kl" else -2 * math.log(2)
        self.average_estimate = AVERAGING * self.average_estimate + (1 - AVERAGING) * (bound - independent)
        if self.average_estimate > RISEN:
            self.first_step = step + 1

    def update_energy(self, batch: Batch) -> None:
        """One step of the energy alone, at fresh samples of the posteriors."""
        with torch.no_grad():
            code = self.encode(batch)
        self.optimizers["energy"].zero_grad(set_to_none=True)
        (-self.bound(code.hidden_BH, code.z_BD)).backward()  # type: ignore[no-untyped-call]
        self.step_clipped("energy", {"energy": list(self.energy.parameters())})

    def apply_gradients(self) -> None:
        """The main step, then the energy's with its own clip."""
        super().apply_gradients()
        if self.config.energy_trained and any(p.grad is not None for p in self.energy.parameters()):
            self.step_clipped("energy", {"energy": list(self.energy.parameters())})

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
        self.average_estimate = float.fromhex(state["average_estimate"])
        self.first_step = state["first_step"]
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
