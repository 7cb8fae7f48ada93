"""What each system makes of the synthetic corpus, whose entropy and whose topics are known.

    python tests/helpers/grammar_probe.py            # every entry of params.yaml: the table of docs/systems.md
    python tests/helpers/grammar_probe.py vae_mine   # some of them

The probe is linear: multinomial logistic regression from the codes of the training sentences to their topics, its
accuracy that on the test sentences; chance is 1 / topics. It reads the posterior means, and z drawn from the posterior,
which is what the decoder gets: a mean tells a probe what the noise around it may well hide from the decoder.
"""

from __future__ import annotations

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textcorpus import grammar
from textvae import estimators
from textvae.config import GrammarSettings, ModelSettings, Params, TrainingSettings, TrainSettings, merge
from textvae.corpus import Sentences, hashed_normals
from textvae.inference import posteriors, reconstruction
from textvae.networks import Network
from textvae.objectives import alternatives, checked
from textvae.posteriors import Posterior
from textvae.training import Trainer
from textvae.vocabulary import Vocabulary

GRAMMAR = GrammarSettings(
    topics=4, nouns=4, verbs=4, adjectives=2, sentences={"train": 4000, "valid": 200, "test": 1000}
)
MODEL = ModelSettings(embedding=24, hidden=48, latent=8, dropout=0.0, initialisation="pytorch")
TRAINING = TrainingSettings(
    optimizer="adam", learning_rate=0.005, epochs=10, decay_from_epoch=10, device="cpu", iw_sentences=20, iw_samples=5
)
SHORTER: dict[str, Any] = {
    "annealing_epochs": 2,
    "cycles": 2,
    "cyclical_epochs": 10,
    "inner_steps": 4,
    "window": 2,
    "hold_steps": 250,
    "energy_hidden": 48,
    "energy_learning_rate": 0.002,
}
"""In place of those of these that an entry has and does not switch off; an SGD energy keeps its own rate."""


@dataclass(frozen=True)
class Corpus:
    """The splits as ids, and the topic of every sentence."""

    splits: dict[str, Sentences]
    topics: dict[str, Tensor]
    vocabulary: Vocabulary


def corpus(settings: GrammarSettings = GRAMMAR) -> Corpus:
    """Drawn from the grammar; the noun tells the topic."""
    drawn: dict[str, list[list[str]]] = {split: [] for split in settings.sentences}
    for split, words in grammar.sentences(settings):
        drawn[split].append(words)
    known = sorted({word for sentence in drawn["train"] for word in sentence})
    vocabulary = Vocabulary(known, {"kind": "spaces", "lowercase": False, "language": "en"})
    splits = {split: Sentences.of([vocabulary.encode(words) for words in found]) for split, found in drawn.items()}
    topics = {split: torch.tensor([topic(words) for words in found]) for split, found in drawn.items()}
    return Corpus(splits, topics, vocabulary)


def topic(words: list[str]) -> int:
    """0, ..., topics - 1."""
    return next(int(found[1]) - 1 for word in words if (found := re.match(r"noun(\d+)\.", word)))


def settings_of(system: str) -> TrainSettings:
    """The system's entry of params.yaml with a schedule for ten epochs."""
    objective = Params.load(Path(__file__).resolve().parents[2] / "params.yaml").system(system)["objective"]
    listed = alternatives(checked(objective))[1]
    complete = next((one for one in listed if one.get("alpha") == 2.0), listed[0])
    shorter = {name: value for name, value in SHORTER.items() if complete.get(name)}
    if complete.get("energy_optimizer") == "sgd":
        del shorter["energy_learning_rate"]
    return TrainSettings(
        dataset="grammar", system=system, model=MODEL, training=TRAINING, objective=merge(complete, shorter)
    )


def trained(system: str, data: Corpus, seed: int = 1) -> Network | None:
    """The selected weights; None for a training that diverged."""
    splits = data.splits
    outcome = Trainer(settings_of(system), splits["train"], splits["valid"], len(data.vocabulary), seed).run()
    if outcome.failure is not None:
        return None
    outcome.network.load_state_dict(outcome.weights)
    return outcome.network


