"""The examples of a run: which sentences, the library's own answers about them, and what a run without codes says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import Corpus, write_corpus
from tiny_model import informative, written

from components.examples import examples
from textvae import load
from textvae.config import ExamplesSettings
from textvae.corpus import Sentences

SETTINGS = ExamplesSettings(sentences=5, samples=2, steps=3, neighbours=2, max_length=8, device="cpu")


@pytest.fixture(scope="module")
def model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("vae") / "model", informative("vae", corpus), corpus)


def made(model: Path, corpus_folder: Path, out: Path, **changes: Any) -> dict[str, Any]:
    settings = SETTINGS.model_copy(update=changes)
    metadata = examples(model=model, corpus=corpus_folder, settings=settings, examples=out)
    found: dict[str, Any] = json.loads(out.read_text())
    assert metadata == {key: found[key] for key in ("dataset", "system", "seed", "status", "failure", "model_sha256")}
    return found


def test_the_examples_are_the_librarys_answers_on_test_sentences(
    model: Path, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    found = made(model, corpus_folder, tmp_path / "examples.json")
    opened = load(model)
    texts = [one["text"] for one in found["sentences"]]
    assert len(set(texts)) == 5
    for one in found["sentences"]:
        assert one["split"] == "test"
        assert one["text"] == corpus.vocabulary.decode(corpus.test[one["index"]])
    training = [corpus.vocabulary.decode(corpus.train[n]) for n in range(len(corpus.train))]
    for one, expected in zip(found["reconstructions"], opened.reconstruct(texts, 2, max_length=8), strict=True):
        assert one == {"source": expected.source, "mean": expected.mean, "samples": expected.samples}
    for one, near in zip(found["neighbours"], opened.neighbours(texts, training, 2), strict=True):
        assert [each["text"] for each in one["nearest"]] == [each.text for each in near]
        assert [each["cosine"] for each in one["nearest"]] == pytest.approx([each.cosine for each in near], abs=1e-6)
    assert [one["source"] for one in found["neighbours"]] == texts
    assert [(one["from"], one["to"]) for one in found["interpolations"]] == [(texts[0], texts[1]), (texts[2], texts[3])]
    for one in found["interpolations"]:
        steps = opened.interpolate(one["from"], one["to"], 3, 8)
        assert [(step["t"], step["text"]) for step in one["steps"]] == [(step.t, step.text) for step in steps]
        assert [step["log_prob"] for step in one["steps"]] == pytest.approx([s.log_prob for s in steps], abs=1e-4)
    ancestral, greedy = opened.sample(5, max_length=8), opened.sample(5, temperature=0, max_length=8)
    assert found["prior"] == {"ancestral": [one.text for one in ancestral], "greedy": [one.text for one in greedy]}


def test_every_system_is_shown_the_same_sentences_whatever_the_order_of_the_file(
    model: Path, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    texts = {one["text"] for one in made(model, corpus_folder, tmp_path / "one.json")["sentences"]}
    test = corpus.test.subset(np.arange(len(corpus.test))[::-1])
    reversed_one = write_corpus(tmp_path / "corpus", Corpus(corpus.train, corpus.valid, test, corpus.vocabulary))
    another = written(tmp_path / "model", informative("vae", corpus), corpus, system="vae_05", seed=8)
    assert {one["text"] for one in made(another, reversed_one, tmp_path / "two.json")["sentences"]} == texts
    other_seed = made(model, corpus_folder, tmp_path / "three.json", seed=1)["sentences"]
    assert {one["text"] for one in other_seed} != texts


def test_a_sentence_that_the_test_set_repeats_is_drawn_once(model: Path, corpus: Corpus, tmp_path: Path) -> None:
    repeated = Sentences.of([corpus.test[n] for n in (0, 1, 0, 1, 0)])
    folder = write_corpus(tmp_path / "corpus", Corpus(corpus.train, corpus.valid, repeated, corpus.vocabulary))
    found = made(model, folder, tmp_path / "examples.json")
    assert sorted(one["index"] for one in found["sentences"]) == [0, 1]
    assert len(found["interpolations"]) == 1


def test_named_sentences_take_the_place_of_drawn_ones(
    model: Path, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    known = corpus.vocabulary.decode(corpus.test[7])
    first = next(n for n in range(len(corpus.test)) if corpus.test[n].tolist() == corpus.test[7].tolist())
    named = [known, "the   elephant sings", "UNK sings"]
    found = made(model, corpus_folder, tmp_path / "examples.json", texts=named)
    assert found["sentences"] == [
        {"split": "test", "index": first, "text": known},
        {"split": None, "index": None, "text": "the UNK sings"},
        {"split": None, "index": None, "text": "UNK sings"},
    ]
    assert [one["source"] for one in found["reconstructions"]] == [known, "the UNK sings", "UNK sings"]


def test_a_language_model_only_generates_and_a_diverged_run_does_nothing(
    corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    nothing: dict[str, Any] = {"sentences": [], "reconstructions": [], "interpolations": [], "neighbours": []}
    lm = written(tmp_path / "lm", informative("lstm_lm", corpus), corpus)
    found = made(lm, corpus_folder, tmp_path / "lm.json")
    assert {key: found[key] for key in nothing} == nothing
    assert len(set(found["prior"]["ancestral"])) == 5
    assert len(set(found["prior"]["greedy"])) == 1, "without a code there is one likeliest sentence"
    network = informative("vae", corpus)
    diverged = written(tmp_path / "nan", network, corpus, status="diverged", failure={"message": "nan"})
    found = made(diverged, corpus_folder, tmp_path / "nan.json")
    assert {key: found[key] for key in nothing} == nothing
    assert found["prior"] == {"greedy": [], "ancestral": []}
    assert (found["status"], found["failure"]) == ("diverged", {"message": "nan"})


def test_the_same_run_gives_the_same_bytes(model: Path, corpus_folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        made(model, corpus_folder, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
