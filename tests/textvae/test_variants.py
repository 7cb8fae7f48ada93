"""The systems outside the grid: what sets each entry of params.yaml apart, and that the code does just that."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_objectives import BATCH, BETA, STEP, VOCABULARY, build, explicit_terms, moved, noise_for, score, weights_of
from test_systems import scheduled
from tiny import MODEL, random_network, tiny_corpus, train_settings
from torch import Tensor

from textvae import mutual_information as mi
from textvae.config import Params, TrainingSettings
from textvae.errors import SettingsError
from textvae.objectives import alternatives, checked, objective_class
from textvae.objectives.free_bits import thresholded_kl
from textvae.posteriors import Gaussian
from textvae.training import Outcome, Trainer

PARAMS = Params.load(Path(__file__).resolve().parents[2] / "params.yaml")
SMALL: dict[str, Any] = {"energy_hidden": 7, "hold_steps": 0}


def settings_of(entry: str, dataset: str | None = None) -> dict[str, Any]:
    """Every setting of an entry, defaults filled in: its own, or those for a data set."""
    given = PARAMS.settings(dataset, entry).objective if dataset else PARAMS.system(entry)["objective"]
    return checked(given)


def built(entry: str, **settings: Any) -> Any:
    """The entry's objective as `build` of test_objectives makes it, with the settings of the entry."""
    own = alternatives(settings_of(entry))[1][0]
    name = own.pop("name")
    if name == "vae_mine":
        own |= {"energy_optimizer": "sgd", "energy_learning_rate": 1.0, **SMALL}
    return build(name, **{**own, "annealing_epochs": 5.0, **settings})


def trained(entry: str) -> Outcome:
    """Three epochs on the tiny corpus, with the entry's own settings but for the schedule and the energy's size."""
    settings = alternatives(settings_of(entry))[1][0]
    settings |= SMALL if settings["name"] in ("vae_mine", "mine_bow") else {}
    settings |= {"annealing_epochs": 1.0} if settings.get("annealing_epochs") else {}
    settings |= {"pretraining_epochs": 1} if "pretraining_epochs" in settings else {}
    corpus = tiny_corpus()
    model = MODEL.model_copy(update={**PARAMS.system(entry).get("model", {})})
    plan = train_settings(settings["name"], objective=settings, model=model, epochs=3)
    return Trainer(plan, corpus.train, corpus.valid, corpus.size, seed=1).run()


# --- the entries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", [None, "sotu"])
@pytest.mark.parametrize(
    ("entry", "base", "apart"),
    [
        ("vae", "vae_05", {"word_dropout": 0.0}),
        ("beta_vae", "vae", {"beta_end": 0.4}),
        ("mine_jsd", "vae_mine", {"divergence": "jsd", "marginal": "all_pairs"}),
        ("mine_frozen", "vae_mine", {"energy_trained": False}),
        ("mine_alpha0", "vae_mine", {"alpha": 0.0}),
    ],
)
def test_an_entry_is_another_one_but_for_what_it_is_about(
    entry: str, base: str, apart: dict[str, Any], dataset: str | None
) -> None:
    """Also after the data set's own settings: a control with another schedule controls nothing."""
    assert settings_of(entry, dataset) == {**settings_of(base, dataset), **apart}
    assert settings_of(base, dataset) != settings_of(entry, dataset)
    others = [PARAMS.settings("sotu", name).model_dump(exclude={"objective"}) for name in (entry, base)]
    assert others[0] == others[1]


def test_the_paper_s_entry_says_what_algorithm_1_says() -> None:
    settings = settings_of("vae_mine_paper")
    expected = {
        "annealing_epochs": 0,  # line 11 has no KL weight
        "alpha": 1.0,  # line 12 has none
        "marginal": "shuffle",  # line 5
        "xi": "literal",  # line 9
        "stale_xi": True,  # lines 7 and 12 use xi, line 9 makes xi*
        "xi_decay": 0.0,  # line 9 takes this batch's
        "energy_steps": 1,  # line 6
        "energy_optimizer": "sgd",  # line 15
        "energy_hidden": 512,  # section 5.2
        "divergence": "kl",
        "energy_trained": True,
    }
    assert {name: settings[name] for name in expected} == expected
    assert settings["energy_learning_rate"] == TrainingSettings().learning_rate


