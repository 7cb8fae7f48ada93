"""Encoder and decoder (section 5.2 of the paper; what it leaves open follows He et al. 2019).

Shapes, kept in every name: B sentences, T positions, E embedding, H hidden, D latent, V target classes, R rows
(positions that are not padding).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textvae.config import ModelSettings
from textvae.corpus import Batch
from textvae.noise import dropout
from textvae.softmax import linear_cross_entropy
from textvae.vocabulary import FIRST_TARGET, PAD

Kind = Literal["lstm_lm", "vae"]
INITIAL_RANGE, INITIAL_EMBEDDING_RANGE = 0.01, 0.1


class Posterior(nn.Module):
    """What the encoder's two heads become: mu and log sigma^2 themselves, or such that the KL has a floor.

    `means_deviation` g (Zhu et al. 2020): mu is normalised over the batch, times g, plus a shift that is learned; in
    evaluation over the running statistics. Over a training batch the mean of the KL is at least D g^2 / 2.
    `committed_rate` r (Razavi et al. 2019): sigma^2 is at most s, with D (s - 1 - log s) / 2 = r, the KL of mu = 0.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.deviation = settings.means_deviation
        if self.deviation:
            # No epsilon to speak of: early means hardly differ, and one of 1e-5 would leave them so.
            self.normalised = nn.BatchNorm1d(settings.latent, eps=1e-12, affine=False)
            self.shift_D = nn.Parameter(torch.zeros(settings.latent))
        self.most_log_var = least_committed(settings.committed_rate / settings.latent)

    def forward(self, mu_BD: Tensor, log_var_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(mu_BD, log_var_BD) from the heads."""
        if self.deviation:
            norm = self.normalised
            of_batch = self.training and len(mu_BD) > 1  # one sentence has no deviation: it takes the running one
            mu_BD = F.batch_norm(mu_BD, norm.running_mean, norm.running_var, training=of_batch, eps=norm.eps)
            mu_BD = self.deviation * mu_BD + self.shift_D
        if self.most_log_var < 0:
            log_var_BD = self.most_log_var - F.softplus(log_var_BD)
        return mu_BD, log_var_BD


def least_committed(rate: float) -> float:
    """The largest log sigma^2 <= 0 at which KL(N(0, sigma^2) || N(0, 1)) is at least `rate` nats: by bisection."""
    low, high = -(2 * rate + 1.0), 0.0  # exp(y) - 1 - y = 2 rate lies between
    for _ in range(100):
        middle = (low + high) / 2
        if math.expm1(middle) - middle < 2 * rate:
            high = middle
        else:
            low = middle
    return low if rate else 0.0


class Encoder(nn.Module):
    """q(z|x) = N(mu(x), diag sigma^2(x)): an LSTM over BOS w_1 .. w_T EOS, one linear layer for both heads."""

    def __init__(self, vocabulary_size: int, settings: ModelSettings) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, settings.embedding, padding_idx=PAD)
        self.lstm = nn.LSTM(settings.embedding, settings.hidden, batch_first=True)
        self.heads = nn.Linear(settings.hidden, 2 * settings.latent, bias=False)
        self.posterior = Posterior(settings)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(mu_BD, log_var_BD, hidden_BH); hidden is the LSTM's state at EOS, never at padding."""
        states_BTH, _ = self.lstm(self.embedding(batch.tokens_BT))
        last_B1H = (batch.lengths_B - 1)[:, None, None].expand(-1, 1, states_BTH.shape[2])
        hidden_BH = states_BTH.gather(1, last_B1H)[:, 0]
        mu_BD, log_var_BD = self.posterior(*self.heads(hidden_BH).chunk(2, dim=-1))
        return mu_BD, log_var_BD, hidden_BH


class Decoder(nn.Module):
    """p(x|z): an LSTM that reads z beside each word; c0 = W z, h0 = tanh(c0). Without a latent it is LSTM-LM."""

    def __init__(self, vocabulary_size: int, settings: ModelSettings, latent: int) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.generator: torch.Generator | None = None
        """Of the dropout's noise; None: torch's global one."""
        self.embedding = nn.Embedding(vocabulary_size, settings.embedding, padding_idx=PAD)
        self.lstm = nn.LSTM(settings.embedding + latent, settings.hidden, batch_first=True)
        self.initial = nn.Linear(latent, settings.hidden, bias=False) if latent else None
        self.output = nn.Linear(settings.hidden, vocabulary_size - FIRST_TARGET, bias=False)
        self.skip = nn.Linear(latent, settings.hidden, bias=False) if latent and settings.skip_connections else None
        """From the code to what the output layer reads, past the LSTM."""

    def initial_state(self, z_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(h0_BH, c0_BH) from a code."""
        assert self.initial is not None
        c0_BH = self.initial(z_BD)
        return torch.tanh(c0_BH), c0_BH

    def states(self, inputs_BT: Tensor, z_BD: Tensor | None) -> Tensor:
        """The LSTM's states (B, T, H), one per input; dropout (training only) on the embedding and on the states."""
        embedded_BTE = self.dropped(self.embedding(inputs_BT))
        if z_BD is None:
            states_BTH, _ = self.lstm(embedded_BTE)
        else:
            z_BTD = z_BD[:, None].expand(-1, inputs_BT.shape[1], -1)
            h0_BH, c0_BH = self.initial_state(z_BD)
            states_BTH, _ = self.lstm(torch.cat([embedded_BTE, z_BTD], dim=-1), (h0_BH[None], c0_BH[None]))
            if self.skip is not None:
                states_BTH = states_BTH + self.skip(z_BD)[:, None]
        return self.dropped(states_BTH)

    def dropped(self, value: Tensor) -> Tensor:
        """Dropout, in training."""
        return dropout(value, self.dropout, self.generator) if self.training else value

    def forward(self, batch: Batch, z_BD: Tensor | None, inputs_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Reconstruction: -log p(x|z) in nats, EOS counted, BOS not.

        Args: z_BD, None for LSTM-LM; inputs_BT in place of the batch's own (word dropout).
        Returns: its sum over the batch (differentiable) and per sentence (B), detached.
        """
        total, losses_BT = self.word_losses(batch, z_BD, inputs_BT)
        return total, losses_BT.sum(dim=1)

    def word_losses(self, batch: Batch, z_BD: Tensor | None, inputs_BT: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `forward`, the second one per target (B, T - 1), 0 on padding."""
        return self.losses_of(self.states(batch.inputs_BT if inputs_BT is None else inputs_BT, z_BD), batch)

    def losses_of(self, states_BTH: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """`word_losses` of what `states` has returned."""
        mask_BT = batch.target_mask_BT
        if states_BTH.is_cuda:  # how many rows are no padding is not known there: all are computed
            rows_RH, targets_R = states_BTH.flatten(0, 1), (batch.targets_BT - FIRST_TARGET).clamp_min(0).flatten()
            total, losses_R = linear_cross_entropy(rows_RH, self.output.weight, targets_R, mask_BT.flatten())
            return total, losses_R.view(mask_BT.shape)
        targets_R = batch.targets_BT[mask_BT] - FIRST_TARGET
        total, losses_R = linear_cross_entropy(states_BTH[mask_BT], self.output.weight, targets_R)
        losses_BT = torch.zeros(mask_BT.shape, dtype=losses_R.dtype, device=losses_R.device)
        losses_BT[mask_BT] = losses_R
        return total, losses_BT


class Network(nn.Module):
    """A decoder, and for a VAE an encoder beside it."""

    def __init__(self, kind: Kind, vocabulary_size: int, settings: ModelSettings) -> None:
        super().__init__()
        self.kind, self.vocabulary_size, self.settings = kind, vocabulary_size, settings
        self.encoder = Encoder(vocabulary_size, settings) if kind == "vae" else None
        self.decoder = Decoder(vocabulary_size, settings, settings.latent if kind == "vae" else 0)
        if settings.initialisation == "uniform":
            self.initialise_uniformly()

    @torch.no_grad()
    def initialise_uniformly(self) -> None:
        """Uniform(-0.01, 0.01), embeddings uniform(-0.1, 0.1) (He et al. 2019), from torch's global generator."""
        for module in self.modules():
            bound = INITIAL_EMBEDDING_RANGE if isinstance(module, nn.Embedding) else INITIAL_RANGE
            for parameter in module.parameters(recurse=False):
                parameter.uniform_(-bound, bound)
            if isinstance(module, nn.Embedding):
                module.weight[PAD] = 0

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.decoder.output.weight.device

    @property
    def latent(self) -> int:
        """Dimensions of z, 0 for LSTM-LM."""
        return self.settings.latent if self.kind == "vae" else 0


def reparameterised(mu_BD: Tensor, log_var_BD: Tensor, noise_BD: Tensor) -> Tensor:
    """z = mu + sigma * noise (Kingma & Welling 2014)."""
    return mu_BD + torch.exp(0.5 * log_var_BD) * noise_BD
