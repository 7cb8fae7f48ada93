"""MLflow equals the run directories, however often, from wherever and by however many it is published."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_files import changed
from tracking_helpers import (
    ROOT,
    SETTINGS,
    curve,
    nested,
    outcomes,
    points,
    rows,
    with_candidates,
    write_reports,
    write_run,
    write_samples,
)

from components.publish import publish
from textvae.config import ReportSettings
from textvae.errors import DataError
from textvae.files import read_json, write_json
from tracking import RunIdentity, connect
from tracking.live import LiveRun

pytest_plugins = ["tracking_fixtures"]
GRID = {"datasets": ["sotu"], "systems": ["vae_mine", "lstm_lm"], "seeds": ["0", "1"], "reduced": {"sotu": True}}


def run_publish(root: Path, **changes: Any) -> None:
    """The step on everything below `root`."""
    settings = ReportSettings(**(GRID | changes))
    publish(runs=[root / "runs"], reports=write_reports(root / "reports"), settings=settings)


def test_a_row_says_what_the_directory_says(repository: Path) -> None:
    directory = write_run(repository / "runs")
    run_publish(repository)
    store = connect()
    [run] = rows(store)
    assert (run.info.run_name, run.info.status) == ("sotu-vae_mine-0", "FINISHED")
    # 2025-01-02T03:04:05Z and 12.5 s later, by `date -u -d ... +%s`.
    assert (run.info.start_time, run.info.end_time) == (1735787045000, 1735787057500)
    for key in ("valid_nll", "valid_au", "mi_estimate", "lr", "step"):
        assert points(store, run, key) == [(row["epoch"], row[key]) for row in curve(3)]
    final = {"nll": 98.7654321, "au": 4, "fppl": 55.5, "rppl": 66.25, "real_text_fppl": 141.19, "selected_epoch": 2}
    assert {key: run.data.metrics[key] for key in final} == final
    assert "seed" not in run.data.metrics
    assert "at_ceiling" not in run.data.tags
    assert run.data.params["training.learning_rate"] == "0.001"
    assert run.data.params["objective.name"] == "vae_mine"
    assert json.loads(run.data.params["objective.anneal"]) == [0, 10]
    assert len(run.data.params) == sum(len(part) for part in SETTINGS.values())
    tags = {"dataset": "sotu", "system": "vae_mine", "seed": "0", "status": "finished", "host": "here"}
    tags |= {"commit": "0123456789ab", "reduced_settings": "true"}
    assert {key: run.data.tags[key] for key in tags} == tags
    for name in ("model/config.json", "curves.jsonl", "evaluation/metrics.json", "ngram.json"):
        [copy] = repository.glob(f"mlartifacts/{run.info.run_id}/artifacts/{name}")
        assert copy.read_bytes() == (directory / name).read_bytes()


def test_publishing_again_changes_nothing(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for system in ("vae_mine", "lstm_lm"):
        write_run(repository / "runs", system)
    run_publish(repository)
    named = ["sotu-vae_mine-0", "sotu-lstm_lm-0", "report"]
    pending = dict.fromkeys(["sotu-vae_mine-1", "sotu-lstm_lm-1"], "not trained yet")
    assert outcomes(capsys) == dict.fromkeys(named, "created") | pending
    store = connect()
    before = [run.to_dictionary() for run in rows(store)]
    run_publish(repository)
    assert outcomes(capsys) == dict.fromkeys(named, "unchanged") | pending
    assert [run.to_dictionary() for run in rows(store)] == before
    assert all(len(points(store, run, "valid_nll")) == 3 for run in rows(store))


def test_a_row_has_the_reports_differences_of_its_own_numbers_and_says_what_is_at_its_ceiling(
    repository: Path,
) -> None:
    """vae_mine's NLL is that of the report, until it is measured again; of lstm_lm the report has no row."""
    full = {"mi": 4.0, "gain": 3.4, "gain_codes": 32, "sentences": 100}  # log 100 = 4.61, log 32 = 3.47
    for system, nll in (("vae_mine", 98.7654321), ("lstm_lm", 98.7654321)):
        metrics = write_run(repository / "runs", system, nll=nll) / "evaluation/metrics.json"
        write_json(metrics, read_json(metrics) | full)
    run_publish(repository)
    found = {run.data.tags["system"]: run.data for run in rows(connect())}
    paired = {"nll_iw_minus_lstm_lm": -0.25, "nll_iw_minus_lstm_lm_se": 0.125}
    assert {key: found["vae_mine"].metrics[key] for key in paired} == paired
    assert not any("_minus_" in key for key in found["lstm_lm"].metrics)
    assert {data.tags["at_ceiling"] for data in found.values()} == {"gain"}
    write_run(repository / "runs", nll=97.0)
    run_publish(repository)
    found = {run.data.tags["system"]: run.data for run in rows(connect())}
    assert not any("_minus_" in key for key in found["vae_mine"].metrics), "the report is of older numbers"


