"""preprocess: ids that give the sentences back, the right vocabulary, honest statistics, bounded memory."""

import json
import shutil
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fetching import SPLITS, fetched, three_splits
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.preprocess import preprocess
from textcorpus import blocks
from textcorpus import encoded_corpus as module
from textcorpus.statistics import histogram, quantile
from textvae.config import PreprocessSettings
from textvae.corpus import Sentences
from textvae.errors import DataError
from textvae.tokenizer import Tokenizer
from textvae.vocabulary import UNK, Vocabulary

TEXT = {"train": "b a\na b c\nc b a d\n", "valid": "a e\na b c\n", "test": "d\nd\nUNK a a a a a a\n"}


def encoded(folder: Path, texts: dict[str, str], **changed: Any) -> tuple[dict[str, list[list[int]]], Vocabulary, Any]:
    """Ids per split, the vocabulary and corpus.json of texts that went through fetch and preprocess."""
    contents = [texts[split].encode() for split in SPLITS]
    fetched(folder, **three_splits(folder / "in", *contents), lowercase=False)
    preprocess(raw=folder / "raw", settings=PreprocessSettings(dataset="mine", **changed), corpus=folder / "corpus")
    ids = {s: pq.read_table(folder / f"corpus/{s}.parquet")["tokens"].to_pylist() for s in SPLITS}
    statistics = json.loads((folder / "corpus/corpus.json").read_text())
    return ids, Vocabulary.load(folder / "corpus/vocabulary.json"), statistics


def test_a_corpus_by_hand(tmp_path: Path) -> None:
    ids, vocabulary, statistics = encoded(tmp_path, TEXT, vocabulary_size=3)
    # train: a 3, b 3, c 2, d 1; the tie of a and b goes by the word; ids start behind the four special ones
    assert vocabulary.words == ["a", "b", "c"]
    assert ids["train"] == [[5, 4], [4, 5, 6], [6, 5, 4, UNK]]
    assert ids["valid"] == [[4, UNK], [4, 5, 6]]
    assert ids["test"] == [[UNK], [UNK], [UNK, 4, 4, 4, 4, 4, 4]]
    assert statistics["sentences"] == {"train": 3, "valid": 2, "test": 3}
    assert statistics["tokens"] == {"train": 9, "valid": 5, "test": 9}
    assert statistics["mean_length"] == 3.0
    assert statistics["vocabulary"] == 3
    assert {s: statistics["splits"][s]["out_of_vocabulary"] for s in SPLITS} == {"train": 1, "valid": 1, "test": 2}
    assert {s: statistics["splits"][s]["unknown_in_text"] for s in SPLITS} == {"train": 0, "valid": 0, "test": 1}
    assert statistics["splits"]["valid"]["out_of_vocabulary_rate"] == 0.2
    assert statistics["splits"]["test"]["length_histogram"] == {"width": 5, "sentences": [2, 1]}
    assert statistics["repetitions"] == {
        "within": {"train": 0, "valid": 0, "test": 1},
        "across": {"valid_in_train": 1, "test_in_train": 0, "test_in_valid": 0},
    }
    assert statistics["source"]["tokenizer"] == {"kind": "spaces", "lowercase": False, "language": "en"}


MARKERS = {"<s>", "</s>", "PAD"}
sentence = st.lists(
    st.sampled_from(["a", "b", "cc", "UNK", "<s>", "PAD", "\u2028", "é", "</s>"]), min_size=1, max_size=8
).map(lambda words: ["b", *words, "b"] if MARKERS & {words[0], words[-1]} else words)  # fetch drops them at the ends
split_text = st.lists(sentence, min_size=2, max_size=6)


@example([["UNK"]], [["<s>"]] * 2, [["a"]] * 2, 3)
@example([["a"]] * 2, [["a"]] * 2, [["\u2028"], ["a", "<s>", "\u2028"]], 1)  # markers before a letter are not at an end
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(split_text, split_text, split_text, st.integers(1, 5))
def test_ids_give_the_sentences_back_but_for_unknown_words(
    tmp_path: Path, train: list[list[str]], valid: list[list[str]], test: list[list[str]], size: int
) -> None:
    shutil.rmtree(tmp_path / "in", ignore_errors=True)
    texts = dict(zip(SPLITS, (train, valid, test), strict=True))
    written = {split: "\n".join(map(" ".join, texts[split])) for split in SPLITS}
    ids, vocabulary, statistics = encoded(tmp_path, written, vocabulary_size=size)
    known = set(vocabulary.words)
    for split in SPLITS:
        expected = [" ".join(word if word in known else "UNK" for word in words) for words in texts[split]]
        assert [vocabulary.decode(sentence) for sentence in ids[split]] == expected
        loaded = Sentences.load(tmp_path / f"corpus/{split}.parquet", len(vocabulary))
        assert [list(loaded[n]) for n in range(len(loaded))] == ids[split]
    counts = Counter(word for words in train for word in words if word not in ("UNK", "<s>", "</s>"))
    assert len(known) == min(size, len(counts))
    assert all(counts[w] <= min((counts[k] for k in known), default=0) for w in counts.keys() - known)
    assert statistics["splits"]["train"]["out_of_vocabulary"] == sum(
        word not in known and word != "UNK" for words in train for word in words
    )


