"""Decoders, p(x|z): what reads the words and the code is a class's own, all others of it they share.

Shapes, kept in every name: B sentences, T positions, E embedding, I inputs (a word's embedding and the code beside it),
H hidden, C channels of a convolution, S positions of its past, D latent, V target classes, R rows (positions that are
not padding).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textvae.config import ModelSettings
from textvae.corpus import Batch
from textvae.noise import dropout
from textvae.softmax import linear_cross_entropy
from textvae.vocabulary import FIRST_TARGET, PAD


class Stepwise(Protocol):
    """A decoder one word at a time, up to its output layer. The state is tensors whose rows are the sentences."""

    def start(self, z_BD: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """The state of `count` sentences before their first word."""

    def step(self, words_B: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """(states_BH, *state) after reading one word each."""


class Decoder(nn.Module):
    """p(x|z), which reads z beside each word; without a latent a language model.

    Args: latent, dimensions of z, 0 without.
    """

    def __init__(self, vocabulary_size: int, settings: ModelSettings, latent: int) -> None:
        super().__init__()
        self.dropout = settings.dropout
        self.generator: torch.Generator | None = None
        """Of the dropout's noise; None: torch's global one."""
        self.embedding = nn.Embedding(vocabulary_size, settings.embedding, padding_idx=PAD)
        self.build(settings, latent)
        self.output = nn.Linear(settings.hidden, vocabulary_size - FIRST_TARGET, bias=False)
        self.skip = nn.Linear(latent, settings.hidden, bias=False) if latent and settings.skip_connections else None
        """From the code to what the output layer reads, past everything else."""

    # -- what a decoder defines ----------------------------------------------------------------------------------------

    def build(self, settings: ModelSettings, latent: int) -> None:
        """Create what lies between the embedding and the output layer."""
        raise NotImplementedError

    def read(self, inputs_BTI: Tensor, z_BD: Tensor | None) -> Tensor:
        """A state (B, T, H) for each input, which depends on no later one."""
        raise NotImplementedError

    def stepwise(self) -> Stepwise:
        """The same one word at a time, without dropout; what does not change from word to word is computed here."""
        raise NotImplementedError

    # -- what all share ------------------------------------------------------------------------------------------------

    def states(self, inputs_BT: Tensor, z_BD: Tensor | None) -> Tensor:
        """What the output layer reads (B, T, H); dropout (training only) on the embedding and on these."""
        inputs_BTI = self.dropped(self.embedding(inputs_BT))
        if z_BD is not None:
            z_BTD = z_BD[:, None].expand(-1, inputs_BT.shape[1], -1)
            inputs_BTI = torch.cat([inputs_BTI, z_BTD], dim=-1)
        states_BTH = self.read(inputs_BTI, z_BD)
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


class LSTMDecoder(Decoder):
    """An LSTM (section 5.2 of the paper): c0 = W z, h0 = tanh(c0). Without a latent it is LSTM-LM."""

    def build(self, settings: ModelSettings, latent: int) -> None:
        """The LSTM and its initial state."""
        self.lstm = nn.LSTM(settings.embedding + latent, settings.hidden, batch_first=True)
        self.initial = nn.Linear(latent, settings.hidden, bias=False) if latent else None

    def initial_state(self, z_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(h0_BH, c0_BH) from a code."""
        assert self.initial is not None
        c0_BH = self.initial(z_BD)
        return torch.tanh(c0_BH), c0_BH

    def read(self, inputs_BTI: Tensor, z_BD: Tensor | None) -> Tensor:
        """The LSTM's states."""
        if z_BD is None:
            states_BTH, _ = self.lstm(inputs_BTI)
        else:
            h0_BH, c0_BH = self.initial_state(z_BD)
            states_BTH, _ = self.lstm(inputs_BTI, (h0_BH[None], c0_BH[None]))
        return states_BTH  # type: ignore[no-any-return]

    def stepwise(self) -> StepwiseLSTM:
        """See `Decoder`."""
        return StepwiseLSTM(self)


