"""The training loop; one suite over every registered system; He et al.'s schedule against sequences worked by hand."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from made_files import model_config, run_settings
from tiny import Corpus, tiny_corpus, train_settings
from torch import Tensor

from components.train import write_model
from textvae import checkpoint, training
from textvae.config import TrainSettings
from textvae.corpus import collate
from textvae.errors import SettingsError, TerminatedError
from textvae.files import json_text
from textvae.inference import reconstruction, validation
from textvae.networks import Network
from textvae.objectives import objective_class, objective_names
from textvae.objectives.base import Losses, Objective
from textvae.state import StateStore, StopRequest
from textvae.training import Outcome, Trainer, stream
from textvae.turns import Turns
from textvae.vocabulary import BOS, UNK

SYSTEMS = objective_names()
EPOCHS, STEPS_PER_EPOCH = 6, 6
"""41 sentences in batches of 8: 5 full ones and one of a single sentence."""


def trainer(settings: TrainSettings, corpus: Corpus | None = None, seed: int = 1, **arguments: Any) -> Trainer:
    corpus = corpus or tiny_corpus()
    return Trainer(settings, corpus.train, corpus.valid, corpus.size, seed, **arguments)


@functools.cache
def finished(system: str) -> Outcome:
    """An uninterrupted training."""
    return trainer(train_settings(system, epochs=EPOCHS)).run()


class StopAfter(StopRequest):
    """Asks to stop after a number of steps, as SIGTERM would."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def reason(self) -> TerminatedError | None:
        self.left -= 1
        return TerminatedError("stopped") if self.left < 0 else None


