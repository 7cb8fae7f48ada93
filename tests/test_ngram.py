"""FPPL, RPPL and rppl_pad: against KenLM's own `query`, a back-off scorer written here, and numbers derived by hand.

They need lmplz, as users do: `make test` builds it, and without it they fail with the remedy.
"""

from __future__ import annotations

import errno
import itertools
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.kenlm_lm import LanguageModel, find_lmplz, lmplz_error, run_lmplz
from components.ngram import ngram
from textvae.config import NgramSettings
from textvae.errors import DataError, SettingsError, UnavailableError
from textvae.vocabulary import BOS, Vocabulary

TRIGRAMS = NgramSettings(order=3, memory="64M")
WORDS = [f"w{i}" for i in range(400)]


def zipf_text(seed: int, sentences: int, words: int = len(WORDS)) -> list[str]:
    """Sentences of 0 to 8 words from the first `words`, by Zipf's law: Kneser-Ney's discounts need rare words."""
    rng = random.Random(seed)
    weights = [1 / rank for rank in range(1, words + 1)]
    return [" ".join(rng.choices(WORDS[:words], weights, k=rng.randrange(9))) for _ in range(sentences)]


def log10_by_back_off(arpa: Path, sentence: str) -> float:
    """log10 p(sentence, end | start) from the ARPA file's text: p(w|h) = p(hw) if listed, else backoff(h) p(w|h')."""
    table: dict[tuple[str, ...], tuple[float, float]] = {}
    for line in arpa.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            table[tuple(fields[1].split(" "))] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)

    def log10(history: tuple[str, ...], word: str) -> float:
        if (*history, word) in table:
            return table[(*history, word)][0]
        return table.get(history, (0.0, 0.0))[1] + log10(history[1:], word)

    known = [word if (word,) in table else "<unk>" for word in ["<s>", *sentence.split(), "</s>"]]
    return sum(log10(tuple(known[max(0, i - 2) : i]), known[i]) for i in range(1, len(known)))


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


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trigrams")
    exit_code, stderr = run_lmplz(zipf_text(1, 2000), folder, ["--order", "3", "--memory", "64M"])
    assert exit_code == 0, stderr
    return folder / "model.arpa"


def test_every_sentence_scores_as_back_off_over_the_arpa_text_does(arpa: Path) -> None:
    model = LanguageModel(arpa, discount_fallback=False)
    for sentence in [*zipf_text(2, 50), "", "never w1 w0 seen", "UNK"]:
        measured = model.perplexity([sentence])
        assert measured.log10 == pytest.approx(log10_by_back_off(arpa, sentence), abs=2e-5)
        assert measured.tokens == len(sentence.split()) + 1
        assert measured.oov == sum(word in ("never", "seen", "UNK") for word in sentence.split())


def test_perplexity_of_bigrams_derived_by_hand() -> None:
    """One sentence, `a b`. Kneser-Ney with lmplz's fallback discounts (0.5 for what was seen once), order 2.

    Unigrams count distinct predecessors: a, b and the end have one each, so each keeps (1 - 0.5)/3 = 1/6 and the
    discounts free 0.5, spread evenly over a, b, the end and <unk>: p(a) = 1/6 + 0.5/4 = 7/24, p(<unk>) = 1/8.
    Each bigram was seen once: p(a|start) = 0.5 + 0.5 p(a) = 31/48; an unseen one backs off, with weight 0.5.
    Padded to 10 words, the 0.5 is spread over 10: p(a) = 1/6 + 0.05 = 13/60, p(<unk>) = 1/20.
    """
    for padded_to, word, unknown in ((0, 7 / 24, 1 / 8), (10, 13 / 60, 1 / 20)):
        model = LanguageModel.train(["a b"], NgramSettings(order=2, memory="64M"), padded_to)
        assert model.discount_fallback
        seen = 0.5 + 0.5 * word
        assert model.perplexity(["a b"]).value == pytest.approx(1 / seen, rel=1e-5)
        assert model.perplexity([""]).value == pytest.approx(1 / (0.5 * word), rel=1e-5)
        # After an unknown word there is no history, so nothing to back off from: the end costs p(end) = p(a).
        text = model.perplexity(["a b", "", "z"])
        probability = seen**3 * (0.5 * word) * (0.5 * unknown * word)
        assert (text.tokens, text.oov) == (3 + 1 + 2, 1)
        assert text.value == pytest.approx(probability ** (-1 / 6), rel=1e-5)


def test_padding_makes_the_probabilities_of_the_whole_vocabulary_sum_to_one() -> None:
    """Unpadded, they sum to more: every unknown word gets what is meant for all of them."""
    text = zipf_text(3, 1500, words=250)
    padded, unpadded = (LanguageModel.train(text, TRIGRAMS, size) for size in (len(WORDS) + 1, 0))
    for history in ("", "w0 w1", "w200 w0", "w399"):
        assert total_probability(padded, history) == pytest.approx(1, abs=1e-5)
        assert total_probability(unpadded, history) > 1.01


def total_probability(model: LanguageModel, history: str) -> float:
    """The sum of p(word | start, history) over WORDS and the end of the sentence."""
    ends = [list(model._model.full_scores(f"{history} {word}", eos=False))[-1] for word in WORDS]
    ends.append(list(model._model.full_scores(history))[-1])
    return sum(10**log10 for log10, _, _ in ends)


