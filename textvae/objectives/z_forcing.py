"""Z-Forcing: the code must predict the states of an LSTM that reads backwards (Goyal et al. 2017, https://arxiv.org/abs/1711.05411).

Shapes: B sentences, T positions, D latent, H hidden.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from textvae.corpus import Batch
from textvae.decoders import LSTMDecoder
from textvae.objectives.base import Annealed, AnnealedConfig, Losses
from textvae.posteriors import Gaussian
from textvae.strict import Size, Weight

LARGEST_LOG_VAR = 8.0
"""The authors': a state that can be predicted exactly would have a density without end."""


class ZForcing(Annealed):
    """Minimises reconstruction + beta KL - w sum_t log p(b_t | h_t, z): b_t has read the sentence from its end to the
    word that the decoder's state h_t predicts.

    The b_t are those of a language model of the sentences backwards, which is trained beside the model and hears
    nothing of it.
    """

    class Config(AnnealedConfig):
        """The weight w, and the network that predicts: one hidden layer."""

        auxiliary_weight: Weight = 0.0005
        auxiliary_hidden: Size = 512

    config: Config

    def build(self) -> None:
        """The backward language model, without dropout, and the auxiliary network, with PyTorch's initialisation."""
        settings = self.network.settings
        self.backward = LSTMDecoder(self.network.vocabulary_size, settings.model_copy(update={"dropout": 0.0}), 0)
        self.auxiliary = nn.Sequential(
            nn.Linear(settings.hidden + settings.latent, self.config.auxiliary_hidden),
            nn.LeakyReLU(1 / 3),
            nn.Linear(self.config.auxiliary_hidden, 2 * settings.hidden),
        )
        self.heads["backward"], self.heads["auxiliary"] = self.backward, self.auxiliary

    def head_parameters(self) -> Iterable[nn.Parameter]:
        """The auxiliary network's; the backward language model has an optimiser of its own."""
        return self.auxiliary.parameters()

    def make_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """The main one, and the backward language model's, like it."""
        backward = self.optimizer_of(self.training.optimizer, self.backward.parameters(), self.learning_rate)
        return super().make_optimizers() | {"backward": backward}

    def groups(self) -> dict[str, dict[str, list[nn.Parameter]]]:
        """The main ones, and the backward language model, clipped by itself: its gradient slows nobody else."""
        return super().groups() | {"backward": {"backward": list(self.backward.parameters())}}

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + beta KL + w auxiliary + the backward language model's own loss.

        The auxiliary loss trains its network, the encoder through z, and the decoder through z and h_t: not the b_t.
        """
        code = self.encode(batch)
        decoder = self.network.decoder
        states_BTH = decoder.states(batch.inputs_BT, code.z_BD)
        reconstruction = decoder.losses_of(states_BTH, batch)[0] / len(batch)
        backward_BTH, backward = self.read_backwards(batch)
        auxiliary = self.auxiliary_loss(states_BTH, code.z_BD, backward_BTH.detach(), batch.target_mask_BT)
        total = reconstruction + beta * code.kl + self.config.auxiliary_weight * auxiliary + backward
        extra = {"train_auxiliary": auxiliary, "train_backward": backward}
        return Losses(total, reconstruction, code.kl, extra)

    def read_backwards(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(b_BTH, loss): the state that has read EOS' side of the sentence down to each target, and the mean of
        -log p(sentence backwards). For EOS itself nothing has been read; on padding it says nothing."""
        backwards = reversed_words(batch)
        states_BTH = self.backward.states(backwards.inputs_BT, None)
        loss = self.backward.losses_of(states_BTH, backwards)[0] / len(batch)
        positions_T = torch.arange(states_BTH.shape[1], device=states_BTH.device)
        read_BT = (batch.lengths_B[:, None] - 2 - positions_T).clamp_min(0)  # words from the target to the last one
        return states_BTH.gather(1, read_BT[..., None].expand(states_BTH.shape)), loss

    def auxiliary_loss(self, states_BTH: Tensor, z_BD: Tensor, backward_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """-sum over the targets of log p(b_t | h_t, z), a diagonal Gaussian; the mean over sentences, in nats."""
        z_BTD = z_BD[:, None].expand(-1, states_BTH.shape[1], -1)
        mean_BTH, log_var_BTH = self.auxiliary(torch.cat([states_BTH, z_BTD], dim=-1)).chunk(2, dim=-1)
        log_var_BTH = log_var_BTH.clamp(-LARGEST_LOG_VAR, LARGEST_LOG_VAR)
        nats_BT = -Gaussian(torch.tanh(mean_BTH), log_var_BTH).log_prob(backward_BTH)
        total: Tensor = (nats_BT * mask_BT).sum()
        return total / len(mask_BT)


def reversed_words(batch: Batch) -> Batch:
    """BOS w_T .. w_1 EOS PAD for each BOS w_1 .. w_T EOS PAD."""
    positions_T = torch.arange(batch.tokens_BT.shape[1], device=batch.tokens_BT.device)
    last_B1 = batch.lengths_B[:, None] - 1
    is_word_BT = (positions_T > 0) & (positions_T < last_B1)
    from_BT = torch.where(is_word_BT, last_B1 - positions_T, positions_T)
    return replace(batch, tokens_BT=batch.tokens_BT.gather(1, from_BT))


OBJECTIVE = ZForcing
