"""Where MLflow is, what a row is, and that a store that misbehaves costs no training and no finished run."""

import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tracking_helpers import ROOT, SETTINGS, curve, free_port, gate, points, rows

from components.tracking import LiveRun, Record, RunIdentity, connect, epoch_points, shown, tracking_uri, ui
from components.tracking import live as live_module
from components.tracking import place as place_module
from components.tracking.place import explained, import_client, locked, repository_root
from textvae.errors import DataError, TimeLimitError, UnavailableError

pytest_plugins = ["tracking_fixtures"]
IDENTITY = RunIdentity("sotu", "vae_mine", 0, SETTINGS, "ab" * 32, "c0de")


def record(epochs: int = 3, **changes: Any) -> Record:
    """What publish makes of a run directory with `curve(epochs)`."""
    made = Record(
        fingerprint=IDENTITY.fingerprint,
        name=IDENTITY.name,
        status="FINISHED",
        tags=IDENTITY.tags,
        params=IDENTITY.params,
        curves=[point for row in curve(epochs) for point in epoch_points(row, 2000)],
        metrics={"nll": 1 / 3},
        artifacts={},
        started=1000,
        ended=2000,
    )
    return replace(made, **changes)


# Where it is.


@pytest.mark.parametrize("marker", ["params.yaml", ".git"])
def test_the_default_store_is_at_the_root_from_any_folder_of_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    (tmp_path / "docs/deep").mkdir(parents=True)
    (tmp_path / marker).touch()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path / "docs/deep")
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri().startswith("sqlite:////")  # four: an absolute path


@pytest.mark.parametrize("workspace", ["standalone/tmp9zv0x3xc", "tmpfmjxmkbe"])  # --temp and --queue of DVC 3.67
def test_dvcs_copies_of_the_repository_are_not_its_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workspace: str
) -> None:
    copy = tmp_path / ".dvc/tmp/exps" / workspace
    for root in (tmp_path, copy):
        (root / ".git").mkdir(parents=True)
        (root / "params.yaml").touch()
    (copy / "docs").mkdir()
    for folder in (copy, copy / "docs"):
        monkeypatch.chdir(folder)
        assert repository_root() == tmp_path


def test_the_environment_names_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    assert tracking_uri() == "https://mlflow.example.org"


