"""A training shown in MLflow while it runs, by a process beside it: the training never waits for it, nor fails."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tracking_helpers import ROOT, SETTINGS, curve, free_port, gate, points, rows, write_reports, write_run

from components.publish import publish
from textvae import live as launcher
from textvae.config import ReportSettings
from textvae.errors import TimeLimitError
from textvae.live import shown_live
from tracking import RunIdentity, connect
from tracking import live as live_module
from tracking.live import LiveRun

pytest_plugins = ["tracking_fixtures"]
IDENTITY = RunIdentity("sotu", "vae_mine", 0, SETTINGS, "ab" * 32, "c0de")
ABOUT = vars(IDENTITY)


@pytest.fixture
def server(repository: Path, mlflow_server: str, request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A gate in front of a real MLflow server, as the tracking URI, with an experiment for this test alone."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    monkeypatch.setattr(live_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(live_module, "RETRY_SECONDS", 0.1)
    with gate("forward", mlflow_server) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server


def write_curve(epochs: int) -> Path:
    """The file that a training has after so many epochs."""
    path = Path("curves.jsonl")
    temporary = path.with_name("new")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in curve(epochs)))
    temporary.replace(path)
    return path


def train(epochs: int, status: str = "FINISHED") -> None:
    """Show a training that writes the rows of `curve`, fast."""
    live = LiveRun(IDENTITY, write_curve(0))
    live.start()
    for epoch in range(1, epochs + 1):
        write_curve(epoch)
    live.end(status)


def until(holds: Callable[[], bool]) -> None:
    """Wait for it, a minute at most."""
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def run_publish(repository: Path) -> None:
    """The step on everything below `repository`."""
    settings = ReportSettings(datasets=["sotu"], systems=["vae_mine"], seeds=["0"], reduced={})
    publish(runs=[repository / "runs"], reports=write_reports(repository / "reports"), settings=settings)


def test_live_then_publish_is_one_run_without_duplicate_points(server: Any, repository: Path) -> None:
    train(3)
    store = connect()
    [run] = rows(store)
    wanted = [(row["epoch"], row["valid_nll"]) for row in curve(3)]
    assert (run.info.run_name, run.info.status, run.data.params) == (IDENTITY.name, "FINISHED", IDENTITY.params)
    assert points(store, run, "valid_nll") == wanted
    write_run(repository / "runs")
    for _ in range(2):
        run_publish(repository)
        [published] = rows(store)
        assert published.info.run_id == run.info.run_id
        assert points(store, run, "valid_nll") == wanted
        assert published.data.metrics["nll"] == 98.7654321


def test_epochs_are_shown_while_it_runs(server: Any) -> None:
    live = LiveRun(IDENTITY, write_curve(0))
    live.start()
    store = connect()
    until(lambda: len(rows(store)) == 1)
    [run] = rows(store)
    assert run.info.status == "RUNNING"
    for epoch in (1, 2):
        write_curve(epoch)
        until(lambda epoch=epoch: len(points(store, run, "valid_nll")) == epoch)  # type: ignore[misc]
    live.end("FAILED")
    assert rows(store)[0].info.status == "FAILED"


def test_a_training_that_goes_on_later_goes_on_in_its_row(server: Any) -> None:
    train(3, "KILLED")
    store = connect()
    [run] = rows(store)
    assert run.info.status == "KILLED"
    live = LiveRun(IDENTITY, write_curve(1))  # its state was saved before the second epoch
    live.start()
    until(lambda: rows(store)[0].info.status == "RUNNING")
    write_curve(5)
    live.end("FINISHED")
    [run] = rows(store)
    assert run.info.status == "FINISHED"
    assert points(store, run, "mi_estimate") == [(row["epoch"], row["mi_estimate"]) for row in curve(5)]


def test_epochs_missed_while_the_server_was_down_are_shown_when_it_is_back(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.mode = "500"
    live = LiveRun(IDENTITY, write_curve(0))
    live.start()
    for epoch in (1, 2):
        asked = server.requests
        write_curve(epoch)
        until(lambda asked=asked: server.requests > asked)  # type: ignore[misc]
    server.mode = "forward"  # no epoch ends: it is tried again by itself
    store = connect()
    until(lambda: len(rows(store)) == 1)
    live.end("FINISHED")
    [run] = rows(store)
    assert points(store, run, "valid_nll") == [(row["epoch"], row["valid_nll"]) for row in curve(2)]
    assert capsys.readouterr().err.count("warning: ") == 1


def test_a_curve_that_cannot_be_read_is_tried_again(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    live = LiveRun(IDENTITY, write_curve(0))
    write_curve(0).write_text("{")
    live.start()
    store = connect()
    until(lambda: len(rows(store)) == 1)
    write_curve(2)
    until(lambda: len(points(store, rows(store)[0], "valid_nll")) == 2)
    live.end("FINISHED")
    assert capsys.readouterr().err.count("warning: ") <= 1


@pytest.mark.parametrize("mode", ["500", "hang", "closed"])
def test_a_broken_server_is_said_once_and_given_up_in_time(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    monkeypatch.setattr(live_module, "EXIT_SECONDS", 2.0)
    with gate(mode) as server:
        uri = f"http://127.0.0.1:{free_port()}" if mode == "closed" else server.uri
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        began = time.monotonic()
        train(100)
        assert time.monotonic() - began < 10
    assert 1 <= capsys.readouterr().err.count("warning: not shown in MLflow while it trains: ") <= 2


def test_an_image_without_mlflow_trains(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    train(3)
    assert capsys.readouterr().err.count("mlflow is not installed") == 1


# The training's side.


def ending(tmp_path: Path, code: str) -> Path:
    """Stands for the process beside a training: a script, and where it writes what it was told."""
    (tmp_path / "beside.py").write_text(f"import pathlib, sys, time\nhere = pathlib.Path({str(tmp_path)!r})\n{code}\n")
    return tmp_path / "told"


TELLS = "(here / 'new').write_text(sys.argv[1] + '\\n' + sys.stdin.read()); (here / 'new').rename(here / 'told')"


@pytest.mark.parametrize(
    ("raised", "status"), [(None, "FINISHED"), (TimeLimitError("over"), "KILLED"), (ValueError(), "FAILED")]
)
def test_the_process_is_told_whose_run_it_is_and_how_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception | None, status: str
) -> None:
    told = ending(tmp_path, TELLS)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setattr(launcher, "COMMAND", (sys.executable, str(tmp_path / "beside.py")))
    with pytest.raises(type(raised)) if raised else nullcontext(), shown_live(ABOUT, tmp_path / "curves.jsonl"):
        if raised is not None:
            raise raised
    path, about, end = told.read_text().splitlines()
    assert path == str(tmp_path / "curves.jsonl")
    assert RunIdentity(**json.loads(about)).name == IDENTITY.name
    assert json.loads(end)["status"] == status


@pytest.mark.parametrize("code", ["time.sleep(60)", "sys.stdin.close(); time.sleep(60)", "import nothing"])
def test_a_process_that_ends_or_hangs_neither_fails_nor_holds_up_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    ending(tmp_path, code)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setattr(launcher, "COMMAND", (sys.executable, str(tmp_path / "beside.py")))
    monkeypatch.setattr(launcher, "EXIT_SECONDS", 0.5)
    began = time.monotonic()
    with shown_live(ABOUT, tmp_path / "curves.jsonl"):
        assert time.monotonic() - began < 2
    assert time.monotonic() - began < 5


def test_a_program_that_cannot_be_started_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    monkeypatch.setattr(launcher, "COMMAND", (str(tmp_path / "nothing"),))
    with shown_live(ABOUT, tmp_path / "curves.jsonl"):
        pass
    assert "warning: not shown in MLflow while it trains" in capsys.readouterr().err


@pytest.mark.parametrize("uri", [None, "", "sqlite:///mlflow.db", "file:///tmp/mlruns"])
def test_without_a_server_no_process_is_started(monkeypatch: pytest.MonkeyPatch, uri: str | None) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(launcher, "COMMAND", None)  # a process would be a TypeError
    with shown_live(ABOUT, Path("curves.jsonl")):
        pass


TRAINS = """
import sys
from components.train import train
try:
    train.main(sys.argv[1:])
