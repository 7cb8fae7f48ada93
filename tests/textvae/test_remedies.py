"""Remedies beside the seven systems: what each one's paper says of it, and the plain VAE where it is switched off."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_generation import check_stepwise_decoder
from test_objectives import BATCH, STEP, VOCABULARY, build, explicit_terms, noise_for, weights_of
from tiny import random_network, tiny_corpus, train_settings

from textvae.checkpoint import load_state, save_state
from textvae.config import ModelSettings, validated
from textvae.errors import SettingsError
from textvae.networks import GaussianHead, Network
from textvae.objectives import objective_class
from textvae.objectives.base import Code
from textvae.objectives.mdr_vae import MinimumRateVAE
from textvae.objectives.pretrained_vae import PretrainedVAE
from textvae.posteriors import Gaussian
from textvae.step_settings import TrainingSettings
from textvae.training import Outcome, Trainer


def trainer(system: str, objective: dict[str, Any], epochs: int = 3, **training: Any) -> Trainer:
    corpus = tiny_corpus()
    own = train_settings(system, objective=objective, epochs=epochs, **training)
    return Trainer(own, corpus.train, corpus.valid, corpus.size, 1)


@functools.cache
def plain(beta_start: float, annealing_epochs: float) -> Outcome:
    """The annealed VAE, with nothing against collapse."""
    schedule = {"word_dropout": 0.0, "beta_start": beta_start, "annealing_epochs": annealing_epochs}
    return trainer("vae_05", schedule).run()


@pytest.mark.parametrize(
    ("system", "off", "schedule"),
    [
        ("mdr_vae", {"rate": 0.0}, (1.0, 0.0)),
        ("pretrained_vae", {"pretraining_epochs": 0, "threshold": 0.0, "annealing_epochs": 2.0}, (0.0, 2.0)),
        ("free_bits", {"threshold": 0.0}, (1.0, 0.0)),
    ],
)
def test_switched_off_a_remedy_is_the_plain_vae(
    system: str, off: dict[str, Any], schedule: tuple[float, float]
) -> None:
    ours, expected = trainer(system, off).run(), plain(*schedule)
    for row, same in zip(ours.curves, expected.curves, strict=True):
        shared = row.keys() & same.keys()
        assert {"valid_nll", "valid_kl", "train_reconstruction", "train_kl"} <= shared
        # free bits sum the KL by dimension first: last digits differ
        assert {name: row[name] for name in shared} == pytest.approx({name: same[name] for name in shared}, rel=1e-4)
    for name, weight in ours.network.state_dict().items():
        torch.testing.assert_close(weight, expected.network.state_dict()[name], rtol=1e-3, atol=1e-5)


# --- MDR-VAE -------------------------------------------------------------------------------------------------------


def test_the_minimum_rate_enters_the_loss_with_its_multiplier() -> None:
    objective: Any = build("mdr_vae", rate=7.0)
    objective.multiplier.fill_(0.25)
    reconstruction, kl, _, _ = explicit_terms(objective.network, noise_for(1))
    torch.manual_seed(1)
    losses = objective.loss(BATCH, objective.kl_weight(STEP))
    torch.testing.assert_close(losses.total, reconstruction + kl + 0.25 * (7.0 - kl))
    gradient = torch.autograd.grad(losses.total, objective.network.encoder.heads.weight, retain_graph=True)[0]
    expected = torch.autograd.grad(reconstruction + 0.75 * kl, objective.network.encoder.heads.weight)[0]
    torch.testing.assert_close(gradient, expected)


def test_the_multiplier_climbs_while_the_rate_is_missed_and_never_falls_below_zero() -> None:
    objective: Any = build("mdr_vae", rate=1e3, multiplier_learning_rate=0.5)
    assert isinstance(objective, MinimumRateVAE)
    kl = float(objective.update(BATCH, STEP).kl)
    assert float(objective.multiplier) == pytest.approx(0.5 * (1e3 - kl))
    objective.multiplier.fill_(1e-6)
    objective.config = objective.config.model_copy(update={"rate": 0.0})
    objective.update(BATCH, STEP)
    assert float(objective.multiplier) == 0.0


def test_the_multiplier_settles_where_the_kl_is_at_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a toy: one weight w, KL = w^2 / 2, reconstruction = -w / 2. The ELBO alone has w = 1/2, a KL of 1/8. With a
    rate of 2 the saddle point is w = 2 and u = 1 - (1/2) / w = 3/4."""
    objective: Any = build("mdr_vae", rate=2.0, multiplier_learning_rate=0.002)
    weight = objective.network.encoder.heads.weight
    with torch.no_grad():
        weight[0, 0] = 1.0
    monkeypatch.setattr(
        objective, "encode", lambda batch: Code(*explicit_code(), z_BD=weight[:1, :1], kl=weight[0, 0] ** 2 / 2)
    )
    monkeypatch.setattr(objective, "reconstruct", lambda batch, z_BD: -z_BD[0, 0] / 2)
    objective.optimizers["main"].param_groups[0]["lr"] = 0.2
    for step in range(800):
        objective.update(BATCH, step)
    assert float(weight[0, 0].detach()) == pytest.approx(2.0, abs=0.01)
    assert float(objective.multiplier) == pytest.approx(0.75, abs=0.01)


