"""Pretraining: an autoencoder first, then a new decoder and the KL (Li et al. 2019, https://arxiv.org/abs/1909.00868)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from textvae.corpus import Batch
from textvae.errors import SettingsError
from textvae.networks import Network
from textvae.objectives.base import Losses, Objective
from textvae.objectives.free_bits import thresholded_kl
from textvae.step_settings import TrainingSettings
from textvae.strict import Epochs, Location, Weight, dotted


class PretrainedVAE(Objective):
    """Minimises reconstruction + beta sum_d max(threshold, mean_B KL_d), beta 0 for the first epochs: an autoencoder.

    Then the decoder begins anew, as it was initialised, and beta rises to 1.
    """

    class Config(Objective.Config):
        """`pretraining_epochs: 0` and `threshold: 0` leave the annealed VAE."""

        pretraining_epochs: int = Field(default=5, ge=0, le=1_000_000)
        annealing_epochs: Epochs = 10
        """For beta from 0 to 1, after the pretraining."""
        threshold: Weight = 0.1
        """Nats per dimension that cost nothing (free bits)."""

    config: Config
    gaussian_only = True

    @classmethod
    def check(cls, config: Any, training: TrainingSettings, key: Callable[[Location], str] = dotted) -> None:
        """Raise SettingsError also where no epoch is left after the pretraining."""
        super().check(config, training, key)
        if config.pretraining_epochs >= training.epochs:
            raise SettingsError(
                f"{key(('objective', 'pretraining_epochs'))} is {config.pretraining_epochs} of "
                f"{key(('training', 'epochs'))} {training.epochs}: none is left for the VAE; pretrain for fewer"
            )

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + beta times the KL above the threshold; the KL that is shown is the whole one."""
        code = self.encode(batch)
        reconstruction = self.reconstruct(batch, code.z_BD)
        kept = thresholded_kl(code.posterior, self.config.threshold)
        return Losses(reconstruction + beta * kept, reconstruction, code.kl)

    def _steps(self, epochs: float) -> float:
        return epochs * self.steps_per_epoch

    def kl_weight(self, step: int) -> float:
        """beta at a step: 0 in the pretraining, then linearly to 1."""
        done = step - self._steps(self.config.pretraining_epochs)
        steps = self._steps(self.config.annealing_epochs)
        return 0.0 if done < 0 else 1.0 if done >= steps else done / steps

    def settled(self, step: int) -> bool:
        """Whether beta has reached 1."""
        return step >= self._steps(self.config.pretraining_epochs + self.config.annealing_epochs)

    def selectable(self, step: int) -> bool:
        """The autoencoder is none of the weights to choose from."""
        return step > self._steps(self.config.pretraining_epochs)

    def after_epoch(self, columns: dict[str, float]) -> None:
        """With the pretraining's last epoch the decoder, and with it every optimiser, begins anew."""
        if columns["epoch"] == self.config.pretraining_epochs:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.noise.choices.initial_seed())  # the last step's: another one than the first's
                fresh = Network(self.kind, self.network.vocabulary_size, self.network.settings).decoder
            self.network.decoder.load_state_dict(fresh.state_dict())
            self.optimizers = self.make_optimizers()


OBJECTIVE = PretrainedVAE
