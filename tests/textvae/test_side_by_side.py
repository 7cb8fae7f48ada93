"""Trainings that take turns in one process: none changes another, and `train` takes what came of each."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import weakref
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from faults import truncate
from machine_faults import the_error
from tiny import Corpus, train_settings

from components.train import train
from components.train_group import train_group
from textvae import side_by_side
from textvae.checkpoint import load_state, save_state
from textvae.config import TrainGroupSettings, TrainSettings
from textvae.errors import SettingsError, TextVAEError
from textvae.files import read_json
from textvae.objectives import objective_names
from textvae.side_by_side import Trained, TrainingData, take_turns, timings_with, train_side_by_side, trainings_of
from textvae.state import OUTCOME, StateStore, StopRequest
from textvae.training import Outcome, Trainer

DIVERGES = {"energy_optimizer": "sgd", "energy_learning_rate": 1e30}


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """States in a folder of the test's own, no tracking server."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


# --- turns -------------------------------------------------------------------------------------------------------


def counting(name: str, steps: int, said: list[str], fails: bool = False) -> Generator[None, None, str]:
    for step in range(steps):
        said.append(f"{name}{step}")
        yield
    if fails:
        raise ValueError(name)
    return name


def test_each_takes_a_step_in_turn_and_a_new_one_begins_when_one_has_ended() -> None:
    said: list[str] = []
    tasks = [("A", counting("a", 1, said)), ("B", counting("b", 3, said, fails=True)), ("C", counting("c", 2, said))]
    ended = [(key, str(result)) for key, result in take_turns(tasks, 2)]
    assert said == ["a0", "b0", "b1", "c0", "b2", "c1"]
    assert ended == [("A", "a"), ("B", "b"), ("C", "c")]


def test_one_that_the_device_still_works_for_waits_and_the_others_go_on() -> None:
    class Step:
        """Done when it has been asked so often."""

        def __init__(self, asked: int) -> None:
            self.left = asked

        def query(self) -> bool:
            self.left -= 1
            return self.left < 0

    said: list[str] = []

    def long() -> Generator[Step, None, None]:
        for _ in range(2):
            said.append("long")
            yield Step(3)

    list(take_turns([("l", long()), ("a", counting("a", 5, said))], 2))  # type: ignore[list-item]
    assert said == ["long", "a0", "a1", "a2", "a3", "long", "a4"]


# --- trainings ---------------------------------------------------------------------------------------------------


def same(first: Outcome, second: Outcome) -> bool:
    """All that is kept of two trainings, bit for bit."""

    def parts(outcome: Outcome) -> tuple[Any, ...]:
        both = (outcome.weights, outcome.weights_iw) if outcome.failure is None else ()
        weights = [{name: tensor.numpy().tobytes() for name, tensor in one.items()} for one in both]
        return weights, repr(outcome.curves), repr(outcome.selected), repr(outcome.failure)

    return parts(first) == parts(second)


def alone(settings: TrainSettings, corpus: Corpus, seed: int) -> Outcome:
    return Trainer(settings, corpus.train, corpus.valid, corpus.size, seed).run()


def test_every_system_trains_beside_the_others_as_alone(corpus: Corpus, corpus_folder: Path) -> None:
    """Three at a time, so that they begin and end at different moments of each other."""
    data = TrainingData(corpus_folder)
    runs = [(train_settings(system, epochs=2), seed) for seed, system in enumerate(objective_names())]
    trainings = [training for settings, seed in runs for training in trainings_of(settings, seed, data)]
    ended = {training.name: result for training, result in train_side_by_side(trainings, data, StopRequest(), 3)}
    assert ended.keys() == {training.name for training in trainings}
    for training in trainings:
        result = ended[training.name]
        assert isinstance(result, Trained), result
        assert same(result.outcome, alone(training.settings, corpus, training.seed)), training.name


