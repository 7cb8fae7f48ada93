"""MDR-VAE: a minimum desired rate, kept by a Lagrange multiplier (Pelsmaeker & Aziz 2020, https://arxiv.org/abs/1904.08194)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from textvae.corpus import Batch
from textvae.objectives.base import Losses, Objective, Taken
from textvae.strict import Rate, Weight


class MinimumRateVAE(Objective):
    """Minimises reconstruction + KL + u (rate - KL), while u >= 0 climbs the same expression: the KL's weight is 1 - u.

    Where the KL is below the rate u grows until coding pays; above it u falls back to 0, the ELBO's.
    """

    class Config(Objective.Config):
        """The rate, and the multiplier's own learning rate."""

        rate: Weight = 5.0
        """The least KL wanted, in nats per sentence; 0 is the plain VAE without annealing."""
        multiplier_learning_rate: Rate = 0.0003

    config: Config
    gaussian_only = True

    def build(self) -> None:
        """No heads; the multiplier, where the losses are."""
        self.multiplier = torch.zeros((), dtype=torch.float64, device=self.network.device)

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + KL + u (rate - KL), u a constant for the gradient."""
        code = self.encode(batch)
        reconstruction = self.reconstruct(batch, code.z_BD)
        multiplier = self.multiplier.to(code.kl.dtype, copy=True)
        total = reconstruction + beta * code.kl + multiplier * (self.config.rate - code.kl)
        return Losses(total, reconstruction, code.kl, {"train_multiplier": multiplier})

    def optimise(self, batch: Batch) -> Taken:
        """A step down for the network, then one up for u, by its gradient rate - KL, not below 0."""
        taken = super().optimise(batch)
        assert taken.losses.kl is not None
        missing = self.config.rate - taken.losses.kl.double()
        self.multiplier.add_(self.config.multiplier_learning_rate * missing).clamp_min_(0)
        return taken

    def state(self) -> dict[str, Any]:
        """The multiplier, exactly (hexadecimal)."""
        return {"multiplier": float(self.multiplier).hex()}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `state`."""
        self.multiplier.fill_(float.fromhex(state["multiplier"]))


OBJECTIVE = MinimumRateVAE