def test_a_damaged_table_of_results_is_refused(repository: Path) -> None:
    write_run(repository / "runs")
    reports = write_reports(repository / "reports")
    (reports / "results.csv").write_text("dataset,system,seed,nll\nsotu,vae_mine,0,many\n")
    with pytest.raises(DataError, match=r"results\.csv is damaged .*run the report step again"):
        publish(runs=[repository / "runs"], reports=reports, settings=ReportSettings(**GRID))


def test_a_diverged_run_is_a_failed_row_with_its_reason(repository: Path) -> None:
    write_run(repository / "runs", diverged=True)
    run_publish(repository)
    [run] = rows(connect())
    assert (run.info.status, run.data.tags["status"]) == ("FAILED", "diverged")
    assert run.data.tags["failure"] == "the loss is not finite"
    assert "nll" not in run.data.metrics
    assert "valid_nll" in run.data.metrics


def test_a_run_that_evaluate_found_to_be_of_no_use_is_a_failed_row_without_a_model(repository: Path) -> None:
    metrics = write_run(repository / "runs") / "evaluation/metrics.json"
    useless = {"status": "diverged", "failure": {"message": "diverged: 1e+20 nats a token"}, "nll": None}
    write_json(metrics, read_json(metrics) | useless)
    run_publish(repository)
    store = connect()
    [run] = rows(store)
    assert (run.info.status, run.data.tags["failure"]) == ("FAILED", "diverged: 1e+20 nats a token")
    assert "nll" not in run.data.metrics
    assert store.client.search_registered_models() == []


