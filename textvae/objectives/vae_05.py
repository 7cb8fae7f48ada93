"""VAE-0.5: KL annealing and word dropout (Bowman et al. 2016, https://arxiv.org/abs/1511.06349).

With `word_dropout: 0` it is the plain annealed VAE, and with a `beta_end` other than 1 too a beta-VAE.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from textvae.corpus import Batch
from textvae.noise import Noise
from textvae.objectives.base import Annealed, AnnealedConfig, Losses
from textvae.vocabulary import BOS, UNK


class WordDropoutVAE(Annealed):
    """Minimises reconstruction + beta KL; in training the decoder reads UNK in place of some words."""

    class Config(AnnealedConfig):
        """The share of the decoder's inputs, BOS apart, that become UNK."""

        word_dropout: float = Field(default=0.5, ge=0, le=1)

    config: Config

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction (with word dropout) + beta KL."""
        code = self.encode(batch)
        inputs_BT = with_dropped_words(batch.inputs_BT, self.config.word_dropout, self.noise)
        reconstruction = self.reconstruct(batch, code.z_BD, inputs_BT)
        return Losses(reconstruction + beta * code.kl, reconstruction, code.kl)


def with_dropped_words(inputs_BT: Tensor, rate: float, noise: Noise) -> Tensor:
    """Each input other than BOS becomes UNK with probability `rate`, independently."""
    if rate == 0:
        return inputs_BT
    dropped_BT = (noise.uniform(inputs_BT.shape, inputs_BT.device) < rate) & (inputs_BT != BOS)
    return inputs_BT.masked_fill(dropped_BT, UNK)


OBJECTIVE = WordDropoutVAE
