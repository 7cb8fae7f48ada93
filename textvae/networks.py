"""The encoder, and what it and a decoder make (section 5.2 of the paper; what it leaves open follows He et al. 2019).

Shapes, kept in every name: B sentences, T positions, H hidden, D latent.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textvae.config import ModelSettings
from textvae.corpus import Batch
from textvae.decoders import DECODERS
from textvae.posteriors import Gaussian, Posterior, VonMisesFisher
from textvae.vocabulary import PAD

Kind = Literal["lstm_lm", "vae"]
INITIAL_RANGE, INITIAL_EMBEDDING_RANGE = 0.01, 0.1


class GaussianHead(nn.Module):
    """What the encoder's two heads become: mu and log sigma^2 themselves, or such that the KL has a floor.

    `means_deviation` g (Zhu et al. 2020): mu is normalised over the batch, times g, plus a shift that is learned; in
    evaluation over the running statistics. Over a training batch the mean of the KL is at least D g^2 / 2.
    `committed_rate` r (Razavi et al. 2019): sigma^2 is at most s, with D (s - 1 - log s) / 2 = r, the KL of mu = 0.
    """

    family = Gaussian

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.deviation = settings.means_deviation
        if self.deviation:
            # No epsilon to speak of: early means hardly differ, and one of 1e-5 would leave them so.
            self.normalised = nn.BatchNorm1d(settings.latent, eps=1e-12, affine=False)
            self.shift_D = nn.Parameter(torch.zeros(settings.latent))
        self.most_log_var = least_committed(settings.committed_rate / settings.latent)

    @staticmethod
    def width(latent: int) -> int:
        """Numbers that the encoder gives for a sentence."""
        return 2 * latent

    def forward(self, heads_BW: Tensor) -> Gaussian:
        """The posteriors of a batch."""
        mu_BD, log_var_BD = heads_BW.chunk(2, dim=-1)
        if self.deviation:
            norm = self.normalised
            of_batch = self.training and len(mu_BD) > 1  # one sentence has no deviation: it takes the running one
            mu_BD = F.batch_norm(mu_BD, norm.running_mean, norm.running_var, training=of_batch, eps=norm.eps)
            mu_BD = self.deviation * mu_BD + self.shift_D
        if self.most_log_var < 0:
            log_var_BD = self.most_log_var - F.softplus(log_var_BD)
        return Gaussian(mu_BD, log_var_BD)


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


class VonMisesFisherHead(nn.Module):
    """vMF(direction, kappa) of the encoder's one head, whose length says nothing (Xu & Durrett 2018)."""

    family = VonMisesFisher

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.kappa = settings.kappa

    @staticmethod
    def width(latent: int) -> int:
        """Numbers that the encoder gives for a sentence."""
        return latent

    def forward(self, heads_BW: Tensor) -> VonMisesFisher:
        """The posteriors of a batch."""
        return VonMisesFisher(F.normalize(heads_BW, dim=-1), self.kappa)


HEADS: dict[str, type[GaussianHead] | type[VonMisesFisherHead]] = {"gaussian": GaussianHead, "vmf": VonMisesFisherHead}
"""By `posterior` of a model's settings."""


class Encoder(nn.Module):
    """q(z|x): an LSTM over BOS w_1 .. w_T EOS, one linear layer for all heads."""

    def __init__(self, vocabulary_size: int, settings: ModelSettings) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, settings.embedding, padding_idx=PAD)
        self.lstm = nn.LSTM(settings.embedding, settings.hidden, batch_first=True)
        head = HEADS[settings.posterior]
        self.heads = nn.Linear(settings.hidden, head.width(settings.latent), bias=False)
        self.posterior: GaussianHead | VonMisesFisherHead = head(settings)

    def forward(self, batch: Batch) -> tuple[Posterior, Tensor]:
        """(posteriors, hidden_BH); hidden is the LSTM's state at EOS, never at padding."""
        states_BTH, _ = self.lstm(self.embedding(batch.tokens_BT))
        last_B1H = (batch.lengths_B - 1)[:, None, None].expand(-1, 1, states_BTH.shape[2])
        hidden_BH = states_BTH.gather(1, last_B1H)[:, 0]
        return self.posterior(self.heads(hidden_BH)), hidden_BH


class Network(nn.Module):
    """A decoder, and for a VAE an encoder beside it."""

    def __init__(self, kind: Kind, vocabulary_size: int, settings: ModelSettings) -> None:
        super().__init__()
        self.kind, self.vocabulary_size, self.settings = kind, vocabulary_size, settings
        self.encoder = Encoder(vocabulary_size, settings) if kind == "vae" else None
        self.decoder = DECODERS[settings.decoder](vocabulary_size, settings, self.latent)
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

    @property
    def family(self) -> type[Posterior]:
        """What kind of posterior and prior a VAE has."""
        assert self.encoder is not None, "LSTM-LM has no posterior"
        return self.encoder.posterior.family

    def encode(self, batch: Batch) -> tuple[Posterior, Tensor]:
        """(q(z|x), the encoder's hidden_BH) of a batch's sentences: the one place where posteriors come from."""
        assert self.encoder is not None, "LSTM-LM has no posterior"
        posterior, hidden_BH = self.encoder(batch)
        return posterior, hidden_BH

    def no_posteriors(self) -> Posterior:
        """Of no sentence (0, D), float64."""
        assert self.encoder is not None, "LSTM-LM has no posterior"
        heads = self.encoder.heads
        nobody: Posterior = self.encoder.posterior(heads.weight.new_zeros(0, heads.out_features))
        return nobody.double()
