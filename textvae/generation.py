"""Sentences from the prior: z ~ N(0, I), then word by word.

Each sentence has a random stream of its own, keyed by (seed, its number), so that it does not depend on the batch it is
drawn in. Shapes: B sentences still open, V target classes, D latent, H hidden, L the longest allowed length, P = L + 1
places: after L words the last one only asks whether the sentence ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from textvae.config import SamplingSettings
from textvae.networks import Network
from textvae.vocabulary import BOS, EOS, FIRST_TARGET

BATCH = 2048


@dataclass(frozen=True)
class Sample:
    """One generated sentence."""

    tokens: list[int]
    """Without BOS and EOS."""
    log_prob: float
    """log p(x|z) in nats under the model (temperature 1, nothing cut), EOS counted where it was reached."""
    cut: bool
    """Whether it did not end after as many words as were allowed: a beginning, not a sentence."""


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
def generate(
    network: Network, codes_ND: Tensor | None, uniforms_NP: Tensor, settings: SamplingSettings
) -> list[Sample]:
    """Sentences for given codes (None for LSTM-LM) and given uniform numbers, one for each place."""
    network.eval()
    device, decoder = network.device, StepwiseDecoder(network)
    count, limit = len(uniforms_NP), uniforms_NP.shape[1] - 1
    tokens_NL = torch.full((count, limit), EOS, device=device)
    log_prob_N = torch.zeros(count, dtype=torch.float64, device=device)
    uniforms_NP = uniforms_NP.to(device)
    z_ND = None if codes_ND is None else codes_ND.float().to(device)
    h, c, z_part = decoder.start(z_ND, count)
    words = torch.full((count,), BOS, device=device)
    open_B = torch.arange(count, device=device)
    for place in range(limit + 1):
        logits, h, c = decoder.step(words, h, c, z_part)
        classes = choose(logits, uniforms_NP[open_B, place], settings)
        log_prob_B = -F.cross_entropy(logits, classes, reduction="none").double()
        words = classes + FIRST_TARGET
        going_on = words != EOS
        if place < limit:
            tokens_NL[open_B, place] = words
            log_prob_N[open_B] += log_prob_B
        else:  # a word too many is not said
            log_prob_N[open_B] += log_prob_B.masked_fill(going_on, 0.0)
        if not going_on.all():  # finished sentences leave the batch
            open_B, words, h, c = open_B[going_on], words[going_on], h[going_on], c[going_on]
            z_part = z_part if isinstance(z_part, float) else z_part[going_on]
        if not len(open_B):
            break
    cut_N = torch.zeros(count, dtype=torch.bool, device=device)
    cut_N[open_B] = True
    lengths, cut = (tokens_NL != EOS).sum(dim=1).tolist(), cut_N.tolist()
    rows, log_probs = tokens_NL.cpu().numpy(), log_prob_N.tolist()
    return [Sample(rows[i, : lengths[i]].tolist(), log_probs[i], cut[i]) for i in range(count)]


def prior_samples(
    network: Network, settings: SamplingSettings, seed: int, batch: int = BATCH
) -> Iterator[list[Sample]]:
    """`settings.sentences` sentences from the prior, in batches; the sentences do not depend on `batch`."""
    for start in range(0, settings.sentences, batch):
        numbers = range(start, min(start + batch, settings.sentences))
        codes = np.empty((len(numbers), network.latent))
        uniforms = np.empty((len(numbers), settings.max_length + 1), dtype=np.float32)
        for row, number in enumerate(numbers):
            rng = np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))
            codes[row] = rng.standard_normal(network.latent)
            uniforms[row] = rng.random(settings.max_length + 1, dtype=np.float32)
        codes_ND = torch.from_numpy(codes) if network.latent else None
        yield generate(network, codes_ND, torch.from_numpy(uniforms), settings)
