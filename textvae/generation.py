"""Sentences from the prior: z ~ N(0, I), then word by word.

Each sentence has random numbers of its own, by (seed, its number, the place in it), so that it does not depend on the
batch it is drawn in, nor on when those that have ended leave it. Shapes: N sentences of a batch, B of them still in it,
V target classes, D latent, H hidden, L the longest allowed length: after L words a last place only asks whether the
sentence ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from textvae import philox
from textvae.config import SamplingSettings
from textvae.corpus import Sentences
from textvae.device import float32_precision
from textvae.networks import Network
from textvae.vocabulary import BOS, EOS, FIRST_TARGET

CODES, CHANCES = range(2)
"""The two purposes of a sentence's random numbers."""
PLACES = 2 * philox.WORDS
"""Places of a sentence for which chances are drawn at a time."""
CPU_BATCH = 2048
GPU_CELLS = 2**25
"""Logits of a word of all sentences in a batch on a GPU: 128 MiB, and a few times that in all."""

Chances = Callable[[Tensor, int], Tensor]
"""Uniform numbers (B, PLACES) of the sentences (B, positions in their batch) for the places from `place` on."""


@dataclass(frozen=True)
class Sample:
    """One generated sentence."""

    tokens: list[int]
    """Without BOS and EOS."""
    log_prob: float
    """log p(x|z) in nats under the model (temperature 1, nothing cut), EOS counted where it was reached."""
    cut: bool
    """Whether it did not end after as many words as were allowed: a beginning, not a sentence."""


@dataclass(frozen=True)
class Samples:
    """A batch of them, as arrays (N): what `Sample` says of each."""

    sentences: Sentences
    log_probs: npt.NDArray[np.float64]
    cut: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.sentences)

    def __iter__(self) -> Iterator[Sample]:
        for n, (log_prob, cut) in enumerate(zip(self.log_probs.tolist(), self.cut.tolist(), strict=True)):
            yield Sample(self.sentences[n].tolist(), log_prob, cut)


class Pace(NamedTuple):
    """How many sentences are generated together, and after how many places those that have ended leave."""

    batch: int
    leaving: int


