"""VAE-MINE holds its code: two cases of `python -m benchmarks.robustness` at a tiny size, and what its table says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grammar_probe
import pytest
import torch
from grammar_probe import TRAINING, Corpus
from tiny import tiny_corpus, write_corpus

from benchmarks import robustness
from textvae.config import GrammarSettings, ModelSettings, Params, TrainSettings
from textvae.errors import SettingsError
from textvae.training import Trainer

GRAMMAR = GrammarSettings(topics=4, nouns=4, verbs=4, adjectives=2, sentences={"train": 960, "valid": 100, "test": 2})
MODEL = ModelSettings(embedding=16, hidden=32, latent=4, dropout=0.0, initialisation="pytorch")
OBJECTIVE = {
    "name": "vae_mine",
    "annealing_epochs": 1.0,
    "hold_steps": 300,
    "alpha": 1.0,
    "energy_hidden": 32,
    "energy_learning_rate": 0.005,
}
"""30 steps an epoch: ten epochs for the hold at most, one for the annealing."""


@pytest.fixture(scope="module")
def data() -> Corpus:
    return grammar_probe.corpus(GRAMMAR)


def trainer(data: Corpus, seed: int = 1, **objective: Any) -> Trainer:
    training = TRAINING.model_copy(update={"epochs": 12, "iw_sentences": 2, "iw_samples": 1})
    settings = {**OBJECTIVE, **objective}
    plan = TrainSettings(dataset="grammar", system="vae_mine", model=MODEL, training=training, objective=settings)
    return Trainer(plan, data.splits["train"], data.splits["valid"], len(data.vocabulary), seed)


def mi_by_epoch(trainer: Trainer) -> list[float]:
    return [row["valid_mi"] for row in trainer.run().curves]


def collapsed(trainer: Trainer) -> Trainer:
    """Start where every posterior is the prior: means and log variances within 0.001 of 0."""
    assert trainer.network.encoder is not None
    with torch.no_grad():
        trainer.network.encoder.heads.weight.mul_(1e-3)
    return trainer


# --- trainings -----------------------------------------------------------------------------------------------------


def test_a_start_at_a_collapsed_code_recovers_if_beta_waits_and_does_not_if_beta_rises_at_once(data: Corpus) -> None:
    """Over three seeds the MI ended at 0.38 to 0.91 nats with the hold, and within 0.01 of 0 without it."""
    waiting = collapsed(trainer(data))
    assert mi_by_epoch(waiting)[-1] > 0.1
    assert 0 < waiting.objective.first_step < 300  # the energy ended the hold, not its limit
    assert abs(mi_by_epoch(collapsed(trainer(data, hold_steps=0)))[-1]) < 0.05


def test_a_perturbation_of_1e_7_decides_nothing(data: Corpus) -> None:
    moved = trainer(data)
    before = [p.detach().clone() for p in moved.network.parameters()]
    robustness.perturb([moved.network, moved.objective.heads], 1)
    distances = [float((p.detach() - q).abs().max()) for p, q in zip(moved.network.parameters(), before, strict=True)]
    assert 0 < max(distances) < 1e-6
    assert mi_by_epoch(moved)[-1] > 0.1
    assert mi_by_epoch(trainer(data))[-1] > 0.1


# --- the table -----------------------------------------------------------------------------------------------------


def test_the_largest_rise_is_that_of_the_validation_nll_from_one_epoch_to_the_next() -> None:
    assert robustness.largest_rise([70.0, 66.0, 66.5, 64.0]) == (0.5, 3)
    assert robustness.largest_rise([70.0, 66.0, 65.0]) == (-1.0, 3)
    assert robustness.largest_rise([70.0]) == (0.0, 1)


def row(code: str, nll: float, perturbation: int = 0, instruction_set: str = "native") -> dict[str, Any]:
    about = {"system": "vae_mine", "seed": 1, "instruction_set": instruction_set, "perturbation": perturbation}
    return {**about, "code": code, "nll": nll, "mi": 1.0, "gain": 0.5, "largest_rise": nll - 70}


def test_the_summary_counts_codes_in_use_by_kind_of_run() -> None:
    rows = [row("in use", 66.0), row("collapsed", 67.0, instruction_set="avx2"), row("in use", 68.0, perturbation=1)]
    lines = robustness.summary(rows).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [line[1:3] for line in cells] == [
        ["1, native", "1 of 1"],
        ["1, avx2", "0 of 1"],
        ["1, weights moved by 1e-07", "1 of 1"],
        ["3, all", "2 of 3"],
    ]
    assert cells[3][3:] == [
        "67.00 ± 1.00 (66.00 to 68.00)",
        "1.00 ± 0.00 (1.00 to 1.00)",
        "0.50 ± 0.00 (0.50 to 0.50)",
        "-2.00",
    ]


def test_a_run_s_file_is_named_by_all_that_decides_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    params = Params.load(Path(__file__).parents[2] / "params.yaml")
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpora/sotu/corpus", tiny_corpus())
    runs = robustness.planned(params, "sotu", ["vae_mine"], 2, ["native", "avx2"], 3)
    cases = [(run.seed, run.instruction_set, run.perturbation) for run in runs]
    assert cases == [(1, "native", 0), (1, "avx2", 0), (2, "native", 0), (2, "avx2", 0)] + [
        (1, "native", n) for n in (1, 2, 3)
    ]
    assert len({run.file for run in runs}) == 7


def test_an_unknown_instruction_set_or_system_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        robustness.table(instruction_set=["avx9"])
    assert stopped.value.code == SettingsError.exit_code
    assert "avx9" in capsys.readouterr().err
