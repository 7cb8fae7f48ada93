"""Samples, posteriors, examples and corpora as the steps write them, small and made up, for the tests of the report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from made_files import changed, write_sealed_table
from report_runs import (
    VAE,
    grid,
    learning_curve,
    measures,
    perplexities,
    write_corpus,
    write_run,
)

from textvae.files import write_json
from textvae.vocabulary import Vocabulary

WORDS = ["the", "cat", "dog", "sat", "ran", "mat", "."]
VOCABULARY = Vocabulary(WORDS, {"kind": "spaces", "lowercase": True, "language": "en"})
TRAINING = ["the cat sat .", "the dog ran .", "the mat ."]
TEST = ["the cat sat .", "the dog sat .", "the cat ran .", "the dog sat ."]
SAMPLES = {
    "lstm_lm": ["the cat sat .", "the mat sat .", "the dog .", "mat .", "the dog ran ."],
    "vae_05": ["the cat .", "the cat .", "the cat .", "the cat .", "dog ."],
    "vae_mine": ["", "the dog sat .", "cat UNK .", "dog ran . ran .", "the mat ."],
}


def sentences(texts: Sequence[str]) -> pa.ListArray:
    """Token ids."""
    return pa.array([VOCABULARY.encode(text.split()) for text in texts], pa.list_(pa.int32()))


def write_sentences(folder: Path) -> None:
    """The text of a corpus, beside its corpus.json."""
    VOCABULARY.save(folder / "vocabulary.json")
    for split, texts in (("train", TRAINING), ("test", TEST)):
        pq.write_table(pa.table({"tokens": sentences(texts)}), folder / f"{split}.parquet")
    changed(folder / "corpus.json")


def write_samples(path: Path, dataset: str, system: str, seed: int, texts: Sequence[str]) -> None:
    """As the step sample does."""
    about = {"dataset": dataset, "system": system, "seed": seed, "status": "finished", "failure": None}
    about["decoding"] = "ancestral"
    schema = pa.schema(
        [("sentence", pa.string()), ("tokens", pa.list_(pa.int32())), ("log_prob", pa.float64())],
        metadata={"textvae": json.dumps(about)},
    )
    columns = [pa.array(texts, pa.string()), sentences(texts), pa.array([-1.0] * len(texts))]
    write_sealed_table(path, pa.table(columns, schema=schema))


def codes(seed: int, sentences: int = 50, dimensions: int = 4) -> tuple[Any, Any]:
    """(mu, log sigma^2) of a posterior whose dimensions tell less and less."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** -np.arange(dimensions)
    mu_ND = (rng.normal(size=(sentences, dimensions)) * scale + 0.3 * scale).astype(np.float32)
    return mu_ND, np.full((sentences, dimensions), -0.01, np.float32)


def write_posterior(path: Path, mu_ND: Any, log_var_ND: Any) -> None:
    """As the step evaluate does."""
    vectors = pa.list_(pa.float32(), mu_ND.shape[1])
    columns = {name: pa.array(list(values), vectors) for name, values in (("mu", mu_ND), ("log_var", log_var_ND))}
    pq.write_table(pa.table({"sentence": ["a sentence"] * len(mu_ND), **columns}), path)


def examples(dataset: str, system: str, seed: int) -> dict[str, Any]:
    """As the step examples does; a language model only generates."""
    found: dict[str, Any] = {"dataset": dataset, "system": system, "seed": seed, "status": "finished", "failure": None}
    found |= {"sentences": [], "reconstructions": [], "interpolations": [], "neighbours": []}
    found["prior"] = {"greedy": [f"{system} greedily"], "ancestral": [f"{system} ancestrally", ""]}
    if system != "lstm_lm":
        steps = [{"t": t, "text": f"{system} between", "log_prob": -12.345} for t in (0.0, 0.5)]
        found["reconstructions"] = [
            {"source": "the cat <b>sat</b> .", "mean": f"{system} mean", "samples": [f"{system} once"]}
        ]
        found["interpolations"] = [{"from": "the cat .", "to": "the dog .", "steps": steps}]
        found["neighbours"] = [{"source": "the mat .", "nearest": [{"text": f"{system} near", "cosine": 0.987}]}]
    return found


def write_full_experiment(folder: Path, seeds: Sequence[int] = (1,)) -> Any:
    """Three systems with everything that a run leaves; the settings of their report."""
    write_corpus(folder / "corpora" / "sotu", "sotu")
    write_sentences(folder / "corpora" / "sotu" / "corpus")
    for number, system in enumerate(SAMPLES):
        for seed in seeds:
            run = folder / "runs" / "sotu" / system / str(seed)
            numbers = measures(60.0 + number, **(VAE if system != "lstm_lm" else {}))
            write_run(
                run,
                "sotu",
                system,
                seed,
                metrics=numbers,
                ngram=perplexities(300.0 - 10 * number, 340.0 + number),
                curves=learning_curve(3, 60.0 + number),
            )
            write_samples(run / "samples.parquet", "sotu", system, seed, SAMPLES[system])
            write_json(run / "examples.json", examples("sotu", system, seed))
            if system != "lstm_lm":
                write_posterior(run / "evaluation" / "posterior.parquet", *codes(number))
    return grid(["sotu"], list(SAMPLES), [str(seed) for seed in seeds], {"sotu": True})
