"""MLflow down, slow or locked, run directories pulled or in DVC's own copy: the rows come out the same."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from tracking_helpers import ROOT, Gate, curve, gate, points, rows, write_reports, write_run

from components.publish import publish
from textvae.config import ReportSettings
from textvae.errors import UnavailableError
from tracking import connect

pytest_plugins = ["tracking_fixtures"]
SETTINGS = ReportSettings(datasets=["sotu"], systems=["vae_mine"], seeds=["0"], reduced={"sotu": True})


def run_publish(root: Path) -> None:
    """The step on everything below `root`."""
    publish(runs=[root / "runs"], reports=write_reports(root / "reports"), settings=SETTINGS)


def assert_one_complete_row() -> None:
    """What every test here ends with, whatever went wrong before."""
    store = connect()
    [run] = rows(store)
    assert run.info.status == "FINISHED"
    assert points(store, run, "valid_nll") == [(row["epoch"], row["valid_nll"]) for row in curve(3)]
    assert points(store, run, "nll") == [(0, 98.7654321)]
    folders = {file.path for file in store.client.list_artifacts(run.info.run_id)}
    assert folders == {"model", "curves.jsonl", "evaluation", "ngram.json"}
    assert len(store.client.search_runs([store.experiment_id])) == 2  # with the report's


def behind_a_gate(server: Gate, monkeypatch: pytest.MonkeyPatch, experiment: str) -> None:
    """Make `server` the tracking server, with an experiment of the test's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def test_a_server_that_breaks_at_any_request_and_comes_back_gets_every_row_once(
    repository: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    write_run(repository / "runs")
    with gate("forward", mlflow_server) as server:
        behind_a_gate(server, monkeypatch, request.node.name)
        failures = 0
        for limit in range(0, 60, 3):
            server.requests, server.limit = 0, limit
            try:
                run_publish(repository)
            except UnavailableError:
                failures += 1
                continue
            break
        assert failures > 3
        server.limit = None
        run_publish(repository)
        assert_one_complete_row()


def test_a_slow_server_is_waited_for(
    repository: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    write_run(repository / "runs")
    with gate("slow", mlflow_server) as server:
        behind_a_gate(server, monkeypatch, request.node.name)
        run_publish(repository)
        assert server.requests > 10
        server.mode = "forward"
        assert_one_complete_row()


def test_a_server_that_hangs_half_way_ends_the_step_and_loses_nothing(
    repository: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    write_run(repository / "runs")
    with gate("forward", mlflow_server) as server:
        behind_a_gate(server, monkeypatch, request.node.name)
        store = connect()
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        server.mode = "hang"
        with pytest.raises(UnavailableError, match=r"failed: .*make publish"):
            run_publish(repository)
        server.mode = "forward"
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        assert rows(store) == []
        run_publish(repository)
        assert_one_complete_row()


def test_a_database_locked_for_a_moment_is_waited_for(repository: Path) -> None:
    write_run(repository / "runs")
    connect()
    holder = sqlite3.connect(repository / "mlflow.db", check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(1.0, holder.close)
    release.start()
    run_publish(repository)
    release.join()
    assert_one_complete_row()


def outs_of_a_run() -> list[str]:
    """What dvc.yaml declares as outputs below `runs/`, as paths of sotu's vae_mine with seed 0."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    declared = [out for stage in stages for kind in ("outs", "metrics") for out in stage.get(kind, [])]
    names = [next(iter(out)) if isinstance(out, dict) else out for out in declared]
    values = {"${item.dataset}": "sotu", "${item.system}": "vae_mine", "${item.seed}": "0"}
    for placeholder, value in values.items():
        names = [name.replace(placeholder, value) for name in names]
    return [name for name in names if name.startswith("runs/")]


def run(folder: Path, *command: str) -> None:
    """A command that must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {f"GIT_{who}_{what}": "t@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def dvc(folder: Path, *arguments: str) -> None:
    """A dvc command."""
    run(folder, sys.executable, "-m", "dvc", *arguments)


def test_runs_that_dvc_pulled_make_the_rows_of_those_that_were_pushed(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What publish reads and dvc.yaml does not declare would be missing here."""
    directory = write_run(repository / "runs")
    run(repository, "git", "init", "-q")
    dvc(repository, "init", "-q")
    dvc(repository, "add", "-q", *(name for name in outs_of_a_run() if (repository / name).exists()))
    dvc(repository, "remote", "add", "-q", "-d", "there", str(tmp_path / "remote"))
    dvc(repository, "push", "-q")
    run_publish(repository)
    for pushed in [path for path in directory.rglob("*") if path.is_file() and path.suffix != ".dvc"]:
        pushed.unlink()
    shutil.rmtree(repository / ".dvc/cache")
    dvc(repository, "pull", "-q")
    capsys.readouterr()
    run_publish(repository)
    assert "sotu-vae_mine-0                  unchanged" in capsys.readouterr().out
    assert_one_complete_row()


def test_dvc_exp_run_temp_publishes_to_the_repository(repository: Path) -> None:
    """The real thing: DVC makes its copy of the repository, runs the stage in it, and deletes it."""
    write_run(repository / "runs")
    write_reports(repository / "reports")
    arguments = ["--runs", "runs", "--reports", "reports", "--settings", SETTINGS.model_dump_json()]
    code = "import sys; from components.publish import publish; publish.main(sys.argv[1:])"
    script = (
        f"import os, subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}, *{arguments!r}], check=True)\n"
    )
    (repository / "stage.py").write_text(script + "open('where', 'w').write(os.getcwd())\n")
    stage: dict[str, Any] = {
        "cmd": f"{sys.executable} stage.py",
        "deps": ["stage.py"],
        "outs": [{"where": {"cache": False}}],
    }
    (repository / "dvc.yaml").write_text(json.dumps({"stages": {"publish": stage}}))
    (repository / ".gitignore").write_text("mlflow.db*\nmlartifacts\n")
    run(repository, "git", "init", "-q")
    dvc(repository, "init", "-q")
    run(repository, "git", "add", ".")
    run(repository, "git", "commit", "-q", "-m", "all")
    dvc(repository, "exp", "run", "-q", "--temp", "--name", "tried")
    refs = subprocess.check_output(
        ["git", "for-each-ref", "--format=%(refname)", "refs/exps"], cwd=repository, text=True
    )
    [tried] = [ref for ref in refs.split() if ref.endswith("/tried")]
    where = subprocess.check_output(["git", "show", f"{tried}:where"], cwd=repository, text=True)
    assert ".dvc/tmp/exps" in where
    assert not list((repository / ".dvc/tmp/exps").rglob("mlflow.db"))
    assert_one_complete_row()
