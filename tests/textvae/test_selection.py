"""A setting given as a list: the rule on numbers worked by hand, and the train step that applies it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_corpus, train_settings, write_corpus

from components.train import train
from textvae import training
from textvae.config import TrainSettings
from textvae.errors import SettingsError
from textvae.files import read_json
from textvae.objectives import alternatives, checked
from textvae.selection import keep

ALPHAS = [0.0, 4.0]


def settings(alpha: Any, **objective: Any) -> TrainSettings:
    """VAE-MINE with that alpha; a list is put in as params.yaml would give it."""
    plain = train_settings("vae_mine", objective=objective)
    return plain.model_copy(update={"objective": {**plain.objective, "alpha": alpha}})


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return write_corpus(tmp_path / "corpus", tiny_corpus())


def run(corpus: Path, alpha: Any, outputs: Path, **objective: Any) -> None:
    train(
        corpus=corpus,
        settings=settings(alpha, **objective),
        seed=1,
        model=outputs / "model",
        curves=outputs / "curves.jsonl",
    )


# --- the rule ----------------------------------------------------------------------------------------------------

BEST = torch.tensor([10.0, 20.0, 30.0, 40.0]).double()
DIFFERENT = torch.arange(4)


def test_within_one_paired_standard_error_the_highest_mi_is_kept() -> None:
    # Differences 3, -1, 3, -1: mean 1, standard deviation 4/sqrt(3), standard error 2/sqrt(3) = 1.155.
    near = BEST + torch.tensor([3.0, -1.0, 3.0, -1.0]).double()
    index, differences = keep([near, BEST], mi=[0.5, 0.1], kinds_S=DIFFERENT)
    assert index == 0
    assert differences[0] == pytest.approx((1.0, 2 / 3**0.5))
    assert differences[1] == (0.0, 0.0)
    assert keep([near, BEST], mi=[0.1, 0.5], kinds_S=DIFFERENT)[0] == 1


def test_the_standard_error_is_of_the_difference_not_of_the_values() -> None:
    # A constant difference of 0.1 has no standard error, however much the sentences differ among themselves.
    assert keep([BEST + 0.1, BEST], mi=[9.0, 0.0], kinds_S=DIFFERENT)[0] == 1


def test_outside_one_standard_error_no_mi_helps() -> None:
    # Differences 3, 0, 3, 0: mean 1.5, standard error sqrt(3)/2 = 0.87.
    worse = BEST + torch.tensor([3.0, 0.0, 3.0, 0.0]).double()
    assert keep([BEST, worse], mi=[0.0, 9.0], kinds_S=DIFFERENT)[0] == 0
    # If the first and the third sentence are one, and so are the others, its two clusters have residuals of 3 and -3:
    # sqrt(2 / 1 * (9 + 9)) / 4 = 1.5, and the difference is within it.
    assert keep([BEST, worse], mi=[0.0, 9.0], kinds_S=torch.tensor([0, 1, 0, 1]))[0] == 1


# --- the step ----------------------------------------------------------------------------------------------------


def test_each_value_is_trained_and_the_kept_one_is_as_if_it_had_been_alone(corpus: Path, tmp_path: Path) -> None:
    run(corpus, ALPHAS, tmp_path / "list")
    account = read_json(tmp_path / "list/model/candidates.json")
    assert [row["value"] for row in account["candidates"]] == ALPHAS
    assert account["setting"] == "alpha"
    chosen = account["chosen"]
    config = read_json(tmp_path / "list/model/config.json")
    assert (config["chosen"], config["settings"]["objective"]["alpha"]) == ({"alpha": chosen}, chosen)
    for row in account["candidates"]:
        alone = tmp_path / f"alone-{row['value']}"
        run(corpus, row["value"], alone)
        curve = [json.loads(line) for line in (alone / "curves.jsonl").read_text().splitlines()]
        assert [{**epoch, "dataset": "tiny", "system": "vae_mine", "seed": 1} for epoch in row["curves"]] == curve
        selected = curve[read_json(alone / "model/config.json")["selected"]["epoch"] - 1]
        assert row["valid_nll_iw"] == pytest.approx(selected["valid_nll_iw"], rel=1e-12)
        assert row["valid_mi"] == selected["valid_mi"]
        assert read_json(alone / "model/config.json")["chosen"] == {}
        if row["value"] == chosen:
            for name in ("model/model.safetensors", "model/model_iw.safetensors", "curves.jsonl"):
                assert (tmp_path / "list" / name).read_bytes() == (alone / name).read_bytes()
    assert list((tmp_path / "state").iterdir()) == [], "the states go when the model is there"


def test_what_is_finished_is_not_trained_again_after_an_interruption(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(corpus, ALPHAS, tmp_path / "straight")
    plain = training.Trainer.end_epoch
    epochs: list[float] = []

    def counted(trainer: training.Trainer) -> None:
        epochs.append(trainer.settings.objective["alpha"])
        if len(epochs) == 6:
            raise KeyboardInterrupt
        plain(trainer)

    monkeypatch.setattr(training.Trainer, "end_epoch", counted)
    monkeypatch.setenv("TEXTVAE_CHECKPOINT_MINUTES", "1e-9")  # a state at every step
    with pytest.raises(KeyboardInterrupt):
        run(corpus, ALPHAS, tmp_path / "again")
    assert epochs == [0.0] * 4 + [4.0] * 2
    run(corpus, ALPHAS, tmp_path / "again")
    assert epochs == [0.0] * 4 + [4.0] * 2 + [4.0] * 3
    for file in (tmp_path / "straight").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "again" / file.relative_to(tmp_path / "straight")).read_bytes()


def test_a_value_that_diverges_is_shown_and_not_kept(corpus: Path, tmp_path: Path) -> None:
    diverging = settings([2.0, 3.0]).model_copy()
    objective = {**diverging.objective, "alpha": 2.0, "energy_optimizer": "sgd", "energy_learning_rate": [1e30, 1e-3]}
    train(
        corpus=corpus,
        settings=diverging.model_copy(update={"objective": objective}),
        seed=1,
        model=tmp_path / "model",
        curves=tmp_path / "curves.jsonl",
    )
    account = read_json(tmp_path / "model/candidates.json")
    assert [row["status"] for row in account["candidates"]] == ["diverged", "finished"]
    assert "diverged in epoch 1" in account["candidates"][0]["failure"]
    assert read_json(tmp_path / "model/config.json")["status"] == "finished"
    assert account["chosen"] == 1e-3


def test_a_value_that_diverged_is_no_longer_shown_as_running(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "STEPS_BETWEEN_REPORTS", 1)
    shown: list[int] = []
    plain = training.Trainer.end_epoch

    def counted(trainer: training.Trainer) -> None:
        shown.append(len(list((tmp_path / "state").glob("*/progress.json"))))
        plain(trainer)

    monkeypatch.setattr(training.Trainer, "end_epoch", counted)
    rates = {"energy_optimizer": "sgd", "energy_learning_rate": [1e30, 1e-3]}
    diverging = settings(2.0).model_copy(update={"objective": {**settings(2.0).objective, **rates}})
    train(corpus=corpus, settings=diverging, seed=1, model=tmp_path / "model", curves=tmp_path / "curves.jsonl")
    assert shown == [1] * 4


def test_progress_says_which_value_is_trained(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "STEPS_BETWEEN_REPORTS", 1)
    shown: list[str] = []
    plain = training.Trainer.end_epoch

    def noted(trainer: training.Trainer) -> None:
        shown.extend(read_json(file)["value"] for file in (tmp_path / "state").glob("*/progress.json"))
        plain(trainer)

    monkeypatch.setattr(training.Trainer, "end_epoch", noted)
    run(corpus, ALPHAS, tmp_path / "run")
    run(corpus, 4.0, tmp_path / "alone")
    assert shown == ["alpha 0.0, 1 of 2"] * 4 + ["alpha 4.0, 2 of 2"] * 4 + [""] * 4


def test_every_value_stays_locked_until_the_step_has_ended(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process would begin with the first value, whose training is over and whose state is kept."""
    held: list[int] = []
    plain = training.Trainer.end_epoch

    def counted(trainer: training.Trainer) -> None:
        held.append(len(list((tmp_path / "state").glob("*/lock"))))
        plain(trainer)

    monkeypatch.setattr(training.Trainer, "end_epoch", counted)
    run(corpus, ALPHAS, tmp_path / "run")
    assert held == [1] * 4 + [2] * 4
    assert list((tmp_path / "state").glob("*")) == []


