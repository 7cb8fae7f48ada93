"""Language models by lmplz: against a back-off scorer written here, numbers derived by hand, and what can go wrong.

They need lmplz, as users do: `make test` builds it, and without it they fail with the remedy.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from kenlm_texts import TRIGRAMS, WORDS, zipf_text

from textvae.config import NgramSettings
from textvae.errors import DataError, SettingsError, UnavailableError
from textvae.kenlm_lm import LanguageModel, find_lmplz, lmplz_error, run_lmplz


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


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trigrams")
    exit_code, stderr = run_lmplz(zipf_text(1, 2000), folder, ["--order", "3", "--memory", "64M"])
    assert exit_code == 0, stderr
    return folder / "model.arpa"


def test_every_sentence_scores_as_back_off_over_the_arpa_text_does(arpa: Path) -> None:
    model = LanguageModel(arpa, order=3)
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


def fivegrams(text: list[str]) -> LanguageModel:
    return LanguageModel.train(text, NgramSettings(order=5, memory="64M"))


@pytest.mark.parametrize(("longest", "order"), [(2, 5), (2, 6), (3, 6)])
def test_sentences_too_short_for_the_order_have_the_model_of_the_highest_order_that_they_reach(
    longest: int, order: int, tmp_path: Path
) -> None:
    """No stopgap: the numbers are that order's, and those that lmplz's stopgap for n-grams that do not exist gives."""
    text, read = zipf_text(6, 4000, longest=longest), zipf_text(7, 100)
    model = LanguageModel.train(text, NgramSettings(order=order, memory="64M"))
    assert (model.order, model.discount_fallback) == (longest + 2, False)
    lower = LanguageModel.train(text, NgramSettings(order=longest + 2, memory="64M"))
    assert (lower.order, lower.discount_fallback) == (longest + 2, False)
    options = ["--order", str(order), "--memory", "64M", "--discount_fallback"]
    assert run_lmplz(text, tmp_path, options)[0] == 0
    stopgap = LanguageModel(tmp_path / "model.arpa", order)
    assert model.perplexity(read) == lower.perplexity(read) == stopgap.perplexity(read)


def test_an_order_of_few_ngrams_falls_back_and_the_order_that_needs_no_stopgap_is_known() -> None:
    text = [*zipf_text(6, 4000, longest=2), "w1 w2 w3", "w1 w2 w4"]
    model = fivegrams(text)
    assert (model.order, model.discount_fallback, model.estimable_order) == (5, True, 4)
    assert not LanguageModel.train(text, NgramSettings(order=4, memory="64M")).discount_fallback


@pytest.mark.parametrize(("text", "order"), [(["a b c d"] * 50, 5), (WORDS * 50, 3), ([""] * 50, 2)])
def test_text_that_repeats_itself_or_has_one_word_a_line_falls_back_at_every_order(text: list[str], order: int) -> None:
    model = fivegrams(text)
    assert (model.order, model.discount_fallback, model.estimable_order) == (order, True, None)


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


def test_memory_that_will_not_do_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"ngram\.memory"):
        LanguageModel.train(["a b"], NgramSettings.model_construct(order=5, memory="1M"))


def test_a_full_disk_is_the_system_s_error() -> None:
    error = lmplz_error(-6, "No space left on device in /tmp/x while writing 8 bytes", TRIGRAMS)
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC


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
