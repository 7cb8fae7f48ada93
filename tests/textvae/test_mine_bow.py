"""VAE-MINE with VAE-BOW's head: the sum of their losses, and who gets which gradient."""

from __future__ import annotations

import pytest
import torch
from test_objectives import BATCH, BETA, STEP, build, explicit_bound, explicit_terms, noise_for, norm, weights_of

from textvae.objectives.vae_bow import bag_of_words_loss


def test_it_minimises_vae_mine_s_loss_plus_the_weighted_bag_of_words_loss() -> None:
    """theta: reconstruction. phi: recon + beta KL - alpha Ihat + w BOW. psi: -Ihat. The head: w BOW."""
    alpha, weight = 0.5, 0.75
    objective = build("mine_bow", alpha=alpha, bow_weight=weight, bow_hidden=5)
    network, head = objective.network, objective.heads["bow"]
    reconstruction, kl, hidden, z = explicit_terms(network, noise_for(1))
    bound, bow = explicit_bound(objective, hidden, z, [2, 3, 4, 0, 1]), bag_of_words_loss(head(z), BATCH)
    parts = (network.decoder, network.encoder, objective.energy, head)
    theta, phi, psi, omega = (list(part.parameters()) for part in parts)
    expected = [
        *torch.autograd.grad(reconstruction, theta, retain_graph=True),
        *torch.autograd.grad(reconstruction + BETA * kl - alpha * bound + weight * bow, phi, retain_graph=True),
        *torch.autograd.grad(-bound, psi, retain_graph=True),
        *torch.autograd.grad(weight * bow, omega),
    ]

    torch.manual_seed(1)
    losses = objective.loss(BATCH, objective.kl_weight(STEP))
    torch.testing.assert_close(losses.total, reconstruction + BETA * kl - alpha * bound + weight * bow)
    torch.testing.assert_close(losses.extra, {"mi_estimate": bound, "train_bow": bow})
    losses.total.backward()
    for parameter, gradient in zip([*theta, *phi, *psi, *omega], expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-10)
    assert norm(p.grad for p in omega) > 1e-3, "a gradient that is zero everywhere would prove nothing"


def test_one_step_moves_the_head_with_the_main_optimiser_and_the_energy_with_its_own() -> None:
    objective = build("mine_bow", bow_hidden=5)
    energy, head = objective.energy, objective.heads["bow"]
    before = weights_of(energy) | weights_of(head)
    objective.update(BATCH, STEP)
    after = weights_of(energy) | weights_of(head)
    del after["output.bias"]  # a constant in f cancels in the bound
    assert not any(torch.equal(value, before[name]) for name, value in after.items())
    assert set(objective.gradient_norms) == {"encoder", "decoder", "energy", "head"}


def test_without_the_head_s_weight_it_is_vae_mine_bit_for_bit() -> None:
    with_head, plain = build("mine_bow", bow_weight=0.0, bow_hidden=5), build("vae_mine")
    for step in range(3):
        for objective in (with_head, plain):
            torch.manual_seed(step)
            objective.update(BATCH, step)
    ours, expected = weights_of(with_head.network), weights_of(plain.network)
    assert all(torch.equal(value, expected[name]) for name, value in ours.items())


def test_the_hold_hears_the_estimate_and_not_the_bag_of_words_loss() -> None:
    objective = build("mine_bow", hold_steps=100, bow_hidden=5)
    torch.manual_seed(1)
    losses = objective.update(BATCH, 0)
    assert float(losses.extra["train_bow"].detach()) > 1
    assert objective.average_estimate == pytest.approx(0.02 * float(losses.extra["mi_estimate"].detach()))