def test_one_that_diverges_and_one_that_fails_end_alone(corpus: Corpus, corpus_folder: Path) -> None:
    data = TrainingData(corpus_folder)
    settings = [train_settings("vae_mine", objective=DIVERGES), train_settings("vae_05"), train_settings("vae_bow")]
    diverges, fails, goes_on = [training for one in settings for training in trainings_of(one, 1, data)]
    fails.store(data).curves.mkdir(parents=True)  # which no file can replace, at the end of the first epoch
    ended = {
        one.name: outcome for one, outcome in train_side_by_side([diverges, fails, goes_on], data, StopRequest(), 3)
    }
    assert isinstance(ended[fails.name], IsADirectoryError)
    for training in (diverges, goes_on):
        result = ended[training.name]
        assert isinstance(result, Trained)
        assert same(result.outcome, alone(training.settings, corpus, 1))
        assert (result.outcome.failure is not None) == (training is diverges)
    assert not fails.store(data).outcomes()


# --- the step, and what `train` makes of it -------------------------------------------------------------------------


def with_a_list() -> TrainSettings:
    settings = train_settings("vae_mine", epochs=2)
    return settings.model_copy(update={"objective": {**settings.objective, "alpha": [0.5, 1.0]}})


RUNS = [
    (train_settings("lstm_lm", epochs=2), 1),
    (with_a_list(), 2),
    (train_settings("vae_mine", objective=DIVERGES, epochs=2), 3),
    (train_settings("vae_05", epochs=2), 1),
]


def group(at_once: int = 2) -> TrainGroupSettings:
    runs = [{"settings": settings.model_dump(), "seed": seed} for settings, seed in RUNS]
    return TrainGroupSettings.model_validate({"runs": runs, "at_once": at_once})


