"""The work of preprocess: a vocabulary, token ids in Parquet, corpus.json."""

import hashlib
import heapq
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from textcorpus.blocks import Block, blocks
from textcorpus.splits import SPLITS, Split
from textcorpus.statistics import Repetitions, SplitStatistics
from textvae.config import PreprocessSettings
from textvae.errors import DataError
from textvae.integrity import checked_file, write_sealed
from textvae.progress import Progress, progress
from textvae.records import CORPUS_VERSION, Source, read_record
from textvae.tokenizer import UNKNOWN_FORMS
from textvae.vocabulary import UNK, Vocabulary

FEWEST_HELD_OUT = 2
"""Sentences in valid and in test: the estimators need a second sentence, for an error and for the MI."""
NO_WORDS = UNKNOWN_FORMS | {"<s>", "</s>"}
"""Never in a vocabulary, so encoded as the unknown word: lmplz refuses a text that holds its special words."""
ROW_GROUP_SENTENCES = 8192
ROW_GROUP_TOKENS = 1_000_000


def write_encoded_corpus(raw: Path, settings: PreprocessSettings, corpus: Path) -> dict[str, Any]:
    """Make the folder `corpus` of fetch's output `raw`. Returns what corpus.json says.

    Raises DataError for input that is not as fetch wrote it, and for a split of which too little stays.
    """
    source = read_source(raw, settings.dataset)
    corpus.mkdir()
    passes = 3 if settings.train_sentences else 2
    total = sum(source["sentences"].values()) + (passes - 1) * source["sentences"]["train"]
    with progress("preprocess", total=total, unit="sentences") as bar:
        text = RawText(raw, settings, bar)
        selection = text.select()
        counts: Counter[str] = Counter()
        for block in text.kept("train", selection, SplitStatistics()):
            for word, count in block.counts():
                counts[word] += count
        words = most_frequent_words(counts, settings.vocabulary_size)
        vocabulary = Vocabulary(words, source["tokenizer"])
        vocabulary.save(corpus / "vocabulary.json")
        statistics, repetitions, digest = encode(text, selection, vocabulary, corpus)
    splits = {split: statistics[split].summary() for split in SPLITS}
    content = {
        "format_version": CORPUS_VERSION,
        "dataset": settings.dataset,
        "sha256": digest,
        "sentences": {split: splits[split]["sentences"] for split in SPLITS},
        "tokens": {split: splits[split]["tokens"] for split in SPLITS},
        "mean_length": splits["train"]["mean_length"],
        "vocabulary": len(words),
        "splits": splits,
        "repetitions": repetitions,
        "settings": settings.model_dump(),
        "source": {key: source[key] for key in ("origin", "split", "tokenizer", "sentences", "dropped")},
    }
    return write_sealed(corpus / "corpus.json", content, whole_folder=True)


def read_source(raw: Path, dataset: str) -> dict[str, Any]:
    """source.json. Raises DataError where it or a split is missing, of another data set, or not as fetch wrote it."""
    source = read_record(raw / "source.json", Source)
    if source["dataset"] != dataset:
        raise DataError(f"{raw} is the data set {source['dataset']}, not {dataset}; run fetch again")
    for split in SPLITS:
        checked_file(raw / f"{split}.txt", raw / "source.json", source["sha256"], "fetch")
    return source


@dataclass(frozen=True)
class Selection:
    """The training sentences that stay: hashes below `limit`, and as many copies of the one at it as are needed."""

    limit: int
    copies_at_limit: int


class RawText:
    """The sentences of fetch's output, streamed; `settings` says which ones stay."""

    def __init__(self, raw: Path, settings: PreprocessSettings, bar: Progress) -> None:
        self.raw, self.settings, self.bar = raw, settings, bar

    def short_enough(self, split: Split, statistics: SplitStatistics) -> Iterator[Block]:
        """The sentences of a split that are not longer than `longest`."""
        for block in blocks(self.raw / f"{split}.txt"):
            self.bar.advance(len(block))
            longest = self.settings.longest
            short = block if longest is None else block.only(block.lengths_N <= longest)
            statistics.too_long += len(block) - len(short)
            yield short

    def select(self) -> Selection | None:
        """The selection of `train_sentences` sentences: those with the smallest hashes, whatever their order."""
        wanted = self.settings.train_sentences
        if wanted is None:
            return None
        negated: list[int] = []  # a heap with the largest hash so far in front
        for block in self.short_enough("train", SplitStatistics()):
            for value in block.hashes(self.settings.seed).tolist():
                if len(negated) < wanted:
                    heapq.heappush(negated, -value)
                else:
                    heapq.heappushpop(negated, -value)
        return Selection(-negated[0], negated.count(negated[0])) if len(negated) == wanted else None

    def kept(self, split: Split, selection: Selection | None, statistics: SplitStatistics) -> Iterator[Block]:
        """The sentences of a split that stay, cut to max_length."""
        copies = 0 if selection is None else selection.copies_at_limit
        for block in self.short_enough(split, statistics):
            if split == "train" and selection is not None:
                hashes_N = block.hashes(self.settings.seed)
                at_limit_N = hashes_N == selection.limit
                wanted_N = (hashes_N < selection.limit) | (at_limit_N & (np.cumsum(at_limit_N) <= copies))
                copies -= int((at_limit_N & wanted_N).sum())
                statistics.not_selected += len(block) - int(wanted_N.sum())
                block = block.only(wanted_N)
            statistics.truncated += int((block.lengths_N > self.settings.max_length).sum())
            yield block.cut(self.settings.max_length)


