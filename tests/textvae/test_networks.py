"""Encoder and decoder against a second implementation: one sentence, one word at a time, in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
import torch
from tiny import MODEL, random_network
from torch import Tensor, nn

from textvae.config import ModelSettings
from textvae.corpus import Batch, Sentences, collate
from textvae.networks import Kind, Network
from textvae.posteriors import Gaussian

VOCABULARY = 9
SENTENCES = [[4, 5, 6], [], [8], [7, 3, 4, 4, 8, 5], [6, 5]]
"""An empty one among them; the fourth is the longest."""


def batch_of(sentences: list[list[int]]) -> Batch:
    return collate(Sentences.of(sentences), np.arange(len(sentences)))


def codes(count: int = len(SENTENCES)) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, MODEL.latent, generator=generator, dtype=torch.float64)


def padded(batch: Batch, columns: int) -> Batch:
    """The same sentences with more padding behind them."""
    more = torch.zeros(len(batch), columns, dtype=torch.int64)
    return Batch(torch.cat([batch.tokens_BT, more], dim=1), batch.lengths_B, batch.indices, batch.target_tokens)


def test_the_posterior_is_read_off_the_state_at_eos() -> None:
    encoder = random_network("vae", VOCABULARY).encoder
    assert encoder is not None
    posterior, hidden = encoder(batch_of(SENTENCES))
    mu, log_var = posterior.moments()
    for row, words in enumerate(SENTENCES):
        torch.testing.assert_close((mu[row], log_var[row], hidden[row]), reference.posterior(encoder, words))


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_the_reconstruction_counts_every_word_and_eos_and_neither_bos_nor_padding(kind: Kind) -> None:
    decoder = random_network(kind, VOCABULARY).decoder
    z = codes() if kind == "vae" else None
    total, losses = decoder(batch_of(SENTENCES), z)
    expected = [-reference.log_prob(decoder, w, None if z is None else z[n]) for n, w in enumerate(SENTENCES)]
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64))
    assert float(total.detach()) == pytest.approx(sum(expected))


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_the_probabilities_of_all_sentences_add_up_to_one(kind: Kind) -> None:
    """Sentences of 0, 1 and 2 words, and the beginnings of all longer ones: nothing is left for PAD and BOS."""
    decoder = random_network(kind, VOCABULARY).decoder
    ids = range(3, VOCABULARY)
    sentences = [[], *([a] for a in ids), *([a, b] for a in ids for b in ids)]
    z = codes(1) if kind == "vae" else None
    _, losses = decoder(batch_of(sentences), None if z is None else z.expand(len(sentences), -1))
    one = None if z is None else z[0]
    longer = sum(
        math.exp(reference.log_prob(decoder, [a, b, c], one, ended=False)) for a in ids for b in ids for c in ids
    )
    assert float(torch.exp(-losses).sum()) + longer == pytest.approx(1, abs=1e-9)


def test_other_words_can_be_read_while_the_targets_stay() -> None:
    """Word dropout: the decoder reads UNK (3) for the second word and still has to predict it."""
    decoder = random_network("vae", VOCABULARY).decoder
    batch = batch_of([[4, 5, 6]])
    _, losses = decoder(batch, codes(1), torch.tensor([[1, 4, 3, 6]]))
    rows = reference.next_word_log_probs(decoder, [4, 3, 6], codes(1)[0])
    expected = -sum(float(row[target]) for row, target in zip(rows, [4, 5, 6, 2], strict=True))
    assert float(losses[0].detach()) == pytest.approx(expected)


@pytest.mark.parametrize("silenced", ["initial state", "input"])
def test_the_code_reaches_every_word_both_ways(silenced: str) -> None:
    """With one of the code's two ways into the decoder cut, every position still depends on it through the other."""
    decoder = random_network("vae", VOCABULARY).decoder
    assert decoder.initial is not None
    with torch.no_grad():
        if silenced == "initial state":
            decoder.initial.weight.zero_()
        else:
            decoder.lstm.weight_ih_l0[:, MODEL.embedding :] = 0
    inputs = torch.tensor([[1, 4, 5, 6, 7]])
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder.states(inputs, z), codes(1))
    assert (jacobian.abs().amax(dim=(0, 2, 3)) > 1e-6).all()
    if silenced == "initial state":
        # Read beside each word, not only at the first: its part of the last input changes the last state directly.
        with torch.no_grad():
            decoder.lstm.weight_hh_l0.zero_()
        forgetful = torch.autograd.functional.jacobian(lambda z: decoder.states(inputs, z)[:, -1], codes(1))
        assert forgetful.abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_padding_and_the_other_sentences_of_a_batch_change_nothing(kind: Kind) -> None:
    network = random_network(kind, VOCABULARY).float()
    z = codes().float() if kind == "vae" else None

    def numbers(rows: list[int], padding: int) -> list[Tensor]:
        batch = padded(batch_of([SENTENCES[row] for row in rows]), padding)
        losses = network.decoder(batch, None if z is None else z[rows])[1]
        if network.encoder is None:
            return [losses]
        posterior, hidden = network.encode(batch)
        return [losses, *posterior.moments(), hidden]

    together = numbers([0, 1, 2, 3, 4], 0)
    for rows, padding in (([0, 1, 2, 3, 4], 7), ([4, 2], 0), ([3, 1, 0], 3), ([1], 0), ([2], 0)):
        for ours, expected in zip(numbers(rows, padding), together, strict=True):
            torch.testing.assert_close(ours, expected[rows], atol=1e-5, rtol=0)