def test_what_fetch_wrote_is_read_back_as_it_is(tmp_path: Path) -> None:
    """A byte order mark is a letter but at the start of a file, and a line that was short enough may grow."""
    long = "\u0130 " * 333_333  # of 3 bytes each; lower-cased of 4
    texts = {"train": "\n\ufeff\n\ufeffa b\n", "valid": f"{long}\na\n", "test": "a\n\x85\n"}
    fetched(tmp_path, **three_splits(tmp_path / "in", *(texts[split].encode() for split in SPLITS)), lowercase=True)
    preprocess(raw=tmp_path / "raw", settings=PreprocessSettings(dataset="mine"), corpus=tmp_path / "corpus")
    vocabulary = Vocabulary.load(tmp_path / "corpus/vocabulary.json")
    assert vocabulary.words == ["b", "\ufeff", "\ufeffa"]
    assert read_sentences(tmp_path, "valid")[1] == [UNK]


def read_sentences(folder: Path, split: str) -> list[list[int]]:
    found: list[list[int]] = pq.read_table(folder / f"corpus/{split}.parquet")["tokens"].to_pylist()
    return found


def test_no_special_word_of_kenlm_reaches_the_vocabulary(tmp_path: Path) -> None:
    # lmplz refuses a text with one of its own words; <pad> and [PAD] mean nothing to it
    special = "<s> </s> <unk> <UNK> _UNK UNK"
    texts = {"train": f"{special} <pad> a\n" * 9, "valid": "<s> a </s>\na\n", "test": f"{special}\na\n"}
    ids, vocabulary, _ = encoded(tmp_path, texts)
    assert vocabulary.words == ["<pad>", "a"]
    assert ids["test"][0] == [UNK] * 6
    assert vocabulary.decode(ids["valid"][0]) == "UNK a UNK"


def test_long_sentences_are_cut_and_longer_ones_left_out(tmp_path: Path) -> None:
    texts = {"train": "a b c d\na b c d e\nf g\n", "valid": "a b c d e\na\nb\n", "test": "a b c\na\n"}
    ids, vocabulary, statistics = encoded(tmp_path, texts, max_length=3, longest=4)
    assert [len(sentence) for sentence in ids["train"]] == [3, 2]
    assert vocabulary.words == ["a", "b", "c", "f", "g"]  # d and e occur only where training never looks
    splits = statistics["splits"]
    assert [(splits[s]["truncated"], splits[s]["dropped"]["too_long"]) for s in SPLITS] == [(1, 1), (0, 1), (0, 0)]


def numbered(count: int) -> str:
    return "".join(f"sentence {n} .\n" for n in range(count))


def test_a_reduced_corpus_is_drawn_whatever_the_order(tmp_path: Path) -> None:
    texts = {"train": numbered(300), "valid": "a\n" * 2, "test": "a\n" * 2}
    ids, vocabulary, statistics = encoded(tmp_path / "a", texts, train_sentences=50)
    chosen = [vocabulary.decode(sentence) for sentence in ids["train"]]
    assert len(chosen) == len(set(chosen)) == 50
    assert sorted(chosen, key=lambda line: int(line.split()[1])) == chosen  # the text's own order
    assert statistics["splits"]["train"]["dropped"] == {"too_long": 0, "not_selected": 250}
    turned = texts | {"train": "".join(reversed(texts["train"].splitlines(keepends=True)))}
    ids, vocabulary, _ = encoded(tmp_path / "b", turned, train_sentences=50)
    assert [vocabulary.decode(sentence) for sentence in ids["train"]] == chosen[::-1]
    more, vocabulary, _ = encoded(tmp_path / "c", texts, train_sentences=60)
    assert set(chosen) < {vocabulary.decode(sentence) for sentence in more["train"]}
    other, vocabulary, _ = encoded(tmp_path / "d", texts, train_sentences=50, seed=1)
    assert set(chosen) != {vocabulary.decode(sentence) for sentence in other["train"]}
    # 50 of 300 at random are spread: all in one half would be a bias of the hash
    assert 10 < sum(int(line.split()[1]) < 150 for line in chosen) < 40


