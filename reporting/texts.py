"""What generated text looks like beside real text: lengths, frequent words, how much of it repeats itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reporting.artifacts import Experiment
from textvae.corpus_folder import CorpusFolder
from textvae.errors import DataError
from textvae.vocabulary import SPECIAL_WORDS

Ids = npt.NDArray[np.int64]
NGRAMS = (1, 2, 3)


@dataclass(frozen=True)
class Sentences:
    """Token ids, all sentences in one row, and where each sentence ends in it."""

    ids: Ids
    lengths: Ids

    @classmethod
    def read(cls, path: Path) -> Sentences:
        """The `tokens` of a Parquet file. Raises DataError where it is damaged."""
        try:
            tokens = pq.read_table(path, columns=["tokens"])["tokens"].combine_chunks()
        except MemoryError:  # Arrow's own is an ArrowException
            raise
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({error}); run the step that writes it again") from None
        lengths = pc.list_value_length(tokens).to_numpy(zero_copy_only=False).astype(np.int64)
        return cls(tokens.flatten().to_numpy(zero_copy_only=False).astype(np.int64), lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    def first(self, count: int) -> Sentences:
        """The first `count` of them."""
        lengths = self.lengths[:count]
        return Sentences(self.ids[: lengths.sum()], lengths)

    def fingerprints(self) -> Ids:
        """A 64-bit hash of every sentence, the same in every text: the sum over its words of one of word and place."""
        starts = np.cumsum(self.lengths) - self.lengths
        places = np.arange(len(self.ids)) - np.repeat(starts, self.lengths)
        terms = scrambled((places.astype(np.uint64) << np.uint64(32)) + self.ids.astype(np.uint64) + np.uint64(1))
        sums = np.concatenate(([np.uint64(0)], np.cumsum(terms)))  # wraps, as a hash may
        return np.asarray((sums[starts + self.lengths] - sums[starts]).view(np.int64))

    def distinct(self, order: int) -> float | None:
        """Different n-grams per n-gram (distinct-n, Li et al., 2016), none across sentences; None without any."""
        inside = np.repeat(self.lengths, self.lengths)
        places = np.arange(len(self.ids)) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)
        starts = np.flatnonzero(places + order <= inside)
        codes = np.zeros(len(starts), dtype=np.int64)
        for offset in range(order):
            words = self.ids[starts + offset]
            # Renumbered at each step, so that a pair (n-gram so far, next word) always fits 64 bits.
            codes = np.unique(codes * (int(self.ids.max(initial=0)) + 1) + words, return_inverse=True)[1]
        return None if not len(starts) else len(np.unique(codes)) / len(starts)


def scrambled(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Each value's bits mixed well (the finaliser of SplitMix64, Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class TextProfile:
    """One text: the generated sentences of a run, or real ones."""

    sentences: int
    mean_length: float
    length_shares: npt.NDArray[np.float64]
    """By number of words: the share of the sentences that have so many."""
    word_shares: npt.NDArray[np.float64]
    """By id: the share of the words that it is."""
    words: int
    """Different words in it."""
    unique: float
    """Share of different sentences, over the whole text."""
    unique_of_first: float
    """The same of as many sentences as the real text has."""
    in_training: float
    """Share of the sentences that are in the training set, word for word."""
    distinct: tuple[float | None, ...]
    """distinct-1 to distinct-3 of as many sentences as the real text has: they fall with the amount of text."""


def profile(text: Sentences, first: int, vocabulary: int, training: Ids) -> TextProfile:
    """Of a text; `first` is how many sentences the comparable shares look at."""
    shown, prints = text.first(first), text.fingerprints()
    counts = np.bincount(text.ids, minlength=vocabulary)
    return TextProfile(
        sentences=len(text),
        mean_length=float(text.lengths.mean()),
        length_shares=np.bincount(text.lengths) / len(text),
        word_shares=counts / max(counts.sum(), 1),
        words=int((counts > 0).sum()),
        unique=len(np.unique(prints)) / len(prints),
        unique_of_first=len(np.unique(shown.fingerprints())) / len(shown),
        in_training=float(np.isin(prints, training).mean()),
        distinct=tuple(shown.distinct(order) for order in NGRAMS),
    )


@dataclass(frozen=True)
class TextProfiles:
    """The texts of one data set."""

    real: TextProfile
    """The test sentences."""
    generated: dict[tuple[str, str], TextProfile]
    """By system and seed."""
    words: list[str]
    """By id."""

    def top_words(self, count: int) -> list[int]:
        """The ids of the most frequent words of the real text, the most frequent first."""
        return [int(i) for i in np.argsort(-self.real.word_shares, kind="stable")[:count]]


def text_profiles(experiment: Experiment, dataset: str) -> TextProfiles | None:
    """Everything generated for a data set beside its test sentences; None where there is nothing to compare.

    Raises DataError for samples with ids that are not in the corpus's vocabulary.
    """
    folder = experiment.corpus_folders.get(dataset)
    runs = [run for run in experiment.runs_of(dataset) if run.samples is not None and run.status != "failed"]
    if folder is None or not runs or not (folder / "test.parquet").is_file():
        return None
    data = CorpusFolder.open(folder)
    words = [*SPECIAL_WORDS, *data.vocabulary.words]
    training = np.unique(Sentences.read(data.file("train.parquet")).fingerprints())
    test = Sentences.read(data.file("test.parquet"))
    generated = {}
    for run in runs:
        text = Sentences.read(run.samples)  # type: ignore[arg-type]
        if text.ids.max(initial=0) >= len(words):
            raise DataError(f"{run.samples} has words that {folder} does not have: run {run.name} again")
        if len(text):
            generated[run.system, run.seed] = profile(text, len(test), len(words), training)
    return TextProfiles(profile(test, len(test), len(words), training), generated, words)