def assert_equal_weights(ours: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert ours.keys() == expected.keys()
    assert [name for name in ours if not torch.equal(ours[name], expected[name])] == []


# --- every system ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_fits_a_tiny_corpus(system: str) -> None:
    outcome = finished(system)
    assert outcome.failure is None
    assert [row["epoch"] for row in outcome.curves] == list(range(1, EPOCHS + 1))
    assert [row["step"] for row in outcome.curves] == [STEPS_PER_EPOCH * epoch for epoch in range(1, EPOCHS + 1)]
    assert all(math.isfinite(value) for row in outcome.curves for value in row.values())
    first, last = outcome.curves[0], outcome.curves[-1]
    assert last["train_reconstruction"] < 0.8 * first["train_reconstruction"]
    assert outcome.selected["valid_nll"] < 0.9 * first["valid_nll"]
    json_text([outcome.selected, outcome.curves])  # what the steps write: no NaN, no tensor


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_selects_the_epoch_with_the_best_validation_nll(system: str) -> None:
    outcome, corpus = finished(system), tiny_corpus()
    for weights, column, epoch in (
        (outcome.weights, "valid_nll", outcome.selected["epoch"]),
        (outcome.weights_iw, "valid_nll_iw", outcome.selected["iw_epoch"]),
    ):
        row = outcome.curves[epoch - 1]
        assert row[column] == outcome.selected[column]
        assert row[column] == min(row[column] for row in outcome.curves)
        network = Network(outcome.network.kind, corpus.size, outcome.network.settings)
        network.load_state_dict(weights)
        assert validation(network, corpus.valid, 1, 4, 3)[column] == row[column]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_trains_every_weight_with_finite_gradients(system: str) -> None:
    """After two epochs no weight is where it was but padding's (and those of an energy that is frozen).

    VAE-MINE's bound does not change with a constant added to f: the gradient of the energy's last bias is 0 but for
    rounding, and no step of it is asked for.
    """
    settings = train_settings(system, epochs=2)
    trained = trainer(settings)
    start = {**checkpoint.cloned(trained.network), **checkpoint.cloned(trained.objective.heads)}
    trained.run()
    modules = (trained.network, trained.objective.heads)
    gradients = [p.grad for module in modules for p in module.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    for name, value in {**checkpoint.cloned(trained.network), **checkpoint.cloned(trained.objective.heads)}.items():
        assert torch.isfinite(value).all()
        if "embedding" in name:
            assert not value[0].any(), "padding stays a zero"
            learned = (value != start[name]).any(1)
            assert learned[[BOS, *range(UNK + 1, len(value))]].all(), "some word was not learned"
        elif name != "energy.output.bias" and (not name.startswith("energy") or settings.objective["energy_trained"]):
            assert not torch.equal(value, start[name]), f"{name} was not trained"


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_trained_model_is_loaded_as_it_was(system: str, tmp_path: Path) -> None:
    outcome, corpus = finished(system), tiny_corpus()
    kind, settings = outcome.network.kind, run_settings(system, outcome.network.settings)
    config = model_config(system, kind=kind, settings=settings)
    write_model(tmp_path / "model", outcome, config, corpus.vocabulary)
    for which, weights in (("best", outcome.weights), ("iw", outcome.weights_iw)):
        model = checkpoint.load(tmp_path / "model", which)  # type: ignore[arg-type]
        assert model.network is not None
        assert not model.network.training
        assert_equal_weights(checkpoint.cloned(model.network), weights)
        outcome.network.load_state_dict(weights)
        z = torch.randn(len(corpus.test), model.network.latent) if model.network.latent else None
        expected = reconstruction(outcome.network, corpus.test, z)
        assert torch.equal(reconstruction(model.network, corpus.test, z), expected)
        assert model.vocabulary.words == corpus.vocabulary.words
        assert model.config.items() >= config.items()


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_training_that_is_stopped_again_and_again_is_the_same_bit_for_bit(
    system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped before its first step, after each step of the first epoch (the sixth ends it), and now and then.

    Validation is turned upside down, so that reloaded weights, decays and fresh optimisers are part of it; and an MI
    below zero ends LaggingVAE's aggressive phase after the first epoch.
    """

    def upside_down(*arguments: Any) -> dict[str, float]:
        columns = validation(*arguments)
        return {**columns, "valid_nll": -columns["valid_nll"], "valid_mi_batch": -1.0}

    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path))
    monkeypatch.setattr(training, "validation", upside_down)
    settings = train_settings(system, epochs=EPOCHS)
    expected = trainer(settings).run()
    assert expected.curves[-1]["lr"] < expected.curves[0]["lr"]
    rows: list[dict[str, Any]] = []
    for attempt, steps in enumerate([0, 1, 1, 1, 1, 1, 1, 1, 4, 7, 6]):
        torch.manual_seed(attempt)  # nothing may depend on what the process did before
        with pytest.raises(TerminatedError):
            trainer(settings, store=StateStore("x"), on_epoch=rows.append, stop=StopAfter(steps)).run()
    torch.manual_seed(99)
    outcome = trainer(settings, store=StateStore("x"), on_epoch=rows.append).run()
    assert outcome.curves == expected.curves
    assert rows == expected.curves, "each epoch is told once"
    assert outcome.selected == expected.selected
    assert_equal_weights(outcome.weights, expected.weights)
    assert_equal_weights(outcome.weights_iw, expected.weights_iw)
    assert_equal_weights(checkpoint.cloned(outcome.network), checkpoint.cloned(expected.network))


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_seed_decides_everything(system: str) -> None:
    expected, settings = finished(system), train_settings(system, epochs=2)
    torch.manual_seed(12)
    assert trainer(settings).run().curves == expected.curves[:2]
    other = trainer(settings, seed=2).run().curves[0]
    assert other["train_loss"] != expected.curves[0]["train_loss"]
    assert other["valid_nll"] != expected.curves[0]["valid_nll"]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_vae_shows_beta_and_its_ceiling_and_always_validates_at_one(system: str) -> None:
    outcome = finished(system)
    for row in outcome.curves:
        if outcome.network.kind == "lstm_lm":
            assert not {"beta", "train_kl", "valid_kl", "valid_mi"} & row.keys()
            continue
        assert row["valid_nll"] == pytest.approx(row["valid_reconstruction"] + row["valid_kl"])
        assert row["log_batch_size"] == math.log(8)
        assert row["grad_norm_encoder"] > 0
    if "annealing_epochs" in objective_class(system).Config.model_fields:
        # beta 0.1 -> 1 over one epoch of six steps: the last one at 0.1 + 0.9 * 5 / 6, or 2 / 6 after a hold of three.
        # After a pretraining of an epoch, with a beta of 0, from 0 on.
        fields = objective_class(system).Config.model_fields
        first = [0.0, 5 / 6] if "pretraining_epochs" in fields else [0.4 if "hold_steps" in fields else 0.85]
        assert [row["beta"] for row in outcome.curves] == pytest.approx(first + [1.0] * (EPOCHS - len(first)))


# --- one step and one epoch --------------------------------------------------------------------------------------


def test_the_streams_of_steps_and_seeds_differ() -> None:
    streams = {stream(seed, step) for seed in range(20) for step in range(-1, 500)}
    assert len(streams) == 20 * 501
    assert all(0 <= value < 2**63 for value in streams)


def test_a_curve_shows_means_over_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """The batch of one counts once in the losses and not at all in Ihat and in the energy's gradient norm."""
    seen: list[tuple[int, dict[str, float], dict[str, float]]] = []
    perform = Objective.perform

    def spy(self: Objective, kind: str, act: Any, batch: Any) -> Losses:
        losses = perform(self, kind, act, batch)
        values = {name: float(value) for name, value in losses.terms().items()}
        seen.append((len(batch), values, {name: float(norm) for name, norm in self.gradient_norms.items()}))
        return losses

    monkeypatch.setattr(Objective, "perform", spy)
    row = trainer(train_settings("vae_mine", epochs=1)).run().curves[0]
    assert sorted(size for size, _, _ in seen) == [1, 8, 8, 8, 8, 8]
    assert row["train_reconstruction"] == pytest.approx(sum(n * v["reconstruction"] for n, v, _ in seen) / 41)
    assert row["train_kl"] == pytest.approx(sum(n * v["kl"] for n, v, _ in seen) / 41)
    pairs = [entry for entry in seen if entry[0] > 1]
    assert row["mi_estimate"] == pytest.approx(sum(n * v["mi_estimate"] for n, v, _ in pairs) / 40)
    assert row["grad_norm_energy"] == pytest.approx(sum(n * norms["energy"] for n, _, norms in pairs) / 40)
    assert row["grad_norm_decoder"] == pytest.approx(sum(n * norms["decoder"] for n, _, norms in seen) / 41)


def test_an_epoch_takes_each_batch_once_in_training_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    streams: list[int] = []

    def spy(self: Objective, kind: str, act: Any, batch: Any) -> Losses:
        assert self.network.training
        streams.append(self.noise.choices.initial_seed())
        seen.extend(batch.indices.tolist())
        assert batch.tokens_BT.tolist() == collate(tiny_corpus().train, batch.indices).tokens_BT.tolist()
        return Losses(torch.tensor(1.0), torch.tensor(1.0))

    monkeypatch.setattr(Objective, "perform", spy)
    trainer(train_settings("vae_05", epochs=2)).run()
    assert sorted(seen[:41]) == sorted(seen[41:]) == list(range(41))
    assert seen[:41] != seen[41:]
    assert len(set(streams)) == 2 * STEPS_PER_EPOCH, "no two steps share their noise"


def test_a_random_batch_is_one_of_the_epochs() -> None:
    """For systems that need more than the current batch; its choice is the step's own randomness."""
    drawing = trainer(train_settings("vae_05"))
    drawing.batches = drawing.batches_of_epoch(3)
    groups = {frozenset(batch.tolist()) for batch in drawing.batches.indices}

    def drawn(seed: int) -> list[frozenset[int]]:
        drawing.noise.seed(seed)
        return [frozenset(drawing.draw_batch().indices.tolist()) for _ in range(60)]

    assert set(drawn(1)) == groups
    assert drawn(1) == drawn(1) != drawn(2)


# --- model selection and the learning rate -----------------------------------------------------------------------


def feed(trained: Trainer, losses: list[float], iw: list[float] | None = None) -> list[tuple[int, float, float]]:
    """(decays, learning rate, the epoch whose weights go on) after each epoch with these validation losses."""
    steps = []
    for epoch, (nll, nll_iw) in enumerate(zip(losses, iw or losses, strict=True), start=1):
        trained.at.step = epoch * STEPS_PER_EPOCH
        with torch.no_grad():
            trained.network.decoder.output.weight.fill_(epoch)
        trained.select({"epoch": epoch, "valid_nll": nll, "valid_nll_iw": nll_iw})
        weight = float(trained.network.decoder.output.weight[0, 0].detach())
        steps.append((trained.at.decays, trained.objective.learning_rate, weight))
    return steps


SCHEDULE: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 1.0, "decay_from_epoch": 4, "decay_patience": 2}


def test_two_epochs_without_improvement_reload_the_best_weights_and_halve_the_rate() -> None:
    trained = trainer(train_settings("lstm_lm", **SCHEDULE))
    worked_by_hand = [
        (10.0, (0, 1.0, 1)),
        (9.00, (0, 1.0, 2)),  # the best so far
        (9.50, (0, 1.0, 3)),  # one without improvement
        (9.60, (1, 0.5, 2)),  # two: the weights of epoch 2; 9.6 is what counts from now on
        (9.55, (1, 0.5, 5)),  # better than 9.6, if not than 9
        (9.58, (1, 0.5, 6)),  # one
        (9.55, (1, 0.5, 7)),  # as good as 9.55: not "without improvement" in He et al.'s code
        (9.70, (1, 0.5, 8)),  # one
        (8.00, (1, 0.5, 9)),  # the best so far
        (8.10, (1, 0.5, 10)),  # one
        (8.20, (2, 0.25, 9)),  # two
    ]
    assert feed(trained, [nll for nll, _ in worked_by_hand]) == [expected for _, expected in worked_by_hand]
    assert (trained.at.best_nll, trained.at.best_epoch) == (8.0, 9)
    assert trained.objective.optimizers["main"].param_groups[0]["lr"] == 0.25


def test_the_best_nll_iw_is_kept_beside_and_decides_nothing() -> None:
    trained = trainer(train_settings("vae_05", **SCHEDULE))
    losses = [10.0, 9.0, 9.5, 9.6, 9.55]
    with_iw = feed(trained, losses, iw=[5.0, 4.0, 3.0, 6.0, 7.0])
    assert with_iw == feed(trainer(train_settings("vae_05", **SCHEDULE)), losses)
    assert (trained.at.best_iw, trained.at.best_iw_epoch) == (3.0, 3)
    assert float(trained.best_iw["decoder.output.weight"][0, 0]) == 3
    assert float(trained.best["decoder.output.weight"][0, 0]) == 2


def test_nothing_decays_before_its_epoch_but_the_epochs_before_count() -> None:
    """He et al.: from the sixteenth epoch on; two without improvement before it are enough for it."""
    trained = trainer(train_settings("lstm_lm", **{**SCHEDULE, "decay_from_epoch": 6}))
    # Epochs 2 to 6 do not improve on 1; the count is 5 at epoch 6. Then 11 is what counts: 12 and 13 are worse.
    decays = [decays for decays, _, _ in feed(trained, [1, 2, 3, 4, 5, 11, 12, 13, 13])]
    assert decays == [0, 0, 0, 0, 0, 1, 1, 2, 2]


def test_nothing_decays_while_the_objective_has_not_settled() -> None:
    """Annealing over three epochs: the third is the first that counts, as the reference for the others."""
    settings = train_settings("vae_05", objective={"annealing_epochs": 3.0}, **{**SCHEDULE, "decay_from_epoch": 1})
    trained = trainer(settings)
    decays = [decays for decays, _, _ in feed(trained, [1.0, 2.0, 5.0, 6.0, 7.0])]
    assert decays == [0, 0, 0, 0, 1]
    # Validation is at beta = 1 throughout: an early epoch may well be the best.
    assert trained.at.best_epoch == 1


def test_a_decay_begins_with_fresh_moments() -> None:
    trained = trainer(train_settings("lstm_lm", **{**SCHEDULE, "optimizer": "adam", "learning_rate": 0.01}))
    trained.objective.update(trained.batches[0], 0)
    assert trained.objective.optimizers["main"].state
    feed(trained, [1, 2, 3, 4])
    assert not trained.objective.optimizers["main"].state
    assert trained.objective.optimizers["main"].param_groups[0]["lr"] == 0.005


def test_training_ends_at_the_fifth_decay(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's settings and losses that only rise: epochs 16, 18, 20, 22 and 24 decay, and the last one ends it."""
    rising = iter(range(1, 101))

    def validated(*arguments: Any) -> dict[str, float]:
        nll = float(next(rising))
        return {"valid_nll": nll, "valid_nll_iw": nll}

    monkeypatch.setattr(training, "validation", validated)
    settings = train_settings("lstm_lm", optimizer="sgd", learning_rate=1.0, epochs=100, batch_size=41)
    paper = settings.training.model_copy(update={"decay_from_epoch": 16, "decay_patience": 2})
    outcome = trainer(settings.model_copy(update={"training": paper})).run()
    assert len(outcome.curves) == 24
    rates = [1.0] * 16 + [0.5] * 2 + [0.25] * 2 + [0.125] * 2 + [0.0625] * 2
    assert [row["lr"] for row in outcome.curves] == rates
    assert outcome.selected["epoch"] == 1


def test_training_ends_after_its_epochs_otherwise() -> None:
    outcome = trainer(train_settings("lstm_lm", epochs=2, decay_from_epoch=50)).run()
    assert outcome.selected["epochs"] == len(outcome.curves) == 2


# --- runs that diverge, settings that cannot work ----------------------------------------------------------------


def poison(trained: Trainer, step: int, name: str) -> None:
    """Make a weight NaN before a step (0-based)."""
    turns = trained.objective.turns

    def poisoned(batch: Any, at: int) -> Turns[Losses]:
        if at == step:
            with torch.no_grad():
                trained.network.get_parameter(name)[0, 0] = math.nan
        return (yield from turns(batch, at))

    trained.objective.turns = poisoned  # type: ignore[method-assign]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_loss_that_is_not_finite_ends_a_run_as_diverged(system: str) -> None:
    trained = trainer(train_settings(system, epochs=EPOCHS))
    poison(trained, 8, "decoder.output.weight")
    outcome = trained.run()
    assert outcome.failure is not None
    assert (outcome.failure["epoch"], outcome.failure["step"], outcome.failure["term"]) == (2, 9, "reconstruction")
    for part in ("epoch 2", "step 9", "reconstruction", "nan"):
        assert part in outcome.failure["message"]
    assert outcome.curves == finished(system).curves[:1], "what was measured before stays"
    json_text([outcome.failure, outcome.selected, outcome.curves])


def test_a_run_that_diverges_before_its_first_validation_has_selected_nothing() -> None:
    trained = trainer(train_settings("vae_mine"))
    poison(trained, 0, "encoder.heads.weight")
    outcome = trained.run()
    assert outcome.failure is not None
    assert outcome.failure["term"] == "kl"
    assert (outcome.selected, outcome.curves) == ({}, [])
    json_text(outcome.failure)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_validation_that_is_not_finite_is_a_divergence_too(system: str) -> None:
    """The last step of an epoch can spoil the weights: its own loss was still finite."""
    trained = trainer(train_settings(system, epochs=EPOCHS))
    turns = trained.objective.turns

    def spoiling(batch: Any, step: int) -> Turns[Losses]:
        losses = yield from turns(batch, step)
        if step == 3 * STEPS_PER_EPOCH - 1:
            with torch.no_grad():
                trained.network.decoder.output.weight.fill_(math.nan)
        return losses

    trained.objective.turns = spoiling  # type: ignore[method-assign]
    outcome = trained.run()
    assert outcome.failure is not None
    assert outcome.failure["epoch"] == 3
    steps_per_epoch = outcome.curves[0]["step"]
    assert outcome.failure["step"] == 3 * steps_per_epoch, "the last step taken, not one that never was"
    assert outcome.failure["term"].startswith("valid_")
    assert outcome.curves == finished(system).curves[:2]
    assert outcome.selected["epoch"] in (1, 2)
    json_text([outcome.failure, outcome.selected, outcome.curves])


def test_an_absurd_learning_rate_is_a_diverged_run_not_a_crash() -> None:
    for system in SYSTEMS:
        settings = train_settings(system, optimizer="sgd", learning_rate=1e30, clip_norm=1e6, epochs=2)
        outcome = trainer(settings).run()
        # A language model's loss may stay finite, and of no use: its LSTM saturates, and the logits are large numbers.
        assert outcome.failure is not None, system
        json.dumps([outcome.failure, outcome.selected, outcome.curves], allow_nan=False)


def test_settings_of_another_objective_are_refused_by_name() -> None:
    settings = train_settings("vae_05")
    wrong = settings.model_copy(update={"objective": {"name": "vae_05", "alpha": 2.0}})
    with pytest.raises(SettingsError, match="alpha"):
        trainer(wrong)


def test_a_schedule_that_never_lets_weights_be_selected_is_refused() -> None:
    """Without this the model directory would hold the weights of the initialisation."""
    settings = train_settings("cyclical", objective={"cycles": 1, "cyclical_epochs": 20.0}, epochs=9)
    with pytest.raises(SettingsError, match=r"training.epochs is 9.*cyclical"):
        trainer(settings)
    # The first half of the cycle's 20 epochs rises: the end of epoch 11 is the first whose last step was at 1.
    for epochs, fits in ((10, False), (11, True)):
        settings = train_settings("cyclical", objective={"cycles": 1, "cyclical_epochs": 20.0}, epochs=epochs)
        if fits:
            trainer(settings)
        else:
            with pytest.raises(SettingsError):
                trainer(settings)