def test_credentials_are_not_shown() -> None:
    uri = "https://me:pass@host"
    with pytest.raises(UnavailableError, match="no way to https://host/api") as caught, explained(uri, "a row"):
        raise ConnectionError(f"no way to {uri}/api")
    assert "pass" not in str(caught.value)
    assert shown("https://me:pass@word@host:5000/mlflow") == "https://host:5000/mlflow"
    assert shown("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_make_ui_serves_the_default_store_on_loopback(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = connect()
    store.publish(record())
    code = "from components.tracking import ui; ui.main()"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().split()[1]
            page = rf"experiments/{store.experiment_id}/runs\?workflowType=machine_learning&viewStateShareKey=results"
            assert re.fullmatch(rf"http://127\.0\.0\.1:50[01]\d/#/{page}", address)
            served = next(line for line in process.stdout if "Uvicorn running on" in line)
            assert address.partition("/#")[0] in served
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", address.partition("/#")[0])
            assert [run.info.run_name for run in rows(connect())] == [IDENTITY.name]
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def test_make_ui_takes_the_next_port_and_says_when_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        taken = busy.getsockname()[1]
        free = free_port()
        monkeypatch.setattr(ui, "PORTS", (taken, free))
        assert ui.free_port() == free
        monkeypatch.setattr(ui, "PORTS", range(taken, taken + 1))
        with pytest.raises(UnavailableError, match=f"{taken} to {taken} is in use"):
            ui.free_port()


# What a row is.


def test_the_fingerprint_changes_with_settings_data_seed_and_code_only() -> None:
    reordered = {key: dict(reversed(part.items())) for key, part in reversed(SETTINGS.items())}
    assert replace(IDENTITY, settings=reordered, seed="0").fingerprint == IDENTITY.fingerprint
    other = SETTINGS | {"model": SETTINGS["model"] | {"dropout": 0.4}}
    changed = [replace(IDENTITY, settings=other)]
    changed += [
        replace(IDENTITY, **{key: "x"}) for key in ("dataset", "system", "seed", "corpus_sha256", "code_sha256")
    ]
    assert len({identity.fingerprint for identity in [IDENTITY, *changed]}) == 7


def test_an_epoch_is_its_finite_numbers() -> None:
    row = {"dataset": "sotu", "seed": 3, "epoch": 2, "kl": 1, "mi": None, "beta": float("inf"), "lr": float("nan")}
    assert [(p.key, p.value, p.step) for p in epoch_points(row, 5)] == [("kl", 1.0, 2)]


def test_long_curves_take_many_batches(repository: Path) -> None:
    """MLflow takes 1,000 points and 100 parameters a request."""
    params = {f"p{index}": str(index) for index in range(250)}
    store = connect()
    assert store.publish(record(600, params=params)) == "created"
    [run] = rows(store)
    assert points(store, run, "mi_estimate") == [(row["epoch"], row["mi_estimate"]) for row in curve(600)]
    assert run.data.params == params


def test_an_interrupted_publish_is_completed(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = connect()
    with monkeypatch.context() as broken:
        broken.setattr(store.client, "set_terminated", lambda *_: (_ for _ in ()).throw(OSError("cut off")))
        with pytest.raises(UnavailableError, match="cut off"):
            store.publish(record())
    assert store.publish(record()) == "updated"
    [run] = rows(store)
    assert run.info.status == "FINISHED"
    assert len(points(store, run, "valid_nll")) == 3
    assert len(points(store, run, "nll")) == 1


def test_a_status_that_changed_is_set_right(repository: Path) -> None:
    """As after a repetition that was stopped."""
    store = connect()
    store.publish(record())
    store.client.set_terminated(rows(store)[0].info.run_id, "KILLED")
    assert store.publish(record()) == "updated"
    assert rows(store)[0].info.status == "FINISHED"


def test_rows_that_two_machines_made_at_once_become_one(repository: Path) -> None:
    store = connect()
    for started in (1, 2):
        store.create(IDENTITY.fingerprint, IDENTITY.name, IDENTITY.tags, started)
    store.publish(record())
    [run] = rows(store)
    assert run.info.start_time == 1


# Stores that misbehave.


def test_a_locked_database_is_waited_for_then_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_module, "BUSY_SECONDS", 0.2)
    holder = sqlite3.connect(repository / "mlflow.db")
    holder.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    with pytest.raises(UnavailableError, match=r"mlflow\.db cannot be written: database is locked .*make publish"):
        connect()
    assert time.monotonic() - began < 5
    holder.close()
    assert connect().publish(record()) == "created"


def test_another_publish_is_waited_for_then_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place_module, "LOCK_SECONDS", 0.2)
    with locked(tracking_uri()), pytest.raises(UnavailableError, match=r"mlflow\.db\.lock"):
        connect()
    connect()


def test_a_damaged_database_is_named_with_the_remedy(repository: Path) -> None:
    (repository / "mlflow.db").write_bytes(b"not a database, and long enough to be read as one" * 100)
    with pytest.raises(DataError, match=r"damaged.*move it away"):
        connect()


