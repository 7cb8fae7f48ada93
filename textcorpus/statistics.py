"""What corpus.json says about a split: lengths, unknown words, repeated sentences. All in bounded memory."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

    def add(self, unknown: int, came_unknown: int, length: int) -> None:
        """Count a sentence with this many unknown words, and this many of them unknown in the text already."""
        self.sentences += 1
        self.tokens += length
        self.came_unknown += came_unknown
        self.out_of_vocabulary += unknown - came_unknown
        self.lengths[length] += 1

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

    def add(self, split: Split, ids: bytes) -> None:
        """Count a sentence, given as the bytes of its ids."""
        digest = hashlib.blake2b(ids, digest_size=DIGEST_BYTES).digest()
        self._files[digest[0] % BUCKETS].write(bytes([SPLITS.index(split)]) + digest)

    def summary(self) -> dict[str, dict[str, int]]:
        """`within`: how often a sentence repeats one of its own split. `across`: how often it is in another one too."""
        for file in self._files:
            file.flush()
        within: Counter[str] = Counter()
        across: Counter[str] = Counter()
        for path in self._paths:
            counts = bucket_counts(path)
            for split, own in counts.items():
                within[split] += sum(own.values()) - len(own)
            for split, other in (("valid", "train"), ("test", "train"), ("test", "valid")):
                shared = counts[split].keys() & counts[other].keys()
                across[f"{split}_in_{other}"] += sum(counts[split][digest] for digest in shared)
        return {"within": dict(within), "across": dict(across)}


def bucket_counts(path: Path) -> dict[str, Counter[bytes]]:
    """How often each hash of a bucket occurs, by split."""
    counts: dict[str, Counter[bytes]] = {split: Counter() for split in SPLITS}
    with path.open("rb") as stream:
        while record := stream.read(1 + DIGEST_BYTES):
            counts[SPLITS[record[0]]][record[1:]] += 1
    return counts