class StepwiseLSTM:
    """An LSTM one word at a time. The word's part of its input product is a table (V x 4H), z's part is projected once
    a sentence. The state: h_BH, c_BH and z's part of every step's gates."""

    def __init__(self, decoder: LSTMDecoder) -> None:
        lstm, embedding = decoder.lstm, decoder.embedding.weight
        split = embedding.shape[1]
        self.initial_state = decoder.initial_state
        weights = dict(lstm.named_parameters())
        self.words = embedding @ weights["weight_ih_l0"][:, :split].T + weights["bias_ih_l0"] + weights["bias_hh_l0"]
        self.from_z = weights["weight_ih_l0"][:, split:].T
        self.recurrent = weights["weight_hh_l0"].T.contiguous()

    def start(self, z_BD: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """See `Stepwise`."""
        if z_BD is None:
            zeros = self.recurrent.new_zeros(count, len(self.recurrent))
            return zeros, zeros, self.recurrent.new_zeros(count, 1)
        return *self.initial_state(z_BD), z_BD @ self.from_z

    def step(self, words_B: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See `Stepwise`."""
        h_BH, c_BH, z_part = state
        gates = torch.addmm(self.words[words_B] + z_part, h_BH, self.recurrent)
        i, f, g, o = gates.chunk(4, dim=1)
        c_BH = torch.sigmoid(f) * c_BH + torch.sigmoid(i) * torch.tanh(g)
        h_BH = torch.sigmoid(o) * torch.tanh(c_BH)
        return h_BH, h_BH, c_BH, z_part


class DilatedBlock(nn.Module):
    """x + what lies 0, `dilation` and twice as many positions back: products 1 x 1, 1 x 3 (causal, dilated) and 1 x 1
    over half as many channels, ReLU between them.

    The convolution is a linear layer over its three taps side by side: a matrix product obeys the switch of
    textvae/device.py and makes the same numbers again, where cuDNN's convolutions have a switch of their own and
    gradients summed in any order.
    """

    def __init__(self, hidden: int, dilation: int) -> None:
        super().__init__()
        self.dilation, self.channels = dilation, (hidden + 1) // 2
        self.narrow = nn.Linear(hidden, self.channels)
        self.convolution = nn.Linear(3 * self.channels, self.channels)
        self.widen = nn.Linear(self.channels, hidden)

    def forward(self, x_BTH: Tensor, dropped: Callable[[Tensor], Tensor]) -> Tensor:
        """All positions; before the first the convolution reads zeros. `dropped` acts on what it says."""
        narrowed_BTC = torch.relu(self.narrow(x_BTH))
        padded_BSC = F.pad(narrowed_BTC, (0, 0, 2 * self.dilation, 0))
        length = x_BTH.shape[1]
        taps = padded_BSC[:, :length], padded_BSC[:, self.dilation : self.dilation + length], narrowed_BTC
        convolved_BTC: Tensor = torch.relu(self.convolution(torch.cat(taps, dim=-1)))
        return x_BTH + self.widen(dropped(convolved_BTC))  # type: ignore[no-any-return]

    def step(self, x_BH: Tensor, past_BSC: Tensor) -> tuple[Tensor, Tensor]:
        """One position, and the past after it: what was narrowed at the last 2 x dilation positions."""
        narrowed_BC = torch.relu(self.narrow(x_BH))
        taps = past_BSC[:, 0], past_BSC[:, self.dilation], narrowed_BC
        convolved_BC = torch.relu(self.convolution(torch.cat(taps, dim=-1)))
        return x_BH + self.widen(convolved_BC), torch.cat([past_BSC[:, 1:], narrowed_BC[:, None]], dim=1)


class DilatedDecoder(Decoder):
    """Dilated convolutions (Yang et al. 2017, https://arxiv.org/abs/1702.08139): what is said of the next word depends
    on the code and on the last 2 sum(dilations) + 1 inputs."""

    def build(self, settings: ModelSettings, latent: int) -> None:
        """A linear layer to the channels, and a residual block for each dilation."""
        self.input = nn.Linear(settings.embedding + latent, settings.hidden)
        self.blocks = nn.ModuleList(DilatedBlock(settings.hidden, dilation) for dilation in settings.dilations)

    def read(self, inputs_BTI: Tensor, z_BD: Tensor | None) -> Tensor:
        """The last block's output; dropout (training only) in each block, behind the convolution."""
        states_BTH = self.input(inputs_BTI)
        for block in self.blocks:
            states_BTH = block(states_BTH, self.dropped)
        return states_BTH  # type: ignore[no-any-return]

    def stepwise(self) -> StepwiseDilated:
        """See `Decoder`."""
        return StepwiseDilated(self)


class StepwiseDilated:
    """Dilated convolutions one word at a time. The state: z's part of every step's input and, of each block, what it
    has of its past (B, S, C)."""

    def __init__(self, decoder: DilatedDecoder) -> None:
        embedding, weight = decoder.embedding.weight, decoder.input.weight
        split = embedding.shape[1]
        self.words = embedding @ weight[:, :split].T + decoder.input.bias
        self.from_z = weight[:, split:].T
        self.blocks = cast("list[DilatedBlock]", list(decoder.blocks))

    def start(self, z_BD: Tensor | None, count: int) -> tuple[Tensor, ...]:
        """See `Stepwise`."""
        z_part = self.words.new_zeros(count, 1) if z_BD is None else z_BD @ self.from_z
        return z_part, *(self.words.new_zeros(count, 2 * one.dilation, one.channels) for one in self.blocks)

    def step(self, words_B: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """See `Stepwise`."""
        z_part, *pasts = state
        states_BH = self.words[words_B] + z_part
        after = []
        for block, past_BSC in zip(self.blocks, pasts, strict=True):
            states_BH, past_BSC = block.step(states_BH, past_BSC)
            after.append(past_BSC)
        return states_BH, z_part, *after


DECODERS: dict[str, type[Decoder]] = {"lstm": LSTMDecoder, "dilated": DilatedDecoder}
"""By `model.decoder`."""
