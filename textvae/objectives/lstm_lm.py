"""LSTM-LM: an LSTM language model, no latent code."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from textvae.corpus import Batch
from textvae.networks import Kind
from textvae.objectives.base import Losses, Objective


class LSTMLanguageModel(Objective):
    """Minimises -log p(x)."""

    kind: ClassVar[Kind] = "lstm_lm"

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """The exact negative log-likelihood."""
        reconstruction = self.reconstruct(batch, None)
        return Losses(reconstruction, reconstruction)


OBJECTIVE = LSTMLanguageModel
