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
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tracking_helpers import ROOT, SETTINGS, curve, free_port, gate, points, rows

from textvae.errors import DataError, UnavailableError
from tracking import Record, RunIdentity, connect, epoch_points, shown, tracking_uri, ui
from tracking import place as place_module
from tracking.place import explained, import_client, locked, repository_root

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
    code = "from tracking import ui; ui.main()"
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


def test_values_longer_than_mlflow_keeps_are_published_once(repository: Path) -> None:
    """A list of thousands of values as a setting, a failure that tells its whole story."""
    store, long = connect(), "x" * 20_000
    told = record(params={**IDENTITY.params, "objective.text": long}, tags={**IDENTITY.tags, "failure": long})
    assert [store.publish(told) for _ in range(2)] == ["created", "unchanged"]
    [run] = rows(store)
    assert (len(run.data.params["objective.text"]), len(run.data.tags["failure"])) == (6000, 8000)


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


@pytest.mark.parametrize(
    ("status", "kind", "remedy"),
    [
        (400, DataError, "params.yaml"),
        (401, UnavailableError, "TRACKING_USERNAME"),
        (403, UnavailableError, "TRACKING_USERNAME"),
        (404, DataError, "TRACKING_URI"),
        (413, DataError, "larger requests"),
        (418, DataError, "params.yaml"),
        (429, UnavailableError, "when it is there again"),
        (500, UnavailableError, "when it is there again"),
        (502, UnavailableError, "when it is there again"),
        (503, UnavailableError, "when it is there again"),
    ],
)
def test_a_refusal_is_told_from_a_server_that_is_away(
    repository: Path, monkeypatch: pytest.MonkeyPatch, status: int, kind: type[Exception], remedy: str
) -> None:
    """MLflow itself, or a proxy before it, which answers in its own words."""
    with gate("forward") as server:
        server.refusal = status
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
        with pytest.raises(kind, match=rf"MLflow at {server.uri} .*{remedy}") as caught:
            connect()
    assert ("when it is there again" in str(caught.value)) == (status in (429, 500, 502, 503))


def test_a_place_that_may_not_be_written_is_no_server_that_is_away(repository: Path) -> None:
    store = connect()
    (repository / "mlartifacts").write_text("a file, where a folder was")
    with pytest.raises(UnavailableError, match=r"may not write: .*mlartifacts.*let this user write there"):
        store.publish(record(artifacts={"params.yaml": repository / "params.yaml"}))
    (repository / "mlartifacts").unlink()
    assert store.publish(record(artifacts={"params.yaml": repository / "params.yaml"})) == "updated"


@pytest.mark.parametrize("reason", ["The run 0a must be in the 'active' state.", "RESOURCE_ALREADY_EXISTS: textvae-x"])
def test_what_another_process_has_just_done_is_tried_again(reason: str) -> None:
    from mlflow.exceptions import MlflowException

    with pytest.raises(UnavailableError, match="make publish"), explained("sqlite:////a.db", "a row"):
        raise MlflowException.invalid_parameter_value(reason)


def test_a_store_of_files_is_a_store(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow 3.17 refuses one unless it is told to: no later try would help. What is gone, goes there too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (repository / "mlruns").as_uri())
    with pytest.raises(DataError, match=r"refuses .*maintenance mode.*MLFLOW_TRACKING_URI"):
        connect()
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = connect()
    files = {"params.yaml": repository / "params.yaml"}
    told = record(artifacts=files), record(artifacts=files), record(metrics={}), record(metrics={})
    assert [store.publish(one) for one in told] == ["created", "unchanged", "replaced", "unchanged"]
    [run] = rows(store)
    assert "nll" not in run.data.metrics
    assert store.artifacts(run) == set()


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
