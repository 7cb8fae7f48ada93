"""What a GPU's training does about values that are not finite, here on a CPU: it is the same code, only asked later."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import tiny_corpus, train_settings
from torch import Tensor

from textvae.config import TrainSettings
from textvae.divergence import DivergedError, Divergence
from textvae.objectives import objective_names
from textvae.training import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def deferred(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings that notice later, with the optimisers that go with it."""
    monkeypatch.setattr(
        "textvae.objectives.base.Divergence", lambda device, energy: Divergence(device, energy, deferred=True)
    )


def trainer(settings: TrainSettings) -> Trainer:
    corpus = tiny_corpus()
    return Trainer(settings, corpus.train, corpus.valid, corpus.size, 1)


def scalars(**values: float) -> dict[str, Tensor]:
    return {name: torch.tensor(value) for name, value in values.items()}


def test_the_first_value_that_is_not_finite_is_remembered_with_its_step() -> None:
    watch = Divergence(CPU, lambda: 7.5, deferred=True)
    for step, values in enumerate(
        [scalars(kl=1, loss=2), scalars(norm=3), scalars(kl=1, loss=math.inf), scalars(norm=math.nan)]
    ):
        watch.step.fill_(step)
        watch.check(values)
        assert float(watch.found) == (step >= 2)
    with pytest.raises(DivergedError, match="loss is inf") as caught:
        watch.ask()
    assert (caught.value.term, caught.value.step, caught.value.largest_energy) == ("loss", 2, 7.5)


def test_of_several_values_the_one_that_explains_the_others_is_named() -> None:
    for later in (False, True):
        watch = Divergence(CPU, lambda: None, deferred=later)
        with pytest.raises(DivergedError) as caught:  # noqa: PT012 - one or the other raises
            watch.check(scalars(reconstruction=1, kl=math.nan, loss=math.nan))
            watch.ask()
        assert caught.value.term == "kl"


def test_finite_values_are_no_divergence() -> None:
    for later in (False, True):
        watch = Divergence(CPU, lambda: None, deferred=later)
        watch.check(scalars(loss=3e38))
        watch.ask()


@pytest.mark.parametrize("system", objective_names())
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_training_that_is_asked_later_learns_the_same(
    system: str, optimizer: str, request: pytest.FixtureRequest
) -> None:
    settings = train_settings(system, epochs=2)
    training = settings.training.model_copy(update={"optimizer": optimizer, "learning_rate": 0.01})
    settings = settings.model_copy(update={"training": training})
    at_once = trainer(settings).run()
    request.getfixturevalue("deferred")
    later = trainer(settings).run()
    assert at_once.failure is None
    assert later.failure is None
    for name, weight in at_once.network.state_dict().items():  # fused optimisers round otherwise
        torch.testing.assert_close(later.network.state_dict()[name], weight, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("system", ["lstm_lm", "vae_mine", "lagging"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_diverging_training_ends_with_the_same_account_and_without_the_step_that_broke_it(
    system: str, optimizer: str, request: pytest.FixtureRequest
) -> None:
    """A weight is poisoned in the middle of an epoch: the steps before it count, no later one changes anything."""

    def diverged() -> Trainer:
        settings = train_settings(system, epochs=1)
        training = settings.training.model_copy(update={"optimizer": optimizer})
        broken = trainer(settings.model_copy(update={"training": training}))
        steps = broken.steps()
        while broken.at.step < 3:
            next(steps)
        with torch.no_grad():
            broken.network.decoder.output.weight[0, 0] = math.nan
        weights.append({name: value.clone() for name, value in broken.network.state_dict().items()})
        moments.append(str(broken.objective.optimizers["main"].state_dict()["state"]))
        try:
            while True:
                next(steps)
        except StopIteration as end:
            failures.append(end.value.failure)
        return broken

    weights: list[dict[str, Tensor]] = []
    moments: list[str] = []
    failures: list[dict[str, object]] = []
    for later in (False, True):
        if later:
            request.getfixturevalue("deferred")
        broken = diverged()
        for name, value in broken.network.state_dict().items():
            assert torch.equal(value.nan_to_num(), weights[-1][name].nan_to_num()), name
        assert str(broken.objective.optimizers["main"].state_dict()["state"]) == moments[-1]
    at_once, asked_later = failures
    assert asked_later["message"] == at_once["message"]
    assert (asked_later["step"], asked_later["term"]) == (4, "reconstruction")
