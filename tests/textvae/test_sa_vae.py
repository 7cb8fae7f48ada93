"""SVI steps from the encoder's answer: their gradients against differences of the whole, and what a posterior is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from test_objectives import BATCH, SENTENCES, STEP, VOCABULARY, build
from tiny import MODEL, random_network, tiny_corpus, train_settings
from tiny_model import informative, written
from torch import Tensor

import textvae
from textvae import softmax, svi
from textvae.checkpoint import load_state, save_state
from textvae.config import ModelSettings
from textvae.corpus import Sentences
from textvae.inference import posteriors, validation
from textvae.networks import Network
from textvae.posteriors import Gaussian
from textvae.training import Trainer

BETA = 0.37
"""`build`'s at STEP."""


def stepping(steps: int, rate: float = 0.1, **changes: Any) -> ModelSettings:
    return MODEL.model_copy(update={"svi_steps": steps, "svi_learning_rate": rate, **changes})


def network_of(steps: int, rate: float = 0.1, **changes: Any) -> Network:
    return random_network("vae", VOCABULARY, stepping(steps, rate, **changes))


def noise_of(steps: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, len(BATCH), MODEL.latent, generator=generator, dtype=torch.float64)


def posterior_of(network: Network, *noise_and_beta: Any) -> Gaussian:
    """The batch's."""
    found, _ = svi.posterior(network, BATCH, *noise_and_beta)
    assert isinstance(found, Gaussian)
    return found


def explicit(network: Network, at: Gaussian, noise: Tensor, beta: float) -> Tensor:
    """-log p(x|z) + beta KL of each sentence at one code."""
    with torch.no_grad():
        return network.decoder(BATCH, at.sample(noise))[1] + beta * at.kl()


