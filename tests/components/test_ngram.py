"""FPPL, RPPL and rppl_pad of whole files: against KenLM's own `query` on the same lines, and files that are refused.

They need lmplz, as users do: `make test` builds it, and without it they fail with the remedy.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from kenlm_texts import TRIGRAMS, WORDS, zipf_text
from made_files import SHA256, changed, corpus_description, write_sealed_table, write_with_hashes

from components.ngram import ngram
from textvae.config import NgramSettings
from textvae.errors import DataError
from textvae.kenlm_lm import LanguageModel, find_lmplz
from textvae.perplexities import MEASURES, TEXTS, Text
from textvae.progress import progress
from textvae.sealed_parquet import sealed_writer
from textvae.vocabulary import BOS, Vocabulary

TEST_TEXT = [*zipf_text(4, 300), "UNK w1 UNK", ""]


def summary_by_query(train: list[str], text: list[str], folder: Path, order: int) -> dict[str, float]:
    """What KenLM's own programs say: `lmplz <train | query text`, nothing of ours in between."""
    folder.mkdir()
    model, lmplz = folder / "model.arpa", find_lmplz()
    command = [lmplz, "-o", str(order), "-S", "64M", "-T", f"{folder}/", "--arpa", model]
    subprocess.run(command, input="".join(f"{s}\n" for s in train).encode(), check=True, capture_output=True)
    command = [lmplz.with_name("query"), "-v", "summary", model]
    output = subprocess.run(command, input="".join(f"{s}\n" for s in text).encode(), check=True, capture_output=True)
    lines = (line.split("\t") for line in output.stdout.decode().splitlines() if "\t" in line)
    return {name.rstrip(":"): float(value) for name, value in lines}


def write_texts(
    folder: Path, samples: list[str], train: list[str] | None = None, cut: list[bool] | None = None, **metadata: Any
) -> dict[str, Path]:
    """A corpus folder and samples.parquet as preprocess and sample write them."""
    vocabulary = Vocabulary(WORDS, {"kind": "spaces", "lowercase": False, "language": "en"})
    vocabulary.save(folder / "corpus" / "vocabulary.json")
    about = {"dataset": "toy", "system": "vae", "seed": 3, "status": "finished", "failure": None}
    about |= {"decoding": "ancestral", "max_length": 8, "corpus_sha256": SHA256, **metadata}
    texts = {"train": train or zipf_text(1, 2000), "test": TEST_TEXT}
    for split, text in texts.items():
        write_parquet(folder / "corpus" / f"{split}.parquet", vocabulary, text, {"dataset": "toy", "split": split})
    write_with_hashes(folder / "corpus" / "corpus.json", corpus_description("toy"))
    more = {"sentence": samples, "cut": cut or [False] * len(samples)}
    write_parquet(folder / "samples.parquet", vocabulary, samples, about, more)
    return {"samples": folder / "samples.parquet", "corpus": folder / "corpus", "ngram": folder / "ngram.json"}


def write_parquet(
    path: Path, vocabulary: Vocabulary, text: list[str], about: dict[str, Any], more: dict[str, Any] | None = None
) -> None:
    ids = [vocabulary.encode(sentence.split()) for sentence in text]
    table = pa.table({"tokens": pa.array(ids, pa.list_(pa.int32())), **(more or {})})
    write_sealed_table(path, table.replace_schema_metadata({b"textvae": json.dumps(about).encode()}))


