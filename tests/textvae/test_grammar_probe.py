"""Known answers end to end: a language model reaches the corpus's entropy, and VAE-MINE's code tells the topic.

tests/helpers/grammar_probe.py has the settings, and prints all systems.
"""

from __future__ import annotations

import math

import grammar_probe
import pytest
import torch
from grammar_probe import GRAMMAR, Corpus, measured, probe_accuracy, trained

from textcorpus import grammar


@pytest.fixture(scope="module")
def data() -> Corpus:
    return grammar_probe.corpus()


def test_the_language_model_reaches_the_entropy(data: Corpus) -> None:
    """No model of the corpus is below it, but for the noise of 1,000 test sentences."""
    network = trained("lstm_lm", data)
    assert network is not None
    entropy = grammar.entropy(GRAMMAR)
    assert measured(network, data).nll == pytest.approx(entropy, rel=0.03)


def test_vae_mine_s_code_tells_the_topic(data: Corpus) -> None:
    """Chance is a quarter. The energy is no linear function of z, nor need the code be one of the topic.

    The training amplifies rounding: initial weights that differ by 1e-7 of themselves end with an MI of 2.2 to 3.8
    nats, and with probes that read 0.95 to 0.99 off the means and 0.75 to 0.96 off z.
    """
    network = trained("vae_mine", data)
    assert network is not None
    found = measured(network, data)
    assert found.mi > math.log(GRAMMAR.topics)
    assert found.probe_mu > 0.8
    assert found.probe_z > 0.5


def test_the_probe_is_at_chance_on_noise_and_right_on_what_is_linear() -> None:
    torch.manual_seed(0)
    topics_N = torch.arange(2000) % 4
    noise_ND = torch.randn(2000, 8, dtype=torch.float64)
    train, test = slice(0, 1000), slice(1000, 2000)
    accuracy = probe_accuracy(noise_ND[train], topics_N[train], noise_ND[test], topics_N[test])
    assert accuracy == pytest.approx(0.25, abs=0.06)
    told_ND = noise_ND + 4 * torch.eye(8, dtype=torch.float64)[topics_N]
    # Two classes are 4 sqrt(2) standard deviations apart: each pair is confused in 0.24% of the cases.
    assert probe_accuracy(told_ND[train], topics_N[train], told_ND[test], topics_N[test]) > 0.98


def test_every_sentence_has_the_topic_of_all_its_nouns(data: Corpus) -> None:
    for split, sentences in data.splits.items():
        for index in range(100):
            nouns = [word for word in data.vocabulary.decode(sentences[index]).split() if word.startswith("noun")]
            assert {int(noun[4]) - 1 for noun in nouns} == {int(data.topics[split][index])}
