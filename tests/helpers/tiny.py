"""A corpus and settings so small that a training takes a fraction of a second."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from made_files import changed, corpus_description, write_with_hashes

from textvae.config import ModelSettings, TrainingSettings, TrainSettings
from textvae.corpus import Sentences
from textvae.files import fingerprint
from textvae.networks import Kind, Network
from textvae.objectives import objective_class
from textvae.vocabulary import Vocabulary

WORDS = ["the", "a", "cat", "dog", "bird", "sees", "likes", "small", "old", "sleeps", "sings", "today"]
SHA256 = fingerprint({"words": WORDS})
"""What corpus.json says of the words and sentences."""
MODEL = ModelSettings(embedding=6, hidden=10, latent=3, dropout=0.2, initialisation="pytorch")
SHORT: dict[str, Any] = {
    "annealing_epochs": 1.0,
    "pretraining_epochs": 1,
    "cyclical_epochs": 1.0,
    "cycles": 1,
    "energy_hidden": 8,
    "hold_steps": 3,
    "bow_hidden": 8,
    "auxiliary_hidden": 8,
    "inner_steps": 4,
    "window": 2,
}
"""Smaller values for those of these settings that a system has."""


@dataclass(frozen=True)
class Corpus:
    """Three splits and their words."""

    train: Sentences
    valid: Sentences
    test: Sentences
    vocabulary: Vocabulary

    @property
    def size(self) -> int:
        """Ids, the special ones included."""
        return len(self.vocabulary)


def tiny_corpus() -> Corpus:
    """41 + 12 + 14 sentences of 2 to 8 words over 12 words, the same ones at every call."""
    vocabulary = Vocabulary(WORDS, {"kind": "spaces", "lowercase": False, "language": "en"})
    rng = np.random.default_rng(0)

    def noun_phrase() -> list[str]:
        adjective = [str(rng.choice(["small", "old"]))] if rng.random() < 0.3 else []
        return [str(rng.choice(["the", "a"])), *adjective, str(rng.choice(["cat", "dog", "bird"]))]

    def sentence() -> list[int]:
        words = noun_phrase()
        if rng.random() < 0.5:
            words.append(str(rng.choice(["sleeps", "sings"])))
        else:
            words += [str(rng.choice(["sees", "likes"])), *noun_phrase()]
        return vocabulary.encode(words + (["today"] if rng.random() < 0.3 else []))

    # 41 sentences in batches of 8: the last batch of each epoch has one sentence.
    splits = [Sentences.of([sentence() for _ in range(count)]) for count in (41, 12, 14)]
    return Corpus(*splits, vocabulary)


def write_corpus(folder: Path, corpus: Corpus) -> Path:
    """The corpus as preprocess writes it."""
    folder.mkdir(parents=True)
    for split in ("train", "valid", "test"):
        write_split(folder / f"{split}.parquet", getattr(corpus, split))
    corpus.vocabulary.save(folder / "vocabulary.json")
    write_with_hashes(folder / "corpus.json", corpus_description(sha256=SHA256))
    return folder


def write_split(path: Path, sentences: Sentences) -> None:
    """One split's Parquet file."""
    rows = pa.array([sentences[i].tolist() for i in range(len(sentences))], pa.list_(pa.int32()))
    pq.write_table(pa.table({"tokens": rows}), path)
    if path.with_name("corpus.json").exists():  # of a folder that is there already: as if preprocess had written it
        changed(path.with_name("corpus.json"))


def train_settings(
    system: str, *, objective: dict[str, Any] | None = None, model: ModelSettings = MODEL, **training: Any
) -> TrainSettings:
    """Settings of a short training; `objective` and `training` replace single values."""
    config = objective_class(system).Config
    short = {name: value for name, value in SHORT.items() if name in config.model_fields}
    defaults: dict[str, Any] = {
        "optimizer": "adam",
        "learning_rate": 0.05,
        "batch_size": 8,
        "epochs": 4,
        "decay_from_epoch": 2,
        "decay_patience": 1,
        "device": "cpu",
        "iw_sentences": 4,
        "iw_samples": 3,
    }
    return TrainSettings(
        dataset="tiny",
        system=system,
        model=model,
        training=TrainingSettings(**{**defaults, **training}),
        objective=config(**{**short, "name": system, **(objective or {})}).model_dump(),
    )


def random_network(kind: Kind, vocabulary_size: int, model: ModelSettings = MODEL, seed: int = 0) -> Network:
    """A float64 network whose weights are large enough for every input to matter; in evaluation mode."""
    network = Network(kind, vocabulary_size, model).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network
