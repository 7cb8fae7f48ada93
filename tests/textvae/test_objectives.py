"""The base's schedule, clipping and errors; word dropout; where VAE-MINE's gradients go."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import MODEL, random_network
from torch import Tensor, nn

from textvae import mutual_information as mi
from textvae.config import ModelSettings, TrainingSettings
from textvae.corpus import Batch, Sentences, collate
from textvae.divergence import DivergedError
from textvae.errors import SettingsError
from textvae.inference import validation
from textvae.networks import Network
from textvae.noise import Noise
from textvae.objectives import objective_class, objective_names
from textvae.objectives.base import Objective, optimizer_of
from textvae.objectives.vae_05 import with_dropped_words
from textvae.objectives.vae_mine import VAEMINE
from textvae.vocabulary import BOS, FIRST_TARGET, UNK

VOCABULARY = 9
SENTENCES = Sentences.of([[4, 5, 6], [8], [7, 3, 4, 4, 8, 5], [6, 5], [5, 5, 7]])
BATCH = collate(SENTENCES, np.arange(5))
STEP = 3
"""Of 5 epochs with 2 steps each: beta = 0.1 + 0.9 * 3 / 10 = 0.37."""
BETA = 0.37


def build(system: str, network: Network | None = None, clip_norm: float = 1e9, **settings: Any) -> Any:
    """An objective in float64 without dropout, its optimisers SGD with a rate of 1: a step is minus its gradient."""
    cls = objective_class(system)
    network = network or random_network(cls.kind, VOCABULARY)
    network.eval()
    training = TrainingSettings(optimizer="sgd", learning_rate=1.0, clip_norm=clip_norm)
    if issubclass(cls, VAEMINE):
        own = {"energy_hidden": 7, "energy_optimizer": "sgd", "energy_learning_rate": 1.0, "hold_steps": 0}
        settings = {**own, **settings}
    if "annealing_epochs" in cls.Config.model_fields:
        settings = {"annealing_epochs": 5.0, **settings}
    torch.manual_seed(0)
    objective = cls(cls.Config(name=system, **settings), network, training, 2, lambda: BATCH)
    objective.heads.double()
    with torch.no_grad():
        for parameter in objective.heads.parameters():
            parameter.mul_(3)  # PyTorch's initialisation hardly tells one pair from another at these sizes
    return objective


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def moved(before: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() - before[name] for name, parameter in module.named_parameters()}


def norm(tensors: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))


# --- names and schedules -----------------------------------------------------------------------------------------


def test_an_unknown_objective_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no objective 'vae_o5' \(there are: .*vae_05"):
        objective_class("vae_o5")
    assert {"lstm_lm", "vae_05", "vae_mine"} <= set(objective_names())


def annealed(epochs: float, start: float = 0.1, steps_per_epoch: int = 7) -> Objective:
    cls = objective_class("vae_05")
    config = cls.Config(name="vae_05", annealing_epochs=epochs, beta_start=start)  # type: ignore[call-arg]
    return cls(config, random_network("vae", VOCABULARY), TrainingSettings(), steps_per_epoch, lambda: BATCH)


def test_annealing_rises_linearly_per_step_and_then_stays() -> None:
    # 10 epochs of 7 steps: 70 steps from 0.1 to 1, 0.9 / 70 each.
    objective = annealed(10)
    expected = {0: 0.1, 1: 0.1 + 0.9 / 70, 35: 0.55, 69: 1 - 0.9 / 70, 70: 1.0, 71: 1.0, 10_000: 1.0}
    assert {step: objective.kl_weight(step) for step in expected} == pytest.approx(expected, abs=1e-12)
    assert [objective.settled(step) for step in (0, 69, 70, 71)] == [False, False, True, True]


def test_annealing_over_part_of_an_epoch_and_over_none() -> None:
    # Half an epoch is 3.5 steps: step 3 is before its end, step 4 after it.
    half = annealed(0.5, start=0.0)
    assert [half.kl_weight(step) for step in range(5)] == pytest.approx([0, 2 / 7, 4 / 7, 6 / 7, 1])
    assert [half.settled(step) for step in (3, 4)] == [False, True]
    none = annealed(0)
    assert none.kl_weight(0) == 1
    assert none.settled(0)


# --- losses ------------------------------------------------------------------------------------------------------


def explicit_terms(network: Network, noise: Tensor, batch: Batch = BATCH) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(reconstruction, KL, hidden, z) from the full logits and the formulas, with a graph."""
    posterior, hidden = network.encode(batch)
    mu, log_var = posterior.moments()
    z = mu + log_var.exp().sqrt() * noise
    logits = network.decoder.states(batch.inputs_BT, z) @ network.decoder.output.weight.T
    targets = torch.where(batch.target_mask_BT, batch.targets_BT - FIRST_TARGET, -100)
    reconstruction = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / len(batch)
    kl = (mu**2 + log_var.exp() - 1 - log_var).sum() / 2 / len(batch)
    return reconstruction, kl, hidden, z


