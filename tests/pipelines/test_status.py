"""What `make status` says of a run, from what dvc, the training's state and the log say."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from machine_faults import the_error
from made_files import corpus_description, model_config
from tiny_project import PARAMS, ROOT, write_corpus, write_params

from components.settings import resolve
from pipelines.machine import repro, status
from pipelines.machine.stages import RUN_STAGES
from pipelines.machine.status import (
    fingerprints,
    outdated_stages,
    show,
    stages_of_other_code,
    state_of,
    unfinished_trainings,
)
from textvae.command_line import run
from textvae.config import GridPoint, Params
from textvae.files import read_json, write_json
from textvae.state import StateStore
from tracking import ui

POINT = GridPoint("tiny", "vae_mine", "1")
SAID: dict[str, Any] = {
    "updated": 1.0,
    "position": 0.5,
    "epoch": 2,
    "epochs": 5,
    "tokens_per_second": 1234.5,
    "seconds_left": 75.0,
}


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
    failure = None if status == "finished" else {"message": "the loss is nan"}
    write_json(folder / "runs/tiny/vae_mine/1/model/config.json", model_config(status=status, failure=failure))
    assert state_of(POINT, set(), {}) == said


def test_a_training_whose_process_lives_is_running_and_says_how_long() -> None:
    running = {POINT.name: {**SAID, "pid": os.getpid()}}
    expected = "running (epoch 2/5, 1,234 tokens/s, 1:15 of training left)"
    assert state_of(POINT, None, running) == state_of(POINT, set(RUN_STAGES), running) == expected


def test_a_training_before_its_first_step_says_no_time() -> None:
    begun = {POINT.name: {**SAID, "seconds_left": None, "pid": os.getpid()}}
    assert state_of(POINT, set(RUN_STAGES), begun) == "running (epoch 2/5, 1,234 tokens/s)"


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
    said = {"dataset": "tiny", "system": "vae_mine", "seed": 1, "pid": os.getpid(), **SAID}
    write_json(folder / "state/abc/progress.json", said)
    assert set(unfinished_trainings()) == {POINT.name}


def test_a_training_that_ends_while_it_is_looked_at_is_no_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "state/abc/progress.json"
    write_json(file, {"dataset": "tiny", "system": "vae_mine", "seed": 1, "pid": os.getpid(), **SAID})
    assert (status.changed(file) > 0, status.size(file) > 0) == (True, True)
    with monkeypatch.context() as ended:
        ended.setattr(status, "changed", lambda file: float(file.unlink() is None))
        assert unfinished_trainings() == {}
    assert (status.changed(file), status.size(file)) == (0, 0)


# --- a state that is of no use any more ----------------------------------------------------------------------------


@pytest.fixture
def trained(folder: Path) -> Params:
    """params.yaml of a run whose training was interrupted: its settings, its corpus, its state."""
    (folder / "data").mkdir()
    write_corpus(folder)
    write_params(folder, PARAMS)
    params = Params.load(folder / "params.yaml")
    for name, content in resolve(params).items():
        write_json(folder / f"settings/{name}.json", content)
    write_json(folder / "corpora/tiny/corpus/corpus.json", corpus_description(sha256="c" * 64))
    (fingerprint,) = fingerprints(params, POINT, False)
    said = {"dataset": "tiny", "system": "vae_mine", "seed": 1, "pid": a_process_that_has_ended(), **SAID}
    write_json(folder / f"state/{fingerprint}/progress.json", said)
    return params


def changed(folder: Path, **sections: Any) -> Params:
    """params.yaml with other settings of the data set."""
    entry = {**PARAMS["datasets"]["tiny"], "settings": sections}
    write_params(folder, {**PARAMS, "datasets": {"tiny": entry}})
    return Params.load(folder / "params.yaml")


def state_by(params: Params, text_changed: bool = False) -> str:
    return state_of(POINT, set(RUN_STAGES), unfinished_trainings(fingerprints(params, POINT, text_changed)))


def test_a_state_is_gone_on_from_only_by_the_training_that_it_is_of(folder: Path, trained: Params) -> None:
    afresh = (
        "interrupted (epoch 2/5, 1,234 tokens/s; `make repro` starts afresh, as settings or text are others by now)"
    )
    goes_on = "interrupted (epoch 2/5, 1,234 tokens/s; `make repro` goes on)"
    assert state_by(trained) == goes_on
    assert state_by(changed(folder, evaluation={"iw_samples": 9})) == goes_on
    assert state_by(changed(folder, training={"epochs": 3})) == afresh
    assert state_by(changed(folder, preprocess={"longest": 9})) == afresh
    assert state_by(trained, text_changed=True) == afresh
    write_json(folder / "corpora/tiny/corpus/corpus.json", corpus_description(sha256="d" * 64))
    assert state_by(trained) == afresh


def test_a_run_whose_trainings_are_over_is_trained_until_its_model_directory_is_there(
    folder: Path, trained: Params, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a run whose group still trains others: dvc knows of none of its outputs."""
    monkeypatch.setattr(status, "text_has_changed", lambda repo: False)  # dvc has not run yet
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    (fingerprint,) = fingerprints(trained, POINT, False)
    StateStore(fingerprint).finish({})

    def said() -> str:
        show()
        return capsys.readouterr().out

    assert f"{POINT.name}  trained (its model directory is still to be written)" in (then := said())
    assert then.count("  pending") == len(trained.grid.points()) - 1
    changed(folder, training={"epochs": 3})
    assert "trained" not in said()


