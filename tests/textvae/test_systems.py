"""The baselines: schedules where they turn, BOW and MMD against plain loops, LaggingVAE step by step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from test_objectives import BATCH, BETA, SENTENCES, STEP, VOCABULARY, build, explicit_terms, noise_for, weights_of
from tiny import MODEL, random_network
from torch import Tensor, nn

from textvae.config import TrainingSettings
from textvae.corpus import Batch, Sentences, collate
from textvae.objectives import objective_class
from textvae.objectives.base import Losses, Objective
from textvae.objectives.infovae import squared_mmd
from textvae.objectives.vae_bow import bag_of_words_loss
from textvae.turns import run_out

STEPS_PER_EPOCH = 7
FIRST_CLASS = 2
"""The id of class 0 of the output layers: PAD = 0 and BOS = 1 are never predicted."""


def scheduled(system: str, **settings: Any) -> Any:
    """An objective with 7 steps an epoch."""
    cls: Any = objective_class(system)
    config = cls.Config(name=system, **settings)
    return cls(config, random_network(cls.kind, VOCABULARY), TrainingSettings(), STEPS_PER_EPOCH, lambda: BATCH)


def same_weights(before: dict[str, Tensor], module: nn.Module) -> bool:
    """Bit for bit."""
    return all(torch.equal(value, before[name]) for name, value in weights_of(module).items())


def changed_weights(before: dict[str, Tensor], module: nn.Module) -> bool:
    """Each of them, somewhere."""
    return not any(torch.equal(value, before[name]) for name, value in weights_of(module).items())


# --- schedules ---------------------------------------------------------------------------------------------------


def test_cyclical_annealing_turns_where_its_cycles_do() -> None:
    # 40 epochs of 7 steps in 4 cycles: cycles of 70 steps, beginning at 0, 70, 140, 210. The first 35 of each rise.
    objective = scheduled("cyclical", cycles=4, cyclical_epochs=40)
    for start in (0, 70, 140, 210):
        for within, beta in {0: 0.0, 1: 1 / 35, 7: 0.2, 34: 34 / 35, 35: 1.0, 36: 1.0, 69: 1.0}.items():
            assert objective.kl_weight(start + within) == pytest.approx(beta, abs=1e-12), (start, within)
        # `settled` and `selectable` look at the last step that was taken: after 35 steps of a cycle it was at 34 / 35.
        after = {0: start > 0, 1: False, 35: False, 36: True, 69: True}
        for steps, yes in after.items():
            assert objective.settled(start + steps) is objective.selectable(start + steps) is yes, (start, steps)
    assert all(objective.kl_weight(step) == 1 for step in (280, 281, 10_000))
    assert all(objective.settled(step) and objective.selectable(step) for step in (280, 281, 10_000))


def test_cycles_whose_length_is_no_whole_number_of_steps() -> None:
    # 10 epochs of 7 steps in 3 cycles of 23 1/3 steps, a quarter of which rises: 5 5/6 steps.
    objective = scheduled("cyclical", cycles=3, cyclical_epochs=10, rising_share=0.25)
    # Step 5 is at 5 / 5.8333; the second cycle begins at 23.33, so step 24 is 2/3 of a step into it.
    expected = {0: 0.0, 5: 5 * 6 / 35, 6: 1.0, 23: 1.0, 24: (2 / 3) * 6 / 35, 69: 1.0, 70: 1.0}
    assert {step: objective.kl_weight(step) for step in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("system", "settings", "beta"), [("infovae", {"mi_weight": 0.25}, 0.75), ("free_bits", {}, 1), ("lstm_lm", {}, 1)]
)
def test_systems_without_a_schedule(system: str, settings: dict[str, Any], beta: float) -> None:
    objective = scheduled(system, **settings)
    assert [objective.kl_weight(step) for step in (0, 1, 10_000)] == [beta] * 3
    assert objective.settled(0)
    assert objective.selectable(1)


def test_the_cyclical_vae_minimises_reconstruction_plus_its_beta_of_the_kl() -> None:
    # `build` has 2 steps an epoch: 16 steps in 4 cycles of 4, of which two rise. Step 1 is at 1/2.
    objective = build("cyclical", cycles=4, cyclical_epochs=8.0)
    reconstruction, kl, _, _ = explicit_terms(objective.network, noise_for(1))
    torch.manual_seed(1)
    torch.testing.assert_close(objective.loss(BATCH, objective.kl_weight(1)).total, reconstruction + kl / 2)


# --- the bag of words --------------------------------------------------------------------------------------------


def test_the_bag_of_words_loss_equals_a_plain_loop() -> None:
    """Over the words and no EOS; a word that occurs twice counts twice; an empty sentence counts as a sentence."""
    texts = [[4, 5, 6], [], [8], [7, 3, 4, 4, 8, 5], [6, 6, 6]]
    logits = torch.randn(len(texts), VOCABULARY - FIRST_CLASS, generator=torch.Generator().manual_seed(3)).double()
    total = 0.0
    for row, words in zip(logits.tolist(), texts, strict=True):
        normaliser = math.log(sum(math.exp(value) for value in row))
        total += sum(normaliser - row[word - FIRST_CLASS] for word in words)
    loss = bag_of_words_loss(logits, collate(Sentences.of(texts), np.arange(len(texts))))
    assert float(loss) == pytest.approx(total / len(texts), rel=1e-12)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_vae_bow_adds_the_loss_of_a_network_of_the_code_alone(weight: float) -> None:
    objective = build("vae_bow", bow_hidden=5, bow_weight=weight)
    reconstruction, kl, _, z = explicit_terms(objective.network, noise_for(1))
    hidden, output = objective.heads["bow"][0], objective.heads["bow"][2]
    logits = torch.tanh(z @ hidden.weight.T + hidden.bias) @ output.weight.T + output.bias
    bow = bag_of_words_loss(logits, BATCH)
    torch.manual_seed(1)
    losses = objective.loss(BATCH, objective.kl_weight(STEP))
    torch.testing.assert_close(losses.extra["train_bow"], bow)
    torch.testing.assert_close(losses.total, reconstruction + BETA * kl + weight * bow)
    torch.testing.assert_close(losses.reconstruction, reconstruction, msg="no part of the reported NLL")
    assert hidden.out_features == 5
    # Its head is trained by the main optimiser, within its norm.
    before = weights_of(objective.heads)
    objective.update(BATCH, STEP)
    assert changed_weights(before, objective.heads)
    assert objective.gradient_norms.keys() == {"encoder", "decoder", "head"}


# --- the MMD -----------------------------------------------------------------------------------------------------


def mmd_in_loops(x: list[list[float]], y: list[list[float]]) -> float:
    def kernel(a: list[float], b: list[float]) -> float:
        return math.exp(-sum((i - j) ** 2 for i, j in zip(a, b, strict=True)) / len(a) ** 2)

    within_x = [kernel(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    within_y = [kernel(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j]
    between = [kernel(a, b) for a in x for b in y]
    return sum(within_x) / len(within_x) + sum(within_y) / len(within_y) - 2 * sum(between) / len(between)


@pytest.mark.parametrize(("rows", "columns"), [((2, 2), 1), ((5, 5), 3), ((4, 7), 2)])
def test_the_mmd_equals_a_quadratic_loop(rows: tuple[int, int], columns: int) -> None:
    generator = torch.Generator().manual_seed(rows[1])
    x, y = (2 * torch.randn(count, columns, generator=generator).double() + 1 for count in rows)
    assert float(squared_mmd(x, y)) == pytest.approx(mmd_in_loops(x.tolist(), y.tolist()), rel=1e-10)


def draws_of_mmd(scale: float, draws: int = 4000) -> Tensor:
    """MMDs of 4 samples of N(0, scale^2 I) and 4 of N(0, I), in two dimensions."""
    samples = torch.randn(draws, 2, 4, 2, generator=torch.Generator().manual_seed(0)).double()
    return torch.stack([squared_mmd(scale * x, y) for x, y in samples])


def test_the_mmd_of_two_samples_of_one_distribution_is_zero_in_expectation() -> None:
    values = draws_of_mmd(1.0)
    error = float(values.std()) / math.sqrt(len(values))
    # E k is 1/2 (below); with the diagonals counted a sample of 4 would be off by (1 - 1/2) / 4, on both sides.
    assert error < 0.01
    assert abs(float(values.mean())) < 4 * error
    assert float(values.min()) < 0


def test_the_mmd_of_two_distributions_has_its_closed_form() -> None:
    # E exp(-d^2 / D^2) for d ~ N(0, v I) is (1 + 2 v / D^2)^(-D / 2); here D = 2, so 1 / (1 + v / 2).
    # Within N(0, 4 I): v = 8; within N(0, I): v = 2; between: v = 5.
    values = draws_of_mmd(2.0)
    expected = 1 / 5 + 1 / 2 - 2 / 3.5
    assert expected > 0.1
    assert float(values.mean()) == pytest.approx(expected, abs=4 * float(values.std()) / math.sqrt(len(values)))


def test_an_mmd_needs_two_samples_a_side() -> None:
    for x, y in ((1, 2), (2, 1)):
        with pytest.raises(ValueError, match="at least two"):
            squared_mmd(torch.zeros(x, 3), torch.zeros(y, 3))


@pytest.mark.parametrize(("a", "weight", "kl_weight", "mmd_weight"), [(0.0, 10.0, 1, 9), (1.0, 1000.0, 0, 1000)])
def test_infovae_weighs_the_kl_with_1_minus_a_and_the_mmd_with_a_plus_l_minus_1(
    a: float, weight: float, kl_weight: float, mmd_weight: float
) -> None:
    objective = build("infovae", mi_weight=a, mmd_weight=weight)
    reconstruction, kl, _, z = explicit_terms(objective.network, noise_for(1))
    prior = torch.randn(len(BATCH), MODEL.latent, dtype=torch.float64)  # drawn after the posterior's noise
    torch.manual_seed(1)
    losses = objective.loss(BATCH, objective.kl_weight(STEP))
    mmd = mmd_in_loops(z.tolist(), prior.tolist())
    assert float(losses.extra["train_mmd"].detach()) == pytest.approx(mmd)
    assert float(losses.total.detach()) == pytest.approx(
        float((reconstruction + kl_weight * kl).detach() + mmd_weight * mmd)
    )
    one = objective.loss(collate(SENTENCES, np.array([2])), objective.kl_weight(STEP))
    assert not one.extra, "a batch of one has no MMD"


# --- LaggingVAE --------------------------------------------------------------------------------------------------

LONG, SHORT = (collate(Sentences.of([[4] * words]), np.array([0])) for words in (9, 1))
"""One sentence each, of 10 and 2 target tokens."""


class Script:
    """Takes the place of Objective.update: records the batches and who is trained, and returns losses as told."""

    def __init__(self, losses: list[float]) -> None:
        self.losses: Iterator[float] = iter(losses)
        self.calls: list[tuple[Batch, str]] = []

    def __call__(self, objective: Objective, batch: Batch) -> Losses:
        encoder, decoder = objective.network.encoder, objective.network.decoder
        assert encoder is not None
        trained = [
            name for name, of in (("encoder", encoder), ("decoder", decoder)) if next(of.parameters()).requires_grad
        ]
        self.calls.append((batch, " and ".join(trained)))
        loss = torch.tensor(next(self.losses))
        return Losses(loss, loss, loss)


def inner_steps(monkeypatch: pytest.MonkeyPatch, losses: list[float], random: list[Batch], **settings: Any) -> int:
    """How many encoder-only steps one update takes, its batches and its end checked."""
    script, drawn = Script([*losses, 0.0]), iter(random)
    objective = scheduled("lagging", annealing_epochs=1.0, **settings)
    objective.draw = lambda: next(drawn, SHORT)
    current = collate(SENTENCES, np.arange(2))
    with monkeypatch.context() as patch:
        patch.setattr(Objective, "perform", lambda self, kind, act, batch: script(self, batch))
        objective.update(current, 0)
    *inner, last = script.calls
    assert inner[0][0] is current
    assert all(batch is expected for (batch, _), expected in zip(inner[1:], random, strict=False))
    assert {trained for _, trained in inner} == {"encoder"}
    assert last[0] is current
    assert last[1] == "decoder"
    return len(inner)


# Windows of two steps. Every random batch is SHORT, one sentence of 2 tokens; the current one has two sentences
# ([4, 5, 6] and [8]) of 4 + 2 = 6 tokens. The loss is a mean over sentences: 6.0 on the current batch is 12 nats.
@pytest.mark.parametrize(
    ("losses", "steps"),
    [
        # Windows: (12 + 2) / 8 = 1.75 per word, then (2 + 2) / 4 = 1, then (2 + 3) / 4 = 1.25 > 1: ends after 6.
        ([6, 2, 2, 2, 2, 3, 0, 0, 0], 6),
        # The second window already exceeds the first: 1.75, then (5 + 3) / 4 = 2.
        ([6, 2, 5, 3, 0, 0, 0, 0, 0], 4),
        # As good as the window before is not worse: 1.75 twice, then (4 + 4) / 4 = 2.
        ([6, 2, 3, 4, 4, 4, 0, 0, 0], 6),
        # 1.75, 1, 0.5, then 0.75: better than the first ones, and worse than the one before.
        ([6, 2, 2, 2, 1, 1, 1, 2, 0], 8),
        # Single steps that rise within falling windows end nothing: 1.75, 1.5, 1.25, 1; then the limit.
        ([6, 2, 1, 5, 0, 5, 0, 4, 9], 9),
    ],
)
def test_the_inner_loop_ends_with_the_first_window_that_is_worse_than_the_one_before(
    losses: list[float], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inner_steps(monkeypatch, losses, [SHORT] * 9, inner_steps=9, window=2) == steps


@pytest.mark.parametrize(
    ("losses", "batches", "steps"),
    [
        # (0 + 10) / (6 + 2) = 1.25, then (20 + 0) / (10 + 2) = 1.67: worse. The mean of the two steps' losses per word
        # would call it better: (0 + 5) / 2, then (2 + 0) / 2.
        ([0.0, 10.0, 20.0, 0.0, 0.0, 0.0], [SHORT, LONG, SHORT, SHORT, SHORT], 4),
        # (12 + 2) / (6 + 2) = 1.75, then (9 + 9) / (10 + 10) = 0.9: better. Per sentence it would be worse: 14 / 3, 9.
        ([6.0, 2.0, 9.0, 9.0, 0.0, 0.0], [SHORT, LONG, LONG, SHORT, SHORT], 6),
    ],
)
def test_a_window_s_loss_is_per_word_over_all_its_words(
    losses: list[float], batches: list[Batch], steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inner_steps(monkeypatch, losses, batches, inner_steps=6, window=2) == steps


def test_he_et_als_limits_are_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    falling, rising = [100.0 - step for step in range(99)], [float(step) for step in range(99)]
    assert inner_steps(monkeypatch, falling, [SHORT] * 99) == 99
    assert inner_steps(monkeypatch, [1e3, *rising[1:]], [SHORT] * 99) == 45, "the first window has the large loss"
    assert inner_steps(monkeypatch, rising, [SHORT] * 99) == 30


def lagging(optimizer: str, **settings: Any) -> Any:
    """In float64, without dropout, after one joint step: Adam then has moments for every weight."""
    cls: Any = objective_class("lagging")
    config = cls.Config(name="lagging", annealing_epochs=5.0, **settings)
    training = TrainingSettings(optimizer=optimizer, learning_rate=0.01, clip_norm=1e9)  # type: ignore[arg-type]
    objective: Any = cls(config, random_network("vae", VOCABULARY), training, 2, lambda: BATCH)
    objective.aggressive = False
    objective.update(BATCH, STEP)
    objective.aggressive = True
    return objective


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_each_kind_of_step_leaves_the_other_part_bit_for_bit(optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = lagging(optimizer, inner_steps=3, window=2)
    encoder, decoder = objective.network.encoder, objective.network.decoder
    before = {part: weights_of(part) for part in (encoder, decoder)}
    run_out(objective.train_encoder(BATCH))
    assert same_weights(before[decoder], decoder)
    assert changed_weights(before[encoder], encoder)
    before = {part: weights_of(part) for part in (encoder, decoder)}
    monkeypatch.setattr(objective, "train_encoder", lambda batch: iter(()))
    objective.update(BATCH, STEP)
    assert same_weights(before[encoder], encoder)
    assert changed_weights(before[decoder], decoder)
    assert all(parameter.requires_grad for parameter in objective.network.parameters())


def test_both_kinds_of_step_descend_the_annealed_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """At beta = 0.37, each with fresh noise; the norm is that of the part that is trained."""
    objective = lagging("sgd", inner_steps=1)
    encoder, decoder = objective.network.encoder, objective.network.decoder
    torch.manual_seed(1)
    noises = [torch.randn(len(BATCH), MODEL.latent, dtype=torch.float64) for _ in range(2)]
    torch.manual_seed(1)
    before = weights_of(objective.network)
    reconstruction, kl, _, _ = explicit_terms(objective.network, noises[0])
    of_encoder = torch.autograd.grad(reconstruction + BETA * kl, list(encoder.parameters()))
    run_out(objective.train_encoder(BATCH))
    assert objective.gradient_norms["encoder"] == pytest.approx(float(nn.utils.get_total_norm(of_encoder)))
    of_decoder = torch.autograd.grad(explicit_terms(objective.network, noises[1])[0], list(decoder.parameters()))
    monkeypatch.setattr(objective, "train_encoder", lambda batch: iter(()))
    objective.update(BATCH, STEP)
    moves = {name: value - before[name] for name, value in weights_of(objective.network).items()}
    for part, gradients in (("encoder", of_encoder), ("decoder", of_decoder)):
        for (name, _), gradient in zip(getattr(objective.network, part).named_parameters(), gradients, strict=True):
            torch.testing.assert_close(moves[f"{part}.{name}"], -0.01 * gradient)


@pytest.mark.parametrize(
    ("informations", "aggressive_after"),
    [
        # 0.7 is not below 0.7; 0.6 is; what comes then changes nothing.
        ([0.5, 0.7, 0.7, 0.6, 0.9, 0.1], [True, True, True, False, False, False]),
        # The first epoch is compared with 0.
        ([0.0, 0.1, 0.05], [True, True, False]),
        ([-0.01, 0.1], [False, False]),
    ],
)
def test_the_aggressive_phase_ends_for_good_when_the_validation_mi_falls(
    informations: list[float], aggressive_after: list[bool]
) -> None:
    objective = scheduled("lagging", annealing_epochs=1.0)
    shown, seen = [], []
    for information in informations:
        row = {"valid_mi_batch": information, "valid_mi": -information}
        objective.after_epoch(row)
        shown.append(row["aggressive"])
        seen.append(objective.aggressive)
        # Decay begins when both are over: annealing (7 steps) and the phase.
        assert [objective.settled(step) for step in (6, 7)] == [False, not objective.aggressive]
    assert seen == aggressive_after
    assert shown == [1.0, *(float(after) for after in aggressive_after[:-1])], "the phase during the epoch"


@pytest.mark.parametrize("how", ["ended", "never"])
def test_after_the_phase_steps_are_joint(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = scheduled("lagging", aggressive=how == "ended")
    objective.after_epoch({"valid_mi_batch": -1.0})
    script = Script([1.0])
    monkeypatch.setattr(Objective, "perform", lambda self, kind, act, batch: script(self, batch))
    objective.update(BATCH, STEP)
    assert script.calls == [(BATCH, "encoder and decoder")]