def write_texts(folder: Path, samples: list[str], **metadata: Any) -> dict[str, Path]:
    """A corpus folder and samples.parquet as preprocess and sample write them."""
    vocabulary = Vocabulary(WORDS, {"kind": "spaces", "lowercase": False, "language": "en"})
    vocabulary.save(folder / "corpus" / "vocabulary.json")
    about = {"dataset": "toy", "system": "vae", "seed": 3, "status": "finished", "failure": None}
    about |= {"decoding": {"method": "ancestral"}, **metadata}
    texts = {"train": zipf_text(1, 2000), "test": TEST_TEXT}
    for split, text in texts.items():
        write_parquet(folder / "corpus" / f"{split}.parquet", vocabulary, text, {"dataset": "toy", "split": split})
    write_parquet(folder / "samples.parquet", vocabulary, samples, about, {"sentence": samples})
    return {"samples": folder / "samples.parquet", "corpus": folder / "corpus", "ngram": folder / "ngram.json"}


def write_parquet(
    path: Path, vocabulary: Vocabulary, text: list[str], about: dict[str, Any], more: dict[str, list[str]] | None = None
) -> None:
    ids = [vocabulary.encode(sentence.split()) for sentence in text]
    table = pa.table({"tokens": pa.array(ids, pa.list_(pa.int32())), **(more or {})})
    pq.write_table(table.replace_schema_metadata({b"textvae": json.dumps(about).encode()}), path)


TEST_TEXT = [*zipf_text(4, 300), "UNK w1 UNK", ""]


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
    assert (found["decoding"], found["sentences"], found["order"]) == ({"method": "ancestral"}, len(generated), 3)
    assert found["discount_fallback"] == []


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
    pq.write_table(table, paths["samples"], row_group_size=100)
    measure(paths, NgramSettings(order=3, memory="30M"))
    assert paths["ngram"].read_bytes() == first


def test_a_diverged_run_has_no_numbers_but_those_of_real_text(tmp_path: Path) -> None:
    failure = {"message": "the loss is nan", "epoch": 2, "step": 7, "term": "reconstruction", "largest_energy": None}
    found = measure(write_texts(tmp_path, [], status="diverged", failure=failure))
    assert (found["status"], found["failure"]) == ("diverged", failure)
    numbers = ("fppl", "fppl_tokens", "fppl_oov", "rppl", "rppl_tokens", "rppl_oov", "rppl_pad", "sentences")
    assert all(found[name] is None for name in numbers)
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
    assert found["rppl_oov"] == sum(word not in seen for sentence in TEST_TEXT for word in sentence.split())
    assert found["rppl_pad"] > found["rppl"]
    assert found["fppl_tokens"] == sum(len(sentence.split()) + 1 for sentence in generated)


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
        ({"status": None}, "status"),
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
    pq.write_table(table, paths["samples"])
    with pytest.raises(DataError, match=message):
        measure(paths)
    assert not paths["ngram"].exists()


def test_a_file_that_is_no_parquet_or_does_not_say_what_it_is_is_refused(tmp_path: Path) -> None:
    paths = write_texts(tmp_path, ["w0 w1"])
    pq.write_table(pq.read_table(paths["samples"]).replace_schema_metadata(None), paths["samples"])
    with pytest.raises(DataError, match="does not say what it is"):
        measure(paths)
    paths["samples"].write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        measure(paths)


@pytest.mark.parametrize("word", ["<s>", "</s>", "<unk>", "<UNK>", "two words", "line\vbreak", ""])
def test_a_word_that_kenlm_would_misread_is_refused_by_name(tmp_path: Path, word: str) -> None:
    paths = write_texts(tmp_path, ["w0 w1"])
    Vocabulary([*WORDS, word], {}).save(paths["corpus"] / "vocabulary.json")
    with pytest.raises(DataError, match="KenLM cannot take as a word") as error:
        measure(paths)
    assert repr(word) in str(error.value)


def test_an_lmplz_that_ends_early_is_reported_with_its_reason_not_as_a_broken_pipe() -> None:
    read = itertools.count()

    def sentences() -> Iterator[str]:
        yield "a <s> b"
        for _ in range(1_000_000):
            next(read)
            yield "a b c d e f g h"

    with pytest.raises(DataError, match="Special word <s> is not allowed"):
        LanguageModel.train(sentences(), TRIGRAMS)
    assert next(read) < 1_000_000


@pytest.mark.parametrize("memory", ["1M", "plenty"])
def test_memory_that_will_not_do_is_a_settings_error(memory: str) -> None:
    with pytest.raises(SettingsError, match=r"ngram\.memory"):
        LanguageModel.train(["a b"], NgramSettings(memory=memory))


def test_a_full_disk_is_the_system_s_error() -> None:
    error = lmplz_error(-6, "No space left on device in /tmp/x while writing 8 bytes", TRIGRAMS)
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC


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


def test_lmplz_is_found_by_kenlm_bin_or_path_or_beside_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {}
    for name in ("kenlm_bin", "path", "beside"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
        (folders[name] / "lmplz").touch(mode=0o755)
    monkeypatch.setattr("sys.executable", str(folders["beside"] / "python"))
    monkeypatch.setenv("PATH", str(folders["path"]))
    for given in (folders["kenlm_bin"], folders["kenlm_bin"] / "lmplz"):
        monkeypatch.setenv("KENLM_BIN", str(given))
        assert find_lmplz() == folders["kenlm_bin"] / "lmplz"
    monkeypatch.setenv("KENLM_BIN", str(tmp_path))
    with pytest.raises(UnavailableError, match="KENLM_BIN"):
        find_lmplz()
    monkeypatch.delenv("KENLM_BIN")
    assert find_lmplz() == folders["path"] / "lmplz"
    (folders["path"] / "lmplz").unlink()
    assert find_lmplz() == folders["beside"] / "lmplz"
