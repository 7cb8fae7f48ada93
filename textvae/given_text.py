"""The sentences that a user brings to a trained model: options, standard input, a text file, a corpus folder."""

import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from textvae.corpus_folder import CorpusFolder
from textvae.errors import DataError
from textvae.latent import LONGEST_TEXT, Texts, TextVAE
from textvae.lines import decoded, words_between_spaces
from textvae.progress import progress

CHUNK = 1024
"""Sentences that are worked on at a time."""


def given(texts: Sequence[str] | None, name: str) -> Iterator[list[str]]:
    """The sentences of --text or of standard input, in chunks. Raises DataError where there is none or one is empty."""
    if texts:
        for number, text in enumerate(texts, start=1):
            if not words_between_spaces(text):
                raise DataError(f"--text number {number} is empty: write a sentence")
            if any("\ud800" <= character <= "\udfff" for character in text):  # how Python shows a byte that is none
                raise DataError(f"--text number {number} is not UTF-8: convert it")
        lines: Iterator[str] = iter(texts)
    else:
        if sys.stdin.isatty():
            print("one sentence a line, please; Ctrl-D ends", file=sys.stderr)
        lines = read_lines(sys.stdin.buffer, "standard input")
    nothing = True
    with progress(name, None, "sentences") as bar:
        while chunk := list(islice(lines, CHUNK)):
            nothing = False
            yield chunk
            bar.advance(len(chunk))
    if nothing:
        raise DataError("standard input is empty: give sentences, one a line, or --text")


def read_lines(stream: BinaryIO, name: str) -> Iterator[str]:
    """The lines of UTF-8 text, none of them empty or too long for a sentence. Raises DataError naming the line."""
    longest = 4 * LONGEST_TEXT  # bytes
    number = 0
    while line := stream.readline(longest + 3):
        number += 1
        where, cut = f"{name}, line {number}", len(line) > longest + 2  # perhaps inside a character
        text = "" if cut else decoded(line, where, first=number == 1)
        if cut or len(text) > LONGEST_TEXT:
            raise DataError(f"{where}: more than {LONGEST_TEXT:,} characters: one sentence a line")
        if not words_between_spaces(text):
            raise DataError(f"{where}: empty: remove it")
        yield text


def sentences_of(corpus: Path, model: TextVAE) -> Texts:
    """A text file's sentences, or the training sentences of preprocess's folder, which must have the model's words."""
    try:
        if corpus.is_dir():
            data = CorpusFolder.open(corpus)
            if data.vocabulary.words != model.vocabulary.words:
                raise DataError(f"{corpus} has another vocabulary than {model.name}: give the corpus it was trained on")
            return data.sentences("train")
        with corpus.open("rb") as stream:
            lines = list(read_lines(stream, str(corpus)))
    except OSError as error:
        raise DataError(f"--corpus {corpus} cannot be read ({error.strerror})") from None
    if not lines:
        raise DataError(f"--corpus {corpus} is empty: give sentences, one a line")
    return lines
