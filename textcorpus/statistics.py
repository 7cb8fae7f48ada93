"""What corpus.json says about a split: lengths, unknown words, repeated sentences. All in bounded memory."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from textcorpus.splits import SPLITS, Split

HISTOGRAM_WIDTH = 5
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
BUCKETS = 64
DIGEST_BYTES = 16


@dataclass
class SplitStatistics:
    """Counts of one split, as encoded: after selection and truncation."""

    sentences: int = 0
    tokens: int = 0
    truncated: int = 0
    """Sentences that were cut to max_length."""
    came_unknown: int = 0
    """Tokens that were the unknown word already in the text."""
    out_of_vocabulary: int = 0
    """Tokens that became the unknown word here, because the vocabulary lacks them."""
    too_long: int = 0
    """Sentences left out for more than `longest` tokens."""
    not_selected: int = 0
    """Sentences left out for not being among the `train_sentences`."""
    lengths: Counter[int] = field(default_factory=Counter)

    def add(self, unknown: int, came_unknown: int, lengths_N: npt.NDArray[np.int64]) -> None:
        """Count sentences that have this many unknown words, and this many of them unknown in the text already."""
        lengths = Counter(lengths_N.tolist())
        self.sentences += len(lengths_N)
        self.tokens += sum(length * count for length, count in lengths.items())
        self.came_unknown += came_unknown
        self.out_of_vocabulary += unknown - came_unknown
        self.lengths.update(lengths)

    def summary(self) -> dict[str, Any]:
        """The statistics as JSON; lengths in tokens, EOS not counted."""
        return {
            "sentences": self.sentences,
            "tokens": self.tokens,
            "mean_length": self.tokens / self.sentences,
            "length_quantiles": {f"{q:.2f}": quantile(self.lengths, q) for q in QUANTILES},
            "length_histogram": {"width": HISTOGRAM_WIDTH, "sentences": histogram(self.lengths, HISTOGRAM_WIDTH)},
            "unknown_in_text": self.came_unknown,
            "out_of_vocabulary": self.out_of_vocabulary,
            "out_of_vocabulary_rate": self.out_of_vocabulary / self.tokens,
            "truncated": self.truncated,
            "dropped": {"too_long": self.too_long, "not_selected": self.not_selected},
        }


def quantile(counts: Mapping[int, int], fraction: float) -> int:
    """The smallest value with at least this fraction of all counts at or below it (0: the smallest value)."""
    needed = max(fraction * sum(counts.values()), 1)
    below = 0
    for value in sorted(counts):
        below += counts[value]
        if below >= needed:
            return value
    raise ValueError("a quantile of nothing")


def histogram(counts: Mapping[int, int], width: int) -> list[int]:
    """Counts of the values 0 .. width - 1, width .. 2 width - 1, and so on up to the largest."""
    bins = [0] * (max(counts) // width + 1)
    for value, count in counts.items():
        bins[value // width] += count
    return bins


class Repetitions:
    """Counts sentences that are equal as ids, inside a split and across splits, without keeping them.

    Hashes (16 bytes a sentence) go to BUCKETS files in `folder`, which are then looked at one after the other.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = [folder / f"repetitions-{number}" for number in range(BUCKETS)]
        self._files = [path.open("wb") for path in self._paths]

    def __enter__(self) -> "Repetitions":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def add(self, split: Split, contents: Iterable[bytes]) -> None:
        """Count sentences, given as bytes: of their ids, say."""
        mark, files, blake2b = bytes([SPLITS.index(split)]), self._files, hashlib.blake2b
        for content in contents:
            digest = blake2b(content, digest_size=DIGEST_BYTES).digest()
            files[digest[0] % BUCKETS].write(mark + digest)

    def summary(self) -> dict[str, dict[str, int]]:
        """`within`: how often a sentence repeats one of its own split. `across`: how often it is in another one too."""
        for file in self._files:
            file.flush()
        within: dict[str, int] = dict.fromkeys(SPLITS, 0)
        across = {f"{split}_in_{other}": 0 for n, split in enumerate(SPLITS) for other in SPLITS[:n]}
        for path in self._paths:
            counts = Counter(records(path))
            for record, count in counts.items():
                number, digest = record[0], record[1:]
                within[SPLITS[number]] += count - 1
                for other in range(number):
                    if bytes([other]) + digest in counts:
                        across[f"{SPLITS[number]}_in_{SPLITS[other]}"] += count
        return {"within": within, "across": across}


def records(path: Path) -> Iterator[bytes]:
    """What is in a bucket: of each sentence the number of its split, then its hash."""
    content, size = path.read_bytes(), 1 + DIGEST_BYTES
    return (content[start : start + size] for start in range(0, len(content), size))
