"""Words and their ids. The special words come first, so that targets (never PAD or BOS) are one block of ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from textvae.errors import DataError
from textvae.files import write_json
from textvae.records import VOCABULARY_VERSION, VocabularyFile, read_record

PAD, BOS, EOS, UNK = range(4)
SPECIAL_WORDS = ("PAD", "BOS", "EOS", "UNK")
UNKNOWN_WORD = SPECIAL_WORDS[UNK]
FIRST_TARGET = EOS
"""The decoder predicts ids from here on: PAD and BOS are never predicted, so they get no probability."""


class Vocabulary:
    """A bijection between words and ids 4, 5, ..., with PAD=0, BOS=1, EOS=2, UNK=3 in front.

    `tokenizer` says how text becomes words ({"kind": "spaces"|"words", "lowercase": ..., "language": ...}).
    """

    def __init__(self, words: Sequence[str], tokenizer: dict[str, Any]) -> None:
        self.words = list(words)
        self.tokenizer = tokenizer
        self._id_of = {word: number for number, word in enumerate(self.words, start=len(SPECIAL_WORDS))}
        if len(self._id_of) != len(self.words):
            raise DataError("a vocabulary with a repeated word; run preprocess again")
        self._id_of[UNKNOWN_WORD] = UNK

    def __len__(self) -> int:
        """The number of ids, special ones included."""
        return len(SPECIAL_WORDS) + len(self.words)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Ids of words, UNK for the ones that are not known; neither BOS nor EOS is added."""
        return [self._id_of.get(word, UNK) for word in words]

    def decode(self, ids: Iterable[int]) -> str:
        """The words of `ids` joined by spaces. Raises IndexError for an id that is not in the vocabulary."""
        offset = len(SPECIAL_WORDS)
        return " ".join(SPECIAL_WORDS[i] if i < offset else self.words[i - offset] for i in ids)

    def save(self, path: Path) -> None:
        """Write vocabulary.json."""
        write_json(path, {"format_version": VOCABULARY_VERSION, "tokenizer": self.tokenizer, "words": self.words})

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read vocabulary.json. Raises DataError where it is damaged or of another version."""
        content = read_record(path, VocabularyFile)
        return cls(content["words"], content["tokenizer"])