def test_a_database_that_was_moved_is_not_written_to_the_old_place(
    repository: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect()
    moved, remedied = (shutil.copytree(repository, repository.parent / name) for name in ("moved", "remedied"))
    monkeypatch.chdir(moved)
    with pytest.raises(DataError, match=r"moved.*move it away"):
        connect()
    monkeypatch.chdir(remedied)
    shutil.copy(template, remedied / "mlflow.db")
    assert connect().publish(record()) == "created"


@pytest.mark.parametrize("mode", ["500", "hang"])
def test_a_server_that_does_not_work_is_named_in_bounded_time(
    repository: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    with gate(mode) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match=f"MLflow at {server.uri} failed: .*make publish"):
            connect()
        assert time.monotonic() - began < 6
        assert server.requests > 0


def test_requests_are_bounded_unless_the_user_says_otherwise(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "5")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    import_client(place_module.REQUEST_LIMITS)
    names = ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_DISABLE_TELEMETRY")
    assert [os.environ[name] for name in names] == ["30", "5", "true"]


def test_an_image_without_mlflow_is_told_what_to_install(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UnavailableError, match="`tracking`"):
        connect()


# A training that is shown while it runs.


@pytest.fixture
def server(repository: Path, mlflow_server: str, request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A gate in front of a real MLflow server, as the tracking URI, with an experiment for this test alone."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    with gate("forward", mlflow_server) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        yield server


def train(epochs: range, end: Exception | None = None) -> None:
    """A training that writes the rows of `curve`, fast."""
    with LiveRun(IDENTITY) as live:
        for row in curve(epochs.stop - 1)[epochs.start - 1 :]:
            live.log_epoch(row)
        if end is not None:
            raise end


def test_live_then_publish_is_one_run_without_duplicate_points(server: Any) -> None:
    train(range(1, 4))
    store = connect()
    [run] = rows(store)
    wanted = [(row["epoch"], row["valid_nll"]) for row in curve(3)]
    assert (run.info.run_name, run.info.status, run.data.params) == (IDENTITY.name, "FINISHED", IDENTITY.params)
    assert points(store, run, "valid_nll") == wanted
    assert store.publish(record()) == "updated"
    [published] = rows(store)
    assert published.info.run_id == run.info.run_id
    assert points(store, run, "valid_nll") == wanted
    assert published.data.metrics["nll"] == 1 / 3
    assert store.publish(record()) == "unchanged"


def test_a_training_that_goes_on_later_goes_on_in_its_row(server: Any) -> None:
    with pytest.raises(TimeLimitError):
        train(range(1, 4), TimeLimitError("over"))
    [run] = rows(connect())
    assert run.info.status == "KILLED"
    store, deadline = connect(), time.monotonic() + 20
    with LiveRun(IDENTITY) as live:
        while (status := rows(store)[0].info.status) != "RUNNING" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert status == "RUNNING"
        for row in curve(5)[1:]:  # its state was saved before the third epoch
            live.log_epoch(row)
    [run] = rows(store)
    assert run.info.status == "FINISHED"
    assert points(store, run, "mi_estimate") == [(row["epoch"], row["mi_estimate"]) for row in curve(5)]


def test_epochs_missed_while_the_server_was_down_are_shown_when_it_is_back(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.mode = "500"
    with LiveRun(IDENTITY) as live:
        for row in curve(2):
            asked, deadline = server.requests, time.monotonic() + 20
            live.log_epoch(row)
            while server.requests == asked and time.monotonic() < deadline:
                time.sleep(0.02)
        server.mode = "forward"
        live.log_epoch(curve(3)[2])
    store = connect()
    [run] = rows(store)
    assert points(store, run, "valid_nll") == [(row["epoch"], row["valid_nll"]) for row in curve(3)]
    assert capsys.readouterr().err.count("warning: ") == 1


def test_code_imported_during_training_does_not_make_a_second_row(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = iter(["early", "late"])
    monkeypatch.setattr(live_module, "code_sha256", lambda: next(hashes))
    train(range(1, 4))
    late = replace(IDENTITY, code_sha256="late").fingerprint
    store = connect()
    assert store.publish(record(fingerprint=late)) == "updated"
    assert len(rows(store)) == 1


@pytest.mark.parametrize("mode", ["500", "hang", "closed"])
def test_a_broken_server_neither_fails_nor_delays_a_training(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], mode: str
) -> None:
    monkeypatch.setattr(live_module, "EXIT_SECONDS", 2.0)
    with gate(mode) as server:
        uri = f"http://127.0.0.1:{free_port()}" if mode == "closed" else server.uri
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        began = time.monotonic()
        with LiveRun(IDENTITY) as live:
            for row in curve(100):
                live.log_epoch(row)
            assert time.monotonic() - began < 5  # a hundred requests of a second each would be seen
        assert time.monotonic() - began < 10
    assert 1 <= capsys.readouterr().err.count("warning: not shown in MLflow while it trains: ") <= 2


def test_a_training_without_mlflow_installed_goes_on(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    train(range(1, 4))
    assert capsys.readouterr().err.count("mlflow is not installed") == 1


def test_without_a_server_a_training_does_not_touch_mlflow(repository: Path) -> None:
    code = "from test_tracking import *; train(range(1, 4)); print('mlflow' in sys.modules, len(sys.modules) > 99)"
    before = (repository / "mlflow.db").stat().st_mtime_ns
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == ["False", "True"], done.stderr
    assert (repository / "mlflow.db").stat().st_mtime_ns == before
