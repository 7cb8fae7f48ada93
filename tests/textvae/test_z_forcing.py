"""Z-Forcing: the auxiliary loss by plain loops, who hears it, and that the states it predicts have read backwards."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from reference import BOS, lstm_states
from reference import log_prob as plain_log_prob
from test_objectives import BATCH, BETA, SENTENCES, STEP, build, explicit_terms, noise_for, norm, weights_of
from tiny import MODEL, tiny_corpus, train_settings
from torch import Tensor

from textvae.corpus import Batches, Sentences, collate
from textvae.objectives.z_forcing import LARGEST_LOG_VAR, reversed_words
from textvae.training import Outcome, Trainer

WORDS = [SENTENCES[n].tolist() for n in range(len(SENTENCES))]
CPU = torch.device("cpu")


def objective(**settings: Any) -> Any:
    return build("z_forcing", **{"auxiliary_hidden": 7, "auxiliary_weight": 0.25, **settings})


def plain_auxiliary(forcing: Any, words: list[int], z: Tensor) -> float:
    """-sum over w_1 .. w_T and EOS of log p(b_t | h_t, z), one number at a time."""
    decoder, backward, zeros = forcing.network.decoder, forcing.backward, torch.zeros(MODEL.hidden).double()
    h0, c0 = decoder.initial_state(z[None])
    reads = [torch.cat([decoder.embedding.weight[w], z]) for w in [BOS, *words]]
    forward_states = list(lstm_states(decoder.lstm, reads, h0[0], c0[0]))
    # after BOS, then after each word from the last to the first
    read_backwards = [backward.embedding.weight[w] for w in [BOS, *words[::-1]]]
    backward_states = list(lstm_states(backward.lstm, read_backwards, zeros, zeros))
    first, _, second = forcing.auxiliary
    total = 0.0
    for t, h in enumerate(forward_states):
        b = backward_states[len(words) - t]  # the words from the t-th on have been read; none of them for EOS
        hidden = first.weight @ torch.cat([h, z]) + first.bias
        hidden = torch.where(hidden > 0, hidden, hidden / 3)
        output = (second.weight @ hidden + second.bias).tolist()
        mean, log_var = output[: MODEL.hidden], output[MODEL.hidden :]
        for value, m, v in zip(b.tolist(), mean, log_var, strict=True):
            v = min(max(v, -LARGEST_LOG_VAR), LARGEST_LOG_VAR)
            total += 0.5 * (math.log(2 * math.pi) + v + (value - math.tanh(m)) ** 2 / math.exp(v))
    return total


def test_the_auxiliary_loss_equals_a_plain_loop() -> None:
    forcing = objective()
    reconstruction, kl, _, z = explicit_terms(forcing.network, noise_for(1))
    expected = sum(plain_auxiliary(forcing, words, code) for words, code in zip(WORDS, z.detach(), strict=True))
    backwards = sum(-plain_log_prob(forcing.backward, words[::-1], None) for words in WORDS)
    torch.manual_seed(1)
    losses = forcing.loss(BATCH, forcing.kl_weight(STEP))
    auxiliary, backward = losses.extra["train_auxiliary"], losses.extra["train_backward"]
    assert float(auxiliary.detach()) == pytest.approx(expected / len(WORDS), rel=1e-10)
    assert float(backward.detach()) == pytest.approx(backwards / len(WORDS), rel=1e-10)
    torch.testing.assert_close(losses.reconstruction, reconstruction)
    torch.testing.assert_close(losses.total, reconstruction + BETA * kl + 0.25 * auxiliary + backward)


def test_a_variance_has_a_floor_and_a_ceiling() -> None:
    forcing = objective()
    with torch.no_grad():
        forcing.auxiliary[2].bias[MODEL.hidden :] = torch.tensor([-1e9, 1e9]).repeat(MODEL.hidden // 2)
    z = torch.zeros(len(WORDS), MODEL.latent).double()
    expected = sum(plain_auxiliary(forcing, words, code) for words, code in zip(WORDS, z, strict=True))
    states = forcing.network.decoder.states(BATCH.inputs_BT, z)
    loss = forcing.auxiliary_loss(states, z, forcing.read_backwards(BATCH)[0], BATCH.target_mask_BT)
    assert float(loss.detach()) == pytest.approx(expected / len(WORDS), rel=1e-10)


def test_the_auxiliary_loss_is_heard_by_code_decoder_and_its_network_and_not_by_the_backward_states() -> None:
    """theta, phi: rec + beta KL + w aux, but the output layer, which predicts no state: rec. The backward language
    model: its own loss, unscaled. The auxiliary network: w aux."""
    forcing = objective()
    torch.manual_seed(1)
    losses = forcing.loss(BATCH, forcing.kl_weight(STEP))
    auxiliary, backward = losses.extra["train_auxiliary"], losses.extra["train_backward"]
    of_network = {n: p for n, p in forcing.network.named_parameters() if n != "decoder.output.weight"}
    output, of_backward = forcing.network.decoder.output.weight, list(forcing.backward.parameters())
    heard = torch.autograd.grad(auxiliary, [*of_network.values()], retain_graph=True)
    assert all(norm([gradient]) > 1e-4 for gradient in heard), "encoder, embeddings and LSTM hear it"
    deaf = torch.autograd.grad(auxiliary, [output, *of_backward], retain_graph=True, allow_unused=True)
    assert deaf == (None,) * len(deaf)
    own = losses.reconstruction + BETA * losses.kl + 0.25 * auxiliary
    expected = [
        *torch.autograd.grad(own, [*of_network.values()], retain_graph=True),
        *torch.autograd.grad(losses.reconstruction, [output], retain_graph=True),
        *torch.autograd.grad(backward, of_backward, retain_graph=True),
        *torch.autograd.grad(0.25 * auxiliary, list(forcing.auxiliary.parameters()), retain_graph=True),
    ]
    losses.total.backward()
    parameters = [*of_network.values(), output, *of_backward, *forcing.auxiliary.parameters()]
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("position", [0, 2, 5])
def test_a_word_changes_the_states_of_itself_and_the_words_before_it_only(position: int) -> None:
    forcing, words = objective(), [7, 3, 4, 4, 8, 5]
    other = [6 if place == position else word for place, word in enumerate(words)]
    states = [forcing.read_backwards(collate(Sentences.of([text]), np.arange(1)))[0][0] for text in (words, other)]
    changed = [not torch.equal(mine, its) for mine, its in zip(*states, strict=True)]
    assert changed == [place <= position for place in range(7)], "of 6 words and EOS"


def test_sentences_are_turned_round_between_bos_and_eos() -> None:
    batch = Batches(Sentences.of([[4, 5, 6], [], [8, 7]]), [np.arange(3)], CPU, multiple=8)[0]
    turned = reversed_words(batch)
    assert turned.tokens_BT.tolist() == [[1, 6, 5, 4, 2, 0, 0, 0], [1, 2, 0, 0, 0, 0, 0, 0], [1, 7, 8, 2, 0, 0, 0, 0]]
    assert torch.equal(reversed_words(turned).tokens_BT, batch.tokens_BT)


def test_padding_never_enters() -> None:
    """A sentence's two losses are the same alone, in a batch of longer ones, and in a wider batch than is needed."""
    forcing = objective()
    z = torch.randn(len(WORDS), MODEL.latent, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def losses(indices: list[int], multiple: int = 1) -> tuple[Tensor, Tensor]:
        batch = Batches(SENTENCES, [np.array(indices)], CPU, multiple)[0]
        states = forcing.network.decoder.states(batch.inputs_BT, z[indices])
        backward, loss = forcing.read_backwards(batch)
        return forcing.auxiliary_loss(states, z[indices], backward, batch.target_mask_BT), loss

    alone = [losses([n]) for n in range(len(WORDS))]
    for multiple in (1, 16):
        auxiliary, backward = losses(list(range(len(WORDS))), multiple)
        torch.testing.assert_close(auxiliary, torch.stack([one for one, _ in alone]).mean())
        torch.testing.assert_close(backward, torch.stack([one for _, one in alone]).mean())


def trained(system: str, objective: dict[str, Any], **training: Any) -> tuple[Outcome, dict[str, Tensor], Trainer]:
    corpus = tiny_corpus()
    settings = train_settings(system, objective=objective, **training)
    trainer = Trainer(settings, corpus.train, corpus.valid, corpus.size, 1)
    before = weights_of(trainer.objective.heads)
    return trainer.run(), before, trainer


@pytest.mark.parametrize("training", [{}, {"optimizer": "sgd", "learning_rate": 0.5, "clip_norm": 0.1}])
def test_with_a_weight_of_zero_it_is_the_plain_vae_bit_for_bit_while_the_backward_language_model_learns(
    training: dict[str, Any],
) -> None:
    """Dropout, noise and clipping included: a norm that counted the backward language model would slow the others."""
    ours, before, trainer = trained("z_forcing", {"auxiliary_weight": 0.0}, **training)
    plain, _, _ = trained("vae_05", {"word_dropout": 0.0}, **training)
    for name, weight in plain.network.state_dict().items():
        assert torch.equal(ours.network.state_dict()[name], weight), name
    for row, expected in zip(ours.curves, plain.curves, strict=True):
        assert {**row, **expected, "train_loss": row["train_loss"]} == row
    after = weights_of(trainer.objective.heads)
    assert norm(after[name] - value for name, value in before.items() if name.startswith("backward")) > 0.1
    assert all(torch.equal(after[name], value) for name, value in before.items() if name.startswith("auxiliary"))
    assert ours.curves[-1]["train_backward"] < ours.curves[0]["train_backward"]