def test_one_sentence_selects_nothing(corpus: Path, tmp_path: Path) -> None:
    one = settings(ALPHAS)
    one = one.model_copy(update={"training": one.training.model_copy(update={"iw_sentences": 1})})
    with pytest.raises(SettingsError, match=r"training\.iw_sentences to 2 or more"):
        train(corpus=corpus, settings=one, seed=1, model=tmp_path / "model", curves=tmp_path / "curves.jsonl")
    assert not (tmp_path / "state").exists(), "refused before anything is trained"


# --- settings ----------------------------------------------------------------------------------------------------


def test_a_list_is_checked_value_by_value_and_kept() -> None:
    objective = checked({"name": "vae_mine", "alpha": [2.0, 2.5]})
    assert objective["alpha"] == [2.0, 2.5]
    assert objective["marginal"] == "all_pairs_with_self"
    assert [one["alpha"] for one in alternatives(objective)[1]] == [2.0, 2.5]


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ({"alpha": [2.0, -1.0]}, r"^objective.alpha: .*\(found -1.0\)"),
        ({"alpha": []}, "at least one"),
        ({"alpha": [2.0, 2.0]}, "different values"),
        ({"alpha": [2.0, 3.0], "xi_decay": [0.0, 0.5]}, "objective.alpha and objective.xi_decay are lists"),
        ({"alfa": [2.0, 3.0]}, "alfa: no such key"),
    ],
)
def test_a_wrong_list_is_refused(objective: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        checked({"name": "vae_mine", **objective})
