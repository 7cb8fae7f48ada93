"""The library's calls against loops over sentences and words in float64; none depends on its neighbours in a call."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
from spacy.lang.en.examples import sentences as ENGLISH
from spacy.lang.fr.examples import sentences as FRENCH
from tiny import Corpus
from tiny_model import SEED, informative, written

import textvae
from components.evaluate import evaluate
from textvae import generation, latent
from textvae.config import EvaluationSettings, SamplingSettings
from textvae.corpus import Sentences, hashed_normal
from textvae.errors import DataError, SettingsError
from textvae.generation import prior_samples
from textvae.inference import importance_weighted_nll, reconstruction
from textvae.latent import TextVAE, load
from textvae.nearest import nearest
from textvae.progress import Progress
from textvae.tokenizer import Tokenizer
from textvae.vocabulary import EOS, UNK, Vocabulary

TEXTS = ["the cat sees a small dog today", "a dog sleeps", "the old bird likes the cat", "an elephant sings"]
SHORT = 12
"""Words at most of a decoded sentence: an untrained decoder seldom ends one."""


@pytest.fixture(scope="module")
def folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("vae") / "model", informative("vae", corpus), corpus)


@pytest.fixture(scope="module")
def model(folder: Path) -> TextVAE:
    return load(folder)


@pytest.fixture(scope="module")
def language_model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> TextVAE:
    return load(written(tmp_path_factory.mktemp("lm") / "model", informative("lstm_lm", corpus), corpus))


def ids(model: TextVAE, text: str) -> list[int]:
    known = {word: number for number, word in enumerate(model.vocabulary.words, start=4)}
    return [known.get(word, UNK) for word in text.split()]


def posterior(model: TextVAE, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    assert model.network is not None
    assert model.network.encoder is not None
    mu, log_var, _ = reference.posterior(model.network.encoder, ids(model, text))
    return mu, log_var


def greedy(model: TextVAE, z: torch.Tensor, length: int = SHORT) -> tuple[str, float]:
    """The argmax at every word, one word at a time, and its log-probability."""
    assert model.network is not None
    words: list[int] = []
    ended = False
    while len(words) < length and not ended:
        *_, log_probs = reference.next_word_log_probs(model.network.decoder, words, z)
        best = int(log_probs.argmax())
        ended = best == EOS
        words += [] if ended else [best]
    return model.vocabulary.decode(words), reference.log_prob(model.network.decoder, words, z, ended)


# --- the front door ----------------------------------------------------------------------------------------------


def test_textvae_load_is_the_front_door(folder: Path, model: TextVAE) -> None:
    opened = textvae.load(str(folder))
    assert isinstance(opened, TextVAE)
    assert opened.name == "tiny-vae_mine-3"
    assert repr(opened) == "<TextVAE tiny-vae_mine-3, finished, 16 words>"
    assert opened.config["selected"] == {"epoch": 1}
    assert opened.identity["system"] == "vae_mine"
    np.testing.assert_array_equal(opened.encode(TEXTS)[0], model.encode(TEXTS)[0])


def test_the_models_own_tokeniser_is_applied(corpus: Corpus, tmp_path: Path) -> None:
    words = ["do", "n't", "stop", "."]
    with_rules = Vocabulary(words, {"kind": "words", "lowercase": True, "language": "en"})
    made = Corpus(corpus.train, corpus.valid, corpus.test, with_rules)
    model = load(written(tmp_path / "model", informative("vae", made), made))
    assert model.tokenised(["Don't stop <unk>.", ""])[0].tolist() == [4, 5, 6, UNK, 7]
    assert model.tokenised(["Don't stop <unk>.", ""])[1].tolist() == []
    assert model.reconstruct(["Don't  STOP!"], max_length=2)[0].source == "do n't stop UNK"


PROSE = {
    "en": [
        *ENGLISH,
        "We've done this before, haven't we?",
        "Mr. and Mrs. O'Neil won't leave the U.S. at 5 p.m., e.g. by train.",
        "\"I'd rather not,\" he said; they're (as ever) cannot-do people.",
        "It costs $1,000.50 (10%)... So what's the U.N.'s view?",
        "The UNK of St. Louis <unk> it's o'clock.",
    ],
    "fr": [
        *FRENCH,
        "L'eau n'est pas potable aujourd'hui.",
        "Qu'est-ce qu'il y a, M. Dupont ?",
        "J'arrive : c'est-à-dire que l'on s'en va, n'est-ce pas ?",
    ],
}


@pytest.mark.parametrize("language", PROSE)
@pytest.mark.parametrize("lowercase", [True, False])
def test_every_sentence_that_the_project_prints_comes_back_as_tokens(
    language: str, lowercase: bool, corpus: Corpus, tmp_path: Path
) -> None:
    tokenizer = Tokenizer("words", lowercase, language)
    split = [tokenizer(text) for text in PROSE[language]]
    known = Counter(word for words in split for word in words)
    vocabulary = Vocabulary(sorted({*known} - {"UNK", *list(known)[::7]}), tokenizer.description)
    made = Corpus(corpus.train, corpus.valid, corpus.test, vocabulary)
    model = load(written(tmp_path / "model", informative("vae", made), made))
    read = Sentences.of([vocabulary.encode(words) for words in split])
    printed = [vocabulary.decode(read[n]) for n in range(len(read))]

    def ids(sentences: Sentences) -> list[list[int]]:
        return [sentences[n].tolist() for n in range(len(sentences))]

    assert ids(model.tokenised(PROSE[language])) == ids(read)
    assert ids(model.tokenised(printed, tokens=True)) == ids(read)
    assert ids(model.tokenised(printed)) != ids(read), "text that the tokeniser reads alike would prove little"
    assert model.tokenised(read, tokens=True) is read
    np.testing.assert_array_equal(model.encode(printed, tokens=True)[0], model.encode(read)[0])
    assert model.score(printed, 2, tokens=True) == model.score(read, 2)
    assert [one.source for one in model.reconstruct(printed, max_length=2, tokens=True)] == printed
    assert model.neighbours(printed, printed, tokens=True) == model.neighbours(read, read)
    ends = model.interpolate(printed[0], printed[1], 2, 5, tokens=True)
    assert ends == model.between(*model.encode(read.subset(np.array([0, 1])))[0], 2, 5)


# --- codes -------------------------------------------------------------------------------------------------------


def test_codes_are_those_of_a_loop_over_words(model: TextVAE) -> None:
    mu_ND, log_var_ND = model.encode(TEXTS)
    assert mu_ND.dtype == log_var_ND.dtype == np.float64
    for n, text in enumerate(TEXTS):
        mu, log_var = posterior(model, text)
        np.testing.assert_allclose(mu_ND[n], mu.detach(), atol=1e-5)
        np.testing.assert_allclose(log_var_ND[n], log_var.detach(), atol=1e-5)
    assert np.abs(mu_ND[0] - mu_ND[1]).max() > 0.1, "a network whose codes are all alike would prove little"


def test_reconstructions_are_the_argmax_at_the_mean_and_at_samples(model: TextVAE) -> None:
    made = model.reconstruct(TEXTS, samples=2, max_length=SHORT)
    for text, one in zip(TEXTS, made, strict=True):
        mu, log_var = posterior(model, text)
        assert one.source == " ".join(w if w in model.vocabulary.words else "UNK" for w in text.split())
        assert one.mean == greedy(model, mu)[0]
        noise = hashed_normal(np.array(ids(model, text), np.int32), SEED, (2, len(mu)), "reconstruct")
        assert one.samples == [greedy(model, mu + torch.exp(log_var / 2) * e)[0] for e in noise]
    assert len({one.mean for one in made}) > 1


def test_samples_of_a_posterior_are_normal_with_its_mean_and_variance(
    model: TextVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = []

    def spy(network: Any, count: int, z: torch.Tensor, *rest: Any) -> list[generation.Sample]:
        codes.append(z)
        return [generation.Sample([], 0.0, cut=False)] * count

    monkeypatch.setattr(generation, "generate", spy)
    count = 3000
    model.reconstruct(TEXTS[:1], samples=count)
    mu, log_var = (one.detach() for one in posterior(model, TEXTS[0]))
    z = torch.cat(codes)
    assert len(z) == count + 1, "the mean comes first"
    standardised = (z[1:] - mu) / torch.exp(log_var / 2)
    assert standardised.mean(0).abs().max() < 4 / count**0.5
    assert (standardised.var(0) - 1).abs().max() < 4 * (2 / count) ** 0.5


def test_an_interpolation_ends_in_the_reconstructions_of_its_ends(model: TextVAE) -> None:
    steps = model.interpolate(TEXTS[0], TEXTS[1], steps=4, max_length=SHORT)
    ends = model.reconstruct(TEXTS[:2], max_length=SHORT)
    assert [step.t for step in steps] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [steps[0].text, steps[-1].text] == [one.mean for one in ends]
    (a, _), (b, _) = (posterior(model, text) for text in TEXTS[:2])
    for step in steps:
        text, log_prob = greedy(model, a + step.t * (b - a))
        assert step.text == text
        assert step.log_prob == pytest.approx(log_prob, abs=1e-4)
    assert len({step.text for step in steps}) > 1


def test_between_two_codes(model: TextVAE) -> None:
    mu_ND, _ = model.encode(TEXTS[:2])
    assert model.between(mu_ND[0], mu_ND[1], 3, SHORT) == model.interpolate(TEXTS[0], TEXTS[1], 3, SHORT)


# --- probabilities -----------------------------------------------------------------------------------------------


def test_scores_are_the_probabilities_of_a_loop_over_words(model: TextVAE) -> None:
    assert model.network is not None
    scores = model.score(TEXTS, samples=3)
    read = model.tokenised(TEXTS)
    nll_N = reconstruction(model.network, read, torch.from_numpy(model.encode(TEXTS)[0]))
    nll_iw_N = importance_weighted_nll(model.network, read, 3, SEED)
    for n, (text, score) in enumerate(zip(TEXTS, scores, strict=True)):
        targets = [*ids(model, text), EOS]
        rows = reference.next_word_log_probs(model.network.decoder, targets[:-1], posterior(model, text)[0])
        expected = [float(row[target]) for row, target in zip(rows, targets, strict=True)]
        assert score.log_probs == pytest.approx(expected, abs=1e-5)
        assert score.words == [*(model.vocabulary.decode([i]) for i in targets[:-1]), "EOS"]
        assert sum(score.log_probs) == pytest.approx(-float(nll_N[n]), abs=1e-5)
        assert score.nll_iw == pytest.approx(float(nll_iw_N[n]), abs=1e-5)


def test_the_mean_nll_iw_is_the_evaluate_steps(
    model: TextVAE, folder: Path, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    settings = EvaluationSettings(iw_sentences=1000, iw_samples=7, gain_sentences=2, gain_codes=2, device="cpu")
    evaluate(model=folder, corpus=corpus_folder, settings=settings, evaluation=tmp_path / "evaluation")
    metrics = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    texts = [corpus.vocabulary.decode(corpus.test[n]) for n in range(len(corpus.test))]
    found = np.mean([score.nll_iw for score in model.score(texts, samples=7)])
    assert found == pytest.approx(metrics["nll_iw"], abs=1e-5)


def test_a_language_models_scores_and_samples_need_no_code(language_model: TextVAE) -> None:
    assert language_model.network is not None
    for text, score in zip(TEXTS, language_model.score(TEXTS), strict=True):
        expected = reference.log_prob(language_model.network.decoder, ids(language_model, text), None)
        assert sum(score.log_probs) == pytest.approx(expected, abs=1e-5)
        assert score.nll_iw == pytest.approx(-expected, abs=1e-5)
    assert len({one.text for one in language_model.sample(5, max_length=SHORT)}) == 5


def test_samples_are_the_sample_steps(model: TextVAE) -> None:
    assert model.network is not None
    for seed in (None, 12):
        expected = next(prior_samples(model.network, SamplingSettings(sentences=5, max_length=SHORT), seed or SEED))
        found = model.sample(5, seed, max_length=SHORT)
        assert [one.text for one in found] == [model.vocabulary.decode(one.tokens) for one in expected]
        assert [one.log_prob for one in found] == [one.log_prob for one in expected]
        assert [one.text for one in model.sample(2, seed, max_length=SHORT)] == [one.text for one in found[:2]]
    greedy_ones = [one.text for one in model.sample(5, temperature=0, max_length=SHORT)]
    assert greedy_ones != [one.text for one in model.sample(5, max_length=SHORT)]
    assert greedy_ones == [one.text for one in model.sample(5, top_k=1, max_length=SHORT)]


# --- neighbours --------------------------------------------------------------------------------------------------


def brute_force(query: np.ndarray, rows: np.ndarray) -> list[float]:
    return [
        float(sum(a * b for a, b in zip(query, row, strict=True)))
        / (sum(a * a for a in query) ** 0.5 * sum(b * b for b in row) ** 0.5)
        for row in rows
    ]


@pytest.mark.parametrize("chunk", [7, 8192])
def test_neighbours_are_those_of_brute_force(
    model: TextVAE, corpus: Corpus, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent, "CHUNK", chunk)
    queries = corpus.train.subset(np.array([0, 5, 9]))
    searched = Sentences.of([corpus.train[n] for n in [*range(len(corpus.train))] * 2])
    found = model.neighbours(queries, searched, k=4)
    texts = [model.vocabulary.decode(searched[n]) for n in range(len(searched))]
    means, _ = model.encode(texts)
    for n, near in enumerate(found):
        query = model.vocabulary.decode(queries[n])
        cosines = brute_force(model.encode([query])[0][0], means)
        first = {text: number for number, text in reversed(list(enumerate(texts))) if text != query}
        order = sorted(first.values(), key=lambda number: -cosines[number])[:4]
        assert [one.index for one in near] == order
        assert [one.text for one in near] == [texts[number] for number in order]
        assert [one.cosine for one in near] == pytest.approx([cosines[number] for number in order], abs=1e-6)


def test_a_corpus_smaller_than_asked_for_is_given_whole(model: TextVAE) -> None:
    found = model.neighbours(TEXTS[:1], TEXTS[:3], k=10)
    assert sorted(one.index for one in found[0]) == [1, 2]


@pytest.mark.parametrize("chunk", [2, 8192])
def test_the_progress_of_a_search_reaches_the_corpus_s_end(
    model: TextVAE, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent, "CHUNK", chunk)
    a, b, c, d = TEXTS
    bar = Progress("neighbours", 8, "sentences", None)
    model.neighbours([a], [a, b, b, a, c, a, d, d], bar=bar)
    assert bar.done == 8


@pytest.mark.parametrize("sizes", [[50], [1, 20, 29], [49, 1]])
def test_nearest_is_exact_whatever_the_chunks(sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    queries, rows = rng.standard_normal((6, 3)), rng.standard_normal((50, 3))
    # The same direction, along an axis, where no rounding parts the two cosines: the lower row comes first.
    rows[10], rows[30] = (0, 3, 0), (0, 15, 0)
    rows[20] = 0
    queries[0] = (0, 2, 0)
    chunks = np.split(rows, np.cumsum(sizes)[:-1])
    numbers, cosines = nearest(queries, chunks, 50)
    expected = queries @ rows.T / np.linalg.norm(queries, axis=1)[:, None]
    expected /= np.where(np.arange(50) == 20, 1, np.linalg.norm(rows, axis=1))
    np.testing.assert_allclose(cosines, np.sort(expected)[:, ::-1], atol=1e-12)
    assert numbers[0, :2].tolist() == [10, 30]
    assert [sorted(row) for row in numbers.tolist()] == [list(range(50))] * 6
    np.testing.assert_array_equal(nearest(queries, chunks, 4)[0], numbers[:, :4])


# --- what no result depends on -----------------------------------------------------------------------------------


def test_no_result_depends_on_the_other_sentences_or_their_order(model: TextVAE, corpus: Corpus) -> None:
    texts = [corpus.vocabulary.decode(corpus.train[n]) for n in range(len(corpus.train))]
    others = texts[::-1] + TEXTS
    place = [others.index(text) for text in TEXTS]

    def picked(results: Any) -> list[Any]:
        return [results[n] for n in place]

    for ours, alone in zip(model.encode(others), model.encode(TEXTS), strict=True):
        np.testing.assert_allclose(picked(ours), alone, atol=1e-5)
    assert picked(model.reconstruct(others, 2, max_length=SHORT)) == model.reconstruct(TEXTS, 2, max_length=SHORT)
    for ours, alone in zip(picked(model.score(others, 3)), model.score(TEXTS, 3), strict=True):
        assert ours.log_probs == pytest.approx(alone.log_probs, abs=1e-5)
        assert ours.nll_iw == pytest.approx(alone.nll_iw, abs=1e-5)
    for ours, alone in zip(picked(model.neighbours(others, texts)), model.neighbours(TEXTS, texts), strict=True):
        assert [one.index for one in ours] == [one.index for one in alone]


def test_the_seed_decides_what_is_drawn(model: TextVAE) -> None:
    draws = [[score.nll_iw for score in model.score(TEXTS, 2, seed)] for seed in (None, SEED, 4)]
    assert draws[0] == draws[1] != draws[2]
    made = [model.reconstruct(TEXTS, 4, seed, SHORT) for seed in (None, SEED, 4)]
    assert made[0] == made[1] != made[2]
    fewer = model.reconstruct(TEXTS, 2, max_length=SHORT)
    assert [one.samples for one in fewer] == [one.samples[:2] for one in made[0]]


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("encode", (TEXTS,)),
        ("decode", ([[0.0, 0.0, 0.0]],)),
        ("reconstruct", (TEXTS,)),
        ("interpolate", tuple(TEXTS[:2])),
        ("neighbours", (TEXTS, TEXTS)),
        ("score", (TEXTS,)),
        ("sample", (3,)),
    ],
)
def test_what_a_model_cannot_do_is_said(
    call: str, arguments: Any, language_model: TextVAE, corpus: Corpus, tmp_path: Path
) -> None:
    failure = {"message": "the loss of step 7 is nan"}
    network = informative("vae", corpus)
    diverged = load(written(tmp_path / "model", network, corpus, status="diverged", failure=failure))
    with pytest.raises(DataError, match=r"tiny-vae_mine-3 diverged \(the loss of step 7 is nan\)"):
        getattr(diverged, call)(*arguments)
    if call in ("score", "sample"):
        return
    with pytest.raises(DataError, match=r"tiny-lstm_lm-3 is LSTM-LM, .* can only `sample` and `score`"):
        getattr(language_model, call)(*arguments)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda model: model.encode("one text"), "write .text."),
        (lambda model: model.encode(["short", "x" * 20_000]), "sentence 2 has 20,000 characters"),
        (lambda model: model.interpolate("a", "b", steps=1), "1 steps .its ends.: give 2 or more"),
        (lambda model: model.decode([[1.0, 2.0]]), r"shape \(1, 2\); this model's is \(N, 3\)"),
        (lambda model: model.decode([[1.0, 2.0, 3.0]], max_length=0), "0 words"),
        (lambda model: model.reconstruct(TEXTS, samples=-1), "-1 samples"),
        (lambda model: model.score(TEXTS, samples=0), "0 samples"),
        (lambda model: model.neighbours(TEXTS, TEXTS, k=0), "0 neighbours"),
        (lambda model: model.sample(0), "sentences"),
        (lambda model: model.sample(1, top_p=1.5), "top_p"),
        (lambda model: model.sample(1, seed=-1), "seed -1: give one from 0"),
        (lambda model: model.sample(1, seed=2**64), "seed 18446744073709551616: give one from 0"),
        (lambda model: model.reconstruct(TEXTS, samples=1, seed=-1), "seed -1: give one from 0"),
        (lambda model: model.score(TEXTS, seed=-1), "seed -1: give one from 0"),
    ],
)
def test_wrong_arguments_are_named(model: TextVAE, call: Any, said: str) -> None:
    with pytest.raises((DataError, SettingsError), match=said):
        call(model)
