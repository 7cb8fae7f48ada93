"""fetch: every kind of path becomes the same sentences, and splits are drawn as promised."""

import gzip
import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from fetching import NUMBERED, NUMBERED_TEXT, SPLITS, fetched, three_splits, write, write_zip
from hypothesis import given, settings
from hypothesis import strategies as st

from components.fetch import fetch
from textcorpus import corpus_sources
from textcorpus.sources import content_sha256
from textcorpus.splits import documents_held_out, split_of_sentence
from textvae.config import FetchSettings
from textvae.errors import DataError

# Where the text is


@pytest.mark.parametrize("kind", ["folder", "gz in a folder", "zip", "gz in a zip"])
def test_named_splits_stay_as_published(tmp_path: Path, kind: str) -> None:
    texts = {"train": b"A b\na b\n", "valid": b"a b\nc\n", "test": b"c\nd D\nc\n"}
    suffix = ".txt.gz" if "gz" in kind else ".tokens"  # a named file may have any suffix
    names = {split: f"in/{split}{suffix}" for split in SPLITS}
    path = tmp_path / "source"
    if "zip" in kind:
        write_zip(path, {names[split]: texts[split] for split in SPLITS} | {"in/other.txt": b"not this"})
    else:
        (path / "in").mkdir(parents=True)
        for split in SPLITS:
            content = gzip.compress(texts[split]) if "gz" in kind else texts[split]
            (path / names[split]).write_bytes(content)
    lines, description = fetched(tmp_path, path=str(path), splits=names)
    # lower-cased; sentences that repeat, and that two splits share, are as they were
    assert lines == {"train": ["a b", "a b"], "valid": ["a b", "c"], "test": ["c", "d d", "c"]}
    assert description["sentences"] == {"train": 2, "valid": 2, "test": 3}
    assert description["origin"]["sha256"] == content_sha256(path)


@pytest.mark.parametrize("kind", ["txt", "gz", "zip", "folder", "folder of two"])
def test_every_kind_of_path_gives_the_same_sentences(tmp_path: Path, kind: str) -> None:
    expected, _ = fetched(tmp_path / "plain", path=str(write(tmp_path / "plain.txt", NUMBERED_TEXT)))
    path = tmp_path / f"text.{kind}"
    half = NUMBERED_TEXT.index(NUMBERED[200].encode())
    if kind == "txt":
        path.write_bytes(b"\xef\xbb\xbf" + NUMBERED_TEXT.replace(b"\n", b"\r\n").replace(b" ", b" \t "))
    elif kind == "gz":
        path.write_bytes(gzip.compress(NUMBERED_TEXT[:half]) + gzip.compress(NUMBERED_TEXT[half:]))
    elif kind == "zip":
        hidden = {"__MACOSX/._a.txt": b"\0", ".hidden.txt": b"\0"}
        write_zip(path, {"a.txt": NUMBERED_TEXT[:half], "b.txt.gz": NUMBERED_TEXT[half:], "b.md": b"x", **hidden})
    else:
        (path / "sub").mkdir(parents=True)
        (path / "sub" / "a.txt").write_bytes(NUMBERED_TEXT[:half] if kind.endswith("two") else NUMBERED_TEXT)
        (path / ".b.txt").write_bytes(b"\0")
        if kind.endswith("two"):
            (path / "z.gz").write_bytes(gzip.compress(NUMBERED_TEXT[half:].rstrip()))
    lines, _ = fetched(tmp_path, path=str(path))
    assert lines == expected
    assert sorted(line for split in SPLITS for line in lines[split]) == sorted(NUMBERED)


def test_lines_end_at_line_feeds_and_empty_ones_are_counted(tmp_path: Path) -> None:
    train = "a\u2028b c\u0085d\r\n\r\n \t \n e\u00a0f\x1cg \vh\n\ufeffi\nlast".encode()
    lines, description = fetched(tmp_path, **three_splits(tmp_path / "in", train))
    assert lines["train"] == ["a\u2028b c\u0085d", "e\u00a0f\x1cg h", "\ufeffi", "last"]
    assert description["dropped"] == {"empty_lines": 2}


