"""Sentences from the prior: z ~ p(z), then word by word.

Each sentence has random numbers of its own, by (seed, its number, the place in it), so that it does not depend on the
batch it is drawn in, nor on when those that have ended leave it. Shapes: N sentences, B of them that are being
written, V target classes, D latent, H hidden, L the longest allowed length: after L words a last place only asks
whether the sentence ends, P places with those that pass before it leaves.
"""

from __future__ import annotations

import itertools
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
BLOCK = 128
"""Classes of which a draw looks at the sum first: about the root of a vocabulary."""
CPU_BATCH = 2048
GPU_WIDTH, GPU_CELLS = 8192, 2**25
"""Sentences that a GPU writes at a time at most, and their logits: 128 MiB, and a few times that in all."""

Chances = Callable[[Tensor, Tensor], Tensor]
"""Uniform numbers (B, PLACES) of sentences (B, their rows) for as many places, each from its own (B) on."""


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
    """How sentences are generated."""

    batch: int
    """As many are begun together."""
    width: int
    """As many of them are written at a time; the others take the place of those that have ended, each at a multiple of
    PLACES, where chances are drawn."""
    leaving: int
    """When none waits any more, those that have ended leave after every so many places."""


def pace(network: Network) -> Pace:
    """On a CPU a sentence leaves at once, which saves its work. A GPU would be waited for at each word then; and it
    would have little to do for the few long sentences of a batch if no others took their place."""
    if network.device.type == "cpu":
        return Pace(CPU_BATCH, CPU_BATCH, leaving=1)
    width = max(1, min(GPU_WIDTH, GPU_CELLS // network.vocabulary_size))
    return Pace(8 * width, width, leaving=PLACES)


class StepwiseDecoder:
    """The decoder one word at a time for at most `width` sentences. All logits are written to one place: fresh memory
    of that size costs a CPU a tenth of the time.

    Classes beyond the vocabulary, which no word has, fill its last block (`drawn`): their logits are -inf.
    """

    def __init__(self, network: Network, width: int) -> None:
        decoder = network.decoder
        self.stepwise, self.skip = decoder.stepwise(), decoder.skip
        self.classes = len(decoder.output.weight)
        self.output = F.pad(decoder.output.weight, (0, 0, 0, -self.classes % BLOCK)).T.contiguous()
        self.logits = self.output.new_empty(width, self.output.shape[1])

    def start(self, z_BD: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """The state of `count` sentences, its rows, before their first word: the decoder's, and what skips it."""
        past_BH = self.output.new_zeros(count, 1) if self.skip is None else self.skip(z_BD)
        return *self.stepwise.start(z_BD, count), past_BH

    def step(self, words_B: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """(logits_BV, *state) after reading one word each; the logits are overwritten by the next step."""
        *own, past_BH = state
        states_BH, *after = self.stepwise.step(words_B, *own)
        logits_BV = torch.mm(states_BH + past_BH, self.output, out=self.logits[: len(states_BH)])
        logits_BV[:, self.classes :] = -torch.inf
        return logits_BV, *after, past_BH


def choose(logits_BV: Tensor, uniform_B: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """The next class (B) of each sentence by inverse-CDF sampling, or the most probable one (temperature 0), and its
    log-probability (B) at temperature 1 with nothing cut. The logits may be overwritten.
    """
    if settings.temperature == 1 and settings.top_k is None and settings.top_p is None:
        weights_BV = logits_BV.sub_(logits_BV.amax(dim=1, keepdim=True)).exp_()
        classes_B = drawn(weights_BV, uniform_B)
        return classes_B, (weights_BV.gather(1, classes_B[:, None])[:, 0] / weights_BV.sum(dim=1)).log()
    if settings.temperature == 0:
        classes_B = logits_BV.argmax(dim=1)
    else:
        scaled_BV = logits_BV / settings.temperature
        if settings.top_k is not None and settings.top_k < scaled_BV.shape[1]:
            least_B1 = scaled_BV.topk(settings.top_k, dim=1).values[:, -1:]
            scaled_BV = scaled_BV.masked_fill(scaled_BV < least_B1, -torch.inf)
        weights_BV = torch.softmax(scaled_BV, dim=1)
        classes_B = drawn(weights_BV if settings.top_p is None else nucleus(weights_BV, settings.top_p), uniform_B)
    return classes_B, -F.cross_entropy(logits_BV, classes_B, reduction="none")


def drawn(weights_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """Classes (B) with chances in proportion to `weights_BV` (>= 0, one of them above 0), by a uniform number each.

    In two levels, a block of classes and then a class of it: sums of blocks take a tenth of a running sum's time.
    """
    if weights_BV.shape[1] % BLOCK:
        weights_BV = F.pad(weights_BV, (0, -weights_BV.shape[1] % BLOCK))
    weights_BNK = weights_BV.view(len(weights_BV), -1, BLOCK)
    ends_BN = weights_BNK.sum(dim=2).cumsum(dim=1)
    aim_B1 = below(uniform_B[:, None] * ends_BN[:, -1:], ends_BN[:, -1:])
    block_B1 = torch.searchsorted(ends_BN, aim_B1, right=True)
    rest_B1 = (aim_B1 - F.pad(ends_BN, (1, 0)).gather(1, block_B1)).clamp_min(0)
    ends_BK = weights_BNK.gather(1, block_B1[..., None].expand(-1, 1, BLOCK))[:, 0].cumsum(dim=1)
    class_B1 = torch.searchsorted(ends_BK, below(rest_B1, ends_BK[:, -1:]), right=True)
    return (block_B1 * BLOCK + class_B1)[:, 0]


def below(value: Tensor, limit: Tensor) -> Tensor:
    """`value`, but less than `limit`, however rounded: no draw falls behind the last class that has a chance."""
    return torch.minimum(value, torch.nextafter(limit, torch.zeros_like(limit)))


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
    at_pace: Pace | None = None,
) -> Samples:
    """`count` sentences for given codes (None for LSTM-LM); `chances` is None for greedy decoding only. No sentence
    depends on the pace."""
    network.eval()
    device, limit = network.device, settings.max_length
    _, width, leaving = at_pace or pace(network)
    decoder = StepwiseDecoder(network, min(width, count))
    z_ND = None if codes_ND is None else codes_ND.float().to(device)
    tokens_NP = torch.full((count, limit + max(PLACES, leaving)), EOS, dtype=torch.int32, device=device)
    log_prob_N = torch.zeros(count, dtype=torch.float64, device=device)

    def begun(first: int, stop: int) -> tuple[Tensor, ...]:
        """Sentences before their first word: row, place, last word, whether it has ended, chances, decoder's state."""
        rows_B = torch.arange(first, stop, device=device)
        new = torch.zeros_like(rows_B)
        started = decoder.start(None if z_ND is None else z_ND[first:stop], stop - first)
        return rows_B, new, new + BOS, new > 0, decoder.output.new_zeros(len(new), PLACES), *started

    entered = min(width, count)
    open_B, place_B, words_B, ended_B, chances_BP, *decoder_state = begun(0, entered)
    for turn in itertools.count():
        if chances is not None and turn % PLACES == 0:
            chances_BP = chances(open_B, place_B)
        logits_BV, *decoder_state = decoder.step(words_B, *decoder_state)
        classes_B, log_prob_B = choose(logits_BV, chances_BP[:, turn % PLACES], settings)
        words_B = (classes_B + FIRST_TARGET).masked_fill(ended_B, EOS)
        tokens_NP[open_B, place_B] = words_B.int()
        too_many_B = (place_B == limit) & (words_B != EOS)  # a word too many is not said
        log_prob_N[open_B] += log_prob_B.double().masked_fill(ended_B | too_many_B, 0.0)
        ended_B, place_B = (words_B == EOS) | too_many_B, place_B + 1
        if (turn + 1) % (leaving if entered == count else PLACES) == 0:
            left = (~ended_B).nonzero()[:, 0]  # a GPU is waited for here
            coming = min(width - len(left), count - entered)
            if not len(left) + coming:
                break
            state: tuple[Tensor, ...] = open_B, place_B, words_B, ended_B, chances_BP, *decoder_state
            if len(left) < len(open_B):
                state = tuple(of_B[left] for of_B in state)
            if coming:
                state = tuple(torch.cat(both) for both in zip(state, begun(entered, entered + coming), strict=True))
                entered += coming
            open_B, place_B, words_B, ended_B, chances_BP, *decoder_state = state
    rows_NP = tokens_NP[:, : limit + 1].cpu().numpy()
    said_NL = rows_NP[:, :limit] != EOS
    offsets = np.concatenate([[0], said_NL.sum(axis=1).cumsum()])
    sentences = Sentences(rows_NP[:, :limit][said_NL], offsets)
    return Samples(sentences, log_prob_N.cpu().numpy(), rows_NP[:, limit] != EOS)


def prior_samples(
    network: Network, settings: SamplingSettings, seed: int, at_pace: Pace | None = None
) -> Iterator[Samples]:
    """`settings.sentences` sentences from the prior, in batches; the sentences do not depend on the pace."""
    at_pace = at_pace or pace(network)
    for start in range(0, settings.sentences, at_pace.batch):
        numbers_N = torch.arange(start, min(start + at_pace.batch, settings.sentences), device=network.device)
        codes_ND = prior_codes(network, seed, numbers_N) if network.latent else None
        chances = partial(prior_chances, seed, numbers_N) if settings.temperature else None
        yield generate(network, len(numbers_N), codes_ND, settings, chances, at_pace)


def prior_codes(network: Network, seed: int, numbers_N: Tensor) -> Tensor:
    """The codes (N, D) of the sentences with these numbers."""
    return network.family.projected(philox.normals(seed, CODES, numbers_N, network.latent))


def prior_chances(seed: int, numbers_N: Tensor, rows_B: Tensor, place_B: Tensor) -> Tensor:
    """The chances (B, PLACES) of the sentences with these numbers at some of the rows."""
    return philox.uniforms(seed, CHANCES, numbers_N[rows_B], place_B // philox.WORDS, PLACES // philox.WORDS)