@pytest.mark.parametrize("wanted", [1, 5, 12, 17, 20])
def test_copies_do_not_change_how_many_are_drawn(tmp_path: Path, wanted: int) -> None:
    texts = {"train": "a\nb\na\nb\nc\n" * 4, "valid": "a\n" * 2, "test": "a\n" * 2}
    ids, _, statistics = encoded(tmp_path, texts, train_sentences=wanted)
    assert len(ids["train"]) == wanted
    assert statistics["splits"]["train"]["dropped"]["not_selected"] == 20 - wanted


def test_fewer_sentences_than_wanted_are_all_kept(tmp_path: Path) -> None:
    ids, _, _ = encoded(tmp_path, TEXT, train_sentences=4)
    assert len(ids["train"]) == 3


def test_the_content_hash_sees_ids_and_words_and_nothing_else(tmp_path: Path) -> None:
    def digest(name: str, **changed: Any) -> str:
        texts = TEXT | {key: changed.pop(key) for key in SPLITS if key in changed}
        statistics = encoded(tmp_path / name, texts, **changed)[2]
        return str(statistics["sha256"])

    same = {digest("a"), digest("b", max_length=100), digest("c", train=TEXT["train"] + "\n\n")}
    assert len(same) == 1
    changed = {
        digest("d", train="a b\na b c\nc b a d\n"),  # another order
        digest("e", valid="a\ne a b c\n"),  # another border between sentences
        digest("f", train=TEXT["train"].replace("d", "x"), test=TEXT["test"].replace("d", "x")),  # the same ids
        digest("g", vocabulary_size=2),
        digest("h", valid=TEXT["test"], test=TEXT["valid"]),
        digest("i", valid=TEXT["valid"] + "d\n", test=TEXT["test"].removeprefix("d\n")),  # another border of splits
    }
    assert len(changed | same) == 7


def test_parquet_says_what_it_is_and_comes_in_bounded_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROW_GROUP_SENTENCES", 100)
    monkeypatch.setattr(module, "ROW_GROUP_TOKENS", 200)
    texts = {"train": numbered(250), "valid": "a\n" * 250, "test": "a\n" * 2}
    encoded(tmp_path, texts)
    files = {split: pq.ParquetFile(tmp_path / f"corpus/{split}.parquet") for split in SPLITS}
    groups = {s: [f.metadata.row_group(n).num_rows for n in range(f.num_row_groups)] for s, f in files.items()}
    assert groups == {"train": [67, 67, 67, 49], "valid": [100, 100, 50], "test": [2]}  # 67 x 3 tokens reach 200
    assert json.loads(files["valid"].schema_arrow.metadata[b"textvae"]) == {"dataset": "mine", "split": "valid"}


@pytest.mark.parametrize("changed", [{}, {"train_sentences": 100, "longest": 4, "max_length": 2}])
def test_where_a_block_of_text_ends_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, int]
) -> None:
    texts = {"train": numbered(40) * 3 + "é <unk> \u2028 y z\n" * 5, "valid": numbered(9), "test": "a b\n" * 3 + "a\n"}
    encoded(tmp_path, texts, vocabulary_size=20, **changed)
    whole = {file.name: file.read_bytes() for file in (tmp_path / "corpus").iterdir()}
    for size in (1, 7, 64):
        monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
        asked = PreprocessSettings(dataset="mine", vocabulary_size=20, **changed)
        preprocess(raw=tmp_path / "raw", settings=asked, corpus=tmp_path / "corpus")
        assert {file.name: file.read_bytes() for file in (tmp_path / "corpus").iterdir()} == whole


def test_a_corpus_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded(tmp_path / "first", TEXT)  # what is imported on the way does not count
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2**14)
    texts = {"train": "one sentence of seven words is this\n" * 30_000, "valid": "a\n" * 2, "test": "a\n" * 2}
    fetched(tmp_path, **three_splits(tmp_path / "in", *(texts[split].encode() for split in SPLITS)))
    tracemalloc.start()
    preprocess(raw=tmp_path / "raw", settings=PreprocessSettings(dataset="mine"), corpus=tmp_path / "corpus")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # a row group of 8,192 sentences, file buffers; as lists of ids it would be 3.6 MB


@pytest.mark.parametrize("kind", ["words", "spaces"])
def test_a_users_sentence_becomes_the_same_ids_as_the_corpus(tmp_path: Path, kind: str) -> None:
    source = three_splits(tmp_path / "in", b"It doesn't work, Mr. Hay.\n")
    fetched(tmp_path, **source, tokenizer=kind, lowercase=True)
    preprocess(raw=tmp_path / "raw", settings=PreprocessSettings(dataset="mine"), corpus=tmp_path / "corpus")
    vocabulary = Vocabulary.load(tmp_path / "corpus/vocabulary.json")
    ids = vocabulary.encode(Tokenizer.of(vocabulary.tokenizer)("It doesn't work, Mr. Hay."))
    assert ids == pq.read_table(tmp_path / "corpus/train.parquet")["tokens"].to_pylist()[0]
    assert UNK not in ids


