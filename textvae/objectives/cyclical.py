"""CyclicalVAE: the KL weight is annealed again and again (Fu et al. 2019, https://arxiv.org/abs/1903.10145)."""

from __future__ import annotations

from pydantic import Field, PositiveInt

from textvae.corpus import Batch
from textvae.objectives.base import Losses, Objective


class CyclicalVAE(Objective):
    """Minimises reconstruction + beta(t) KL; in each cycle beta rises linearly from 0 to 1 and then stays there."""

    class Config(Objective.Config):
        """Cycles of equal length over the first `cyclical_epochs`, beta = 1 after them."""

        cycles: PositiveInt = 4
        cyclical_epochs: float = Field(default=40, gt=0)
        rising_share: float = Field(default=0.5, gt=0, le=1)

    config: Config

    def kl_weight(self, step: int) -> float:
        """beta at a step: 0 where a cycle begins, 1 from its `rising_share` on."""
        steps = self.config.cyclical_epochs * self.steps_per_epoch
        if step >= steps:
            return 1.0
        within = (step * self.config.cycles / steps) % 1.0
        return min(1.0, within / self.config.rising_share)

    def settled(self, step: int) -> bool:
        """Whether the last step taken was at beta = 1: decay and stopping are for these phases only."""
        return self.kl_weight(max(step - 1, 0)) == 1.0

    def selectable(self, step: int) -> bool:
        """Best weights, too, come from the phases at beta = 1 only."""
        return self.settled(step)

    def loss(self, batch: Batch, step: int) -> Losses:
        """reconstruction + beta(t) KL."""
        code = self.encode(batch)
        reconstruction = self.reconstruct(batch, code.z_BD)
        return Losses(reconstruction + self.kl_weight(step) * code.kl, reconstruction, code.kl)


OBJECTIVE = CyclicalVAE
