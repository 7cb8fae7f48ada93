"""`python -m benchmarks` at tiny sizes, and that its plain reference computes what the project does: no timing."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch

from benchmarks import __main__ as benchmark
from benchmarks import products
from benchmarks.reference import PlainVAE, equal_length_batches, tokens_of
from benchmarks.timing import HEAD, Row, rates, table
from textvae.config import ModelSettings
from textvae.corpus import Sentences, collate
from textvae.inference import importance_weighted_nll
from textvae.networks import Network

VOCABULARY = 13
SIZES = ModelSettings(embedding=4, hidden=6, latent=2, dropout=0.0, initialisation="pytorch")


@pytest.fixture
def network() -> Network:
    torch.manual_seed(5)
    return Network("vae", VOCABULARY, SIZES)


@pytest.fixture
def plain(network: Network) -> PlainVAE:
    one = PlainVAE(VOCABULARY, SIZES)
    one.load_state_dict(network.state_dict())
    return one


@pytest.fixture
def sentences() -> Sentences:
    return Sentences.of([[4, 9, 5], [12, 3, 3], [7, 6, 11], [8, 4]])


def test_one_command_ends_with_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(tiny=True)
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(f"| {' | '.join(HEAD)} |")
    works = [line.split(" | ")[0].removeprefix("| ") for line in lines[start + 2 :]]
    assert works == [
        "training step, batch 4, tokens/s",
        "VAE-MINE's step beside the VAE's, tokens/s",
        "LaggingVAE's inner step beside a joint one, tokens/s",
        "training step, batch 8, tokens/s",
        "NLL-IW, k = 6, tokens/s",
        "ancestral sampling, tokens/s",
        "output layer, tiny (9 x 4 x 20), tokens/s",
        "fetch, sentences/s",
        "preprocess, sentences/s",
    ]
    assert benchmark.processor() in lines[start - 2]
    for line in lines[start + 2 : -2]:
        assert re.search(r"\| [\d,]+ \| [\d,]+ \| \d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\) \|", line)


def test_the_reference_trains_on_the_project_s_loss(
    network: Network, plain: PlainVAE, sentences: Sentences, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = collate(sentences, np.arange(3))
    noise_BD = torch.randn(3, SIZES.latent)
    monkeypatch.setattr(torch, "randn_like", lambda value: noise_BD)
    posterior, _ = network.encode(batch)
    total, _ = network.decoder(batch, posterior.sample(noise_BD))
    expected = total / 3 + 0.3 * posterior.kl().mean()
    torch.testing.assert_close(plain.loss(tokens_of(sentences, np.arange(3)), 0.3), expected)


def test_the_reference_steps_against_the_gradient(plain: PlainVAE, sentences: Sentences) -> None:
    tokens_BT = tokens_of(sentences, np.arange(3))
    losses = [plain.step(tokens_BT, 1.0) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]


def test_the_reference_s_nll_iw_is_the_project_s(network: Network, plain: PlainVAE, sentences: Sentences) -> None:
    """Both estimate one number, with noise of their own: at many codes they agree within its standard error."""
    torch.manual_seed(0)
    own = importance_weighted_nll(network, sentences.subset(np.array([0])), 4000, seed=0)
    assert plain.nll_iw(tokens_of(sentences, np.array([0]))[0], 4000) == pytest.approx(float(own), abs=0.02)


def test_the_reference_s_samples_end_at_eos(plain: PlainVAE) -> None:
    torch.manual_seed(0)
    samples = plain.samples(200, max_length=7)
    assert len(samples) == 200
    assert max(map(len, samples)) == 7
    assert {word for sentence in samples for word in sentence} == set(range(3, VOCABULARY))
    short = sum(len(sentence) == 0 for sentence in samples) / 200
    assert short == pytest.approx(1 / (VOCABULARY - 2), abs=0.1)


def test_batches_of_one_length_hold_each_sentence_once(sentences: Sentences) -> None:
    batches = list(equal_length_batches(sentences, 2, seed=0))
    assert [batch.shape for batch in batches] == [(2, 5)]
    held = {tuple(row[1:-1].tolist()) for row in batches[0]}
    assert len(held) == 2
    assert held <= {tuple(sentences[n].tolist()) for n in range(3)}


def test_products_of_a_step_are_six_operations_a_weight_and_token(plain: PlainVAE) -> None:
    """A multiplication and an addition forward, two of each backward; forward alone a third."""
    words, batch = 5, 300

    def weights(*modules: torch.nn.Module) -> int:
        return sum(weight.numel() for module in modules for weight in module.parameters() if weight.ndim == 2)

    def operations(of: list[products.Product]) -> int:
        return sum(2 * math.prod(one[:3]) * one.times for one in of)

    encoder, decoder = weights(plain.encoder.lstm), weights(plain.decoder.lstm, plain.decoder.output)
    tokens = batch * (words + 1)
    expected = 6 * (tokens * decoder + (tokens + batch) * encoder)
    assert operations(products.of_step(SIZES, VOCABULARY - 2, batch, words)) == expected
    assert operations(products.of_reading(SIZES, VOCABULARY - 2, batch, words)) == 2 * tokens * decoder


def test_a_cost_is_read_the_other_way_round() -> None:
    faster = Row("faster", [4.0, 6.0], [2.0, 2.0], target=2.0)
    dearer = Row("dearer", [2.0, 2.0], [4.0, 6.0], target=2.6, costs=True, limit=[4.0, 4.0])
    assert (faster.ratios, faster.reached, dearer.ratios, dearer.reached) == ([2.0, 3.0], True, [2.0, 3.0], True)
    assert dearer.cells()[3:] == ("2.50 (2.00 to 3.00)", "at most 2.6", "yes", "50%")
    assert not Row("too dear", [2.0], [5.4], target=2.6, costs=True).reached
    assert Row("untargeted", [1.0]).reached is None
    assert table([faster]).splitlines()[2] == "| faster | 5 | 2 | 2.50 (2.00 to 3.00) | at least 2.0 | yes |  |"


def test_ways_take_turns_and_the_first_round_does_not_count() -> None:
    seen: list[str] = []

    def way(name: str) -> float:
        seen.append(name)
        sum(range(20_000))
        return 1.0 if len(seen) > 2 else math.nan

    found = rates({"a": lambda: way("a"), "b": lambda: way("b")}, rounds=2)
    assert seen == ["a", "b"] * 3
    assert [len(found[name]) for name in "ab"] == [2, 2]
    assert all(rate > 0 for rates_of in found.values() for rate in rates_of)