def explicit_code() -> tuple[Gaussian, torch.Tensor]:
    """Posterior and hidden state that nothing reads."""
    return Gaussian(torch.zeros(1), torch.zeros(1)), torch.zeros(1)


def test_the_multiplier_goes_into_the_state_and_comes_back_exactly() -> None:
    objective, other = build("mdr_vae"), build("mdr_vae")
    assert isinstance(objective, MinimumRateVAE)
    assert isinstance(other, MinimumRateVAE)
    objective.multiplier.fill_(0.1 / 3)
    other.load_state(objective.state())
    assert torch.equal(other.multiplier, objective.multiplier)


# --- pretraining ---------------------------------------------------------------------------------------------------


def test_beta_is_zero_in_the_pretraining_and_rises_to_one_after_it() -> None:
    objective = build("pretrained_vae", pretraining_epochs=2, annealing_epochs=3.0)  # of 2 steps
    betas = [objective.kl_weight(step) for step in range(12)]
    assert betas == pytest.approx([0, 0, 0, 0, 0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1, 1])
    assert [objective.settled(step) for step in (9, 10)] == [False, True]
    assert [objective.selectable(step) for step in (4, 5)] == [False, True], "no epoch of the autoencoder"


def test_after_the_pretraining_the_decoder_begins_anew_and_the_encoder_stays() -> None:
    objective = build("pretrained_vae", pretraining_epochs=1)
    assert isinstance(objective, PretrainedVAE)
    objective.update(BATCH, 0)
    encoder, decoder = weights_of(objective.network.encoder), weights_of(objective.network.decoder)
    optimizer = objective.optimizers["main"]
    objective.after_epoch({"epoch": 2})
    assert weights_of(objective.network.decoder).keys() == decoder.keys()
    assert objective.optimizers["main"] is optimizer, "another epoch changes nothing"
    torch.manual_seed(5)
    objective.after_epoch({"epoch": 1})
    assert all(torch.equal(weight, encoder[name]) for name, weight in weights_of(objective.network.encoder).items())
    fresh = weights_of(objective.network.decoder)
    assert not any(torch.equal(weight, decoder[name]) for name, weight in fresh.items())
    torch.manual_seed(5)
    initial = weights_of(Network("vae", VOCABULARY, objective.network.settings).decoder)
    assert all(torch.equal(weight, initial[name].double()) for name, weight in fresh.items()), "as initialised"
    assert objective.optimizers["main"] is not optimizer, "with fresh moments, if it has any"
    torch.manual_seed(5)
    objective.after_epoch({"epoch": 1})
    assert all(torch.equal(weight, fresh[name]) for name, weight in weights_of(objective.network.decoder).items())


def test_a_pretraining_that_leaves_no_epoch_is_refused() -> None:
    cls = objective_class("pretrained_vae")
    config = validated(cls.Config, {"name": "pretrained_vae", "pretraining_epochs": 4})
    cls.check(config, TrainingSettings(epochs=5))
    with pytest.raises(SettingsError, match=r"objective\.pretraining_epochs is 4 of training\.epochs 4"):
        cls.check(config, TrainingSettings(epochs=4))


# --- posteriors with a floor ---------------------------------------------------------------------------------------

MODEL_OF = {"latent": 4, "hidden": 6, "embedding": 5}


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(1e-3, 60),
    heads=st.lists(st.floats(-30, 30, width=32), min_size=8, max_size=8),
)
def test_a_committed_rate_is_kept_whatever_the_weights(rate: float, heads: list[float]) -> None:
    posterior = GaussianHead(ModelSettings(**MODEL_OF, committed_rate=rate))
    assert float(posterior(torch.tensor([heads], dtype=torch.float64)).kl()) >= rate * (1 - 1e-6)


@pytest.mark.parametrize("rate", [0.01, 1.0, 30.0])
def test_a_committed_rate_is_the_least_kl_of_its_family_and_no_less(rate: float) -> None:
    posterior = GaussianHead(ModelSettings(**MODEL_OF, committed_rate=rate))
    heads = torch.cat([torch.zeros(1, 4), torch.full((1, 4), -60.0)], dim=1).double()
    assert float(posterior(heads).kl()) == pytest.approx(rate)


