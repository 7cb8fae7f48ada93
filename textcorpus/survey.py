"""What a text is like before the pipeline reads it: its lines, what of `source` fits it, its words and lengths."""

import re
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textcorpus.corpus_sources import read_without_names
from textcorpus.readers import Reader, reader_named
from textcorpus.sentence_markers import MARKER, inner
from textcorpus.sources import TextFile, archive_kind, hidden, text_files
from textcorpus.splits import SPLITS
from textcorpus.statistics import Repetitions
from textcorpus.suggestion import held_out_fraction, published_splits
from textcorpus.writing import Writing, writing_of
from textvae.config import FetchSettings
from textvae.lines import WHITE_SPACE, words_between_spaces
from textvae.progress import progress

LONG_LINE_WORDS = 200
FIRST_LINES = 2_000
"""That the choice of the tokeniser looks at."""
SEVERAL = re.compile(r"[^\W\d_]{4}[.?!][\"'”’)\]]*\s+[\"'“‘(\[]*[A-Z]|[。！？][\"'”’」』）)]*\s*\w")
"""The end of one sentence and the start of the next; a short word before the dot may be an abbreviation."""
ADVANCE = 1000


@dataclass
class Lines:
    """What the lines of a text are like, before anything is made of them."""

    count: int = 0
    empty: int = 0
    blocks: int = 0
    """Runs of lines between empty ones."""
    several: int = 0
    several_at: str = ""
    long: int = 0
    long_at: str = ""
    replaced: int = 0
    replaced_at: str = ""
    marked: int = 0
    marked_at: str = ""
    longest: int = 0
    longest_at: str = ""
    first: list[str] = field(default_factory=list)

    def add(self, line: str, where: str, after_text: bool) -> bool:
        """Count a line; `after_text`: the line before it had text. Returns whether this one has."""
        self.count += 1
        words = len(words_between_spaces(line))
        if not words:
            self.empty += 1
            return False
        self.blocks += not after_text
        if len(self.first) < FIRST_LINES:
            start, end = inner(line)
            self.first.append(line[start:end].strip(WHITE_SPACE))
        if words > self.longest:
            self.longest, self.longest_at = words, where
        if words > LONG_LINE_WORDS:
            self.long, self.long_at = self.long + 1, self.long_at or where
        if SEVERAL.search(line):
            self.several, self.several_at = self.several + 1, self.several_at or where
        if "\ufffd" in line:
            self.replaced, self.replaced_at = self.replaced + 1, self.replaced_at or where
        if MARKER.search(line):
            self.marked, self.marked_at = self.marked + 1, self.marked_at or where
        return True


def read(files: list[TextFile], reader: Reader) -> Lines:
    """Look at every line. Raises DataError naming file and line for text that is not UTF-8 or no sentences."""
    found = Lines()
    with progress("inspect", None, "lines") as bar:
        for file in files:
            inside = False
            for number, line in enumerate(reader.lines(file), start=1):
                where = f"line {number}" + (f" of {file.name}" if len(files) > 1 else "")
                inside = found.add(line, where, inside)
                if number % ADVANCE == 0:
                    bar.advance(ADVANCE)
    return found


def source_for(path: str, local: Path, given: dict[str, Any]) -> tuple[dict[str, Any], Lines, Writing]:
    """The `source` that fits the text at `path` (a copy of it at `local`), `given` winning; its lines and writing."""
    files = [file for file in text_files(local) if not hidden(file.name)]
    source: dict[str, Any] = {"path": path}
    splits = given.get("splits") or (published_splits([file.name for file in files]) if len(files) > 2 else None)
    if splits is not None:
        source["splits"] = splits
        files = [file for file in files if file.name in splits.values()]
    elif local.is_dir() or archive_kind(local) is not None:
        files, _ = read_without_names(files, path)
    lines = read(files, reader_named(given.get("reader", "lines"), "--source, reader"))
    writing = writing_of(lines.first)
    source |= writing.source
    sentences = lines.count - lines.empty
    documents = len(files) if len(files) > 1 else lines.blocks
    if splits is None:
        if documents >= 20 and sentences >= 2 * documents:
            source["split_by"] = "document"
        if held_out_fraction(sentences) != FetchSettings.model_fields["valid_fraction"].default:
            source |= {f"{split}_fraction": held_out_fraction(sentences) for split in ("valid", "test")}
    return source | given, lines, writing


def raw_facts(raw: Path) -> tuple[dict[str, Counter[str]], Counter[int], dict[str, Any]]:
    """Words of each split, lengths of all sentences, and how many sentences repeat another one."""
    words: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    lengths: Counter[int] = Counter()
    with tempfile.TemporaryDirectory(prefix="textvae-inspect-") as folder, Repetitions(Path(folder)) as repetitions:
        for split in SPLITS:
            with (raw / f"{split}.txt").open(encoding="utf-8", newline="\n") as lines:
                for line in lines:
                    sentence = line.removesuffix("\n").split(" ")
                    words[split].update(sentence)
                    lengths[len(sentence)] += 1
                    repetitions.add(split, [line.encode()])
        return words, lengths, repetitions.summary()