# --- the gradient --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["vae_05", "vae_bow"])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_gradient_is_that_of_the_whole_computation(
    objective: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Central differences of the loss, with three steps in it, along random directions of all weights of a part."""
    monkeypatch.setattr(svi, "DIFFERENCE", 1e-6)
    own: Any = build(objective, network_of(3), **({"word_dropout": 0.0} if objective == "vae_05" else {}))
    own.begin(STEP)

    def loss() -> Tensor:
        torch.manual_seed(1)
        total: Tensor = own.loss(BATCH, own.beta).total
        return total

    weights = list(getattr(own.network, part).parameters())
    gradients = torch.autograd.grad(loss(), weights)
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        direction = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
        ends = []
        for far in (1e-6, -2e-6, 1e-6):  # ahead, behind, and back
            with torch.no_grad():
                for weight, d in zip(weights, direction, strict=True):
                    weight.add_(d, alpha=far)
            ends.append(float(loss().detach()))
        expected = (ends[0] - ends[1]) / 2e-6
        along = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        assert along == pytest.approx(expected, rel=2e-4, abs=1e-5)


def test_the_difference_that_training_takes_is_fine_enough_for_float32() -> None:
    """At its own size and in float32, the gradient is the one of a tiny difference in float64, within a percent."""
    found = []
    for network, difference in ((network_of(2), 1e-6), (network_of(2).float(), svi.DIFFERENCE)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(svi, "DIFFERENCE", difference)
            q = posterior_of(network, noise_of(2), 1.0)
            (q.mu.sum() / len(BATCH) + q.log_var.square().mean()).backward()  # type: ignore[no-untyped-call]
        found.append(torch.cat([w.grad.double().flatten() for w in network.parameters() if w.grad is not None]))
    assert float((found[1] - found[0]).norm()) < 0.01 * float(found[0].norm())


def test_with_a_decoder_that_ignores_the_code_a_step_is_that_of_the_kl() -> None:
    """Then mu shrinks by 1 - rate beta, log sigma^2 falls by rate beta (sigma^2 - 1) / 2, whatever the noise."""
    network = network_of(1, rate=0.3)
    with torch.no_grad():
        network.decoder.output.weight.zero_()
        q, moved = posterior_of(network), posterior_of(network, noise_of(1), BETA)
    torch.testing.assert_close(moved.mu, (1 - 0.3 * BETA) * q.mu)
    torch.testing.assert_close(moved.log_var, q.log_var - 0.3 * BETA * (q.log_var.exp() - 1) / 2)


def test_every_step_lowers_each_sentence_s_loss_where_steps_are_small() -> None:
    network, noise = network_of(1, rate=0.01), noise_of(1)
    with torch.no_grad():
        q = posterior_of(network)
        for _ in range(5):
            before = explicit(network, q, noise[0], BETA)
            q = svi.refined(network, BATCH, q, noise, BETA)
            assert (explicit(network, q, noise[0], BETA) < before).all()


def test_in_training_the_steps_have_the_weight_that_the_kl_has() -> None:
    network = network_of(2)
    objective: Any = build("vae_05", network, word_dropout=0.0)
    objective.begin(STEP)
    torch.manual_seed(1)
    code = objective.encode(BATCH)
    torch.manual_seed(1)
    noise = torch.randn(2, len(BATCH), MODEL.latent, dtype=torch.float64)
    q = posterior_of(network, noise, BETA)
    torch.testing.assert_close(code.posterior.mu, q.mu)
    torch.testing.assert_close(code.posterior.log_var, q.log_var)
    torch.testing.assert_close(code.kl, q.kl().mean())


# --- what a posterior is -------------------------------------------------------------------------------------------


def test_the_steps_of_training_are_those_of_evaluation() -> None:
    """The same numbers with gradients and without, in training mode and not: nothing is dropped, no noise drawn."""
    network = network_of(3, dropout=0.5)
    evaluated = posterior_of(network.eval(), noise_of(3))
    network.train()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    trained = posterior_of(network, noise_of(3))
    with torch.inference_mode():
        inferred = posterior_of(network, noise_of(3))
    assert torch.equal(torch.get_rng_state(), state)
    assert trained.mu.requires_grad
    for name in ("mu", "log_var"):
        ours, others, third = (getattr(one, name) for one in (trained, evaluated, inferred))
        assert torch.equal(ours, others)
        torch.testing.assert_close(third, others)
    assert network.decoder.training
    assert network.decoder.dropout == 0.5


def test_a_posterior_depends_on_neither_batch_nor_order_nor_seed() -> None:
    network = network_of(3)
    mu, log_var = posteriors(network, SENTENCES).moments()
    again = posteriors(network, SENTENCES).moments()
    assert torch.equal(mu, again[0])
    assert torch.equal(log_var, again[1])
    order = np.array([3, 0, 4, 1, 2, 0])
    other_mu, other_log_var = posteriors(network, SENTENCES.subset(order)).moments()
    torch.testing.assert_close(other_mu, mu[order])
    torch.testing.assert_close(other_log_var, log_var[order], msg="equal sentences have one posterior")
    for n in range(len(SENTENCES)):
        torch.testing.assert_close(posteriors(network, SENTENCES.subset(np.array([n]))).mean, mu[[n]])
    plain = posteriors(random_network("vae", VOCABULARY, MODEL), SENTENCES).mean
    assert (mu - plain).abs().max() > 0.01


def test_the_posteriors_that_are_validated_are_the_refined_ones() -> None:
    network = network_of(3).float()
    row = validation(network, SENTENCES, 1, 3, 2)
    assert row["valid_kl"] == float(posteriors(network, SENTENCES).kl().mean())
    unrefined = posterior_of(network).kl().mean().detach()
    assert row["valid_kl"] != pytest.approx(float(unrefined), rel=1e-3)
    assert row == validation(network, SENTENCES, 1, 3, 2)


def test_a_model_that_is_opened_encodes_with_its_steps(tmp_path: Path) -> None:
    corpus = tiny_corpus()
    network = informative("vae", corpus)
    network.settings = stepping(2)
    opened = textvae.load(written(tmp_path / "model", network, corpus))
    texts = ["the cat sleeps", "a dog sees the bird", "the cat sleeps"]
    mu = torch.as_tensor(opened.encode(texts)[0])
    words = Sentences.of([corpus.vocabulary.encode(text.split()) for text in texts])
    torch.testing.assert_close(mu, posteriors(network, words).mean.to(mu))
    network.settings = MODEL
    assert (mu - posteriors(network, words).mean).abs().max() > 0.01
    torch.testing.assert_close(mu[0], mu[2])


def test_in_evaluation_no_gradient_of_the_output_layer_s_weights_is_formed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, plain = [], softmax._LinearCrossEntropy.apply

    def noted(rows: Tensor, weight: Tensor, *others: Tensor) -> Any:
        asked.append((rows.requires_grad, weight.requires_grad))
        return plain(rows, weight, *others)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(softmax._LinearCrossEntropy, "apply", noted)
    posteriors(network_of(3), SENTENCES)
    assert asked == [(True, False)] * 3


# --- training ------------------------------------------------------------------------------------------------------


def trainer(model: ModelSettings, system: str = "vae_05", **objective: Any) -> Trainer:
    corpus = tiny_corpus()
    return Trainer(
        train_settings(system, model=model, epochs=3, objective=objective), corpus.train, corpus.valid, corpus.size, 1
    )


def test_without_steps_it_is_the_plain_vae_bit_for_bit() -> None:
    ours, plain = trainer(stepping(0, rate=7.0)), trainer(MODEL)
    assert ours.run().curves == plain.run().curves
    for name, weight in plain.network.state_dict().items():
        assert torch.equal(ours.network.state_dict()[name], weight)


def test_a_training_with_steps_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, halved, resumed = (trainer(stepping(2)) for _ in range(3))
    outcome = whole.run()
    assert outcome.failure is None
    steps = halved.steps()
    while halved.at.step < 7:
        next(steps)
    save_state(tmp_path / "state.safetensors", halved.state())
    resumed.restore(load_state(tmp_path / "state.safetensors"))
    again = resumed.run()
    assert again.curves == outcome.curves
    for name, weight in outcome.weights.items():
        assert torch.equal(again.weights[name], weight), name


@pytest.mark.parametrize("system", ["lagging", "vae_mine", "free_bits", "pretrained_vae"])
def test_any_objective_trains_with_steps(system: str) -> None:
    """Encoder-only and decoder-only steps, and energies that read the code, among them."""
    outcome = trainer(stepping(2), system).run()
    assert outcome.failure is None
    assert outcome.curves[-1]["valid_nll"] < outcome.curves[0]["valid_nll"]


def test_no_graph_is_made_of_a_backward_pass_within_another() -> None:
    assert not build("vae_05", network_of(2)).capturable
    assert not build("vae_mine", network_of(2)).capturable
    assert build("vae_05", network_of(0)).capturable


@pytest.mark.parametrize("kept", [{"committed_rate": 2.0}, {"means_deviation": 0.5}])
def test_steps_that_would_leave_the_posterior_s_family_are_refused(kept: dict[str, float]) -> None:
    (name,) = kept
    with pytest.raises(ValidationError, match=f"`svi_steps` 2 would leave the posteriors that `{name}`"):
        ModelSettings(svi_steps=2, **kept)  # type: ignore[arg-type]
    ModelSettings(**kept)  # type: ignore[arg-type]
