"""States and model directories on disk, and trainings that are stopped from outside."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import flips, truncate
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_files import changed, model_config, run_settings
from safetensors import SafetensorError
from safetensors.torch import save_file
from tiny import MODEL, Corpus, train_settings
from torch import Tensor

from components.train import train, write_model
from textvae import checkpoint
from textvae import state as state_module
from textvae.checkpoint import checksum, load, load_state, save_state, write_tensors
from textvae.environment import state_root
from textvae.errors import (
    DataError,
    KeyboardStopError,
    SettingsError,
    StoppedError,
    TerminatedError,
    TimeLimitError,
    UnavailableError,
    exit_codes,
)
from textvae.files import json_text, read_json, write_json
from textvae.networks import Network
from textvae.records import MODEL_VERSION
from textvae.state import StateStore, StopRequest, curve_lines, stop_request
from textvae.training import Outcome, Trainer


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], StateStore]:
    """Stores below a folder of the test's own."""
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    return StateStore


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


# --- one state ---------------------------------------------------------------------------------------------------

SCALARS = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
TENSORS = st.sampled_from(
    [
        torch.tensor(1.5),
        torch.zeros(0, 3),
        torch.arange(6).reshape(2, 3).T,
        torch.tensor([math.nan, math.inf, -0.0, 1e-45]),
        torch.tensor([True, False]),
        torch.tensor(1 / 3, dtype=torch.float64),
    ]
).map(torch.clone)
NESTED = st.recursive(
    SCALARS | TENSORS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=12,
)