finally:
    assert not [name for name in sys.modules if name.startswith(("mlflow", "tracking"))]
"""


@pytest.mark.parametrize("in_a_group", [False, True])
def test_a_training_that_is_killed_and_goes_on_is_the_row_that_publish_completes(
    in_a_group: bool, server: Any, tmp_path: Path
) -> None:
    """The real step and the real process beside it; what trains imports nothing of what shows it. `in_a_group`: it goes
    on beside another, before the step itself."""
    from tiny import tiny_corpus, train_settings, write_corpus

    corpus = write_corpus(tmp_path / "corpus", tiny_corpus())
    settings = train_settings("vae_05", epochs=40, max_decays=40)
    (tmp_path / "settings.json").write_text(settings.model_dump_json())
    directory = tmp_path / "runs/tiny/vae_05/3"
    options = {"corpus": corpus, "settings": tmp_path / "settings.json", "seed": 3, "model": directory / "model"}
    options |= {"curves": directory / "curves.jsonl", "timings": directory / "timings/train.json"}
    arguments = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    command = [sys.executable, "-c", TRAINS, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TEXTVAE_STATE": str(tmp_path / "state")}
    environment |= {"TEXTVAE_CHECKPOINT_MINUTES": "1e-9"}
    store = connect()
    training = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    until(lambda: bool(list(tmp_path.glob("state/*/curves.jsonl"))))
    training.send_signal(signal.SIGSTOP)  # so that it does not end before it is seen
    until(lambda: len(rows(store)) == 1 and "valid_nll" in rows(store)[0].data.metrics)
    training.send_signal(signal.SIGKILL)
    training.communicate()
    until(lambda: rows(store)[0].info.status == "KILLED")
    [first] = rows(store)
    if in_a_group:
        environment["TEXTVAE_CHECKPOINT_MINUTES"] = "10"
        runs = [(settings, 3), (train_settings("vae_05"), 4)]
        content = {"runs": [{"settings": one.model_dump(), "seed": seed} for one, seed in runs]}
        (tmp_path / "group.json").write_text(json.dumps(content))
        group = ["-m", "components.train_group", "--corpus", str(corpus), "--settings", str(tmp_path / "group.json")]
        subprocess.run([sys.executable, *group], env=environment, check=True)
        second, other = sorted(rows(store), key=lambda row: row.data.tags["seed"])
        assert (second.info.run_id, second.info.status) == (first.info.run_id, "FINISHED")
        store.client.delete_run(other.info.run_id)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning: not shown" not in done.stderr
    [second] = rows(store)
    assert (second.info.run_id, second.info.status) == (first.info.run_id, "FINISHED")
    written = [json.loads(line) for line in (directory / "curves.jsonl").read_text().splitlines()]
    wanted = [(row["epoch"], row["valid_nll"]) for row in written]
    assert points(store, second, "valid_nll") == wanted
    report = ReportSettings(datasets=["tiny"], systems=["vae_05"], seeds=["3"], reduced={})
    publish(runs=[tmp_path / "runs"], reports=write_reports(tmp_path / "reports"), settings=report)
    [third] = rows(store)
    assert third.info.run_id == first.info.run_id
    assert points(store, third, "valid_nll") == wanted
