"""VAE-MINE with VAE-BOW's head: the estimate asks for information, the head for information about the words.

No paper's: a system of this project's own (docs/systems.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor, nn

from textvae.corpus import Batch
from textvae.objectives.base import Losses
from textvae.objectives.vae_bow import bag_of_words_head, bag_of_words_loss
from textvae.objectives.vae_mine import VAEMINE
from textvae.strict import Size, Weight


class MineBow(VAEMINE):
    """Minimises reconstruction + beta KL - alpha Ihat + BOW; the energy maximises Ihat."""

    class Config(VAEMINE.Config):
        """The head's, beside the estimate's."""

        bow_hidden: Size = 400
        bow_weight: Weight = 1.0

    config: Config

    def build(self) -> None:
        """The energy and the bag-of-words head, with PyTorch's initialisation."""
        super().build()
        self.heads["bow"] = bag_of_words_head(self.network, self.config.bow_hidden)

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The bag-of-words head's; the energy has an optimiser of its own."""
        return self.heads["bow"].parameters()

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """VAE-MINE's loss and BOW of the same code: phi and the head see BOW, the energy and the decoder do not."""
        code = self.encode(batch)
        losses = self.loss_of(code, batch, beta)
        bow = bag_of_words_loss(self.heads["bow"](code.z_BD), batch)
        total = losses.total + self.config.bow_weight * bow
        return replace(losses, total=total, extra={**losses.extra, "train_bow": bow})


OBJECTIVE = MineBow
