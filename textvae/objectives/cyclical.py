"""CyclicalVAE: the KL weight is annealed again and again (Fu et al. 2019, https://arxiv.org/abs/1903.10145)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field
from torch import Tensor

from textvae.corpus import Batch
from textvae.errors import SettingsError
from textvae.objectives.base import Losses, Objective
from textvae.step_settings import TrainingSettings
from textvae.strict import Location, Times, dotted

STEPS_TRIED = (1, 2, 3, 5, 10, 30, 100, 1_000, 10_000, 1_000_000)
"""Steps of an epoch, which no setting tells: they depend on the corpus. The trainer looks at the real number."""


class CyclicalVAE(Objective):
    """Minimises reconstruction + beta(t) KL; in each cycle beta rises linearly from 0 to 1 and then stays there."""

    class Config(Objective.Config):
        """Cycles of equal length over the first `cyclical_epochs`, beta = 1 after them."""

        cycles: Times = 4
        cyclical_epochs: float = Field(default=40, gt=0, le=1e6)
        rising_share: float = Field(default=0.5, gt=0, le=1)

    config: Config

    @classmethod
    def check(cls, config: Any, training: TrainingSettings, key: Callable[[Location], str] = dotted) -> None:
        """Raise SettingsError also where no epoch ends at beta = 1, whatever the number of its steps."""
        super().check(config, training, key)
        for steps in STEPS_TRIED:
            ends = range(steps - 1, training.epochs * steps, steps)
            if any(weight(config, step, steps) == 1.0 for step in ends):
                return
        raise SettingsError(
            f"{key(('training', 'epochs'))} is {training.epochs}, and with {key(('objective', 'cyclical_epochs'))} "
            f"{config.cyclical_epochs:g}, cycles {config.cycles} and rising_share {config.rising_share:g} none of them "
            "ends at beta = 1, where weights can be selected: train longer, or give the cycles fewer epochs"
        )

    def kl_weight(self, step: int) -> float:
        """beta at a step: 0 where a cycle begins, 1 from its `rising_share` on."""
        return weight(self.config, step, self.steps_per_epoch)

    def settled(self, step: int) -> bool:
        """Whether the last step taken was at beta = 1: decay and stopping are for these phases only."""
        return self.kl_weight(max(step - 1, 0)) == 1.0

    def selectable(self, step: int) -> bool:
        """Best weights, too, come from the phases at beta = 1 only."""
        return self.settled(step)

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + beta(t) KL."""
        code = self.encode(batch)
        reconstruction = self.reconstruct(batch, code.z_BD)
        return Losses(reconstruction + beta * code.kl, reconstruction, code.kl)


def weight(config: CyclicalVAE.Config, step: int, steps_per_epoch: int) -> float:
    """beta at a step (0-based)."""
    steps = config.cyclical_epochs * steps_per_epoch
    if step >= steps:
        return 1.0
    within = (step * config.cycles / steps) % 1.0
    return min(1.0, within / config.rising_share)


OBJECTIVE = CyclicalVAE