def test_dropout_is_on_the_embedding_and_the_states_in_training_only_and_never_on_the_code() -> None:
    rate, width = 0.4, 50
    settings = ModelSettings(embedding=width, hidden=width, latent=MODEL.latent, dropout=rate)
    decoder = random_network("vae", VOCABULARY, settings).decoder
    with torch.no_grad():
        decoder.lstm.weight_hh_l0.zero_()  # keeps the states small, so that none is rounded to zero
        decoder.lstm.weight_ih_l0 *= 0.1
    seen: dict[str, Tensor] = {}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        seen["in"], seen["out"] = inputs[0], output[0]

    decoder.lstm.register_forward_hook(hook)
    inputs = torch.tensor([[1, 4, 4, 4, 5, 6, 7, 8] * 4, [1, 3, 8, 7, 5, 5, 4, 6] * 4])
    embedded = decoder.embedding(inputs)
    z = codes(2)

    torch.testing.assert_close(decoder.states(inputs, z), seen["out"], atol=0, rtol=0)
    assert torch.equal(seen["in"][..., :width], embedded)

    decoder.train()
    torch.manual_seed(0)
    states = decoder.states(inputs, z)
    assert torch.equal(seen["in"][..., width:], z[:, None].expand(-1, inputs.shape[1], -1))
    for before, after in ((embedded, seen["in"][..., :width]), (seen["out"], states)):
        kept = after != 0
        torch.testing.assert_close(after[kept], before[kept] / (1 - rate))
        deviation = math.sqrt(rate * (1 - rate) / kept.numel())
        assert float(kept.double().mean()) == pytest.approx(1 - rate, abs=5 * deviation)
        # A fresh mask per position: no two of them are the same.
        assert len(kept.flatten(0, 1).unique(dim=0)) == inputs.numel()


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_initialisation_is_he_et_als(kind: Kind) -> None:
    torch.manual_seed(1)
    network = Network(kind, 500, ModelSettings(embedding=20, hidden=30, latent=8))
    embeddings = [name for name, _ in network.named_parameters() if "embedding" in name]
    assert len(embeddings) == (2 if kind == "vae" else 1)
    for name, parameter in network.named_parameters():
        bound = 0.1 if name in embeddings else 0.01
        values = (parameter[1:] if name in embeddings else parameter).detach()
        assert 0.9 * bound < float(values.abs().max()) <= bound, name
        assert abs(float(values.mean())) < 6 * bound / math.sqrt(3 * values.numel()), name
        assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.25), name
    for name in embeddings:
        assert not network.get_parameter(name)[0].any(), "padding has a zero embedding"


def test_the_initialisation_is_that_of_the_generator() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return Network("vae", VOCABULARY, MODEL).decoder.output.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_papers_sizes_give_the_papers_architecture() -> None:
    """Counted by hand: LSTMs have 4 H (inputs + H + 2) weights, the heads H x 2D and W D x H have no bias."""
    vocabulary, settings = 10_004, ModelSettings()
    assert (settings.embedding, settings.hidden, settings.latent) == (128, 512, 64)
    embedding = 128 * vocabulary
    output = 512 * (vocabulary - 2)
    encoder = embedding + 4 * 512 * (128 + 512 + 2) + 512 * 128
    decoder = embedding + 4 * 512 * (128 + 64 + 512 + 2) + 64 * 512 + output
    language_model = embedding + 4 * 512 * (128 + 512 + 2) + output
    for kind, expected in (("vae", encoder + decoder), ("lstm_lm", language_model)):
        with torch.device("meta"):
            network = Network(kind, vocabulary, settings)  # type: ignore[arg-type]
        assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_the_sample_has_the_posteriors_mean_and_variance() -> None:
    mu, log_var = torch.tensor([[1.0, -2.0]]), torch.tensor([[math.log(4.0), math.log(0.25)]])
    posterior = Gaussian(mu, log_var)
    torch.testing.assert_close(posterior.sample(torch.zeros(1, 2)), mu)
    # mu + sigma * noise with sigma = (2, 0.5)
    z = posterior.sample(torch.tensor([[1.5, -1.0]]))
    torch.testing.assert_close(z, torch.tensor([[4.0, -2.5]]))


def test_pytorchs_initialisation_is_there_for_adam() -> None:
    """torch.nn.LSTM draws from uniform(-1/sqrt(H), 1/sqrt(H)), torch.nn.Embedding from N(0, 1)."""
    torch.manual_seed(1)
    settings = ModelSettings(embedding=20, hidden=25, latent=8, initialisation="pytorch")
    decoder = Network("vae", 500, settings).decoder
    for parameter in decoder.lstm.parameters():
        assert 0.19 < float(parameter.detach().abs().max()) <= 0.2
    assert float(decoder.embedding.weight[1:].detach().std()) == pytest.approx(1, abs=0.05)
    assert not decoder.embedding.weight[0].any()