@dataclass(frozen=True)
class Codes:
    """Of one split: the posteriors and z, all (N, D)."""

    posterior: Posterior
    z_ND: Tensor

    @classmethod
    def of(cls, network: Network, sentences: Sentences) -> Codes:
        """z is one draw a sentence, the same at every call."""
        posterior = posteriors(network, sentences)
        return cls(posterior, posterior.sample(hashed_normals(sentences, 1, network.latent, "grammar probe")))


def probe_accuracy(train_ND: Tensor, topics_N: Tensor, test_MD: Tensor, test_topics_M: Tensor) -> float:
    """Share of test sentences whose topic a linear classifier, fitted to the training sentences, reads off the code."""
    mean_D, std_D = train_ND.mean(0), train_ND.std(0) + 1e-12
    topics = int(topics_N.max()) + 1
    weight_DK = torch.zeros(train_ND.shape[1], topics, dtype=torch.float64, requires_grad=True)
    bias_K = torch.zeros(topics, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_DK, bias_K], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        scores_NK = (train_ND - mean_D) / std_D @ weight_DK + bias_K
        value = torch.nn.functional.cross_entropy(scores_NK, topics_N) + 1e-3 * weight_DK.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[arg-type]
    guessed_M = ((test_MD - mean_D) / std_D @ weight_DK + bias_K).argmax(1)
    return float((guessed_M == test_topics_M).double().mean())


@dataclass(frozen=True)
class Measured:
    """One row of the table; LSTM-LM has the NLL only."""

    nll: float
    kl: float = math.nan
    mi: float = math.nan
    au: int = 0
    probe_mu: float = math.nan
    probe_z: float = math.nan


def measured(network: Network, data: Corpus) -> Measured:
    """On the test sentences, in nats a sentence."""
    test = data.splits["test"]
    if network.kind == "lstm_lm":
        return Measured(float(reconstruction(network, test, None).mean()))
    codes = {split: Codes.of(network, data.splits[split]) for split in ("train", "test")}
    at = codes["test"]
    found = estimators.mutual_information(at.posterior, at.z_ND)
    kl_N = at.posterior.kl()
    topics = data.topics["train"], data.topics["test"]
    return Measured(
        nll=float((reconstruction(network, test, at.z_ND) + kl_N).mean()),
        kl=float(kl_N.mean()),
        mi=float(found.mi),
        au=estimators.active_units(at.posterior.mean),
        probe_mu=probe_accuracy(codes["train"].posterior.mean, topics[0], at.posterior.mean, topics[1]),
        probe_z=probe_accuracy(codes["train"].z_ND, topics[0], at.z_ND, topics[1]),
    )


def main(systems: list[str]) -> None:
    """Print a Markdown table."""
    torch.set_num_threads(1)
    data = corpus()
    entropy, worth = grammar.entropy(GRAMMAR), math.log(GRAMMAR.topics)
    print(f"Entropy {entropy:.2f} nats, log(topics) {worth:.2f}, chance {1 / GRAMMAR.topics:.2f}.\n")
    print("| system | NLL | KL | MI | AU | probe of mu | probe of z |\n| --- |" + " ---: |" * 6)
    for system in systems:
        network = trained(system, data)
        row = None if network is None else measured(network, data)
        if row is None:
            cells = ["diverged", *[""] * 5]
        elif math.isnan(row.kl):
            cells = [f"{row.nll:.2f}", *[""] * 5]
        else:
            numbers = (row.nll, row.kl, row.mi), (row.probe_mu, row.probe_z)
            cells = [*(f"{n:.2f}" for n in numbers[0]), str(row.au), *(f"{n:.2f}" for n in numbers[1])]
        print(f"| `{system}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or list(Params.load(Path(__file__).resolve().parents[2] / "params.yaml").systems))
