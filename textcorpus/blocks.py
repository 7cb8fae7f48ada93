"""Tokenised text a block at a time: words between single spaces, one sentence a line, looked at without a Python object
for each word. Shapes: N sentences, T tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from textcorpus.sources import damage_reported
from textcorpus.splits import keyed_hash

BLOCK_BYTES = 2**20
"""Text at a time, to the end of its last line. It decides the memory (about ten times as much) and no result."""
SEPARATORS = SPACE, LINE_END = b" \n"

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Block:
    """Some sentences in their order."""

    text: bytes
    bounds_N2: IntArray
    """Where each sentence begins and ends in `text`."""
    tokens_T: pa.StringArray
    """The words of all sentences."""
    lengths_N: IntArray
    """Words a sentence."""

    @classmethod
    def of(cls, text: bytes) -> Block:
        """The sentences of lines with their ends. Raises UnicodeDecodeError for what is not UTF-8."""
        text.decode()
        letters = np.frombuffer(text, np.uint8)
        separators_T = np.flatnonzero((letters == SPACE) | (letters == LINE_END))
        offsets = np.zeros(len(separators_T) + 1, np.int32)
        offsets[1:] = separators_T - np.arange(len(separators_T))  # where words end once the separators are taken out
        words = text.translate(None, bytes(SEPARATORS))
        tokens_T = pa.StringArray.from_buffers(len(separators_T), pa.py_buffer(offsets), pa.py_buffer(words))
        last_N = np.flatnonzero(letters[separators_T] == LINE_END)
        ends_N = separators_T[last_N]
        bounds_N2 = np.stack([np.concatenate([[0], ends_N[:-1] + 1]), ends_N], axis=1)
        return cls(text, bounds_N2, tokens_T, np.diff(last_N, prepend=-1))

    def __len__(self) -> int:
        return len(self.lengths_N)

    def only(self, wanted_N: BoolArray) -> Block:
        """The sentences marked."""
        if wanted_N.all():
            return self
        tokens_T = self.tokens_T.filter(pa.array(np.repeat(wanted_N, self.lengths_N)))
        return Block(self.text, self.bounds_N2[wanted_N], tokens_T, self.lengths_N[wanted_N])

    def cut(self, length: int) -> Block:
        """At most so many words of each sentence; `bounds_N2` remain those of the whole ones."""
        if (self.lengths_N <= length).all():
            return self
        starts_N = np.cumsum(self.lengths_N) - self.lengths_N
        places_T = np.arange(len(self.tokens_T)) - np.repeat(starts_N, self.lengths_N)
        tokens_T = self.tokens_T.filter(pa.array(places_T < length))
        return Block(self.text, self.bounds_N2, tokens_T, np.minimum(self.lengths_N, length))

    def hashes(self, seed: int) -> npt.NDArray[np.uint64]:
        """`keyed_hash` of each whole sentence (N)."""
        return np.array([keyed_hash(self.text[a:b], seed) for a, b in self.bounds_N2.tolist()], np.uint64)

    def counts(self) -> Iterator[tuple[str, int]]:
        """How often each word occurs."""
        found = self.tokens_T.value_counts()
        return zip(found.field("values").to_pylist(), found.field("counts").to_pylist(), strict=True)


def blocks(path: Path) -> Iterator[Block]:
    """A file's sentences. Raises DataError for one that cannot be read, and for what is not UTF-8."""
    with damage_reported(str(path)), path.open("rb") as stream:
        while text := stream.read(BLOCK_BYTES):
            text += stream.readline()
            yield Block.of(text if text.endswith(b"\n") else text + b"\n")