@pytest.mark.parametrize("kind", ["spaces", "words"])
def test_a_carriage_return_inside_a_line_is_named_and_one_at_its_end_is_none(tmp_path: Path, kind: str) -> None:
    source = three_splits(tmp_path / "in", b"one\r\ntwo\r\r\nthree\rfour\n")
    with pytest.raises(DataError, match=r"train\.txt, line 3: a carriage return inside .*`sed '.*'`, or spaces, `tr "):
        fetched(tmp_path, **source, tokenizer=kind)
    source = three_splits(tmp_path / "in", b"one\r\ntwo\r\r\nthree\n")
    assert fetched(tmp_path, **source, tokenizer=kind)[0]["train"] == ["one", "two", "three"]


def test_text_is_neither_normalised_nor_lower_cased_unless_asked(tmp_path: Path) -> None:
    text = "Cafe\u0301 CAFÉ <unk> UNK _UNK\n".encode()
    lines, _ = fetched(tmp_path / "a", **three_splits(tmp_path / "in", text), lowercase=False)
    assert lines["train"] == ["Cafe\u0301 CAFÉ UNK UNK UNK"]
    lines, _ = fetched(tmp_path / "b", **three_splits(tmp_path / "in", text), lowercase=True)
    assert lines["train"] == ["cafe\u0301 café UNK UNK UNK"]


def test_words_tokenises_lines_as_sentences(tmp_path: Path) -> None:
    text = b"It isn't. They don't.\n\nMr. Hay left.\n"
    lines, description = fetched(tmp_path, **three_splits(tmp_path / "in", text), tokenizer="words")
    assert lines["train"] == ["it is n't . they do n't .", "mr. hay left ."]
    assert description["tokenizer"] == {"kind": "words", "lowercase": True, "language": "en"}


# How it is split


def test_a_line_split_is_about_the_fractions_and_keeps_equal_sentences_together(tmp_path: Path) -> None:
    path = write(tmp_path / "text.txt", NUMBERED_TEXT * 2)
    lines, description = fetched(tmp_path, path=str(path), valid_fraction=0.2, test_fraction=0.3)
    sets = {split: set(lines[split]) for split in SPLITS}
    assert sum(len(s) for s in sets.values()) == len(set.union(*sets.values())) == 400
    assert all(len(lines[split]) == 2 * len(sets[split]) for split in SPLITS)
    # binomial(400, p): within 4 standard deviations (8.0 and 9.2)
    assert abs(len(sets["valid"]) - 80) < 32
    assert abs(len(sets["test"]) - 120) < 37
    assert description["dropped"] == {"shared_train": 0, "shared_valid": 0, "shared_test": 0}


@settings(deadline=None)
@given(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4), st.integers(0, 5))
def test_a_sentences_split_depends_on_it_and_the_seed_alone(words: list[str], seed: int) -> None:
    drawn = split_of_sentence(words, 0.2, 0.2, seed)
    # larger fractions only move the boundary: a validation sentence stays one
    if drawn == "valid":
        assert split_of_sentence(words, 0.4, 0.2, seed) == "valid"
    assert split_of_sentence(list(words), 0.2, 0.2, seed) == drawn


