"""What `make status` says of a run, from what dvc, the training's state and the log say."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.repro import RUN_STAGES
from pipelines.status import state_of, unfinished_trainings
from textvae.config import GridPoint
from textvae.files import write_json

POINT = GridPoint("tiny", "vae_mine", "1")
SAID: dict[str, Any] = {"epoch": 2, "epochs": 5, "tokens_per_second": 1234.5, "seconds_left": 75.0}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    return tmp_path


def a_process_that_has_ended() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize(("status", "said"), [("finished", "done"), ("diverged", "failed (diverged: see the report)")])
def test_a_run_with_nothing_to_do_is_done_or_diverged(folder: Path, status: str, said: str) -> None:
    write_json(folder / "runs/tiny/vae_mine/1/model/config.json", {"status": status})
    assert state_of(POINT, set(), {}) == said


def test_a_training_whose_process_lives_is_running_and_says_how_long() -> None:
    running = {POINT.name: {**SAID, "pid": os.getpid()}}
    expected = "running (epoch 2/5, 1,234 tokens/s, 1:15 of training left)"
    assert state_of(POINT, None, running) == state_of(POINT, set(RUN_STAGES), running) == expected


def test_of_several_values_trained_one_after_the_other_the_time_left_is_said_to_be_one_s() -> None:
    said = {**SAID, "value": "alpha 3.0, 3 of 7", "pid": os.getpid()}
    expected = "running (alpha 3.0, 3 of 7: epoch 2/5, 1,234 tokens/s, 1:15 left of this one's training)"
    assert state_of(POINT, None, {POINT.name: said}) == expected
    gone = {POINT.name: {**said, "pid": a_process_that_has_ended()}}
    assert state_of(POINT, set(RUN_STAGES), gone).startswith("interrupted (alpha 3.0, 3 of 7: epoch 2/5")


def test_a_training_whose_process_is_gone_was_interrupted() -> None:
    gone = {POINT.name: {**SAID, "pid": a_process_that_has_ended()}}
    assert state_of(POINT, set(RUN_STAGES), gone).startswith("interrupted (epoch 2/5")


def test_a_stage_that_another_process_holds_is_running() -> None:
    assert state_of(POINT, None, {}) == "running"


def test_a_log_with_an_error_is_a_failed_run_and_its_absence_a_pending_one(folder: Path) -> None:
    assert state_of(POINT, set(RUN_STAGES), {}) == "pending"
    assert state_of(POINT, {"sample", "ngram"}, {}) == "pending (ngram, sample)"
    log = folder / "state/logs/tiny-vae_mine-1.log"
    log.parent.mkdir(parents=True)
    log.write_text("ERROR: failed to reproduce 'train@tiny-vae_mine-1'\n")
    assert state_of(POINT, set(RUN_STAGES), {}) == f"failed (see {log})"


def test_unfinished_trainings_are_found_by_their_runs_name(folder: Path) -> None:
    write_json(folder / "state/abc/progress.json", {"dataset": "tiny", "system": "vae_mine", "seed": 1, **SAID})
    assert set(unfinished_trainings()) == {POINT.name}