def same(first: Any, second: Any) -> bool:
    """Equal with types, tensors and floats bit for bit."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        alike = first.dtype == second.dtype and first.shape == second.shape
        return alike and first.contiguous().numpy().tobytes() == second.contiguous().numpy().tobytes()
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return repr(first) == repr(second)


@example(state={"a": {"b": torch.zeros(1)}, "a.b": torch.ones(1), "n": {1: torch.zeros(2), "1": torch.ones(2)}})
@settings(max_examples=30, deadline=None)
@given(state=st.dictionaries(st.text(max_size=5), NESTED, max_size=4))
def test_a_state_comes_back_as_it_was(state: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("state") / "state.safetensors"
    save_state(path, state)
    assert same(load_state(path), state)
    assert names_in(path.parent) == [path.name], "no temporary file stays"


def test_what_is_infinite_before_a_first_validation_comes_back(tmp_path: Path) -> None:
    save_state(tmp_path / "s", {"best": math.inf})
    assert load_state(tmp_path / "s") == {"best": math.inf}


def test_a_pickle_is_refused_and_not_opened(tmp_path: Path, store: Callable[[str], StateStore]) -> None:
    bomb, path = tmp_path / "exploded", tmp_path / "state-0000000001.safetensors"
    for write in (lambda: path.write_bytes(pickle.dumps(Bomb(bomb))), lambda: torch.save(Bomb(bomb), path)):
        write()
        with pytest.raises(DataError, match=f"{path} is damaged"):
            load_state(path)
    assert not bomb.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_state_is_damaged(share: float, tmp_path: Path) -> None:
    path = tmp_path / "s"
    save_state(path, {"weights": torch.randn(100, 10), "name": "x" * 100})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match="damaged"):
        load_state(path)


def test_no_flipped_bit_of_a_state_is_taken(tmp_path: Path) -> None:
    """One that changes nothing (of the file's padding) may be."""
    path, state = tmp_path / "s", {"weights": torch.randn(5, 3), "at": {"step": 3, "best": 1.5}, "n": [1, "a"]}
    save_state(path, state)
    refused = 0
    for _ in flips(path, 300):
        try:
            assert same(load_state(path), state)
        except DataError:
            refused += 1
    assert refused > 250


@pytest.mark.parametrize("what", ["structure", "a tensor", "the checksum"])
def test_a_state_that_lacks_something_is_damaged(what: str, tmp_path: Path) -> None:
    path = tmp_path / "s"
    save_state(path, {"weights": torch.ones(2), "more": torch.zeros(1)})
    tensors, metadata = checkpoint.read_tensors(path)
    if what == "a tensor":
        del tensors[max(tensors)]
    else:
        metadata["structure" if what == "structure" else "checksum"] = "no JSON"
    checkpoint.write_tensors(path, tensors, metadata)
    with pytest.raises(DataError, match="is damaged"):
        load_state(path)


# --- the store ---------------------------------------------------------------------------------------------------


def steps_of(kept: StateStore) -> list[int]:
    return [int(file.stem.removeprefix("state-")) for file in kept.files()]


def latest(kept: StateStore) -> dict[str, Any] | None:
    """The state that a training would go on from."""
    found: list[dict[str, Any]] = []
    return found[0] if kept.resume(found.append) else None


def test_only_the_last_two_states_are_kept(store: Callable[[str], StateStore]) -> None:
    kept = store("a")
    assert latest(kept) is None
    for step in (1, 9, 10, 200):
        kept.save(step, {"step": step})
    assert steps_of(kept) == [10, 200]
    assert latest(kept) == {"step": 200}
    kept.remove()
    assert not kept.folder.exists()
    kept.remove()  # nothing to do


def test_a_truncated_newest_state_falls_back_to_the_one_before(
    store: Callable[[str], StateStore], caplog: pytest.LogCaptureFixture
) -> None:
    kept = store("a")
    for step in (1, 2):
        kept.save(step, {"step": step})
    truncate(kept.files()[-1])
    assert latest(kept) == {"step": 1}
    assert "state-0000000002.safetensors is damaged" in caplog.text
    assert "the training goes on from the state before it" in caplog.text
    truncate(kept.files()[0])
    assert latest(kept) is None
    assert "state-0000000001.safetensors is damaged" in caplog.text
    assert caplog.text.endswith("the training starts anew\n")


@pytest.mark.parametrize(
    "structure",
    [
        "[]",
        "null",
        "{}",
        '{"__items__": [1]}',
        '{"__items__": [[[], 1]]}',
        '{"__tensor__": "no"}',
        '{"__tensor__": []}',
    ],
)
def test_a_state_whose_checksum_is_right_may_still_be_none(structure: str, tmp_path: Path) -> None:
    about = {"structure": structure, "format_version": str(MODEL_VERSION), "checksum": checksum(structure, {})}
    write_tensors(tmp_path / "s", {}, about)
    with pytest.raises(DataError, match="is not as a training writes it"):
        load_state(tmp_path / "s")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("at", None),
        ("at", {"epoch": -1}),
        ("at", {"step": "1"}),
        ("at", {"sums": []}),
        ("at", {"sums": {"loss": [1.0]}, "counts": {"loss": 1}}),
        ("at", {"sums": {"loss": 1.0}, "counts": {"loss": [1]}}),
        ("at", {"sums": {"loss": 1.0}, "counts": {}}),
        ("at", {"sums": {"loss": 1.0}, "counts": {"loss": 0}}),
        ("network", 1),
        ("curves", 3),
        ("curves", [{}]),
        ("curves", [dict.fromkeys(("epoch", "step", "lr", "valid_nll", "valid_nll_iw"), "1")]),
        ("curves", [dict.fromkeys(("epoch", "step", "lr", "valid_nll", "valid_nll_iw"), math.nan)]),
        ("learning_rate", "x"),
    ],
)
def test_a_state_with_a_part_of_another_kind_is_passed_over(
    part: str, value: Any, corpus: Corpus, store: Callable[[str], StateStore], caplog: pytest.LogCaptureFixture
) -> None:
    def trainer() -> Trainer:
        return Trainer(train_settings("vae_05", epochs=1), corpus.train, corpus.valid, corpus.size, 1, store("a"))

    state = trainer().state()
    store("a").save(1, {**state, part: {**state[part], **value} if isinstance(value, dict) else value})
    assert trainer().run().failure is None
    assert "is not a state of this version's training" in caplog.text


@pytest.mark.parametrize("moment", [[1.0], None, torch.zeros(3), "missing"])
def test_a_state_with_moments_of_another_kind_is_passed_over(
    moment: Any, corpus: Corpus, store: Callable[[str], StateStore], caplog: pytest.LogCaptureFixture
) -> None:
    def trainer() -> Trainer:
        asked = train_settings("vae_05", epochs=1, optimizer="adam")
        return Trainer(asked, corpus.train, corpus.valid, corpus.size, 1, store("a"))

    first = trainer()
    first.run()
    state = first.state()
    kept = state["optimizers"]["main"]["state"][0]
    assert set(kept) == {"step", "exp_avg", "exp_avg_sq"}
    kept["exp_avg"] = moment
    if moment == "missing":
        del kept["exp_avg"]
    store("a").save(1, state)
    assert trainer().run().failure is None
    assert "is not a state of this version's training (its optimiser has other moments)" in caplog.text