def measure(paths: dict[str, Path], settings: NgramSettings = TRIGRAMS) -> dict[str, Any]:
    ngram(settings=settings, **paths)
    content = json.loads(paths["ngram"].read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_the_step_measures_what_lmplz_and_query_do_on_the_same_lines(tmp_path: Path) -> None:
    generated = [*zipf_text(5, 1500, words=250), "UNK w3", ""]
    found = measure(write_texts(tmp_path, generated))
    train = zipf_text(1, 2000)
    for name, expected in {
        "fppl": summary_by_query(train, generated, tmp_path / "forward", 3),
        "rppl": summary_by_query(generated, TEST_TEXT, tmp_path / "reverse", 3),
    }.items():
        assert found[name] == pytest.approx(expected["Perplexity including OOVs"], rel=1e-6)
        assert found[f"{name}_tokens"] == expected["Tokens"]
        assert found[f"{name}_oov"] == expected["OOVs"] > 0
    real = summary_by_query(train, TEST_TEXT, tmp_path / "real", 3)
    assert found["real_text"]["fppl"] == pytest.approx(real["Perplexity including OOVs"], rel=1e-6)
    assert (found["real_text"]["tokens"], found["real_text"]["oov"]) == (real["Tokens"], real["OOVs"])
    identity = {"dataset": "toy", "system": "vae", "seed": 3, "status": "finished", "failure": None}
    assert found.items() >= identity.items()
    assert (found["decoding"], found["sentences"], found["order"]) == ("ancestral", len(generated), 3)
    assert (found["discount_fallback"], found["estimable_order"]) == ([], {})
    assert (found["fppl_order"], found["rppl_order"]) == (3, 3)


def test_padding_charges_for_the_words_that_were_never_generated_and_only_for_them(tmp_path: Path) -> None:
    generated = zipf_text(5, 1500, words=250)
    few = measure(write_texts(tmp_path, generated))
    assert few["rppl_pad"] > 1.01 * few["rppl"]
    predicted = len(WORDS) + 2  # the decoder's targets: UNK and the end as well
    assert few["rppl_pad"] == LanguageModel.train(generated, TRIGRAMS, predicted).perplexity(TEST_TEXT).value
    # All 400 words and UNK: nothing is left to pad.
    all_words = measure(write_texts(tmp_path, [*zipf_text(5, 1500), "UNK", " ".join(WORDS)]))
    assert all_words["rppl_pad"] == all_words["rppl"]


def test_a_rerun_equals_bit_for_bit_whatever_the_memory_and_the_layout_of_the_file(tmp_path: Path) -> None:
    paths = write_texts(tmp_path, zipf_text(5, 1500))
    measure(paths)
    first = paths["ngram"].read_bytes()
    table = pq.read_table(paths["samples"])
    with sealed_writer(paths["samples"], table.schema) as writer:
        writer.write_table(table, row_group_size=100)
    measure(paths, NgramSettings(order=3, memory="30M"))
    assert paths["ngram"].read_bytes() == first


def test_a_diverged_run_has_no_numbers_but_those_of_real_text(tmp_path: Path) -> None:
    failure = {"message": "the loss is nan", "epoch": 2, "step": 7, "term": "reconstruction", "largest_energy": None}
    found = measure(write_texts(tmp_path, [], status="diverged", failure=failure))
    assert (found["status"], found["failure"]) == ("diverged", failure)
    assert all(found[name] is None for name in (*MEASURES, "sentences"))
    healthy = measure(write_texts(tmp_path, zipf_text(5, 1500)))
    assert found["real_text"] == healthy["real_text"]
    assert set(found) == set(healthy)


@pytest.mark.parametrize("generated", [["w1 w2 w3"] * 50, ["", "", ""], ["w0"]], ids=["identical", "empty", "single"])
def test_degenerate_samples_are_measured_with_fallback_discounts_and_say_so(
    tmp_path: Path, generated: list[str]
) -> None:
    found = measure(write_texts(tmp_path, generated), NgramSettings(memory="64M"))
    seen = set(" ".join(generated).split())
    assert found["discount_fallback"] == ["train", "samples"]  # the toy corpus has too few 5-grams as well
    assert found["estimable_order"] == {"train": 4, "samples": None}
    assert found["rppl_oov"] == sum(word not in seen for sentence in TEST_TEXT for word in sentence.split())
    assert found["rppl_pad"] > found["rppl"]
    assert found["fppl_tokens"] == sum(len(sentence.split()) + 1 for sentence in generated)


@pytest.mark.parametrize("number", [0, 1, 5000])
def test_the_share_of_sentences_that_were_cut_is_counted(tmp_path: Path, number: int) -> None:
    generated = zipf_text(5, 10_000)
    cut = [n < number for n in range(len(generated))]
    assert measure(write_texts(tmp_path, generated, cut=cut))["cut"] == number / 10_000


def test_a_limit_below_the_corpus_s_longest_sentences_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longer = sum(len(sentence.split()) > 6 for sentence in zipf_text(1, 2000))
    measure(write_texts(tmp_path, zipf_text(5, 1500), max_length=6))
    warning = f"warning: {longer} training sentences have more words than sampling.max_length (6)"
    assert warning in capsys.readouterr().err
    measure(write_texts(tmp_path, zipf_text(5, 1500), max_length=8))
    assert "warning" not in capsys.readouterr().err


def test_a_corpus_of_short_lines_has_the_numbers_of_the_order_that_it_reaches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, generated = zipf_text(6, 4000, longest=2), zipf_text(8, 3000, longest=2)
    paths = write_texts(tmp_path, generated, train=lines)
    found = measure(paths, NgramSettings(order=5, memory="64M"))
    assert (found["order"], found["fppl_order"], found["rppl_order"]) == (5, 4, 4)
    assert found["discount_fallback"] == []
    said = capsys.readouterr().err
    for name in TEXTS.values():
        assert f"no sentence of {name} is long enough for a 5-gram; its language model is the one of" in said
    lower = measure(paths, NgramSettings(order=4, memory="64M"))
    assert {**lower, "order": 5, "checksum": found["checksum"]} == found
    assert "warning" not in capsys.readouterr().err
    expected = summary_by_query(lines, generated, tmp_path / "forward", 4)
    assert found["fppl"] == pytest.approx(expected["Perplexity including OOVs"], rel=1e-6)


def test_a_stopgap_names_the_order_that_needs_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [*zipf_text(6, 4000, longest=2), "w1 w2 w3", "w1 w2 w4"]
    paths = write_texts(tmp_path, ["w1"] * 50, train=lines)
    found = measure(paths, NgramSettings(order=5, memory="64M"))
    assert found["discount_fallback"] == ["train", "samples"]
    assert found["estimable_order"] == {"train": 4, "samples": None}
    said = capsys.readouterr().err
    assert "5-gram discounts of the training text cannot be estimated, and lmplz's stopgap stands in: with " in said
    assert "ngram.order: 4 they can be" in said
    assert "discounts of the generated text cannot be estimated, and lmplz's stopgap stands in: it is too" in said
    assert measure(paths, NgramSettings(order=4, memory="64M"))["discount_fallback"] == ["samples"]


def test_perplexities_say_of_which_model_the_sentences_are(tmp_path: Path) -> None:
    assert measure(write_texts(tmp_path, ["w0 w1"] * 9, model_sha256="ab" * 32))["model_sha256"] == "ab" * 32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": [[4, 404]], "sentence": ["w0 w400"]}, "not of the corpus's vocabulary"),
        ({"tokens": [[4, -1]], "sentence": ["w0 w400"]}, "not of the corpus's vocabulary"),
        ({"tokens": [[4, 5]], "sentence": ["the cat"]}, "not of the corpus's vocabulary"),
        ({"tokens": [[4, BOS]], "sentence": ["w0 BOS"]}, "not of the corpus's vocabulary"),
        ({"tokens": [], "sentence": []}, "no sentence"),
        ({"sentence": ["w0"]}, "damaged"),
        ({"dataset": "other"}, "of the data set other"),
        ({"corpus_sha256": "cd" * 32}, "corpus is not the corpus that .*samples.parquet was made with"),
        ({"status": None}, "status"),
        ({"max_length": None}, "max_length"),
    ],
)
def test_samples_that_are_not_a_run_s_on_this_corpus_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    paths = write_texts(tmp_path, ["w0 w1"])
    table = pq.read_table(paths["samples"])
    about = json.loads(table.schema.metadata[b"textvae"])
    if "sentence" in change:
        types = {"tokens": pa.list_(pa.int32()), "sentence": pa.string()}
        table = pa.table({name: pa.array(values, types[name]) for name, values in change.items()})
    else:
        about = {key: value for key, value in {**about, **change}.items() if value is not None or key == "failure"}
    table = table.replace_schema_metadata({b"textvae": json.dumps(about).encode()})
    write_sealed_table(paths["samples"], table)
    with pytest.raises(DataError, match=message):
        measure(paths)
    assert not paths["ngram"].exists()