def written(corpus: Path, folder: Path, **options: Any) -> dict[str, bytes]:
    """What `train` writes for each run, by the file."""
    for number, (settings, seed) in enumerate(RUNS):
        outputs = {name: folder / str(number) / name for name in ("model", "curves", "config")}
        train(corpus=corpus, settings=settings, seed=seed, **outputs, **options)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def expected(corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What `train` writes without a group."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTVAE_STATE", str(folder / "state"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return written(corpus_folder, folder / "runs")


def stores(settings: TrainSettings, seed: int, corpus: Path) -> list[StateStore]:
    data = TrainingData(corpus)
    return [training.store(data) for training in trainings_of(settings, seed, data)]


def no_training(*arguments: object) -> None:
    raise AssertionError("it trains")


@pytest.mark.parametrize("elsewhere", [False, True])
def test_train_takes_what_the_group_has_trained_and_trains_nothing(
    elsewhere: bool,
    expected: dict[str, bytes],
    corpus_folder: Path,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same files as without it: a finished run, a list of which one is kept, and a run that diverged.

    `elsewhere`: on another machine, where only the group's output is.
    """
    output = {"finished": tmp_path / "finished"} if elsewhere else {}
    train_group(corpus=corpus_folder, settings=group(), **output)
    assert len(list(state.glob(f"*/{OUTCOME}"))) == 5
    assert not list(state.glob("*/lock"))
    if elsewhere:
        monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "other"))
    monkeypatch.setattr(side_by_side, "Trainer", no_training)
    assert written(corpus_folder, tmp_path / "runs", **output) == expected
    assert not list((tmp_path / "other" if elsewhere else state).glob("*")), "the model directories are complete"


def test_the_timings_of_a_run_are_those_of_its_training_wherever_that_was(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And its code is its own, whatever trains beside it: it is a part of what finds the run in MLflow."""
    settings = train_settings("vae_bow")
    (tmp_path / "train.json").write_text(settings.model_dump_json())

    def timings(name: str) -> dict[str, Any]:
        outputs = {key: tmp_path / name / key for key in ("model", "curves", "timings")}
        options = {"corpus": corpus_folder, "settings": tmp_path / "train.json", "seed": 1, **outputs}
        with pytest.raises(SystemExit) as ended:
            train.main([text for key, value in options.items() for text in (f"--{key}", str(value))])
        assert ended.value.code == 0
        return dict(read_json(outputs["timings"]))

    expected = timings("alone")
    monkeypatch.setitem(sys.modules, "textvae.objectives.beside_it", sys.modules["textvae.objectives"])
    two = {"runs": [{"settings": one.model_dump(), "seed": 1} for one in (settings, train_settings("lagging"))]}
    train_group(corpus=corpus_folder, settings=TrainGroupSettings.model_validate(two))
    [file] = [store.outcomes()[0] for store in stores(settings, 1, corpus_folder)]
    kept = load_state(file)
    elsewhere = {"host": "node-7", "device": "NVIDIA H100", "started": "2020-01-01T00:00:00+00:00", "wall_s": 7200.5}
    kept["timings"] |= {**elsewhere, "cpu_s": 3600.0, "peak_rss_mb": 1e6}
    save_state(file, kept)
    found = timings("after")
    assert {key: found[key] for key in ("host", "device", "started", "peak_rss_mb")} == {
        **{key: elsewhere[key] for key in ("host", "device", "started")},
        "peak_rss_mb": 1e6,
    }
    assert 7200.5 < found["wall_s"] < 7200.5 + 600
    assert 3600 < found["cpu_s"] < 3600 + 600
    assert found["code_sha256"] == expected["code_sha256"]
    assert found.keys() == expected.keys()


def test_trainings_side_by_side_took_as_long_as_from_the_first_beginning_to_the_last_end() -> None:
    def trained(started: str, wall_s: float, before: bool = True) -> Trained:
        place = dict.fromkeys(("host", "device", "threads", "commit", "code_sha256", "versions"))
        times = {"started": f"2020-01-01T{started}+00:00", "wall_s": wall_s, "cpu_s": 2.0, "peak_rss_mb": 9.0}
        return Trained(None, {**place, **times}, before)  # type: ignore[arg-type]

    own = {"step": "train", "started": "2020-01-01T12:00:00+00:00", "wall_s": 1.5, "cpu_s": 1.0, "peak_rss_mb": 5.0}
    side_by_side = [trained("10:00:10", 30), trained("10:00:00", 15), trained("11:00:00", 99, before=False)]
    found = timings_with(side_by_side, own)
    assert (found["wall_s"], found["cpu_s"], found["peak_rss_mb"]) == (41.5, 5.0, 9.0)
    assert found["started"] == "2020-01-01T10:00:00+00:00"
    assert timings_with(side_by_side[2:], own) | own == timings_with(side_by_side[2:], own)


def test_a_damaged_outcome_is_trained_again(
    expected: dict[str, bytes], corpus_folder: Path, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_group(corpus=corpus_folder, settings=group())
    for file in state.glob(f"*/{OUTCOME}"):
        truncate(file, 0.5)
    assert written(corpus_folder, tmp_path / "runs") == expected
    assert len([line for line in caplog.messages if "the training is done again" in line]) == 5


@pytest.mark.parametrize(
    ("part", "value"), [("curves", [1]), ("selected", {"epoch": "1"}), ("failure", 3), ("weights", {}), ("more", 1)]
)
def test_an_outcome_with_a_part_of_another_kind_is_trained_again(
    part: str, value: Any, corpus_folder: Path, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Made by hand: its checksum is right."""
    settings = train_settings("vae_05", epochs=1)
    train_group(
        corpus=corpus_folder,
        settings=TrainGroupSettings.model_validate({"runs": [{"settings": settings.model_dump(), "seed": 1}]}),
    )
    [file] = state.glob(f"*/{OUTCOME}")
    save_state(file, {**load_state(file), part: value})
    train(corpus=corpus_folder, settings=settings, seed=1, model=tmp_path / "m", curves=tmp_path / "c")
    assert "is not a state of this version's training" in caplog.text
    assert (tmp_path / "m/config.json").exists()


@pytest.mark.parametrize(("how", "code"), [("$TEXTVAE_MAX_MINUTES", 75), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_group_that_is_stopped_saves_every_state_and_goes_on_to_the_same_bytes(
    how: str | signal.Signals,
    code: int,
    expected: dict[str, bytes],
    corpus_folder: Path,
    state: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "group.json").write_text(group(3).model_dump_json())
    arguments = ["--corpus", str(corpus_folder), "--settings", str(tmp_path / "group.json")]

    def signalled(row: dict[str, Any]) -> str:
        patch.undo()
        os.kill(os.getpid(), how)
        return "the first epoch's end of the first one"

    with monkeypatch.context() as patch:
        if isinstance(how, str):
            patch.setenv(how.removeprefix("$"), "1e-9")
        else:
            patch.setattr(side_by_side, "epoch_line", signalled)
        with pytest.raises(SystemExit) as ended:
            train_group.main(arguments)
    assert ended.value.code == code
    begun = 0 if isinstance(how, str) else 3
    assert len(list(state.glob("*/state-*"))) == begun
    assert not list(state.glob(f"*/{OUTCOME}"))
    with pytest.raises(SystemExit) as ended:
        train_group.main(arguments)
    assert ended.value.code == 0
    assert written(corpus_folder, tmp_path / "runs") == expected


def test_a_run_that_is_twice_in_a_group_is_refused(
    corpus_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Side by side, the one would find the other's lock."""
    run = {"settings": train_settings("vae_05").model_dump(), "seed": 1}
    (tmp_path / "group.json").write_text(json.dumps({"runs": [run, {**run, "seed": 2}, run]}))
    with the_error(capsys, 2, "runs.2 is there twice", "leave one out"):
        train_group.main(["--corpus", str(corpus_folder), "--settings", str(tmp_path / "group.json")])


def test_a_group_with_a_run_that_fails_says_which_and_keeps_the_others(
    corpus_folder: Path, state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = TrainingData(corpus_folder)
    [fails] = trainings_of(*RUNS[0], data)
    fails.store(data).curves.mkdir(parents=True)
    (tmp_path / "group.json").write_text(group().model_dump_json())
    arguments = ["--corpus", str(corpus_folder), "--settings", str(tmp_path / "group.json")]
    with pytest.raises(SystemExit) as ended:
        train_group.main([*arguments, "--finished", str(tmp_path / "finished")])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert f"FAILED: {fails.name}: {fails.store(data).curves}: Is a directory" in said
    assert f"error: 1 of 5 trainings failed ({fails.name})" in said
    assert len(list(state.glob(f"*/{OUTCOME}"))) == 4
    assert not (tmp_path / "finished").exists()


def test_one_that_another_process_is_at_is_left_to_it(
    corpus_folder: Path, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [taken] = stores(*RUNS[0], corpus_folder)
    with taken.locked("it"), pytest.raises(TextVAEError, match="1 of 5 trainings failed"):
        train_group(corpus=corpus_folder, settings=group())
    assert "FAILED: tiny lstm_lm seed 1: tiny lstm_lm seed 1 is being trained by process" in capsys.readouterr().err
    assert len(list(state.glob(f"*/{OUTCOME}"))) == 4


def test_the_memory_of_one_that_has_ended_is_free_before_the_next_begins(
    corpus_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that failed, too, whose exception knows where it was; also where Python's own collector has not run."""
    [fails] = stores(*RUNS[0], corpus_folder)
    fails.curves.mkdir(parents=True)
    made: list[weakref.ref[Trainer]] = []

    class Watched(Trainer):
        def __init__(self, *arguments: Any) -> None:
            assert [one for one in made if one() is not None] == []
            super().__init__(*arguments)
            made.append(weakref.ref(self))

    monkeypatch.setattr(side_by_side, "Trainer", Watched)
    gc.disable()
    try:
        with pytest.raises(TextVAEError, match="1 of 5 trainings failed"):
            train_group(corpus=corpus_folder, settings=group(1))
    finally:
        gc.enable()
    assert len(made) == 5


def test_a_list_of_which_none_could_be_selected_is_refused_before_it_is_trained(corpus_folder: Path) -> None:
    settings = with_a_list()
    settings = settings.model_copy(update={"training": settings.training.model_copy(update={"iw_sentences": 1})})
    with pytest.raises(SettingsError, match="iw_sentences to 2 or more"):
        trainings_of(settings, 1, TrainingData(corpus_folder))


def test_progress_of_each_is_told(corpus_folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`make status` reads it: every training that has begun, with its value."""
    monkeypatch.setenv("TEXTVAE_CHECKPOINT_MINUTES", "1e-9")
    data = TrainingData(corpus_folder)
    trainings = [training for settings, seed in RUNS for training in trainings_of(settings, seed, data)]
    seen: set[str] = set()
    for _ in train_side_by_side(trainings, data, StopRequest(), 5):
        told = [read_json(file) for file in state.glob("*/progress.json")]
        seen |= {json.dumps([one["system"], one["seed"], one["value"], one["pid"] == os.getpid()]) for one in told}
    assert '["vae_mine", 2, "alpha 0.5, 1 of 2", true]' in seen
    assert '["vae_05", 1, "", true]' in seen