def test_a_state_whose_optimiser_has_other_options_is_passed_over(
    corpus: Corpus, store: Callable[[str], StateStore], caplog: pytest.LogCaptureFixture
) -> None:
    def trainer() -> Trainer:
        return Trainer(train_settings("vae_05", epochs=1), corpus.train, corpus.valid, corpus.size, 1, store("a"))

    state = trainer().state()
    state["optimizers"]["main"]["param_groups"][0]["lr"] = [0.1]
    store("a").save(1, state)
    assert trainer().run().failure is None
    assert "(its optimiser has another lr)" in caplog.text


def test_damaged_states_do_not_push_out_new_ones(store: Callable[[str], StateStore]) -> None:
    """A training that went back past two damaged states must keep what it saves then, not them."""
    kept = store("a")
    for step in (100, 200):
        kept.save(step, {"step": step})
        truncate(kept.files()[-1])
    for step in (50, 60):
        kept.save(step, {"step": step})
        assert latest(kept) == {"step": step}
    assert steps_of(kept) == [50, 60]


def test_a_half_written_state_is_none(store: Callable[[str], StateStore]) -> None:
    kept = store("a")
    kept.save(1, {"step": 1})
    (kept.folder / ".state-0000000002.safetensors.tmp").write_bytes(b"half")
    assert latest(kept) == {"step": 1}


def test_a_state_of_another_training_is_an_error(store: Callable[[str], StateStore]) -> None:
    store("a").save(1, {"step": 1})
    store("a").folder.rename(state_root() / "b")
    with pytest.raises(DataError, match=f"belongs to another training: remove {state_root() / 'b'}"):
        latest(store("b"))


def test_a_state_of_another_version_is_passed_over(store: Callable[[str], StateStore]) -> None:
    kept = store("a")
    kept.folder.mkdir(parents=True)
    save_file({"x": torch.zeros(1)}, kept.folder / "state-0000000001.safetensors", {"format_version": "0"})
    assert latest(kept) is None


def test_trainings_have_folders_of_their_own(store: Callable[[str], StateStore]) -> None:
    store("a").save(1, {"step": 1})
    assert latest(store("b")) is None
    store("b").remove()
    assert latest(store("a")) == {"step": 1}


def test_progress_is_for_whoever_looks(store: Callable[[str], StateStore]) -> None:
    store("a").report(epoch=3)
    content = read_json(store("a").folder / "progress.json")
    assert (content["epoch"], content["pid"]) == (3, os.getpid())
    assert content["updated"] == pytest.approx(time.time(), abs=60)


# --- one process at a time ---------------------------------------------------------------------------------------


def test_a_training_is_locked_while_the_block_runs_and_no_lock_stays(store: Callable[[str], StateStore]) -> None:
    with store("a").locked("tiny"):
        with store("b").locked("another"):
            pass
        message = f"tiny is being trained by process {os.getpid()} on .*state/a: wait"
        with pytest.raises(UnavailableError, match=message):
            store("a").locked("tiny").__enter__()
    with pytest.raises(SettingsError), store("a").locked("tiny"):
        raise SettingsError("refused at once")
    assert names_in(state_root()) == []
    with store("a").locked("tiny"):
        store("a").save(1, {"step": 1})
    assert names_in(store("a").folder) == ["state-0000000001.safetensors"]


def test_a_place_for_states_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "file"))
    with pytest.raises(UnavailableError, match=r"file/a, for the state of tiny, .*\(Not a directory\): let this user"):
        StateStore("a").locked("tiny").__enter__()


