"""Encoded sentences, and how they become batches.

Shapes: B sentences in a batch, T positions, N sentences in a split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from textvae.errors import DataError
from textvae.vocabulary import BOS, EOS, PAD, UNK

IntArray = npt.NDArray[np.int64]

POOL_BATCHES = 100
"""Batches are cut from length-sorted pools of this many: little padding, and the mix still changes every epoch."""


@dataclass(frozen=True)
class Sentences:
    """A split as one flat array: sentence n is `tokens[offsets[n]:offsets[n + 1]]`, without BOS and EOS."""

    tokens: npt.NDArray[np.int32]
    offsets: IntArray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> npt.NDArray[np.int32]:
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> IntArray:
        """Tokens per sentence (N), EOS not counted."""
        return np.diff(self.offsets)

    @property
    def target_tokens(self) -> int:
        """Words and one EOS for every sentence: what a model predicts, and a perplexity's denominator."""
        return int(self.lengths.sum()) + len(self)

    @cached_property
    def kinds(self) -> Tensor:
        """A number (N) that equal sentences share, counted from 0 in the order in which they first occur."""
        numbers: dict[bytes, int] = {}
        return torch.tensor([numbers.setdefault(self[n].tobytes(), len(numbers)) for n in range(len(self))])

    @cached_property
    def copies(self) -> list[int]:
        """How many equal sentences stand before each (N). Sentence and copy key all noise: equal sentences draw
        independently, and since they are equal it does not matter which of them comes first."""
        seen: Counter[int] = Counter()
        copies = []
        for kind in self.kinds.tolist():
            copies.append(seen[kind])
            seen[kind] += 1
        return copies

    def subset(self, indices: IntArray) -> Sentences:
        """The sentences at `indices`, in that order."""
        parts = [self[i] for i in indices]
        return Sentences.of(parts)

    @classmethod
    def of(cls, sentences: list[npt.NDArray[np.int32]] | list[list[int]]) -> Sentences:
        """Sentences given one by one."""
        arrays = [np.asarray(sentence, dtype=np.int32) for sentence in sentences]
        offsets = np.concatenate([[0], np.cumsum([len(a) for a in arrays])]).astype(np.int64)
        return cls(np.concatenate(arrays) if arrays else np.zeros(0, np.int32), offsets)

    @classmethod
    def load(cls, path: Path, vocabulary_size: int) -> Sentences:
        """Read a split's Parquet file. Raises DataError where it is damaged, empty or of another vocabulary,
        or has special ids: PAD would hide a target from the loss, EOS end a sentence early."""
        try:
            column = pq.read_table(path, columns=["tokens"])["tokens"].combine_chunks()
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); run preprocess again") from None
        if not (pa.types.is_list(column.type) and pa.types.is_integer(column.type.value_type)):
            raise DataError(f"{path}: its tokens are {column.type}, not lists of ids; run preprocess again")
        if column.null_count or column.values.null_count:
            raise DataError(f"{path} has null sentences or null ids; run preprocess again")
        flat = column.flatten().to_numpy()
        lengths = column.value_lengths().to_numpy()
        if len(lengths) == 0:
            raise DataError(f"{path} has no sentence; check the corpus and run preprocess again")
        if len(flat) and not 0 <= flat.min() <= flat.max() < vocabulary_size:
            raise DataError(f"{path} has ids outside the vocabulary of {vocabulary_size}; run preprocess again")
        if len(flat) and flat.min() < UNK:
            raise DataError(f"{path} has PAD, BOS or EOS inside a sentence; run preprocess again")
        return cls(flat.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@dataclass(frozen=True)
class Batch:
    """Padded sentences: BOS w_1 .. w_T EOS PAD ..., all on one device."""

    tokens_BT: Tensor
    """int64, with BOS in front and EOS behind; T is the longest sentence + 2, or a little more."""
    lengths_B: Tensor
    """int64, tokens per sentence with BOS and EOS."""
    indices: IntArray
    """Positions of the sentences in their split."""
    target_tokens: int
    """Words and EOS in the batch."""

    @property
    def inputs_BT(self) -> Tensor:
        """What the decoder reads: everything but the last position."""
        return self.tokens_BT[:, :-1]

    @property
    def targets_BT(self) -> Tensor:
        """What the decoder predicts: everything but BOS."""
        return self.tokens_BT[:, 1:]

    @property
    def target_mask_BT(self) -> Tensor:
        """True where a target is a word or EOS, False on padding."""
        return self.targets_BT != PAD

    def __len__(self) -> int:
        return len(self.tokens_BT)


def collate(sentences: Sentences, indices: IntArray, device: torch.device | None = None) -> Batch:
    """The sentences at `indices` as a padded batch."""
    return Batches(sentences, [np.asarray(indices)], device or torch.device("cpu"))[0]


class Batches:
    """Padded batches of a split, all laid out on the device at once: a step takes its own as a view and sends nothing.

    Args: sentences; batches, positions in `sentences`; device; multiple, of which each batch's width is one.
    """

    def __init__(self, sentences: Sentences, batches: list[IntArray], device: torch.device, multiple: int = 1) -> None:
        self.indices = batches
        lengths = [sentences.lengths[indices] + 2 for indices in batches]
        self._widths = [-(-int(of_batch.max()) // multiple) * multiple for of_batch in lengths]
        self.target_tokens = [int(of_batch.sum()) - len(of_batch) for of_batch in lengths]
        self._ends = np.cumsum([0, *(len(of_batch) for of_batch in lengths)])
        self._cells = np.cumsum([0, *(len(n) * width for n, width in zip(batches, self._widths, strict=True))])
        order_N = np.concatenate([*batches, np.zeros(0, np.int64)])
        length_N = np.concatenate([*lengths, np.zeros(0, np.int64)])
        width_N = np.repeat(self._widths, [len(indices) for indices in batches])
        tokens = np.full(self._cells[-1], PAD, dtype=np.int32)
        begin_N = np.cumsum([0, *width_N])[:-1]
        tokens[begin_N] = BOS
        tokens[begin_N + length_N - 1] = EOS
        words_N = length_N - 2
        within = np.arange(words_N.sum()) - np.repeat(np.cumsum(words_N) - words_N, words_N)
        tokens[np.repeat(begin_N + 1, words_N) + within] = sentences.tokens[
            np.repeat(sentences.offsets[:-1][order_N], words_N) + within
        ]
        self._tokens = torch.from_numpy(tokens).to(device)
        self._lengths = torch.from_numpy(length_N).to(device)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Batch:
        tokens_BT = self._tokens[self._cells[number] : self._cells[number + 1]].view(-1, self._widths[number]).long()
        lengths_B = self._lengths[self._ends[number] : self._ends[number + 1]]
        return Batch(tokens_BT, lengths_B, self.indices[number], self.target_tokens[number])


def training_batches(lengths: IntArray, batch_size: int, seed: int, epoch: int) -> list[IntArray]:
    """The batches of one epoch, as positions: random, but of similar length, so that little is padding.

    A permutation keyed by (seed, epoch) is cut into pools of POOL_BATCHES batches; each pool is sorted by length
    and cut into batches, and the batches are shuffled. Every sentence occurs exactly once; only the last batch of a
    pool may be short.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches = []
    for start in range(0, len(order), batch_size * POOL_BATCHES):
        pool = order[start : start + batch_size * POOL_BATCHES]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def evaluation_batches(sentences: Sentences, max_tokens: int, device: torch.device | None = None) -> Iterator[Batch]:
    """All sentences, sorted by length, in batches of at most `max_tokens` padded positions (at least one sentence)."""
    order = np.argsort(sentences.lengths, kind="stable")
    padded = sentences.lengths[order] + 2
    start, batches = 0, []
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * padded[stop] <= max_tokens:
            stop += 1
        batches.append(order[start:stop])
        start = stop
    yield from map(Batches(sentences, batches, device or torch.device("cpu")).__getitem__, range(len(batches)))


def sentence_hash(tokens: npt.NDArray[np.int32], seed: int, purpose: str = "", copy: int = 0) -> int:
    """A 128-bit hash of a sentence, the number of its copy and a seed: what keys its noise, so that no number depends
    on batches or order. By the sentence alone, equal ones would share one draw."""
    key = f"{seed}:{purpose}" + (f":{copy}" if copy else "")
    digest = hashlib.blake2b(tokens.astype("<i4").tobytes(), digest_size=16, key=key.encode())
    return int.from_bytes(digest.digest(), "little")


def hashed_subset(sentences: Sentences, size: int, purpose: str) -> IntArray:
    """Positions of at most `size` sentences, the ones with the smallest hashes: fixed, whatever their order."""
    return np.sort(hashed_order(sentences, purpose)[:size])


def hashed_order(sentences: Sentences, purpose: str) -> IntArray:
    """All positions in the order of the hashes of (sentence, copy): a fixed shuffle, whatever the order of the file."""
    keys = [sentence_hash(sentences[n], 0, purpose, copy) for n, copy in enumerate(sentences.copies)]
    return np.array(sorted(range(len(keys)), key=keys.__getitem__), dtype=np.int64)


def hashed_batches(sentences: Sentences, size: int) -> Tensor:
    """A batch number (N) for every sentence: random batches of `size`, chosen by the sentences' hashes."""
    order = torch.from_numpy(hashed_order(sentences, "batches"))
    batch_of_N = torch.empty(len(sentences), dtype=torch.long)
    batch_of_N[order] = torch.arange(len(sentences)) // size
    return batch_of_N


def hashed_normal(
    tokens: npt.NDArray[np.int32], seed: int, shape: tuple[int, ...], purpose: str, copy: int = 0
) -> Tensor:
    """Standard normal noise of a shape, float64, keyed by the hash of a sentence, its copy and the seed."""
    generator = np.random.Generator(np.random.Philox(key=sentence_hash(tokens, seed, purpose, copy)))
    return torch.from_numpy(generator.standard_normal(shape))


def hashed_normals(sentences: Sentences, seed: int, size: int, purpose: str) -> Tensor:
    """`hashed_normal` of every sentence: (N, size), float64, independent also between equal ones."""
    return torch.stack(
        [hashed_normal(sentences[n], seed, (size,), purpose, copy) for n, copy in enumerate(sentences.copies)]
    )