def noise_for(seed: int, batch: Batch = BATCH) -> Tensor:
    torch.manual_seed(seed)
    return torch.randn(len(batch), MODEL.latent, dtype=torch.float64)


def test_the_annealed_vae_minimises_reconstruction_plus_beta_kl_per_sentence() -> None:
    objective = build("vae_05", word_dropout=0.0)
    reconstruction, kl, _, _ = explicit_terms(objective.network, noise_for(1))
    torch.manual_seed(1)
    losses = objective.loss(BATCH, objective.kl_weight(STEP))
    torch.testing.assert_close(losses.reconstruction, reconstruction)
    torch.testing.assert_close(losses.kl, kl)
    torch.testing.assert_close(losses.total, reconstruction + BETA * kl)
    assert set(losses.terms()) == {"loss", "reconstruction", "kl"}


def test_the_language_model_minimises_its_negative_log_likelihood() -> None:
    objective = build("lstm_lm")
    losses = objective.loss(BATCH, objective.kl_weight(STEP))
    _, per_sentence = objective.network.decoder(BATCH, None)
    torch.testing.assert_close(losses.total, per_sentence.mean())
    assert losses.total is losses.reconstruction
    assert losses.kl is None


# --- word dropout ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_word_dropout_has_its_rate_and_spares_bos(rate: float) -> None:
    words = torch.randint(4, 50, (200, 100), generator=torch.Generator().manual_seed(1))
    words[:, 0] = BOS
    before = words.clone()
    torch.manual_seed(2)
    dropped = with_dropped_words(words, rate, Noise(torch.device("cpu")))
    assert torch.equal(words, before), "the batch itself stays as it is: its targets are the same tensor"
    assert (dropped[:, 0] == BOS).all()
    changed = dropped != words
    assert (dropped[changed] == UNK).all()
    count = words[:, 1:].numel()
    assert int(changed.sum()) == pytest.approx(rate * count, abs=5 * math.sqrt(count * rate * (1 - rate)))
    if 0 < rate < 1:  # independent draws: positions and sentences have spreads of binomials, too
        for axis, size in ((0, 200), (1, 99)):
            counts = changed[:, 1:].sum(axis).double()
            assert float(counts.var()) == pytest.approx(size * rate * (1 - rate), rel=0.6)


