"""A plain sentence VAE after the public design of He et al. (2019), written to be read: what we are timed beside.

Training: batches of sentences of one length, so nothing is padded; nn.LSTM; one Linear layer and F.cross_entropy on all
logits; SGD, the gradients clipped to a norm of 5, one sample of each posterior. NLL-IW: one sentence at a time,
AT_ONCE of its codes as a batch. Sampling: DRAWN sentences together, a word at a time, until the last one has ended.
The weights have the names of textvae/networks.py, so that both can be given the same. Shapes as there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from textvae.config import ModelSettings
from textvae.corpus import IntArray, Sentences
from textvae.vocabulary import BOS, EOS, FIRST_TARGET, PAD

AT_ONCE = 100
DRAWN = 100
LEARNING_RATE, CLIP_NORM = 1.0, 5.0


class PlainEncoder(nn.Module):
    """q(z|x)."""

    def __init__(self, vocabulary_size: int, sizes: ModelSettings) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, sizes.embedding, padding_idx=PAD)
        self.lstm = nn.LSTM(sizes.embedding, sizes.hidden, batch_first=True)
        self.heads = nn.Linear(sizes.hidden, 2 * sizes.latent, bias=False)

    def forward(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(mu_BD, log_var_BD) of BOS w_1 .. EOS."""
        _, (last_1BH, _) = self.lstm(self.embedding(tokens_BT))
        mu_BD, log_var_BD = self.heads(last_1BH[0]).chunk(2, dim=-1)
        return mu_BD, log_var_BD


class PlainDecoder(nn.Module):
    """p(x|z)."""

    def __init__(self, vocabulary_size: int, sizes: ModelSettings) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, sizes.embedding, padding_idx=PAD)
        self.dropout = nn.Dropout(sizes.dropout)
        self.lstm = nn.LSTM(sizes.embedding + sizes.latent, sizes.hidden, batch_first=True)
        self.initial = nn.Linear(sizes.latent, sizes.hidden, bias=False)
        self.output = nn.Linear(sizes.hidden, vocabulary_size - FIRST_TARGET, bias=False)

    def initial_state(self, z_BD: Tensor) -> tuple[Tensor, Tensor]:
        """nn.LSTM's (h0, c0)."""
        c0_1BH = self.initial(z_BD)[None]
        return torch.tanh(c0_1BH), c0_1BH

    def forward(self, tokens_BT: Tensor, z_BD: Tensor) -> Tensor:
        """-log p(x|z) (B) in nats."""
        inputs_BT, targets_BT = tokens_BT[:, :-1], tokens_BT[:, 1:] - FIRST_TARGET
        z_BTD = z_BD[:, None].expand(-1, inputs_BT.shape[1], -1)
        embedded_BTE = self.dropout(self.embedding(inputs_BT))
        states_BTH, _ = self.lstm(torch.cat([embedded_BTE, z_BTD], dim=-1), self.initial_state(z_BD))
        logits_BTV = self.output(self.dropout(states_BTH))
        losses = F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), reduction="none")
        return losses.view(targets_BT.shape).sum(dim=1)


class PlainVAE(nn.Module):
    """Both."""

    def __init__(self, vocabulary_size: int, sizes: ModelSettings) -> None:
        super().__init__()
        self.encoder = PlainEncoder(vocabulary_size, sizes)
        self.decoder = PlainDecoder(vocabulary_size, sizes)
        self.optimizer = torch.optim.SGD(self.parameters(), lr=LEARNING_RATE)

    def loss(self, tokens_BT: Tensor, beta: float) -> Tensor:
        """The mean over the batch of reconstruction + beta KL."""
        mu_BD, log_var_BD = self.encoder(tokens_BT)
        z_BD = mu_BD + torch.exp(0.5 * log_var_BD) * torch.randn_like(mu_BD)
        kl_B = 0.5 * (mu_BD.square() + log_var_BD.exp() - log_var_BD - 1).sum(dim=1)
        loss: Tensor = (self.decoder(tokens_BT, z_BD) + beta * kl_B).mean()
        return loss

    def step(self, tokens_BT: Tensor, beta: float) -> float:
        """Train on a batch."""
        self.train()
        loss = self.loss(tokens_BT, beta)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.parameters(), CLIP_NORM)
        self.optimizer.step()
        return loss.item()

    @torch.no_grad()
    def nll_iw(self, tokens_T: Tensor, samples: int) -> float:
        """-log (1/K) sum_k p(x, z_k) / q(z_k|x) of one sentence."""
        self.eval()
        mu_1D, log_var_1D = self.encoder(tokens_T[None])
        posterior, prior = Normal(mu_1D, torch.exp(0.5 * log_var_1D)), Normal(0.0, 1.0)
        log_weights = []
        for start in range(0, samples, AT_ONCE):
            z_KD = posterior.sample(torch.Size([min(AT_ONCE, samples - start)]))[:, 0]
            log_p_K = prior.log_prob(z_KD).sum(dim=1) - self.decoder(tokens_T.expand(len(z_KD), -1), z_KD)
            log_weights.append(log_p_K - posterior.log_prob(z_KD).sum(dim=1))
        return math.log(samples) - float(torch.logsumexp(torch.cat(log_weights), dim=0))

    @torch.no_grad()
    def samples(self, count: int, max_length: int) -> list[list[int]]:
        """`count` sentences from the prior, without EOS, of at most `max_length` words."""
        self.eval()
        decoder, z_BD = self.decoder, torch.randn(count, self.decoder.initial.in_features)
        state, words_B, ended_B = decoder.initial_state(z_BD), torch.full((count,), BOS), torch.zeros(count) > 0
        sentences: list[list[int]] = [[] for _ in range(count)]
        for _ in range(max_length):
            inputs_B1E = torch.cat([decoder.embedding(words_B), z_BD], dim=-1)[:, None]
            states_B1H, state = decoder.lstm(inputs_B1E, state)
            probabilities_BV = torch.softmax(decoder.output(states_B1H[:, 0]), dim=-1)
            words_B = torch.multinomial(probabilities_BV, 1)[:, 0] + FIRST_TARGET
            ended_B |= words_B == EOS
            for sentence, word, ended in zip(sentences, words_B.tolist(), ended_B.tolist(), strict=True):
                if not ended:
                    sentence.append(word)
            if bool(ended_B.all()):
                break
        return sentences


def tokens_of(sentences: Sentences, indices: IntArray) -> Tensor:
    """BOS w_1 .. w_T EOS (B, T) of sentences of one length."""
    words_BT = np.stack([sentences[n] for n in indices])
    return torch.from_numpy(np.pad(words_BT, ((0, 0), (1, 1)), constant_values=((0, 0), (BOS, EOS)))).long()


def equal_length_batches(sentences: Sentences, size: int, seed: int) -> Iterator[Tensor]:
    """Full batches of sentences of one length, in random order."""
    rng = np.random.default_rng(seed)
    batches = []
    for length in np.unique(sentences.lengths):
        of_length = rng.permutation(np.flatnonzero(sentences.lengths == length))
        batches += [of_length[i : i + size] for i in range(0, len(of_length) - size + 1, size)]
    for number in rng.permutation(len(batches)):
        yield tokens_of(sentences, batches[number])