def most_frequent_words(counts: Mapping[str, int], size: int) -> list[str]:
    """The `size` most frequent words, ties in the order of the words; never one of NO_WORDS."""
    return sorted(counts.keys() - NO_WORDS, key=lambda word: (-counts[word], word))[:size]


class Lookup:
    """A vocabulary's ids of many words at once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        words = [*vocabulary.words, *UNKNOWN_FORMS]
        self._words, self._known = pa.array(words, pa.string()), len(vocabulary.words)
        self._ids = np.array([*vocabulary.encode(words), UNK], np.int32)

    def __call__(self, tokens_T: pa.StringArray) -> tuple[npt.NDArray[np.int32], int]:
        """The ids, and how many of the words were unknown already as they came."""
        places_T = pc.index_in(tokens_T, value_set=self._words).fill_null(len(self._words)).to_numpy()
        return self._ids[places_T], int(((self._known <= places_T) & (places_T < len(self._words))).sum())


def encode(
    text: RawText, selection: Selection | None, vocabulary: Vocabulary, corpus: Path
) -> tuple[dict[Split, SplitStatistics], dict[str, Any], str]:
    """Write every split's ids. Returns the statistics, the repetitions, and the SHA-256 of vocabulary and ids.

    Raises DataError for a split of which too little stays.
    """
    statistics = {split: SplitStatistics() for split in SPLITS}
    lookup = Lookup(vocabulary)
    digest = hashlib.sha256("\n".join(vocabulary.words).encode())
    with tempfile.TemporaryDirectory(prefix="textvae-preprocess-") as folder, Repetitions(Path(folder)) as repetitions:
        for split in SPLITS:
            digest.update(f"\0{split}\0".encode())
            with ParquetSplit(corpus / f"{split}.parquet", text.settings.dataset, split) as output:
                for block in text.kept(split, selection, statistics[split]):
                    ids_T, came_unknown = lookup(block.tokens_T)
                    output.add(ids_T, block.lengths_N)
                    statistics[split].add(int((ids_T == UNK).sum()), came_unknown, block.lengths_N)
                    contents = contents_of(ids_T, block.lengths_N)
                    digest.update(b"".join(contents))
                    repetitions.add(split, contents)
            refuse_too_few(split, statistics[split].sentences, text.raw / f"{split}.txt")
        return statistics, repetitions.summary(), digest.hexdigest()


def contents_of(ids_T: npt.NDArray[np.int32], lengths_N: npt.NDArray[np.int64]) -> list[bytes]:
    """Of each sentence the bytes that the corpus's hash is made of: its length and its ids, 32 bits each."""
    ends_N = np.cumsum(lengths_N)
    all_of_them = np.insert(ids_T, ends_N - lengths_N, lengths_N).astype("<i4").tobytes()
    ends = (4 * (ends_N + np.arange(1, len(ends_N) + 1))).tolist()
    return [all_of_them[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def refuse_too_few(split: Split, sentences: int, path: Path) -> None:
    """Raise DataError for a split that nothing could be learned or measured from."""
    if not sentences:
        raise DataError(f"{path}: no sentence is left; raise `longest`, or add text")
    if split != "train" and sentences < FEWEST_HELD_OUT:
        raise DataError(
            f"{path}: one sentence is too few to measure anything; add text, raise `{split}_fraction` or `longest`, or "
            "name the files of the splits"
        )


class ParquetSplit:
    """Writes a split's sentences as token ids (column `tokens`, list<int32>), in row groups of bounded size."""

    def __init__(self, path: Path, dataset: str, split: Split) -> None:
        identity = json.dumps({"dataset": dataset, "split": split}, sort_keys=True)
        self._schema = pa.schema([("tokens", pa.list_(pa.int32()))], metadata={"textvae": identity})
        self._writer = pq.ParquetWriter(path, self._schema)
        self._ids_T, self._lengths_N = np.zeros(0, np.int32), np.zeros(0, np.int64)

    def __enter__(self) -> "ParquetSplit":
        return self

    def __exit__(self, *_: object) -> None:
        if len(self._lengths_N):
            self._write_row_group(len(self._lengths_N))
        self._writer.close()

    def add(self, ids_T: npt.NDArray[np.int32], lengths_N: npt.NDArray[np.int64]) -> None:
        """Write sentences, given as the ids of all of them and the length of each."""
        self._ids_T = np.concatenate([self._ids_T, ids_T])
        self._lengths_N = np.concatenate([self._lengths_N, lengths_N])
        while len(self._lengths_N) >= (full := self._sentences_of_a_row_group()):
            self._write_row_group(full)

    def _sentences_of_a_row_group(self) -> int:
        """How many of the sentences at hand fill one; more than there are where they do not."""
        tokens_N = np.cumsum(self._lengths_N[:ROW_GROUP_SENTENCES])
        return min(ROW_GROUP_SENTENCES, int(np.searchsorted(tokens_N, ROW_GROUP_TOKENS)) + 1)

    def _write_row_group(self, sentences: int) -> None:
        offsets = np.concatenate([[0], np.cumsum(self._lengths_N[:sentences])])
        ids_T, self._ids_T = np.split(self._ids_T, [offsets[-1]])
        tokens = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(ids_T))
        self._writer.write_table(pa.Table.from_arrays([tokens], schema=self._schema))
        self._lengths_N = self._lengths_N[sentences:]