def test_another_seed_is_another_split_and_the_same_seed_the_same_files(tmp_path: Path) -> None:
    path = str(write(tmp_path / "text.txt", NUMBERED_TEXT))
    first, again, other = (
        fetched(tmp_path / str(n), path=path, split_seed=seed)[1]["sha256"] for n, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first != other


def test_files_are_documents_and_stay_whole(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(20):
        write(tmp_path / f"in/{n}.txt", b"".join(f"doc {n} line {i}\n".encode() for i in range(5)))
    lines, _ = fetched(tmp_path, path=str(tmp_path / "in"), split_by="document", valid_fraction=0.1, test_fraction=0.25)
    documents = {split: {line.split(" ")[1] for line in lines[split]} for split in SPLITS}
    assert {split: len(found) for split, found in documents.items()} == {"train": 13, "valid": 2, "test": 5}
    assert len(set.union(*documents.values())) == 20
    assert all(len(lines[split]) == 5 * len(documents[split]) for split in SPLITS)


def test_blocks_of_one_file_are_documents(tmp_path: Path) -> None:
    blocks = [f"block {n} one\nblock {n} two\n" for n in range(10)]
    path = write(tmp_path / "text.txt", ("\n\n" + "\n \t\n\n".join(blocks)).encode())
    lines, _ = fetched(tmp_path, path=str(path), split_by="document", valid_fraction=0.2, test_fraction=0.1)
    assert {split: len(lines[split]) for split in SPLITS} == {"train": 14, "valid": 4, "test": 2}
    for split in SPLITS:
        ones = {line.split(" ")[1] for line in lines[split] if line.endswith("one")}
        assert ones == {line.split(" ")[1] for line in lines[split] if line.endswith("two")}


def test_documents_held_out_are_few_more_when_there_are_more(tmp_path: Path) -> None:
    before = documents_held_out([f"d{n}" for n in range(100)], 0.05, 0.05, seed=0)
    after = documents_held_out([f"d{n}" for n in range(101)], 0.05, 0.05, seed=0)
    assert len(before) == len(after) == 10
    assert len(set(before) & set(after)) >= 9  # a document more displaces one at most
    with pytest.raises(DataError, match="2 document"):
        documents_held_out(["a", "b"], 0.05, 0.05, seed=0)


def test_no_sentence_is_in_two_drawn_splits(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for n in range(10):
        # shared by all, shared by neighbours, and one of its own, twice
        content = f"thank you .\ncommon {n // 2} .\nown {n} .\nown {n} .\n"
        write(tmp_path / f"in/{n}.txt", content.encode())
    lines, description = fetched(
        tmp_path, path=str(tmp_path / "in"), split_by="document", valid_fraction=0.3, test_fraction=0.3
    )
    sets = {split: set(lines[split]) for split in SPLITS}
    assert not sets["train"] & sets["valid"] | sets["train"] & sets["test"] | sets["valid"] & sets["test"]
    assert lines["test"].count("thank you .") == 3  # the test documents are whole, repetitions included
    assert all(lines[split].count(line) == 2 for split in SPLITS for line in sets[split] if line.startswith("own"))
    dropped = description["dropped"]
    assert dropped["shared_test"] == 0
    assert dropped["shared_valid"] >= 3
    assert sum(description["sentences"].values()) + sum(dropped.values()) == 40
    assert {split: len(lines[split]) for split in SPLITS} == description["sentences"]


# How it runs


def test_a_corpus_is_not_held_in_memory(tmp_path: Path) -> None:
    fetched(tmp_path / "first", **three_splits(tmp_path / "in", b"what is imported on the way does not count\n"))
    source = three_splits(tmp_path / "in", b"one sentence of seven words is this\n" * 50_000)
    size = 50_000 * 36
    tracemalloc.start()
    fetch(settings=FetchSettings(dataset="mine", tokenizer="spaces", **source), raw=tmp_path / "raw")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "raw/train.txt").stat().st_size == size
    assert peak < size / 4


@pytest.mark.parametrize("whole", [True, False])
def test_a_text_that_is_edited_while_it_is_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    """Otherwise source.json says the hash of one text over sentences of another, and DVC finds them by it for ever."""
    text = write(tmp_path / "text.txt", NUMBERED_TEXT)
    read = corpus_sources.unmarked

    def edited(lines: Iterator[str], *counts: Counter[str]) -> Iterator[str]:
        yield from read(lines, *counts)
        text.write_bytes(NUMBERED_TEXT if whole else NUMBERED_TEXT[:-100])

    monkeypatch.setattr(corpus_sources, "unmarked", edited)
    if whole:
        assert fetched(tmp_path, path=str(text))[1]["origin"]["sha256"] == content_sha256(text)
        return
    with pytest.raises(DataError, match=r"text.txt has changed while it was read: run this again"):
        fetched(tmp_path, path=str(text))
    assert not (tmp_path / "raw").exists()


def test_the_command_line_ends_bad_input_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"dataset": "mine", **three_splits(tmp_path / "in", b"\xff\n")}
    with pytest.raises(SystemExit) as ended:
        fetch.main(["--settings", json.dumps(given), "--raw", str(tmp_path / "raw")])
    assert ended.value.code == 65
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fetch.main(["--help"])
    assert ended.value.code == 0
    assert "python -m components.fetch --raw" in " ".join(capsys.readouterr().out.split())