@pytest.mark.parametrize("entry", sorted(set(PARAMS.systems) - set(PARAMS.grid.systems)))
def test_an_entry_outside_the_grid_trains(entry: str) -> None:
    outcome = trained(entry)
    assert outcome.failure is None
    assert outcome.curves[-1]["train_reconstruction"] < outcome.curves[0]["train_reconstruction"]
    assert all(math.isfinite(value) for row in outcome.curves for value in row.values())
    shown = {name for name in ("mi_estimate", "jsd_bound") if name in outcome.curves[0]}
    bound = {"mine_jsd": {"jsd_bound"}}.get(entry, {"mi_estimate"})
    assert shown == (bound if settings_of(entry)["name"] in ("vae_mine", "mine_bow") else set())


def test_alpha_0_trains_the_plain_vae_bit_for_bit() -> None:
    """The energy learns beside it and the model does not notice: as an experiment the control repeats `vae`."""
    plain, control = trained("vae"), trained("mine_alpha0")
    assert all(torch.equal(value, plain.weights[name]) for name, value in control.weights.items())
    for ours, expected in zip(control.curves, plain.curves, strict=True):
        assert {name: ours[name] for name in expected} == expected
    assert control.curves[-1]["grad_norm_energy"] > 0


# --- beta-VAE ----------------------------------------------------------------------------------------------------


def test_a_beta_vae_anneals_to_its_own_weight() -> None:
    # 10 epochs of 7 steps: 70 steps from 0.1 to 0.4; the middle is step 35, at 0.25.
    objective = scheduled("vae_05", beta_start=0.1, beta_end=0.4, annealing_epochs=10)
    expected = {0: 0.1, 35: 0.25, 69: 0.4 - 0.3 / 70, 70: 0.4, 10_000: 0.4}
    assert {step: objective.kl_weight(step) for step in expected} == pytest.approx(expected, abs=1e-12)
    assert [objective.settled(step) for step in (0, 69, 70)] == [False, False, True]


def test_the_beta_vae_minimises_reconstruction_plus_that_weight_of_the_kl() -> None:
    # `build` has 2 steps an epoch, here 5 epochs: step 5 is half way from 0.1 to 0.4, step 10 at its end.
    objective = built("beta_vae")
    reconstruction, kl, _, _ = explicit_terms(objective.network, noise_for(1))
    for step, beta in ((5, 0.25), (10, 0.4)):
        torch.manual_seed(1)
        torch.testing.assert_close(objective.loss(BATCH, objective.kl_weight(step)).total, reconstruction + beta * kl)


# --- the frozen energy -------------------------------------------------------------------------------------------


def test_a_frozen_energy_stays_and_the_encoder_still_hears_it() -> None:
    """The network moves as beside an energy that is trained: psi's step comes after the gradients are taken."""
    moves: dict[str, dict[str, Tensor]] = {}
    for entry in ("mine_frozen", "vae_mine", "mine_alpha0"):
        objective = built(entry, alpha=0.0 if entry == "mine_alpha0" else 2.0, energy_steps=1)
        before, energy = weights_of(objective.network), weights_of(objective.energy)
        torch.manual_seed(1)
        objective.update(BATCH, STEP)
        moves[entry] = moved(before, objective.network)
        trains, steps = entry != "mine_frozen", moved(energy, objective.energy)
        # A constant added to f cancels in the bound: the last bias has no gradient but what rounding leaves of one.
        assert float(steps.pop("output.bias").abs()) <= (1e-12 if trains else 0)
        assert {bool(step.any()) for step in steps.values()} == {trains}
        assert ("energy" in objective.gradient_norms) is trains
    for name, move in moves["mine_frozen"].items():
        torch.testing.assert_close(move, moves["vae_mine"][name])
        assert name.startswith("decoder") or "embedding" in name or not torch.allclose(move, moves["mine_alpha0"][name])


def test_a_frozen_energy_has_no_extra_steps_either() -> None:
    objective = built("mine_frozen", energy_steps=3)
    energy = weights_of(objective.energy)
    objective.update(BATCH, STEP)
    assert all(torch.equal(value, energy[name]) for name, value in weights_of(objective.energy).items())


# --- the Jensen-Shannon bound ------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", [{"xi": "literal"}, {"xi_decay": 0.5}, {"stale_xi": True}])
def test_a_xi_where_there_is_none_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="`divergence: jsd` has no xi"):
        checked({"name": "vae_mine", "divergence": "jsd", **setting})