def test_a_changed_setting_is_a_new_row_and_the_older_one_stays(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(repository / "runs")
    run_publish(repository)
    write_run(repository / "runs", learning_rate=0.002, shift=1.0)
    capsys.readouterr()
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "created"
    store = connect()
    by_rate = {run.data.params["training.learning_rate"]: run for run in rows(store)}
    assert set(by_rate) == {"0.001", "0.002"}
    assert points(store, by_rate["0.001"], "valid_nll") == [(row["epoch"], row["valid_nll"]) for row in curve(3)]


def test_what_is_measured_later_is_added_and_what_is_measured_again_is_shown(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = write_run(repository / "runs")
    later = {name: (directory / name).read_bytes() for name in ("evaluation/metrics.json", "ngram.json")}
    for name in later:
        (directory / name).unlink()
    run_publish(repository)
    for name, content in later.items():
        (directory / name).write_bytes(content)
    capsys.readouterr()
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "updated"
    write_run(repository / "runs", nll=90.0)
    run_publish(repository)
    write_run(repository / "runs", nll=95.0)
    run_publish(repository)
    store = connect()
    [run] = rows(store)
    assert run.data.metrics["nll"] == 95.0
    assert len(points(store, run, "fppl")) == 1
    copy = repository / "mlartifacts" / run.info.run_id / "artifacts/evaluation/metrics.json"
    assert json.loads(copy.read_text())["nll"] == 95.0
    capsys.readouterr()
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "unchanged"


def test_a_training_repeated_with_other_numbers_replaces_its_row(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(repository / "runs", epochs=5)
    run_publish(repository)
    write_run(repository / "runs", shift=0.5)
    capsys.readouterr()
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "replaced"
    store = connect()
    [run] = rows(store)
    assert points(store, run, "valid_nll") == [(row["epoch"], row["valid_nll"]) for row in curve(3, shift=0.5)]


def test_what_somebody_removed_from_mlflow_comes_back(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for system in ("vae_mine", "lstm_lm"):
        write_run(repository / "runs", system)
    run_publish(repository)
    store = connect()
    first, second = sorted(rows(store), key=lambda run: run.info.run_name)
    store.client.delete_run(first.info.run_id)
    (repository / "mlartifacts" / second.info.run_id / "artifacts/ngram.json").unlink()
    capsys.readouterr()
    run_publish(repository)
    changed = outcomes(capsys)
    assert (changed[first.info.run_name], changed[second.info.run_name]) == ("created", "updated")
    store.client.set_tag(second.info.run_id, "status", "wonderful")
    store.client.delete_experiment(store.experiment_id)
    run_publish(repository)
    assert {run.data.tags["status"] for run in rows(connect())} == {"finished"}
    assert (repository / "mlartifacts" / second.info.run_id / "artifacts/ngram.json").exists()


def test_what_left_the_grid_is_not_published(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(repository / "runs", "vae_mine")
    write_run(repository / "runs", "vae_05")
    run_publish(repository, seeds=["0"])
    assert set(outcomes(capsys)) == {"sotu-vae_mine-0", "sotu-lstm_lm-0", "report"}


def test_the_report_is_one_row_with_the_latest_report(repository: Path) -> None:
    settings = ReportSettings(**GRID)
    (repository / "runs").mkdir()
    for text in ("first", "second", "second"):
        reports = write_reports(repository / "reports", text)
        publish(runs=[repository / "runs"], reports=reports, settings=settings)
    store = connect()
    [run] = store.client.search_runs([store.experiment_id], "tags.kind = 'report'")
    assert (repository / "mlartifacts" / run.info.run_id / "artifacts/report.html").read_text() == "second"


@pytest.mark.parametrize("name", ["curves.jsonl", "model/config.json", "timings/train.json"])
@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_a_damaged_run_directory_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    """Before anything is sent: the store here does not exist."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    directory = write_run(tmp_path / "runs")
    (directory / name).write_text(content)
    with pytest.raises(DataError, match="vae_mine"):
        run_publish(tmp_path)


def test_two_directories_of_one_run_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "runs")
    write_run(tmp_path / "runs" / "copy")
    with pytest.raises(DataError, match="both sotu-vae_mine-0"):
        run_publish(tmp_path)


def command() -> list[str]:
    """The command line of the step on everything in the current folder."""
    options = ["--runs", "runs", "--reports", "reports", "--settings", json.dumps(GRID)]
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{LAUNCH}", *options]


LAUNCH = "from components.publish import publish; publish.main()"


def test_four_at_once_on_a_fresh_database_make_each_row_once(repository: Path) -> None:
    """Without the lock MLflow makes the experiment several times, or files runs under another."""
    (repository / "mlflow.db").unlink()
    for system in ("vae_mine", "lstm_lm"):
        for seed in (0, 1):
            write_run(repository / "runs", system, seed)
    write_reports(repository / "reports")
    started = [
        subprocess.Popen(command(), cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    printed = [process.communicate(timeout=600) for process in started]
    assert [process.returncode for process in started] == [0] * 4, printed
    assert "".join(out for out, _ in printed).count("created") == 5
    store = connect()
    assert sorted(e.name for e in store.client.search_experiments()) == ["Default", "textvae"]
    assert sorted(run.info.run_name for run in rows(store)) == [
        *("sotu-lstm_lm-0", "sotu-lstm_lm-1", "sotu-vae_mine-0", "sotu-vae_mine-1")
    ]
    for run in rows(store):
        seed, system = int(run.data.tags["seed"]), run.data.tags["system"]
        wanted = [(row["epoch"], row["valid_nll"]) for row in curve(3, system, seed)]
        assert points(store, run, "valid_nll") == wanted
        assert len(points(store, run, "nll")) == 1


def test_dvcs_temporary_workspace_publishes_to_the_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = repository / ".dvc/tmp/exps/standalone/tmpabc123"
    (workspace / ".git").mkdir(parents=True)
    (workspace / "params.yaml").write_text("grid: {}\n")
    write_run(workspace / "runs")
    monkeypatch.chdir(workspace)
    run_publish(workspace)
    assert not list(workspace.glob("ml*"))
    monkeypatch.chdir(repository)
    assert [run.info.run_name for run in rows(connect())] == ["sotu-vae_mine-0"]


def test_a_server_gets_the_same_rows(
    repository: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of a team")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    directory = write_run(repository / "runs", epochs=400)
    run_publish(repository)
    store = connect()
    assert f"MLflow: {mlflow_server}/#/experiments/{store.experiment_id}" in capsys.readouterr().out
    [run] = rows(store)
    assert points(store, run, "valid_nll") == [(row["epoch"], row["valid_nll"]) for row in curve(400)]
    copy = Path(store.client.download_artifacts(run.info.run_id, "evaluation/metrics.json", str(repository)))
    assert copy.read_bytes() == (directory / "evaluation/metrics.json").read_bytes()
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "unchanged"


def test_a_server_that_is_down_is_one_line_and_exit_69(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")  # the discard port: nobody answers
    write_run(repository / "runs")
    write_reports(repository / "reports")
    done = subprocess.run(command(), cwd=repository, capture_output=True, text=True, timeout=60)
    assert done.returncode == 69
    [line] = done.stderr.splitlines()
    assert line.startswith("error: MLflow at http://127.0.0.1:9 failed: ")
    assert "make publish" in line
    assert "secret" not in line


def test_a_broken_settings_file_is_refused_before_mlflow(repository: Path) -> None:
    write_run(repository / "runs")
    write_json(repository / "report.json", GRID | {"dataset": "sotu"})
    options = ["--runs", "runs", "--reports", ".", "--settings", "report.json"]
    done = subprocess.run([*command()[:3], *options], cwd=repository, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "dataset: no such key" in done.stderr


def test_generated_sentences_are_shown_as_text(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = write_run(repository / "runs")
    sentences = [f"sentence {number} café" for number in range(1000)]
    write_samples(directory, sentences)
    write_samples(write_run(repository / "runs", "lstm_lm", diverged=True), [])
    run_publish(repository)
    capsys.readouterr()
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "unchanged"
    shown = {path.read_text(encoding="utf-8") for path in repository.glob("mlartifacts/*/artifacts/samples.txt")}
    assert shown == {"".join(f"{sentence}\n" for sentence in sentences[:200]), ""}


# Rows under rows.


def test_each_value_of_a_selected_setting_is_a_row_under_its_run(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_candidates(write_run(repository / "runs"))
    run_publish(repository)
    store = connect()
    [run] = rows(store)
    assert run.data.tags["chosen"] == "alpha=3.0"
    found = nested(store, run)
    assert {name: one.info.status for name, one in found.items()} == {
        "alpha=2.0": "FINISHED",
        "alpha=3.0": "FINISHED",
        "alpha=9.0": "FAILED",
    }
    first = found["alpha=2.0"]
    assert points(store, first, "valid_nll") == [(row["epoch"], row["valid_nll"]) for row in curve(2, shift=1.0)]
    assert first.data.params["objective.alpha"] == "2.0"
    assert first.data.metrics["selected_valid_nll_iw"] == 61.5
    assert first.data.metrics["selected_difference_se"] == 0.5
    assert first.data.tags["mlflow.note.content"] == "Not kept: 3.0 was, by the highest MI."
    assert found["alpha=3.0"].data.tags["mlflow.note.content"] == "Kept, by the highest MI."
    assert found["alpha=9.0"].data.tags["mlflow.note.content"] == "Diverged: not finite"
    before = [one.to_dictionary() for one in store.client.search_runs([store.experiment_id])]
    capsys.readouterr()
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "unchanged"
    assert [one.to_dictionary() for one in store.client.search_runs([store.experiment_id])] == before


def test_a_candidate_shown_while_it_trains_is_the_row_under_the_run(
    repository: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "candidates")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    directory = with_candidates(write_run(repository / "runs"))
    settings = json.loads((directory / "model/config.json").read_text())["settings"]
    settings["objective"]["alpha"] = 2.0
    (repository / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in curve(2, shift=1.0)))
    identity = RunIdentity("sotu", "vae_mine", 0, settings, "ab" * 32, "c0de", "alpha=2.0")
    live = LiveRun(identity, repository / "curves.jsonl")
    live.start()
    live.end("FINISHED")
    store = connect()
    [shown] = store.client.search_runs([store.experiment_id])
    run_publish(repository)
    [run] = rows(store)
    assert nested(store, run)["alpha=2.0"].info.run_id == shown.info.run_id


def test_a_run_of_the_pipeline_is_the_row_that_holds_all_others(repository: Path) -> None:
    for system in ("vae_mine", "lstm_lm"):
        write_run(repository / "runs", system)
    settings = ReportSettings(**GRID)
    store = connect()
    for attempt in ("first", "first", "second"):  # the first is tried twice, the second finds everything cached
        reports = write_reports(repository / "reports", attempt)
        publish(
            runs=[repository / "runs"], reports=reports, settings=settings, pipeline_run=attempt, pipeline_name="My run"
        )
        [parent] = store.client.search_runs([store.experiment_id], f"tags.pipeline_run = '{attempt}'")
        assert (parent.info.run_name, parent.info.status) == ("My run", "FINISHED")
        assert set(nested(store, parent)) == {"sotu-vae_mine-0", "sotu-lstm_lm-0"}
        [report] = repository.glob(f"mlartifacts/{parent.info.run_id}/artifacts/report.html")
        assert report.read_text() == attempt
    assert len(store.client.search_runs([store.experiment_id])) == 2 + 2


@pytest.mark.parametrize("task_of_its_own", [False, True])
def test_the_run_that_kubeflow_made_is_filled_and_stays_kubeflows(
    repository: Path, monkeypatch: pytest.MonkeyPatch, task_of_its_own: bool
) -> None:
    """MLFLOW_RUN_ID names the pipeline's run, or one nested in it for the step; its experiment is not ours."""
    write_run(repository / "runs")
    client = connect().client
    experiment = client.create_experiment("kubeflow's", (repository / "mlartifacts").as_uri())
    made = client.create_run(experiment, run_name="made by Kubeflow", start_time=5)
    given = made
    if task_of_its_own:
        given = client.create_run(experiment, run_name="publish", tags={"mlflow.parentRunId": made.info.run_id})
    monkeypatch.setenv("MLFLOW_RUN_ID", given.info.run_id)
    settings, reports = ReportSettings(**GRID), write_reports(repository / "reports")
    for _ in range(2):
        publish(runs=[repository / "runs"], reports=reports, settings=settings, pipeline_run="x", pipeline_name="y")
    store = connect()
    assert store.experiment_id == experiment
    parent = client.get_run(made.info.run_id)
    assert (parent.info.run_name, parent.info.status, parent.info.start_time) == ("made by Kubeflow", "RUNNING", 5)
    assert parent.data.tags["pipeline_run"] == "x"
    assert "report.html" in {file.path for file in client.list_artifacts(made.info.run_id)}
    own = {"publish"} if task_of_its_own else set()
    assert set(nested(store, parent)) == {"sotu-vae_mine-0"} | own
    assert len(client.search_runs([experiment])) == 2 + len(own)


def test_a_run_that_kubeflow_names_and_mlflow_does_not_know_is_an_error(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(DataError, match=f"{'0' * 32}.* not found.*MLFLOW_RUN_ID"):
        run_publish(repository)


def test_models_that_come_by_themselves_are_registered_and_their_candidates_shown(repository: Path) -> None:
    """As on Kubeflow, where a run directory is without the weights."""
    directory = with_candidates(write_run(repository / "runs"))
    model = Path(shutil.copytree(directory / "model", repository / "a model"))
    (directory / "model/candidates.json").unlink()
    (model / "model.safetensors").write_text("weights")
    (model / "vocabulary.json").write_text("{}")
    changed(model / "config.json")
    reports, settings = write_reports(repository / "reports"), ReportSettings(**GRID)
    publish(runs=[repository / "runs"], reports=reports, settings=settings, models=[model])
    store = connect()
    [run] = rows(store)
    assert set(nested(store, run)) == {"alpha=2.0", "alpha=3.0", "alpha=9.0"}
    [version] = store.client.search_model_versions("name = 'textvae-sotu'")
    assert version.run_id == run.info.run_id


def test_the_model_of_no_run_is_refused(repository: Path) -> None:
    model = write_run(repository / "elsewhere") / "model"
    write_run(repository / "runs", "lstm_lm")
    with pytest.raises(DataError, match="another model of sotu-vae_mine-0"):
        publish(
            runs=[repository / "elsewhere"],
            reports=write_reports(repository / "reports"),
            settings=ReportSettings(**GRID),
            models=[model, model],
        )
    with pytest.raises(DataError, match=r"model of sotu-vae_mine-0, of which there is no run directory"):
        publish(
            runs=[repository / "runs"],
            reports=write_reports(repository / "reports"),
            settings=ReportSettings(**GRID),
            models=[model],
        )


# What MLflow refuses is told from what it cannot do now.


def test_a_refusal_is_not_called_temporary(
    repository: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the default store and on a server: MLflow takes no experiment name of more than 500 characters."""
    write_run(repository / "runs")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "x" * 501)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for uri in (None, mlflow_server):
        if uri is not None:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(DataError, match=r"refuses the experiment x+, and would again: .*500.*EXPERIMENT_NAME"):
            run_publish(repository)
