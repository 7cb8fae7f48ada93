"""Sentence markers at the ends of nearly every line are dropped and told: a marked corpus counts like a plain one."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fetching import NUMBERED, SPLITS, fetched, write
from hypothesis import given
from hypothesis import strategies as st

from components.preprocess import preprocess
from textcorpus.sentence_markers import FIRST_LINES, inner, unmarked
from textvae.config import PreprocessSettings
from textvae.files import read_json

MARKED = [
    "<s> {} </s>",
    "<s>{}</s>",
    "{} <eos>",
    "<BOS> {}",
    "[CLS] {} [SEP]",
    "BOS {} EOS",
    "{}<|endoftext|>",
    "{} </s> <pad> <pad>",
    "  <s> {} </s> \t",
]


def after(lines: list[str]) -> tuple[list[str], Counter[str], Counter[str]]:
    dropped: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    return list(unmarked(iter(lines), dropped, notes)), dropped, notes


@pytest.mark.parametrize("tokenizer", ["spaces", "words"])
@pytest.mark.parametrize("marked", MARKED)
def test_a_marked_corpus_counts_like_the_plain_one(
    tmp_path: Path, marked: str, tokenizer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tokens that PPL is over, the vocabulary, the splits: all as without markers."""
    corpora = {}
    for name, form in (("plain", "{}"), ("marked", marked)):
        text = write(tmp_path / f"{name}.txt", "\n".join(form.format(line) for line in NUMBERED).encode())
        lines, description = fetched(tmp_path / name, path=str(text), tokenizer=tokenizer)
        settings = PreprocessSettings(dataset="mine", vocabulary_size=500)
        preprocess(raw=tmp_path / name / "raw", settings=settings, corpus=tmp_path / name / "corpus")
        statistics: dict[str, Any] = read_json(tmp_path / name / "corpus/corpus.json")
        corpora[name] = (lines, statistics["tokens"], statistics["splits"], description["sentences"])
        parquet = [(tmp_path / name / f"corpus/{split}.parquet").read_bytes() for split in SPLITS]
        corpora[name] += (parquet,)
    assert corpora["marked"] == corpora["plain"]
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("note: nearly every line ")]) == 1
    assert description["dropped"]["sentence_markers"] == 400


def test_what_only_unicode_calls_a_space_is_a_word_beside_a_marker() -> None:
    lines = ["a <s> \u2028", "\u00a0"]
    assert after(lines) == (lines, {}, {next(iter(after(lines)[2])): 1})
    assert inner("\u2028 <s> a") == (0, 7)
    assert inner(" \t<s> a </s>\r\v") == (5, 8)


def test_markers_on_some_lines_stay_and_are_told() -> None:
    lines = ["<s> a </s>"] * 89 + ["a"] * 11
    kept, dropped, notes = after(lines)
    assert kept == lines
    assert not dropped
    (note,) = notes
    assert note.startswith("89 of the first 100 lines hold sentence markers (</s> <s>) where they are counted as words")
    kept, dropped, notes = after(["<s> a </s>"] * 90 + ["a"] * 10)
    assert [line.strip() for line in kept] == ["a"] * 100
    assert dropped == {"sentence_markers": 90}


def test_each_end_is_decided_by_itself_and_what_stands_inside_is_told() -> None:
    kept, _, notes = after(["a </s> <s> b </s>"] * 50 + ["<s> c </s>"])
    assert [line.rstrip() for line in kept] == ["a </s> <s> b"] * 50 + ["<s> c"]
    assert [note.split(" (")[0] for note in notes] == [
        "nearly every line ends with sentence markers",
        "51 of the first 51 lines hold sentence markers",
    ]


def test_lines_of_nothing_but_markers_do_not_decide() -> None:
    assert after(["<s>", "EOS", "</s> <pad>"])[0] == ["<s>", "EOS", "</s> <pad>"]
    kept, _, _ = after(["a </s>", "", "</s>", "b </s>"])
    assert [line.strip() for line in kept] == ["a", "", "", "b"]


def test_capitals_may_stand_right_behind_a_chinese_full_stop() -> None:
    assert after(["你好。EOS"] * 3)[0] == ["你好。"] * 3


@pytest.mark.parametrize("line", ["eos a eos", "a < s > b", "EOSIN a", "a.EOS", "<unk> a UNK", "[1] a [2]", "<br> a"])
def test_words_that_are_no_markers_stay(line: str) -> None:
    assert after([line] * 9) == ([line] * 9, Counter(), Counter())


def test_only_the_first_lines_decide_and_nothing_is_lost() -> None:
    lines = [f"{n} </s>" for n in range(FIRST_LINES)] + ["a"] * 50 + ["b </s>"]
    kept, dropped, _ = after(lines)
    assert [line.strip() for line in kept] == [*map(str, range(FIRST_LINES)), *["a"] * 50, "b"]
    assert dropped["sentence_markers"] == FIRST_LINES + 1


@given(st.lists(st.sampled_from(["<s>", "</s>", "EOS", "[SEP]", " ", "a", "b"]), max_size=12))
def test_what_is_inside_is_a_loop_that_takes_words_off_both_ends(words: list[str]) -> None:
    line = " ".join(words)
    expected = line.split()
    for end in (0, -1):
        while expected and expected[end] in ("<s>", "</s>", "EOS", "[SEP]"):
            expected.pop(end)
    start, end = inner(line)
    assert line[start:end].split() == expected