def test_of_several_states_of_a_run_the_one_that_goes_on_is_shown(folder: Path, trained: Params) -> None:
    said = {"dataset": "tiny", "system": "vae_mine", "seed": 1, "pid": os.getpid(), **SAID, "epoch": 4}
    write_json(folder / "state/older_settings/progress.json", said)
    assert "epoch 2/5" in state_by(trained)
    assert state_by(changed(folder, training={"epochs": 3})).startswith("running (epoch 4/5")


@pytest.mark.parametrize(
    ("sections", "stages"),
    [
        ({}, set()),
        ({"sampling": {"temperature": 0.5}}, {"sample", "ngram"}),
        ({"evaluation": {"iw_samples": 9}}, {"evaluate"}),
        ({"training": {"epochs": 3}}, set(RUN_STAGES)),
        ({"preprocess": {"longest": 9}}, {"preprocess", *RUN_STAGES}),
    ],
)
def test_a_run_is_not_done_whose_settings_have_changed(
    folder: Path, trained: Params, sections: dict[str, Any], stages: set[str]
) -> None:
    """dvc sees it only when its stage `settings` has run."""
    assert outdated_stages(changed(folder, **sections), POINT) == stages


def edited(file: Path, key: str) -> None:
    """Let a hash in a file of settings be that of code which is another by now."""
    content = read_json(file)
    assert key in content
    write_json(file, content | {key: "0" * 64})


def test_a_run_is_not_done_whose_code_has_changed(folder: Path, trained: Params) -> None:
    """Nor does dvc see this before its stage `settings` has run."""
    assert stages_of_other_code() == set()
    for stage in ("sample", "ngram"):
        edited(folder / f"settings/code/{stage}.json", "textvae/strict.py")
    assert stages_of_other_code() == {"sample", "ngram"}
    assert outdated_stages(trained, POINT) == set()


def test_a_reader_that_has_changed_reads_the_text_anew(folder: Path, trained: Params) -> None:
    edited(folder / "settings/tiny/fetch.json", "reader_sha256")
    assert outdated_stages(trained, POINT) == {"fetch", *RUN_STAGES}


# --- where there is no git, no dvc, no way to write ------------------------------------------------------------------


def test_status_needs_no_git(folder: Path, trained: Params, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / ".dvc").mkdir()
    shutil.copy(ROOT / "dvc.yaml", folder)
    show()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [point.name for point in trained.grid.points()]
    assert any("interrupted (epoch 2/5" in line for line in lines)


def test_status_without_dvc_or_settings_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with the_error(capsys, 2, "params.yaml cannot be read"):
        status.main()
    write_params(folder, PARAMS)
    with the_error(capsys, 69, "dvc: you are not inside of a DVC repository"):
        status.main()


def test_help_is_no_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "--help"])
    for main in (status.main, ui.main, repro.main):
        with pytest.raises(SystemExit) as ended:
            run(main)
        assert ended.value.code == 0
        assert "Examples:" in capsys.readouterr().out


def test_make_repro_says_what_it_may_not_write(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_params(folder, PARAMS)
    (folder / "state").write_text("a file, where a folder should be")
    monkeypatch.setattr(repro, "dvc", lambda *_: 0)
    monkeypatch.setattr(repro, "to_run", lambda points: {})
    with the_error(capsys, 74, "state", "put that right"):
        repro.main(jobs=1, runs_per_gpu=1)


def test_where_the_trainings_side_by_side_fail_make_repro_says_so_and_goes_on(
    folder: Path, trained: Params, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no corpus but its description: the step itself says so, and the runs' stages are next."""
    monkeypatch.setattr(repro, "to_train", list)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    repro.train_side_by_side(trained.grid, "tiny", 4)
    said = capsys.readouterr()
    log = folder / "state/logs/group-tiny.log"
    assert "[tiny] error: corpora/tiny/corpus/corpus.json does not state the hash of vocabulary.json" in said.out
    assert log.read_text() == said.out.replace("[tiny] ", "")
    assert said.err == f"not all were trained side by side, see {log}; each goes on by itself\n"
    assert not list((folder / "state/groups").glob("*"))


def test_a_run_that_must_not_use_the_gpu_is_not_trained_there(
    folder: Path, trained: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in folder.glob("settings/tiny/*/train.json"):
        content = read_json(file)
        write_json(file, {**content, "training": {**content["training"], "device": "cpu"}})
    monkeypatch.setattr(repro, "to_train", list)
    monkeypatch.setattr(repro, "followed", None)  # a step would be a TypeError
    repro.train_side_by_side(trained.grid, "tiny", 4)


@pytest.mark.parametrize(
    ("said", "why", "removed"),
    [
        ("exited with -9", "memory ran out (JOBS=1", True),
        ("exited with 65", "", True),
        ("'model' is busy, it is being blocked by: (PID 7)", "another process is at work on it", False),
        ("train is being trained by process 7; exited with 69", "another process is at work on it", False),
    ],
)
def test_make_repro_says_why_a_run_has_failed_and_removes_nothing_that_another_process_writes(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    said: str,
    why: str,
    removed: bool,
) -> None:
    write_params(folder, PARAMS)

    def failing(arguments: list[str], prefix: str = "", log: Path | None = None, stop: object = None) -> int:
        if log is not None:
            log.write_text(f"ERROR: failed to reproduce 'train': failed to run: python, {said}\n")
        return int(log is not None)

    monkeypatch.setattr(repro, "dvc", failing)
    monkeypatch.setattr(repro, "to_run", lambda points: {f"train@{point.name}": True for point in points})
    outdated: list[str] = []
    monkeypatch.setattr(repro, "remove_outdated", outdated.extend)
    with pytest.raises(SystemExit) as ended:
        repro.main(jobs=1, runs_per_gpu=1)
    assert ended.value.code == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith("FAILED: tiny-") and why in line for line in lines)
    assert bool(outdated) == removed