def test_what_is_tokenised_already_needs_no_spacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes a second and 200 MB to load."""
    fetched(tmp_path, **three_splits(tmp_path / "in", b"It doesn't work.\n"), tokenizer="words", lowercase=True)
    monkeypatch.setattr("textvae.tokenizer.pipeline", None)  # called, it would be a TypeError
    preprocess(raw=tmp_path / "raw", settings=PreprocessSettings(dataset="mine"), corpus=tmp_path / "corpus")
    description = Vocabulary.load(tmp_path / "corpus/vocabulary.json").tokenizer
    assert description == {"kind": "words", "lowercase": True, "language": "en"}


def test_repetitions_count_every_occurrence(tmp_path: Path) -> None:
    _, _, statistics = encoded(tmp_path, {"train": "a\na\nb\nb b\n", "valid": "a\na\nb c\n", "test": "b c\nb\n"})
    # c is not a training word, so "b c" is "b UNK" in both valid and test
    assert statistics["repetitions"] == {
        "within": {"train": 1, "valid": 1, "test": 0},
        "across": {"valid_in_train": 2, "test_in_train": 1, "test_in_valid": 1},
    }


# What is wrong with it


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: (raw / "source.json").unlink(), "source.json is missing"),
        (lambda raw: (raw / "source.json").write_text("{"), "source.json is not JSON"),
        (lambda raw: (raw / "valid.txt").unlink(), r"valid\.txt is missing: run fetch again"),
        (
            lambda raw: (raw / "train.txt").write_text("b a\n"),
            r"train\.txt is damaged, or another.s: .*run fetch again",
        ),
    ],
)
def test_damaged_input_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    encoded(tmp_path, TEXT)
    damage(tmp_path / "raw")
    with pytest.raises(DataError, match=message):
        preprocess(raw=tmp_path / "raw", settings=PreprocessSettings(dataset="mine"), corpus=tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_another_data_set_is_refused(tmp_path: Path) -> None:
    encoded(tmp_path, TEXT)
    with pytest.raises(DataError, match="is the data set mine, not yours"):
        preprocess(raw=tmp_path / "raw", settings=PreprocessSettings(dataset="yours"), corpus=tmp_path / "again")


@pytest.mark.parametrize(
    ("split", "text", "message"),
    [
        ("train", "a b c d e f\n", "no sentence is left; raise `longest`"),
        ("test", "a b c d e f\n", "no sentence is left; raise `longest`"),
        ("test", "a\na b c d e f\n", "one sentence is too few .* raise `test_fraction`"),
        ("valid", "a\n", "one sentence is too few .* raise `valid_fraction`"),
    ],
)
def test_a_split_of_which_too_little_stays_is_named(tmp_path: Path, split: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"{split}\.txt: {message}"):
        encoded(tmp_path, TEXT | {split: text}, longest=5)
    assert not (tmp_path / "corpus").exists()


def test_one_training_sentence_and_two_of_the_others_are_enough(tmp_path: Path) -> None:
    ids, _, _ = encoded(tmp_path, TEXT | {"train": "a\n", "valid": "a\nb\n", "test": "a\na\n"})
    assert {split: len(ids[split]) for split in SPLITS} == {"train": 1, "valid": 2, "test": 2}


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoded(tmp_path, TEXT)
    with pytest.raises(SystemExit) as ended:
        preprocess.main(
            ["--raw", str(tmp_path / "raw"), "--settings", '{"dataset": "other"}', "--corpus", str(tmp_path / "x")]
        )
    assert ended.value.code == 65
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit):
        preprocess.main(["--help"])
    assert "python -m components.preprocess --raw" in " ".join(capsys.readouterr().out.split())


# The numbers of corpus.json


@given(st.lists(st.integers(0, 30), min_size=1, max_size=50))
def test_quantiles_and_histograms_count_every_sentence(lengths: list[int]) -> None:
    ordered = sorted(lengths)
    counts = Counter(lengths)
    assert quantile(counts, 0.0) == ordered[0]
    assert quantile(counts, 1.0) == ordered[-1]
    assert quantile(counts, 0.5) == ordered[(len(ordered) - 1) // 2]  # the lower median
    bins = histogram(counts, 5)
    assert sum(bins) == len(lengths)
    assert bins[-1] > 0
    assert all(bins[n] == sum(5 * n <= length < 5 * n + 5 for length in lengths) for n in range(len(bins)))
