"""VAE-BOW: KL annealing and a bag-of-words loss (Zhao et al. 2017, https://arxiv.org/abs/1703.10960).

Shapes: B sentences, T positions, V target classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textvae.corpus import Batch
from textvae.networks import Network
from textvae.objectives.base import Annealed, AnnealedConfig, Losses
from textvae.strict import Size, Weight
from textvae.vocabulary import EOS, FIRST_TARGET


class BagOfWordsVAE(Annealed):
    """Minimises reconstruction + beta KL + BOW: the code alone must predict the sentence's words, in no order."""

    class Config(AnnealedConfig):
        """The head: an MLP with one hidden layer, tanh."""

        bow_hidden: Size = 400
        bow_weight: Weight = 1.0

    config: Config

    def build(self) -> None:
        """The bag-of-words head, with PyTorch's initialisation; it is no part of the model or of its reported NLL."""
        self.heads["bow"] = bag_of_words_head(self.network, self.config.bow_hidden)

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + beta KL + BOW."""
        code = self.encode(batch)
        reconstruction = self.reconstruct(batch, code.z_BD)
        bow = bag_of_words_loss(self.heads["bow"](code.z_BD), batch)
        total = reconstruction + beta * code.kl + self.config.bow_weight * bow
        return Losses(total, reconstruction, code.kl, {"train_bow": bow})


def bag_of_words_head(network: Network, hidden: int) -> nn.Module:
    """z (B, D) -> logits (B, V)."""
    classes = network.vocabulary_size - FIRST_TARGET
    return nn.Sequential(nn.Linear(network.settings.latent, hidden), nn.Tanh(), nn.Linear(hidden, classes))


def bag_of_words_loss(logits_BV: Tensor, batch: Batch) -> Tensor:
    """-sum over a sentence's tokens (EOS is none) of log softmax(logits), the mean over sentences, in nats."""
    log_probs_BV = torch.log_softmax(logits_BV, dim=1)
    words_BT = batch.target_mask_BT & (batch.targets_BT != EOS)
    classes_BT = (batch.targets_BT - FIRST_TARGET).clamp_min(0)
    return -(log_probs_BV.gather(1, classes_BT) * words_BT).sum() / len(batch)


OBJECTIVE = BagOfWordsVAE