def test_a_volume_that_knows_no_locks_keeps_nobody_out(
    store: Callable[[str], StateStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EIO):

        def refused(*_: object, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", refused)
        if number == errno.EIO:
            with pytest.raises(OSError, match="Input/output"):
                store("a").locked("tiny").__enter__()
            continue
        with store("a").locked("tiny"), store("a").locked("tiny"):
            pass


# --- when to save and when to stop -------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass when the test says so."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_state_is_due_after_its_minutes(
    store: Callable[[str], StateStore], clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTVAE_CHECKPOINT_MINUTES", "2.5")
    kept = store("a")
    due = []
    for seconds in (0, 149, 1):
        clock[0] += seconds
        due.append(kept.due())
    assert due == [False, False, True]
    kept.save(1, {})
    assert not kept.due()
    monkeypatch.delenv("TEXTVAE_CHECKPOINT_MINUTES")
    kept = store("b")
    clock[0] += 599
    assert not kept.due()
    clock[0] += 1
    assert kept.due()


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
@pytest.mark.parametrize("name", ["TEXTVAE_CHECKPOINT_MINUTES", "TEXTVAE_MAX_MINUTES"])
def test_minutes_that_are_none_are_refused(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, text)
    with pytest.raises(SettingsError, match=rf"\${name} is '{text}'"):
        StateStore("a") if name.startswith("TEXTVAE_C") else StopRequest()


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (signal.SIGTERM, TerminatedError, 143),
        (signal.SIGHUP, TerminatedError, 143),
        (signal.SIGINT, KeyboardStopError, 130),
    ],
)
@pytest.mark.usefixtures("hangups_heard")
def test_a_signal_is_a_reason_to_stop_at_the_next_step(
    number: signal.Signals, error: type[StoppedError], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEXTVAE_MAX_MINUTES", raising=False)
    before = signal.getsignal(number)
    with stop_request() as stop:
        assert stop.reason() is None
        os.kill(os.getpid(), number)
        reason = stop.reason()
        assert isinstance(reason, error)
        assert reason.exit_code == code
        if number == signal.SIGINT:  # whoever presses it twice does not want to wait
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_under_nohup_a_terminal_that_is_gone_is_no_reason_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEXTVAE_MAX_MINUTES", raising=False)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_request() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.reason() is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_pipe_that_nobody_reads_is_a_reason_to_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who has called the training was killed. A file, a terminal, or nothing at all is none."""
    monkeypatch.delenv("TEXTVAE_MAX_MINUTES", raising=False)
    reader, writer = os.pipe()
    terminal, line = os.openpty()
    with (tmp_path / "log").open("w") as file, (tmp_path / "closed").open("w") as closed:
        number = closed.fileno()
        closed.close()
        for descriptor in (writer, line, file.fileno(), number):
            monkeypatch.setattr(state_module, "ERRORS", descriptor)
            assert StopRequest().reason() is None
        os.close(terminal)
        monkeypatch.setattr(state_module, "ERRORS", line)
        assert StopRequest().reason() is None
    monkeypatch.setattr(state_module, "ERRORS", writer)
    os.close(reader)
    reason = StopRequest().reason()
    assert isinstance(reason, TerminatedError)
    assert "nobody reads this any more" in str(reason)
    os.close(writer)
    os.close(line)


def test_a_time_limit_is_a_reason_to_stop(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEXTVAE_MAX_MINUTES", raising=False)
    unlimited = StopRequest()
    clock[0] += 1e6
    assert unlimited.reason() is None
    monkeypatch.setenv("TEXTVAE_MAX_MINUTES", "1")
    limited = StopRequest()
    clock[0] += 59
    assert limited.reason() is None
    clock[0] += 1
    assert isinstance(limited.reason(), TimeLimitError)


def test_a_full_disk_is_the_system_s_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As safetensors says it (seen on a full tmpfs); `components.step` makes exit code 74 of it."""

    def full(tensors: object, path: Path, metadata: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match=r"weights\.safetensors") as raised:
        checkpoint.write_tensors(tmp_path / "weights.safetensors", {})
    assert raised.value.errno == errno.ENOSPC


# --- model directories -------------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path, corpus: Corpus) -> Path:
    """A model directory with different weights in its two files."""
    torch.manual_seed(0)
    networks = [Network("vae", corpus.size, MODEL) for _ in range(2)]
    outcome = Outcome(networks[0], *map(checkpoint.cloned, networks), [], {}, None)
    config = model_config("vae_05", seed=3, settings=run_settings("vae_05", MODEL))
    write_model(tmp_path / "model", outcome, config, corpus.vocabulary)
    return tmp_path / "model"


def test_a_model_directory_is_self_contained(model: Path) -> None:
    assert names_in(model) == ["config.json", "model.safetensors", "model_iw.safetensors", "vocabulary.json"]
    best, by_iw = load(model), load(str(model), "iw")
    said = {"dataset": "tiny", "system": "vae_05", "seed": 3, "status": "finished", "failure": None}
    assert best.identity == {**said, "model_sha256": read_json(model / "config.json")["checksum"]}
    assert best.network is not None
    assert by_iw.network is not None
    weights = best.network.decoder.output.weight
    assert not torch.equal(weights, by_iw.network.decoder.output.weight)


def of_hidden(model: Path, hidden: object) -> None:
    """Say another hidden size."""
    settings = read_json(model / "config.json")["settings"]
    settings["model"]["hidden"] = hidden
    changed(model / "config.json", settings=settings)


def put_into_a_run(model: Path) -> None:
    model.rename(model.parent / "moved")
    model.mkdir()
    (model.parent / "moved").rename(model / "model")


def explode(model: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Bomb(model / "exploded")))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda model: changed(model / "config.json", format_version=1),
            "format version 1; this textvae reads 2: run tr",
        ),
        (lambda model: of_hidden(model, MODEL.hidden + 1), "mixture of two models"),
        (explode, "model.safetensors is damaged"),
        (lambda model: (model / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda model: truncate(model / "model.safetensors"), "model.safetensors is damaged"),
        (lambda model: (model / "config.json").unlink(), "config.json is missing"),
        (lambda model: truncate(model / "config.json"), "config.json is not JSON"),
        (lambda model: write_json(model / "config.json", []), "no JSON object"),
        (lambda model: write_json(model / "config.json", {"format_version": 2}), "is not as train writes it: dataset"),
        (lambda model: of_hidden(model, "many"), "as train writes it: settings.model.hidden: .*valid integer"),
        (lambda model: model.rename(model.parent / "elsewhere") and model.touch(), "config.json is missing"),
        (put_into_a_run, "is a run, not a model directory: give .*model/model"),
        (lambda model: (model / "vocabulary.json").unlink(), "vocabulary.json is missing"),
    ],
)
def test_a_model_directory_that_is_none_is_refused(model: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(model)
    with pytest.raises(DataError, match=message):
        load(model)
    assert not (model / "exploded").exists()


def test_a_diverged_model_has_no_network(model: Path, corpus: Corpus) -> None:
    failure = {"message": "diverged"}
    config = model_config("vae_05", status="diverged", failure=failure)
    folder = model.with_name("diverged")
    network = Network("vae", corpus.size, MODEL)
    write_model(folder, Outcome(network, {}, {}, [], {}, failure), config, corpus.vocabulary)
    assert names_in(folder) == ["config.json", "vocabulary.json"]
    assert load(folder).network is None
    assert load(folder).identity["failure"] == failure


# --- the train step, stopped from outside ------------------------------------------------------------------------


def bytes_of(outputs: Path) -> dict[str, bytes]:
    return {str(file.relative_to(outputs)): file.read_bytes() for file in outputs.rglob("*") if file.is_file()}


class Process:
    """`python -m components.train` in a process of its own."""

    def __init__(self, arguments: list[str], state: Path) -> None:
        self.state = state
        command = [sys.executable, "-m", "components.train", *arguments]
        root = Path(__file__).resolve().parents[2]
        self.process = subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True)

    def reaches(self, step: int) -> None:
        """Wait until this step's state is saved."""
        deadline = time.monotonic() + 120
        while last_step(self.state) < step:
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def stopped(self, number: signal.Signals, after_step: int) -> tuple[int, str]:
        """Exit code and messages after a signal that comes once this step's state is saved."""
        self.reaches(after_step)
        self.process.send_signal(number)
        errors = self.process.communicate(timeout=600)[1]
        return self.process.returncode, errors


def last_step(state: Path) -> int:
    """Of the newest state there is, -1 without any."""
    return max((int(file.stem.removeprefix("state-")) for file in state.glob("*/state-*")), default=-1)


def test_a_training_stopped_three_ways_writes_the_same_bytes(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A time limit, SIGTERM and SIGKILL, one after the other, against a run without any of them."""
    settings, steps = train_settings("vae_mine", epochs=12, decay_from_epoch=3), 72
    (tmp_path / "train.json").write_text(json_text(settings.model_dump()))
    outputs, state = tmp_path / "stopped", tmp_path / "state"
    arguments = ["--corpus", str(corpus_folder), "--settings", str(tmp_path / "train.json"), "--seed", "7"]
    arguments += ["--model", str(outputs / "model"), "--curves", str(outputs / "curves.jsonl")]
    monkeypatch.setenv("TEXTVAE_STATE", str(state))
    monkeypatch.setenv("TEXTVAE_CHECKPOINT_MINUTES", "1e-9")  # a state at every step
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    monkeypatch.setenv("TEXTVAE_MAX_MINUTES", "1e-9")
    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert (ended.value.code, bytes_of(outputs), last_step(state)) == (75, {}, 0)
    (said,) = state.glob("*/progress.json")
    assert read_json(said)["epoch"] == 1, "`make status` knows of every state, the first one too"
    assert "error: $TEXTVAE_MAX_MINUTES" in capsys.readouterr().err
    monkeypatch.delenv("TEXTVAE_MAX_MINUTES")

    code, errors = Process(arguments, state).stopped(signal.SIGTERM, after_step=4)
    terminated = last_step(state)
    curves = [file.read_bytes() for file in state.glob("*/curves.jsonl")]
    assert (code, bytes_of(outputs)) == (143, {}), errors
    assert "error: SIGTERM" in errors
    assert 4 <= terminated < steps, "it saved, and did not run to its end"

    code, _ = Process(arguments, state).stopped(signal.SIGKILL, after_step=terminated + random.randint(1, 12))
    assert code == -signal.SIGKILL
    curves += [file.read_bytes() for file in state.glob("*/curves.jsonl")]
    assert terminated < last_step(state) < steps
    assert not (outputs / "model").exists()

    with pytest.raises(SystemExit) as ended:
        train.main(arguments)
    assert ended.value.code == 0
    assert names_in(state) == [], "the state goes when the model is there"

    other = tmp_path / "uninterrupted"
    train(corpus=corpus_folder, settings=settings, seed=7, model=other / "model", curves=other / "curves.jsonl")
    expected = bytes_of(other)
    files = ("config.json", "model.safetensors", "model_iw.safetensors", "vocabulary.json")
    assert sorted(expected) == ["curves.jsonl", *(f"model/{name}" for name in files)]
    assert bytes_of(outputs) == expected
    assert all(expected["curves.jsonl"].startswith(live) for live in curves), "what shows it live reads no other curve"


def test_the_curve_beside_the_states_is_that_of_the_state_a_training_goes_on_from(
    corpus: Corpus, store: Callable[[str], StateStore]
) -> None:
    """A kill may come epochs after the last state."""
    identity = {"dataset": "tiny", "system": "lstm_lm", "seed": 1}

    def trainer(stop: StopRequest | None = None) -> Trainer:
        sizes = (corpus.train, corpus.valid, corpus.size)
        return Trainer(train_settings("lstm_lm", epochs=4), *sizes, seed=1, store=store("a"), stop=stop)

    class AfterTenSteps(StopRequest):
        steps = 0

        def reason(self) -> StoppedError | None:
            self.steps += 1
            return TimeLimitError("over") if self.steps > 10 else None

    with pytest.raises(TimeLimitError):
        trainer(AfterTenSteps()).run()
    kept = store("a").curves
    stopped = kept.read_text()
    assert len(stopped.splitlines()) == 1
    kept.write_text(stopped + '{"epoch": 2}\n{"ep')
    trainer().resume()
    assert kept.read_text() == stopped
    outcome = trainer().run()
    assert kept.read_text() == curve_lines(identity, outcome.curves)
    assert [json.loads(line)["epoch"] for line in kept.read_text().splitlines()] == [1, 2, 3, 4]
    assert names_in(kept.parent) == [kept.name, "progress.json", *(file.name for file in store("a").files())]


@pytest.mark.parametrize("system", ["vae_mine", "lagging", "lstm_lm"])
@pytest.mark.parametrize("harmed", [1, 2])
def test_a_training_goes_on_past_damaged_states_and_its_numbers_are_the_same(
    system: str, harmed: int, corpus: Corpus, store: Callable[[str], StateStore], caplog: pytest.LogCaptureFixture
) -> None:
    """From the state before, or anew, where the checksums are right and the parts are not: another version's. Of one of
    them the weights are taken before its optimiser turns out to be missing."""

    class AfterTenSteps(StopRequest):
        steps = 0

        def reason(self) -> StoppedError | None:
            self.steps += 1
            kept.save(self.steps, trainer.state()) if self.steps in (4, 9) else None
            return TerminatedError("over") if self.steps > 10 else None

    sizes, how = (corpus.train, corpus.valid, corpus.size), train_settings(system, epochs=3)
    expected = Trainer(how, *sizes, seed=1).run()
    kept = store("a")
    trainer = Trainer(how, *sizes, seed=1, store=None, stop=AfterTenSteps())
    with pytest.raises(TerminatedError):
        trainer.run()
    assert len(kept.files()) == 2
    for file in kept.files()[-harmed:]:
        other = load_state(file)
        other["optimizers" if file == kept.files()[0] else "at"] = {}
        save_state(file, other)
    outcome = Trainer(how, *sizes, seed=1, store=store("a")).run()
    assert outcome.curves == expected.curves
    assert same(outcome.weights, expected.weights)
    assert same(outcome.weights_iw, expected.weights_iw)
    assert len(caplog.messages) == harmed
    assert caplog.messages[-1].endswith("starts anew" if harmed == 2 else "goes on from the state before it")


def test_a_training_is_done_by_one_process_until_that_is_killed(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, state = train_settings("vae_mine", epochs=12, decay_from_epoch=3), tmp_path / "state"
    (tmp_path / "train.json").write_text(json_text(settings.model_dump()))
    arguments = ["--corpus", str(corpus_folder), "--settings", str(tmp_path / "train.json"), "--seed", "7"]
    arguments += ["--model", str(tmp_path / "model"), "--curves", str(tmp_path / "curves.jsonl")]
    monkeypatch.setenv("TEXTVAE_STATE", str(state))
    monkeypatch.setenv("TEXTVAE_CHECKPOINT_MINUTES", "1e-9")  # a state at every step
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def ended(given: list[str] = arguments) -> tuple[Any, str]:
        with pytest.raises(SystemExit) as exit_of:
            train.main(given)
        return exit_of.value.code, capsys.readouterr().err

    first = Process(arguments, state)
    first.reaches(0)
    first.process.send_signal(signal.SIGSTOP)  # it lives, and will not end before the second has tried
    os.waitpid(first.process.pid, os.WUNTRACED)
    before = bytes_of(state)
    code, said = ended()
    assert code == UnavailableError.exit_code
    assert f"model is being written by process {first.process.pid} on " in said
    elsewhere = [argument.replace(str(tmp_path / "model"), str(tmp_path / "other")) for argument in arguments]
    elsewhere = [argument.replace("curves.jsonl", "others.jsonl") for argument in elsewhere]
    code, said = ended(elsewhere)
    assert code == UnavailableError.exit_code
    assert f"error: tiny vae_mine seed 7 is being trained by process {first.process.pid} on " in said
    assert bytes_of(state) == before
    assert not (tmp_path / "model").exists()

    first.process.kill()
    first.process.communicate()
    assert ended()[0] == 0
    assert (tmp_path / "model").exists()
    assert names_in(state) == []


def test_a_run_that_diverges_is_a_result(
    corpus_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An energy with an absurd learning rate: the step ends well, the model directory says what happened."""
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    objective = {"energy_optimizer": "sgd", "energy_learning_rate": 1e30}
    settings = train_settings("vae_mine", objective=objective)
    arguments = {"corpus": corpus_folder, "settings": settings, "seed": 1}
    with exit_codes():
        metadata = train(**arguments, model=tmp_path / "model", curves=tmp_path / "curves.jsonl")
    assert metadata["status"] == "diverged"
    config = read_json(tmp_path / "model" / "config.json")
    assert config["status"] == "diverged"
    assert config["failure"]["term"] in ("mi_estimate", "the gradient norm (energy)", "the gradient norm (main)")
    assert config["failure"]["largest_energy"] >= 0
    assert config["failure"]["message"] in capsys.readouterr().err
    assert load(tmp_path / "model").network is None
    assert names_in(tmp_path / "state") == []
