"""The work of preprocess: a vocabulary, token ids in Parquet, corpus.json."""

import hashlib
import heapq
import json
import struct
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from textcorpus.sources import damage_reported
from textcorpus.splits import SPLITS, Split, keyed_hash
from textcorpus.statistics import Repetitions, SplitStatistics
from textvae.config import PreprocessSettings
from textvae.errors import DataError
from textvae.integrity import checked_file, write_sealed
from textvae.progress import Progress, progress
from textvae.records import CORPUS_VERSION, Source, read_record
from textvae.tokenizer import UNKNOWN_FORMS, Tokenizer
from textvae.vocabulary import UNK, Vocabulary

FEWEST_HELD_OUT = 2
"""Sentences in valid and in test: the estimators need a second sentence, for an error and for the MI."""
NO_WORDS = UNKNOWN_FORMS | {"<s>", "</s>"}
"""Never in a vocabulary, so encoded as the unknown word: lmplz refuses a text that holds its special words."""
ROW_GROUP_SENTENCES = 8192
ROW_GROUP_TOKENS = 1_000_000
SENTENCES_PER_ADVANCE = 1000


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
        words = most_frequent_words(text.kept("train", selection, SplitStatistics()), settings.vocabulary_size)
        vocabulary = Vocabulary(words, Tokenizer.of(source["tokenizer"]).description)
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

    def short_enough(self, split: Split, statistics: SplitStatistics) -> Iterator[list[str]]:
        """The sentences of a split that are neither empty nor longer than `longest`, as words."""
        path = self.raw / f"{split}.txt"
        with damage_reported(str(path)), path.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if number % SENTENCES_PER_ADVANCE == 0:
                    self.bar.advance(SENTENCES_PER_ADVANCE)
                words = line.removesuffix("\n").split(" ")
                if self.settings.longest is None or len(words) <= self.settings.longest:
                    yield words
                else:
                    statistics.too_long += 1

    def select(self) -> Selection | None:
        """The selection of `train_sentences` sentences: those with the smallest hashes, whatever their order."""
        wanted = self.settings.train_sentences
        if wanted is None:
            return None
        negated: list[int] = []  # a heap with the largest hash so far in front
        for words in self.short_enough("train", SplitStatistics()):
            value = -keyed_hash(" ".join(words), self.settings.seed)
            if len(negated) < wanted:
                heapq.heappush(negated, value)
            else:
                heapq.heappushpop(negated, value)
        return Selection(-negated[0], negated.count(negated[0])) if len(negated) == wanted else None

    def kept(self, split: Split, selection: Selection | None, statistics: SplitStatistics) -> Iterator[list[str]]:
        """The sentences of a split that stay, cut to max_length."""
        copies = 0 if selection is None else selection.copies_at_limit
        for words in self.short_enough(split, statistics):
            if split == "train" and selection is not None:
                value = keyed_hash(" ".join(words), self.settings.seed)
                if value > selection.limit or (value == selection.limit and copies == 0):
                    statistics.not_selected += 1
                    continue
                copies -= value == selection.limit
            statistics.truncated += len(words) > self.settings.max_length
            yield words[: self.settings.max_length]


def most_frequent_words(sentences: Iterable[list[str]], size: int) -> list[str]:
    """The `size` most frequent words, ties in the order of the words; never one of NO_WORDS."""
    counts: Counter[str] = Counter()
    for words in sentences:
        counts.update(words)
    for word in NO_WORDS:
        counts.pop(word, None)
    return sorted(counts, key=lambda word: (-counts[word], word))[:size]


def encode(
    text: RawText, selection: Selection | None, vocabulary: Vocabulary, corpus: Path
) -> tuple[dict[Split, SplitStatistics], dict[str, Any], str]:
    """Write every split's ids. Returns the statistics, the repetitions, and the SHA-256 of vocabulary and ids.

    Raises DataError for a split of which too little stays.
    """
    statistics = {split: SplitStatistics() for split in SPLITS}
    digest = hashlib.sha256("\n".join(vocabulary.words).encode())
    with tempfile.TemporaryDirectory(prefix="textvae-preprocess-") as folder, Repetitions(Path(folder)) as repetitions:
        for split in SPLITS:
            digest.update(f"\0{split}\0".encode())
            with ParquetSplit(corpus / f"{split}.parquet", text.settings.dataset, split) as output:
                for words in text.kept(split, selection, statistics[split]):
                    ids = vocabulary.encode(words)
                    output.add(ids)
                    statistics[split].add(ids.count(UNK), sum(word in UNKNOWN_FORMS for word in words), len(ids))
                    content = struct.pack(f"<{len(ids) + 1}i", len(ids), *ids)
                    digest.update(content)
                    repetitions.add(split, content)
            refuse_too_few(split, statistics[split].sentences, text.raw / f"{split}.txt")
        return statistics, repetitions.summary(), digest.hexdigest()


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
        self._ids, self._offsets = array("i"), array("i", [0])

    def __enter__(self) -> "ParquetSplit":
        return self

    def __exit__(self, *_: object) -> None:
        self._write_row_group()
        self._writer.close()

    def add(self, ids: list[int]) -> None:
        """Write one sentence."""
        self._ids.extend(ids)
        self._offsets.append(len(self._ids))
        if len(self._offsets) > ROW_GROUP_SENTENCES or len(self._ids) >= ROW_GROUP_TOKENS:
            self._write_row_group()

    def _write_row_group(self) -> None:
        if len(self._offsets) > 1:
            tokens = pa.ListArray.from_arrays(pa.array(self._offsets, pa.int32()), pa.array(self._ids, pa.int32()))
            self._writer.write_table(pa.Table.from_arrays([tokens], schema=self._schema))
            self._ids, self._offsets = array("i"), array("i", [0])
