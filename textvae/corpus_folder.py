"""A corpus as preprocess wrote it: every file is read by way of the hash that corpus.json states of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.errors import DataError
from textvae.integrity import checked_file
from textvae.records import CorpusFile, read_record
from textvae.vocabulary import Vocabulary

if TYPE_CHECKING:
    from textvae.corpus import Sentences


@dataclass(frozen=True)
class CorpusFolder:
    """A corpus and what corpus.json says of it. What reads a file raises DataError where it is missing or damaged."""

    path: Path
    about: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> CorpusFolder:
        """Raises DataError where corpus.json is missing, damaged, or of another format version."""
        return cls(path, read_record(path / "corpus.json", CorpusFile))

    @property
    def dataset(self) -> str:
        """Its name."""
        return str(self.about["dataset"])

    @property
    def sha256(self) -> str:
        """Of its words and sentences: what a model says of the corpus that it was trained on."""
        return str(self.about["sha256"])

    def file(self, name: str) -> Path:
        """The path of one of its files, which is as preprocess wrote it."""
        return checked_file(self.path / name, self.path / "corpus.json", self.about.get("files", {}), "preprocess")

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Its words."""
        return Vocabulary.load(self.file("vocabulary.json"))

    def sentences(self, split: str) -> Sentences:
        """A split: train, valid or test."""
        from textvae.corpus import Sentences  # needs torch, which the images of data and ngram have not

        return Sentences.load(self.file(f"{split}.parquet"), len(self.vocabulary))

    def refuse_other(self, sha256: object, whose: object) -> None:
        """Raise DataError where `whose` model or samples were made with a corpus of another content."""
        if sha256 != self.sha256:
            raise DataError(
                f"{self.path} is not the corpus that {whose} was made with: it has other words or sentences: give that "
                "one, or train again with this one"
            )