@pytest.mark.parametrize("alpha", [1.0, 2.5])
@pytest.mark.parametrize("marginal", ["all_pairs_with_self", "all_pairs", "shuffle"])
def test_the_jensen_shannon_bound_and_where_its_gradients_go(
    marginal: str, alpha: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """theta: reconstruction. phi: recon + beta KL - alpha bound, through z, z' and hidden. psi: -bound, not scaled."""
    order = [2, 3, 4, 0, 1]
    monkeypatch.setattr(mi, "derangement", lambda size, generator: torch.tensor(order))
    objective = built("mine_jsd", marginal=marginal, alpha=alpha)
    network = objective.network
    reconstruction, kl, hidden, z = explicit_terms(network, noise_for(1))
    pairs = {
        "all_pairs_with_self": [(i, j) for i in range(5) for j in range(5)],
        "all_pairs": [(i, j) for i in range(5) for j in range(5) if i != j],
        "shuffle": list(enumerate(order)),
    }[marginal]
    # log sigmoid(f) on joint pairs, log (1 - sigmoid(f)) on the others: a discriminator's log-likelihood.
    joint = torch.stack([torch.sigmoid(score(objective, hidden[i], z[i])).log() for i in range(5)]).mean()
    others = torch.stack([(1 - torch.sigmoid(score(objective, hidden[i], z[j]))).log() for i, j in pairs]).mean()
    bound = joint + others
    theta, phi, psi = (list(part.parameters()) for part in (network.decoder, network.encoder, objective.energy))
    expected = [
        *torch.autograd.grad(reconstruction, theta, retain_graph=True),
        *torch.autograd.grad(reconstruction + BETA * kl - alpha * bound, phi, retain_graph=True),
        *torch.autograd.grad(-bound, psi),
    ]
    before = [parameter.detach().clone() for parameter in (*theta, *phi, *psi)]
    torch.manual_seed(1)
    losses = objective.update(BATCH, STEP)
    torch.testing.assert_close(losses.extra["jsd_bound"], bound)
    torch.testing.assert_close(losses.total, reconstruction + BETA * kl - alpha * bound)
    for parameter, start, gradient in zip((*theta, *phi, *psi), before, expected, strict=True):
        torch.testing.assert_close(start - parameter.detach(), gradient, rtol=1e-6, atol=1e-9)
    assert objective.log_z is None, "there is no xi"


# --- Algorithm 1 -------------------------------------------------------------------------------------------------


def test_the_paper_s_variant_takes_the_steps_of_algorithm_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three batches, line by line, each expectation a loop and each update written out; M = 5, SGD, no clipping."""
    rate, energy_rate, orders = 0.02, 0.1, [[1, 2, 3, 4, 0], [4, 0, 1, 2, 3], [2, 3, 4, 0, 1]]
    shuffles = iter(orders)
    monkeypatch.setattr(mi, "derangement", lambda size, generator: torch.tensor(next(shuffles)))
    own = {**settings_of("vae_mine_paper"), **SMALL, "energy_learning_rate": energy_rate}
    cls: Any = objective_class("vae_mine")
    training = TrainingSettings(optimizer="sgd", learning_rate=rate, clip_norm=1e9)
    torch.manual_seed(0)
    ours = cls(cls.Config(**own), random_network("vae", VOCABULARY), training, 2, lambda: BATCH)
    ours.energy.double()
    by_hand = copy.deepcopy(ours)
    xi = torch.tensor(1.0).double()  # line 1
    scopes = []
    for step, order in enumerate(orders):
        network, size = by_hand.network, range(len(BATCH))
        minus_log_p, kl, hidden, z = explicit_terms(network, noise_for(step))  # lines 3 and 4
        shuffled = z[order]  # line 5
        joint = torch.stack([score(by_hand, hidden[i], z[i]) for i in size])
        exp_f = torch.stack([score(by_hand, hidden[i], shuffled[i]) for i in size]).exp()
        contrast = (joint - xi * exp_f).mean()
        psi, phi, theta = (list(part.parameters()) for part in (by_hand.energy, network.encoder, network.decoder))
        gradients = {
            energy_rate: zip(psi, torch.autograd.grad(contrast, psi, retain_graph=True), strict=True),  # line 7
            rate: [
                *zip(
                    phi, torch.autograd.grad(-minus_log_p - kl + contrast, phi, retain_graph=True), strict=True
                ),  # 11, 12
                *zip(theta, torch.autograd.grad(-minus_log_p, theta), strict=True),  # line 14
            ],
        }
        xi = exp_f.mean().detach()  # line 9
        scopes.append(float(xi))
        with torch.no_grad():  # line 15
            for of_rate, group in gradients.items():
                for parameter, gradient in group:
                    parameter += of_rate * gradient
        torch.manual_seed(step)
        ours.update(BATCH, step)
        for part, expected in ((ours.network, network), (ours.energy, by_hand.energy)):
            for name, value in weights_of(part).items():
                torch.testing.assert_close(value, expected.get_parameter(name).detach(), rtol=1e-8, atol=1e-11)
    assert max(scopes) > 1.01 * min(scopes), "a xi that hardly moves could be any batch's"


def test_the_first_batch_has_a_xi_of_1_and_the_next_the_z_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = built("vae_mine_paper")
    scores = [[math.log(2), math.log(4)], [math.log(3), math.log(5)], [0.0, math.log(3)]]  # Z = 3, 4 and 2
    bounds = []
    for of_pairs in scores:
        # Joint pairs score 0, shuffled ones these.
        answers = iter([torch.zeros(2).double(), torch.tensor(of_pairs).double()])
        monkeypatch.setattr(objective.energy, "pairs", lambda hidden, z, answers=answers: next(answers))
        bounds.append(float(objective.bound(torch.zeros(2, MODEL.hidden), torch.zeros(2, MODEL.latent))))
    # 0 - xi Z + log xi + 1 with xi = 1, then 3, then 4
    assert bounds == pytest.approx([-3 + 1, -3 * 4 + math.log(3) + 1, -4 * 2 + math.log(4) + 1])


# --- free bits ---------------------------------------------------------------------------------------------------

MU = torch.tensor([[0.3, 1.0, 0.0], [-0.1, -2.0, 0.0]], dtype=torch.float64)
LOG_VAR = torch.tensor([[0.0, -1.0, 0.0], [0.2, 0.5, 0.0]], dtype=torch.float64)


def mean_kl_of_dimension(d: int) -> float:
    """0.5 (mu^2 + sigma^2 - 1 - log sigma^2), the mean over the two sentences: 0.018, 1.5 and 0."""
    pairs = zip(MU[:, d].tolist(), LOG_VAR[:, d].tolist(), strict=True)
    return math.fsum(0.5 * (mu**2 + math.exp(log_var) - 1 - log_var) for mu, log_var in pairs) / 2


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.1, 5.0])
def test_free_bits_equal_a_plain_loop(threshold: float) -> None:
    expected = sum(max(threshold, mean_kl_of_dimension(d)) for d in range(3))
    assert float(thresholded_kl(Gaussian(MU, LOG_VAR), threshold)) == pytest.approx(expected, rel=1e-12)


def test_free_bits_pull_on_the_dimensions_above_the_threshold_only() -> None:
    """0.1 nats: the first dimension says less, though its first sentence's share would be half of that."""
    mu, log_var = MU.clone().requires_grad_(), LOG_VAR.clone().requires_grad_()
    thresholded_kl(Gaussian(mu, log_var), 0.1).backward()  # type: ignore[no-untyped-call]
    assert mu.grad is not None
    assert log_var.grad is not None
    # d KL / d mu = mu, d KL / d log sigma^2 = (sigma^2 - 1) / 2, half of each for the mean over two sentences.
    torch.testing.assert_close(mu.grad, MU / 2 * torch.tensor([0.0, 1.0, 0.0]))
    torch.testing.assert_close(log_var.grad, (LOG_VAR.exp() - 1) / 4 * torch.tensor([0.0, 1.0, 0.0]))


def test_the_mean_over_the_batch_comes_before_the_threshold() -> None:
    """Two sentences of 0 and 0.5 nats in one dimension: max(0.2, 0.25), not the mean of max(0.2, 0) and 0.5."""
    assert float(thresholded_kl(Gaussian(torch.tensor([[0.0], [1.0]]), torch.zeros(2, 1)), 0.2)) == pytest.approx(0.25)


def test_the_free_bits_vae_minimises_the_kl_above_the_threshold_and_shows_all_of_it() -> None:
    objective = build("free_bits", threshold=4.0)
    reconstruction, kl, _, _ = explicit_terms(objective.network, noise_for(1))
    free = thresholded_kl(objective.network.encode(BATCH)[0], 4.0)
    assert float(free.detach()) > float(kl.detach()) + 0.1, "some dimension should be below the threshold"
    torch.manual_seed(1)
    losses = objective.loss(BATCH, objective.kl_weight(STEP))
    torch.testing.assert_close(losses.total, reconstruction + free)
    torch.testing.assert_close(losses.kl, kl)