def test_more_than_the_dimensions_can_commit_is_refused() -> None:
    with pytest.raises(ValidationError, match="`committed_rate` 81 is more than 4 dimensions"):
        ModelSettings(**MODEL_OF, committed_rate=81)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-4, 1.0, 50.0]), gamma=st.floats(0.05, 3))
def test_batch_norm_keeps_the_mean_kl_of_a_batch_above_its_bound(seed: int, scale: float, gamma: float) -> None:
    """D gamma^2 / 2 (Zhu et al. 2020, eq. 8, with a shift of 0), however close the encoder's means are."""
    posterior = GaussianHead(ModelSettings(**MODEL_OF, means_deviation=gamma)).double().train()
    generator = torch.Generator().manual_seed(seed)
    heads = scale * torch.randn(16, 8, generator=generator, dtype=torch.float64)
    found = posterior(heads)
    deviations_D = torch.full((4,), gamma, dtype=torch.float64)
    torch.testing.assert_close(found.mu.std(0, correction=0), deviations_D, rtol=1e-3, atol=0)
    assert float(found.kl().mean().detach()) >= 4 * gamma**2 / 2 * (1 - 1e-3)


def test_in_evaluation_a_sentence_s_posterior_does_not_depend_on_its_batch() -> None:
    posterior = GaussianHead(ModelSettings(**MODEL_OF, means_deviation=0.5)).double().train()
    heads = torch.randn(32, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for _ in range(100):
        in_training = posterior(heads).mu
    posterior.eval()
    together = posterior(heads).mu
    alone = torch.cat([posterior(heads[n : n + 1]).mu for n in range(32)])
    torch.testing.assert_close(alone, together)
    torch.testing.assert_close(together, in_training, rtol=0.05, atol=0.02)
    one = posterior.train()(heads[:1]).mu
    torch.testing.assert_close(one, together[:1], msg="a batch of one takes the running statistics")


@pytest.mark.parametrize(
    "changes",
    [
        {"means_deviation": 0.5},
        {"committed_rate": 2.0},
        {"skip_connections": True},
        {"decoder": "dilated", "dilations": [1, 2]},
        {"posterior": "vmf", "kappa": 6.0},
    ],
)
def test_a_training_of_such_a_model_saves_and_resumes(changes: dict[str, Any], tmp_path: Path) -> None:
    corpus = tiny_corpus()
    plain_settings = train_settings("vae_05", epochs=3)
    own = plain_settings.model_copy(update={"model": plain_settings.model.model_copy(update=changes)})
    whole = Trainer(own, corpus.train, corpus.valid, corpus.size, 1)
    outcome = whole.run()
    halved = Trainer(own, corpus.train, corpus.valid, corpus.size, 1)
    steps = halved.steps()
    while halved.at.step < 7:
        next(steps)
    save_state(tmp_path / "state.safetensors", halved.state())
    resumed = Trainer(own, corpus.train, corpus.valid, corpus.size, 1)
    resumed.restore(load_state(tmp_path / "state.safetensors"))
    again = resumed.run()
    assert again.curves == outcome.curves
    for name, weight in outcome.weights.items():
        assert torch.equal(again.weights[name], weight), name


# --- skip connections ----------------------------------------------------------------------------------------------


def skipping(seed: int = 0) -> Network:
    """A decoder of which the output layer reads the code, in evaluation mode."""
    return random_network("vae", VOCABULARY, ModelSettings(**MODEL_OF, skip_connections=True), seed)


def test_skip_connections_of_weight_zero_are_the_plain_decoder() -> None:
    network, z = skipping(), torch.randn(len(BATCH), 4, dtype=torch.float64)
    plain_network = Network("vae", VOCABULARY, ModelSettings(**MODEL_OF)).double().eval()
    plain_network.load_state_dict({k: v for k, v in network.state_dict().items() if "skip" not in k})
    assert not torch.equal(network.decoder(BATCH, z)[1], plain_network.decoder(BATCH, z)[1])
    with torch.no_grad():
        network.decoder.skip.weight.zero_()
    assert torch.equal(network.decoder(BATCH, z)[1], plain_network.decoder(BATCH, z)[1])


def test_the_code_reaches_the_words_past_an_lstm_that_says_nothing() -> None:
    """Where the LSTM's states are all zero, the gradient of the reconstruction in z is not (Dieng et al. 2019)."""
    for skip in (True, False):
        network = skipping() if skip else random_network("vae", VOCABULARY, ModelSettings(**MODEL_OF))
        with torch.no_grad():
            for weight in network.decoder.lstm.parameters():
                weight.zero_()
            network.decoder.initial.weight.zero_()
        z = torch.randn(len(BATCH), 4, dtype=torch.float64, requires_grad=True)
        network.decoder(BATCH, z)[0].backward()
        assert bool(z.grad.abs().sum() > 0) == skip


def test_generation_knows_of_skip_connections() -> None:
    check_stepwise_decoder(skipping().float())
