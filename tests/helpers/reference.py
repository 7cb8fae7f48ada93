"""What the networks compute, written again: one sentence and one word at a time, in float64, no torch.nn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from textvae.decoders import Decoder, DilatedDecoder
from textvae.networks import Encoder

BOS, EOS = 1, 2


def lstm_states(lstm: nn.LSTM, inputs: list[Tensor], h: Tensor, c: Tensor) -> Iterator[Tensor]:
    """h after each input: the equations of torch.nn.LSTM's documentation, gates in the order i, f, g, o."""
    names = ("weight_ih_l0", "bias_ih_l0", "weight_hh_l0", "bias_hh_l0")
    w_ih, b_ih, w_hh, b_hh = (getattr(lstm, name).detach().double() for name in names)
    for x in inputs:
        i, f, g, o = (w_ih @ x + b_ih + w_hh @ h + b_hh).reshape(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        yield h


def posterior(encoder: Encoder, words: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """(mu, log sigma^2, last state) of one sentence, read as BOS w_1 .. w_T EOS."""
    zeros = torch.zeros(encoder.lstm.hidden_size, dtype=torch.float64)
    inputs = [encoder.embedding.weight[i].detach().double() for i in [BOS, *words, EOS]]
    *_, last = lstm_states(encoder.lstm, inputs, zeros, zeros)
    mu_log_var = encoder.heads.weight.detach().double() @ last
    half = len(mu_log_var) // 2
    return mu_log_var[:half], mu_log_var[half:], last


def dilated_states(decoder: DilatedDecoder, inputs: list[Tensor]) -> list[Tensor]:
    """The output at each input: x + W3 relu(W2 [a_(t-2d); a_(t-d); a_t] + b2) + b3, a = relu(W1 x + b1), block by
    block; a is 0 before the first input."""

    def linear(layer: nn.Linear, x: Tensor) -> Tensor:
        return layer.weight.detach().double() @ x + layer.bias.detach().double()

    states = [linear(decoder.input, x) for x in inputs]
    for block in decoder.blocks:
        read = [linear(block.narrow, x).clamp_min(0) for x in states]
        after = []
        for t, x in enumerate(states):
            places = t - 2 * block.dilation, t - block.dilation, t
            zeros = torch.zeros(block.channels, dtype=torch.float64)
            taps = torch.cat([read[s] if s >= 0 else zeros for s in places])
            after.append(x + linear(block.widen, linear(block.convolution, taps).clamp_min(0)))
        states = after
    return states


def next_word_log_probs(decoder: Decoder, words: list[int], z: Tensor | None) -> list[Tensor]:
    """log p(next id | what was read), over all ids, after BOS and after each word; PAD and BOS have -inf."""
    code = torch.zeros(0, dtype=torch.float64) if z is None else z.double()
    inputs = [torch.cat([decoder.embedding.weight[i].detach().double(), code]) for i in [BOS, *words]]
    if isinstance(decoder, DilatedDecoder):
        states: Iterable[Tensor] = dilated_states(decoder, inputs)
    else:
        h = c = torch.zeros(decoder.lstm.hidden_size, dtype=torch.float64)
        if z is not None:
            assert decoder.initial is not None
            c = decoder.initial.weight.detach().double() @ code
            h = torch.tanh(c)
        states = lstm_states(decoder.lstm, inputs, h, c)
    impossible = torch.full((2,), -torch.inf, dtype=torch.float64)
    log_probs = []
    for state in states:
        logits = torch.cat([impossible, decoder.output.weight.detach().double() @ state])
        log_probs.append(logits - torch.log(torch.exp(logits).sum()))
    return log_probs


def log_prob(decoder: Decoder, words: list[int], z: Tensor | None, ended: bool = True) -> float:
    """log p(words EOS | z), or log p(words ... | z) where the sentence has not ended."""
    targets = [*words, EOS] if ended else words
    log_probs = next_word_log_probs(decoder, words, z)
    return sum(float(row[target]) for row, target in zip(log_probs, targets, strict=False))