def read_by_decoder(network: Network, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """A list to which every further call of the decoder adds what it read."""
    inputs: list[Tensor] = []
    states = network.decoder.states

    def spy(inputs_BT: Tensor, z_BD: Tensor | None) -> Tensor:
        inputs.append(inputs_BT)
        return states(inputs_BT, z_BD)

    monkeypatch.setattr(network.decoder, "states", spy)
    return inputs


def test_words_are_dropped_in_training_and_never_in_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = build("vae_05", network=random_network("vae", VOCABULARY).float(), word_dropout=1.0)
    seen = read_by_decoder(objective.network, monkeypatch)
    objective.loss(BATCH, objective.kl_weight(STEP))
    assert set(seen.pop().flatten().tolist()) == {BOS, UNK}
    validation(objective.network, SENTENCES, 0, 3, 2)
    read = torch.cat([inputs.flatten() for inputs in seen])
    words = {int(word) for word in SENTENCES.tokens}
    assert words <= set(read.tolist())
    # Every UNK that was read is one of the text's own: one in ten words.
    shares = [float((of == UNK).sum() / (of > 2).sum()) for of in (torch.from_numpy(SENTENCES.tokens), read)]
    assert shares[1] < 2 * shares[0] < 0.3


# --- steps, clipping, errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip_norm", [0.05, 1e9])
def test_encoder_and_decoder_are_clipped_to_one_norm_and_the_energy_to_its_own(clip_norm: float) -> None:
    def step(clip: float) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
        objective = build("vae_mine", clip_norm=clip)
        main, energy = weights_of(objective.network), weights_of(objective.energy)
        torch.manual_seed(1)
        objective.update(BATCH, STEP)
        norms = {name: float(value) for name, value in objective.gradient_norms.items()}
        return moved(main, objective.network), moved(energy, objective.energy), norms

    main, energy, norms = step(clip_norm)
    free_main, free_energy, free_norms = step(1e9)
    assert norms == pytest.approx(free_norms), "the curves show norms from before the clipping"
    by_part = [
        norm(value for name, value in free_main.items() if name.startswith(part)) for part in ("encoder", "decoder")
    ]
    assert norms == pytest.approx({"encoder": by_part[0], "decoder": by_part[1], "energy": norm(free_energy.values())})
    assert min(norms.values()) > 0.05
    for clipped, free in ((main, free_main), (energy, free_energy)):
        whole = norm(free.values())
        assert norm(clipped.values()) == pytest.approx(min(clip_norm, whole), rel=1e-4)
        for name, value in free.items():
            torch.testing.assert_close(clipped[name], value * min(1.0, clip_norm / whole), rtol=1e-4, atol=1e-9)


def test_optimisers() -> None:
    for name in ("sgd", "adam"):
        parameter = nn.Parameter(torch.tensor([1.0]))
        optimizer = optimizer_of(name, [parameter], 0.25)  # type: ignore[arg-type]
        for _ in range(2):
            parameter.grad = torch.tensor([2.0])
            optimizer.step()
        # SGD: 1 - 2 * 0.25 * 2. Adam: with a constant gradient each step is the learning rate.
        assert float(parameter.detach()) == pytest.approx({"sgd": 0.0, "adam": 0.5}[name], abs=1e-6)


def test_a_decay_lowers_the_main_rate_with_fresh_moments_and_leaves_the_energy_its_own() -> None:
    objective = build("vae_mine", energy_optimizer="adam", energy_learning_rate=1e-4)
    objective.update(BATCH, STEP)
    energy = objective.optimizers["energy"]
    objective.decay_learning_rate()
    assert objective.learning_rate == 0.5
    assert [group["lr"] for group in objective.optimizers["main"].param_groups] == [0.5]
    assert objective.optimizers["energy"] is energy
    assert energy.param_groups[0]["lr"] == 1e-4
    assert energy.state


@pytest.mark.parametrize(
    ("place", "term"),
    [
        ("network.encoder.heads.weight", "kl"),
        ("network.decoder.output.weight", "reconstruction"),
        ("energy.output.weight", "mi_estimate"),
    ],
)
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_term_and_changes_no_weight(place: str, term: str, poison: float) -> None:
    objective = build("vae_mine")
    torch.manual_seed(1)
    objective.loss(BATCH, objective.kl_weight(STEP))
    healthy = objective.largest_energy
    with torch.no_grad():
        parameter = objective
        for name in place.split("."):
            parameter = getattr(parameter, name)
        parameter[0, 0] = poison
    before = {**weights_of(objective.network), **weights_of(objective.energy)}
    torch.manual_seed(1)
    with pytest.raises(DivergedError, match=term) as caught:
        objective.update(BATCH, STEP)
    assert caught.value.term == term
    # A number that JSON can carry: of the scores that are finite, or of the last batch that had any.
    assert caught.value.largest_energy is not None
    assert math.isfinite(caught.value.largest_energy)
    if term == "reconstruction":
        assert caught.value.largest_energy == pytest.approx(healthy)
    after = {**weights_of(objective.network), **weights_of(objective.energy)}
    assert all(torch.equal(value.nan_to_num(), before[name].nan_to_num()) for name, value in after.items())


def test_the_largest_energy_is_that_of_all_scores() -> None:
    objective = build("vae_mine")
    hidden, z = torch.randn(4, MODEL.hidden).double(), torch.randn(4, MODEL.latent).double()
    objective.bound(hidden, z)
    scores = [score(objective, hidden[i], z[j]) for i in range(4) for j in range(4)]
    assert objective.largest_energy == pytest.approx(max(abs(float(value.detach())) for value in scores))


def test_a_gradient_that_is_not_finite_is_a_divergence_too() -> None:
    objective = build("lstm_lm")
    parameter = objective.network.decoder.output.weight
    parameter.grad = torch.full_like(parameter, math.inf)
    with pytest.raises(DivergedError, match="gradient norm"):
        objective.step_clipped(objective.groups())


# --- VAE-MINE: where the gradients go ----------------------------------------------------------------------------


def score(objective: VAEMINE, hidden: Tensor, z: Tensor) -> Tensor:
    """f(x, z) of one pair: the MLP on the concatenation [hidden; z]."""
    energy = objective.energy
    first = torch.cat([energy.from_x.weight, energy.from_z.weight], dim=1) @ torch.cat([hidden, z])
    second = energy.second.weight @ torch.relu(first + energy.from_x.bias) + energy.second.bias
    return (energy.output.weight @ torch.relu(second) + energy.output.bias)[0]


def explicit_bound(objective: VAEMINE, hidden: Tensor, z: Tensor, order: list[int]) -> Tensor:
    """Eq. 12, with xi from this batch, pair by pair."""
    size = range(len(z))
    pairs = {
        "all_pairs_with_self": [(i, j) for i in size for j in size],
        "all_pairs": [(i, j) for i in size for j in size if i != j],
        "shuffle": [(i, order[i]) for i in size],
    }[objective.config.marginal]
    joint = torch.stack([score(objective, hidden[i], z[i]) for i in size]).mean()
    partition = torch.stack([score(objective, hidden[i], z[j]).exp() for i, j in pairs]).mean()
    xi = 1 / partition.detach() if objective.config.xi == "reciprocal" else partition.detach()
    return joint - xi * partition + xi.log() + 1


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.5])
@pytest.mark.parametrize("xi", ["reciprocal", "literal"])
@pytest.mark.parametrize("marginal", ["all_pairs_with_self", "all_pairs", "shuffle"])
def test_gradients_go_where_section_4_says(
    marginal: str, xi: str, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """theta: reconstruction. phi: recon + beta KL - alpha Ihat, through z, z' and hidden. psi: -Ihat, not scaled."""
    objective = build("vae_mine", marginal=marginal, xi=xi, alpha=alpha)
    network, order = objective.network, [2, 3, 4, 0, 1]
    monkeypatch.setattr(mi, "derangement", lambda size, generator: torch.tensor(order))
    reconstruction, kl, hidden, z = explicit_terms(network, noise_for(1))
    bound = explicit_bound(objective, hidden, z, order)
    theta, phi, psi = (list(part.parameters()) for part in (network.decoder, network.encoder, objective.energy))
    expected = [
        *torch.autograd.grad(reconstruction, theta, retain_graph=True),
        *torch.autograd.grad(reconstruction + BETA * kl - alpha * bound, phi, retain_graph=True),
        *torch.autograd.grad(-bound, psi),
    ]

    torch.manual_seed(1)
    losses = objective.loss(BATCH, objective.kl_weight(STEP))
    torch.testing.assert_close(losses.extra["mi_estimate"], bound)
    torch.testing.assert_close(losses.total, reconstruction + BETA * kl - alpha * bound)
    losses.total.backward()
    for parameter, gradient in zip([*theta, *phi, *psi], expected, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-8, atol=1e-10)
    assert norm(p.grad for p in psi) > 1e-3, "a gradient that is zero everywhere would prove nothing"


@pytest.mark.parametrize("path", ["z", "the hidden state"])
def test_the_encoder_hears_the_energy_through_the_code_and_through_the_hidden_state(path: str) -> None:
    objective = build("vae_mine", alpha=2.0)
    with torch.no_grad():  # cut the other path
        (objective.energy.from_x if path == "z" else objective.energy.from_z).weight.zero_()

    def gradients(alpha: float) -> list[Tensor]:
        objective.config = objective.config.model_copy(update={"alpha": alpha})
        torch.manual_seed(1)
        parameters = list(objective.network.encoder.parameters())
        return list(torch.autograd.grad(objective.loss(BATCH, objective.kl_weight(STEP)).total, parameters))

    with_energy, without = gradients(2.0), gradients(0.0)
    assert norm(a - b for a, b in zip(with_energy, without, strict=True)) > 1e-4


def test_alpha_zero_trains_the_vae_as_if_there_were_no_energy_while_the_energy_learns() -> None:
    mine, plain = build("vae_mine", alpha=0.0), build("vae_05", word_dropout=0.0)
    before = weights_of(mine.energy)
    for seed in range(3):
        for objective in (mine, plain):
            torch.manual_seed(seed)
            objective.update(BATCH, STEP)
    for name, value in weights_of(plain.network).items():
        torch.testing.assert_close(mine.network.get_parameter(name).detach(), value)
    assert norm(moved(before, mine.energy).values()) > 1e-3


def test_a_frozen_energy_stays_as_it_was_and_still_speaks_to_the_encoder() -> None:
    frozen, silent = (build("vae_mine", energy_trained=False, energy_steps=3, alpha=alpha) for alpha in (2.0, 0.0))
    before = weights_of(frozen.energy)
    for objective in (frozen, silent):
        for seed in range(3):
            torch.manual_seed(seed)
            objective.update(BATCH, STEP)
    assert all(torch.equal(value, before[name]) for name, value in weights_of(frozen.energy).items())
    assert norm(moved(weights_of(silent.network.encoder), frozen.network.encoder).values()) > 1e-3


def test_the_energy_takes_its_own_number_of_steps() -> None:
    objective = build("vae_mine", energy_steps=3, energy_optimizer="adam")
    encoder = weights_of(objective.network)
    objective.perform("energy", objective.optimise_energy, BATCH)
    assert not any(value.any() for value in moved(encoder, objective.network).values())
    objective.update(BATCH, STEP)
    steps = {int(state["step"]) for state in objective.optimizers["energy"].state.values()}
    assert steps == {1 + 3}


def test_a_batch_of_one_has_no_estimate_and_leaves_the_energy_alone() -> None:
    objective, plain = build("vae_mine", energy_steps=2), build("vae_05", word_dropout=0.0)
    before, one = weights_of(objective.energy), collate(SENTENCES, np.array([2]))
    for each in (objective, plain):
        torch.manual_seed(1)
        losses = each.update(one, STEP)
        assert set(losses.terms()) == {"loss", "reconstruction", "kl"}
        assert set(each.gradient_norms) == {"encoder", "decoder"}
    assert all(torch.equal(value, before[name]) for name, value in weights_of(objective.energy).items())
    for name, value in weights_of(plain.network).items():
        torch.testing.assert_close(objective.network.get_parameter(name).detach(), value)


# --- VAE-MINE: beta waits for the energy ---------------------------------------------------------------------------


def heard(objective: VAEMINE, bounds: list[float], first: int = 0) -> list[float]:
    """beta at each step while batches with these Ihat come in."""
    betas = []
    for step, bound in enumerate(bounds, first):
        betas.append(objective.kl_weight(step))
        objective.begin(step)
        assert float(objective.beta) == betas[-1], "the step itself knows the same beta"
        objective.listen(torch.tensor(bound, dtype=torch.float64))
    return betas


def test_beta_waits_until_the_averaged_estimate_has_risen_and_then_takes_its_whole_annealing() -> None:
    objective = build("vae_mine", hold_steps=1000)  # annealing over 5 epochs of 2 steps
    # 1 - 0.98^n passes 0.2 at n = 12: the twelfth batch with an Ihat of 1 ends the hold.
    assert heard(objective, [0.0] * 30 + [1.0] * 11) == [0.1] * 41
    assert not objective.settled(41)
    assert heard(objective, [1.0], 41) == [0.1]
    rise = [objective.kl_weight(step) for step in range(42, 54)]
    assert rise == pytest.approx([0.1 + 0.9 * min(n, 10) / 10 for n in range(12)])
    assert (objective.settled(51), objective.settled(52)) == (False, True)


def test_the_wait_ends_in_any_case_and_one_noisy_batch_does_not_end_it() -> None:
    objective = build("vae_mine", hold_steps=20)
    betas = heard(objective, [3.0] + [0.0] * 19)
    assert betas == [0.1] * 20
    assert objective.kl_weight(20) == 0.1
    assert objective.kl_weight(21) == pytest.approx(0.19)
    assert objective.settled(30)


def test_without_a_hold_beta_rises_from_the_first_step() -> None:
    assert build("vae_mine", hold_steps=0).kl_weight(STEP) == pytest.approx(BETA)


def test_the_jensen_shannon_bound_is_heard_from_its_value_at_independence_on() -> None:
    objective = build("vae_mine", divergence="jsd", marginal="all_pairs", hold_steps=100)
    heard(objective, [-2 * math.log(2)] * 50)
    assert objective.average_estimate == pytest.approx(0, abs=1e-12)
    assert objective.first_step == 100


def test_steps_are_heard_only_during_the_hold() -> None:
    objective = build("vae_mine", hold_steps=2, network=random_network("vae", VOCABULARY))
    for step in range(3):
        before = objective.average_estimate
        objective.update(BATCH, step)
        assert (objective.average_estimate != before) == (step < 2)


def test_the_hold_goes_into_the_state_and_comes_back_exactly() -> None:
    objective, other = (build("vae_mine", hold_steps=100) for _ in range(2))
    heard(objective, [0.1 / 3] * 5)
    objective._first_step.fill_(17)
    other.load_state(objective.state())
    assert (other.first_step, other.average_estimate) == (17, objective.average_estimate)


# --- VAE-MINE: xi ------------------------------------------------------------------------------------------------


def fixed_scores(objective: VAEMINE, monkeypatch: pytest.MonkeyPatch, table: list[list[float]]) -> None:
    monkeypatch.setattr(objective.energy, "all_pairs", lambda hidden, z: torch.tensor(table, dtype=torch.float64))


TABLES = [[[math.log(4), 0.0], [0.0, math.log(2)]], [[math.log(6), 0.0], [math.log(3), math.log(2)]]]
"""exp f: 4 1 1 2, then 6 1 3 2. Z with the diagonal: 2, then 3. E_joint[f]: log sqrt 8, then log sqrt 12."""
JOINT = [math.log(8) / 2, math.log(12) / 2]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # E[f] - log Z
        ({}, [JOINT[0] - math.log(2), JOINT[1] - math.log(3)]),
        # xi = Z: E[f] - Z^2 + log Z + 1
        ({"xi": "literal"}, [JOINT[0] - 4 + math.log(2) + 1, JOINT[1] - 9 + math.log(3) + 1]),
        # Z averaged: 2, then 0.75 * 2 + 0.25 * 3 = 2.25; xi = 1 / 2.25
        ({"xi_decay": 0.75}, [JOINT[0] - math.log(2), JOINT[1] - 3 / 2.25 - math.log(2.25) + 1]),
        # xi of the batch before; before the first, 1: E[f] - Z + 1
        ({"stale_xi": True}, [JOINT[0] - 2 + 1, JOINT[1] - 3 / 2 - math.log(2) + 1]),
        ({"stale_xi": True, "xi": "literal"}, [JOINT[0] - 2 + 1, JOINT[1] - 3 * 2 + math.log(2) + 1]),
    ],
    ids=["reciprocal", "literal", "average", "stale", "stale literal"],
)
def test_xi_is_what_its_setting_says(
    settings: dict[str, Any], expected: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = build("vae_mine", **settings)
    bounds = []
    for table in TABLES:
        fixed_scores(objective, monkeypatch, table)
        bounds.append(float(objective.bound(torch.zeros(2, MODEL.hidden), torch.zeros(2, MODEL.latent))))
    assert bounds == pytest.approx(expected)


def test_the_average_of_z_goes_into_the_state_and_comes_back_exactly() -> None:
    objective, other = (build("vae_mine", network=random_network("vae", VOCABULARY).float()) for _ in range(2))
    assert objective.state()["log_z"] is None
    objective.log_z = torch.tensor(0.1) / 3
    other.load_state(objective.state())
    assert torch.equal(other.log_z, objective.log_z)
    assert other.log_z.dtype == objective.log_z.dtype


def test_an_energy_that_drifts_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    objective = build("vae_mine")
    with torch.no_grad():
        objective.energy.output.bias.fill_(-60)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            objective.update(BATCH, STEP)
    assert len([record for record in caplog.records if "drifts" in record.message]) == 1


def test_the_energys_initialisation_is_pytorchs() -> None:
    """uniform(-0.01, 0.01) would kill its signal: its layers keep uniform(-1/sqrt(inputs), 1/sqrt(inputs))."""
    settings = ModelSettings(embedding=6, hidden=100, latent=25)
    objective = build("vae_mine", network=random_network("vae", VOCABULARY, settings), energy_hidden=64)
    for layer, inputs in (("from_x", 100), ("from_z", 25), ("second", 64), ("output", 64)):
        weight = getattr(objective.energy, layer).weight.detach() / 3  # `build` has scaled them
        assert 0.9 / math.sqrt(inputs) < float(weight.abs().max()) <= 1 / math.sqrt(inputs)