def test_a_file_that_is_no_parquet_or_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    paths = write_texts(tmp_path, ["w0 w1"])
    write_sealed_table(paths["samples"], pq.read_table(paths["samples"]).replace_schema_metadata(None))
    with pytest.raises(DataError, match="does not say whose samples it has"):
        measure(paths)
    paths["samples"].write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is damaged"):
        measure(paths)


@pytest.mark.parametrize("word", ["<s>", "</s>", "<unk>", "<UNK>", "two words", "line\vbreak", ""])
def test_a_word_that_kenlm_would_misread_is_refused_by_name(tmp_path: Path, word: str) -> None:
    paths = write_texts(tmp_path, ["w0 w1"])
    tokenizer = {"kind": "spaces", "lowercase": False, "language": "en"}
    Vocabulary([*WORDS, word], tokenizer).save(paths["corpus"] / "vocabulary.json")
    changed(paths["corpus"] / "corpus.json")
    with pytest.raises(DataError, match="KenLM cannot take as a word") as error:
        measure(paths)
    assert repr(word) in str(error.value)


def test_without_lmplz_the_step_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_texts(tmp_path, ["w0 w1"])
    monkeypatch.delenv("KENLM_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    arguments = [f"--{name}={path}" for name, path in paths.items()]
    with pytest.raises(SystemExit) as stopped:
        ngram.main([*arguments, "--settings", "{}"])
    assert stopped.value.code == 69
    assert f"tools/build_lmplz.sh {tmp_path / 'python'} {tmp_path}" in capsys.readouterr().err
    assert not paths["ngram"].exists()


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("tokens", pa.array([4])),
        ("tokens", pa.array([["x"]])),
        ("tokens", pa.array([None], pa.list_(pa.int32()))),
        ("sentence", pa.array([4])),
        ("cut", pa.array([1])),
    ],
)
def test_columns_of_another_kind_are_refused(tmp_path: Path, name: str, column: pa.Array) -> None:
    columns = {"tokens": pa.array([[4]], pa.list_(pa.int32())), "sentence": pa.array(["a"]), "cut": pa.array([True])}
    pq.write_table(pa.table({**columns, name: column}), tmp_path / "x.parquet")
    words = pa.array([None, None, None, "UNK", "a"])
    with pytest.raises(DataError, match=r"x\.parquet"), progress("ngram", None, "sentences") as bar:
        list(Text(tmp_path / "x.parquet", words, bar))