def pace(network: Network) -> Pace:
    """On a CPU a sentence leaves at once, which saves its work. On a GPU that would be a wait at every word, and a
    batch is as large as its memory allows."""
    if network.device.type == "cpu":
        return Pace(CPU_BATCH, leaving=1)
    return Pace(max(1, GPU_CELLS // network.vocabulary_size), leaving=PLACES)


class StepwiseDecoder:
    """The decoder one word at a time; what does not change from word to word is computed once.

    The word's part of the LSTM's input product is a table (V x 4H), z's part is projected once a sentence.
    """

    def __init__(self, network: Network) -> None:
        decoder = network.decoder
        lstm, embedding = decoder.lstm, decoder.embedding.weight
        split = embedding.shape[1]
        self.initial_state = decoder.initial_state
        weights = dict(lstm.named_parameters())
        self.words = embedding @ weights["weight_ih_l0"][:, :split].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
        self.from_z = weights["weight_ih_l0"][:, split:].T
        self.recurrent = weights["weight_hh_l0"].T.contiguous()
        self.output = decoder.output.weight.T.contiguous()
        self.hidden = lstm.hidden_size

    def start(self, z_BD: Tensor | None, count: int) -> tuple[Tensor, Tensor, Tensor | float]:
        """(h_BH, c_BH, z's part of every step's input)."""
        if z_BD is None:
            zeros = self.output.new_zeros(count, self.hidden)
            return zeros, zeros, 0.0
        h_BH, c_BH = self.initial_state(z_BD)
        return h_BH, c_BH, z_BD @ self.from_z

    def step(
        self, words_B: Tensor, h_BH: Tensor, c_BH: Tensor, z_part: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(logits_BV, h_BH, c_BH) after reading one word each."""
        gates = torch.addmm(self.words[words_B] + z_part, h_BH, self.recurrent)
        i, f, g, o = gates.chunk(4, dim=1)
        c_BH = torch.sigmoid(f) * c_BH + torch.sigmoid(i) * torch.tanh(g)
        h_BH = torch.sigmoid(o) * torch.tanh(c_BH)
        return h_BH @ self.output, h_BH, c_BH


def choose(logits_BV: Tensor, uniform_B: Tensor, settings: SamplingSettings) -> Tensor:
    """The next class of each sentence by inverse-CDF sampling, or the most probable one (temperature 0)."""
    if settings.temperature == 0:
        return logits_BV.argmax(dim=1)
    scaled = logits_BV if settings.temperature == 1 else logits_BV / settings.temperature
    if settings.top_k is not None and settings.top_k < scaled.shape[1]:
        scaled = scaled.masked_fill(scaled < scaled.topk(settings.top_k, dim=1).values[:, -1:], -torch.inf)
    probabilities = torch.softmax(scaled, dim=1)
    if settings.top_p is not None:
        probabilities = nucleus(probabilities, settings.top_p)
    cumulative = probabilities.cumsum(dim=1)
    # Scaled by the last value, which rounding leaves a little off 1: no draw falls behind the end.
    drawn = torch.searchsorted(cumulative, uniform_B[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return drawn.clamp_max(logits_BV.shape[1] - 1)


def nucleus(probabilities_BV: Tensor, top_p: float) -> Tensor:
    """The smallest set of most probable classes whose mass reaches `top_p`, all others 0 (Holtzman et al. 2020)."""
    ordered, classes = probabilities_BV.sort(dim=1, descending=True)
    before = ordered.cumsum(dim=1) - ordered
    return probabilities_BV.scatter(1, classes, ordered.masked_fill(before >= top_p, 0.0))


@torch.inference_mode()
@float32_precision(tf32=False)
def generate(
    network: Network,
    count: int,
    codes_ND: Tensor | None,
    settings: SamplingSettings,
    chances: Chances | None = None,
    leaving: int | None = None,
) -> Samples:
    """`count` sentences for given codes (None for LSTM-LM).

    Args: chances, only for greedy decoding None; leaving, as in `Pace`: no sentence depends on it.
    """
    network.eval()
    device, decoder, limit = network.device, StepwiseDecoder(network), settings.max_length
    leaving = leaving or pace(network).leaving
    tokens_NL = torch.full((count, limit), EOS, dtype=torch.int32, device=device)
    log_prob_N = torch.zeros(count, dtype=torch.float64, device=device)
    cut_N = torch.zeros(count, dtype=torch.bool, device=device)
    z_ND = None if codes_ND is None else codes_ND.float().to(device)
    h, c, z_part = decoder.start(z_ND, count)
    words = torch.full((count,), BOS, device=device)
    open_B, ended_B = torch.arange(count, device=device), torch.zeros_like(cut_N)
    chances_BP = h.new_zeros(count, PLACES)
    for place in range(limit + 1):
        if chances is not None and place % PLACES == 0:
            chances_BP = chances(open_B, place)
        logits, h, c = decoder.step(words, h, c, z_part)
        classes = choose(logits, chances_BP[:, place % PLACES], settings)
        log_prob_B = -F.cross_entropy(logits, classes, reduction="none").double()
        words = (classes + FIRST_TARGET).masked_fill(ended_B, EOS)
        if place == limit:  # a word too many is not said
            cut_N[open_B] = words != EOS
            log_prob_B = log_prob_B.masked_fill(words != EOS, 0.0)
        else:
            tokens_NL[open_B, place] = words.int()
        log_prob_N[open_B] += log_prob_B.masked_fill(ended_B, 0.0)
        ended_B = words == EOS
        if (place + 1) % leaving == 0:
            left = (~ended_B).nonzero()[:, 0]  # a GPU is waited for here
            if not len(left):
                break
            if len(left) < len(words):
                open_B, words, ended_B, chances_BP = open_B[left], words[left], ended_B[left], chances_BP[left]
                h, c, z_part = h[left], c[left], z_part if isinstance(z_part, float) else z_part[left]
    rows_NL = tokens_NL.cpu().numpy()
    said_NL = rows_NL != EOS
    offsets = np.concatenate([[0], said_NL.sum(axis=1).cumsum()])
    return Samples(Sentences(rows_NL[said_NL], offsets), log_prob_N.cpu().numpy(), cut_N.cpu().numpy())


def prior_samples(
    network: Network, settings: SamplingSettings, seed: int, at_once: Pace | None = None
) -> Iterator[Samples]:
    """`settings.sentences` sentences from the prior, in batches; the sentences do not depend on the pace."""
    batch, leaving = at_once or pace(network)
    for start in range(0, settings.sentences, batch):
        numbers_N = torch.arange(start, min(start + batch, settings.sentences), device=network.device)
        codes_ND = philox.normals(seed, CODES, numbers_N, network.latent) if network.latent else None
        chances = partial(prior_chances, seed, numbers_N)
        yield generate(network, len(numbers_N), codes_ND, settings, chances, leaving)


def prior_chances(seed: int, numbers_N: Tensor, open_B: Tensor, place: int) -> Tensor:
    """The chances (B, PLACES) of the sentences with these numbers that are still in the batch."""
    block = place // philox.WORDS
    return philox.uniforms(seed, CHANCES, numbers_N[open_B], block, PLACES // philox.WORDS)
