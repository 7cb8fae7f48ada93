"""What a run directory no longer has goes from MLflow, and nothing in one is taken for what it is not."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from made_files import changed
from tracking_helpers import (
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

from components.publish import publish, run_record
from textvae.config import ReportSettings
from textvae.errors import DataError, UnavailableError
from textvae.files import write_json
from tracking import connect

pytest_plugins = ["tracking_fixtures"]
SETTINGS = ReportSettings(datasets=["sotu"], systems=["vae_mine", "lstm_lm"], seeds=["0", "1"], reduced={"sotu": True})


def run_publish(root: Path) -> None:
    """The step on everything below `root`."""
    publish(runs=[root / "runs"], reports=write_reports(root / "reports"), settings=SETTINGS)


# Gone is gone.


def shown_of(repository: Path) -> tuple[dict[str, float], set[str], str]:
    """Of the one row: its metrics, its files, its run id."""
    store = connect()
    [run] = rows(store)
    return run.data.metrics, store.artifacts(run), run.info.run_id


@pytest.mark.parametrize(
    ("file", "keys"), [("evaluation/metrics.json", {"nll", "au"}), ("ngram.json", {"fppl", "rppl", "real_text_fppl"})]
)
def test_what_the_run_directory_no_longer_has_goes_from_its_row(
    repository: Path, capsys: pytest.CaptureFixture[str], file: str, keys: set[str]
) -> None:
    directory = write_run(repository / "runs")
    run_publish(repository)
    before, files, first = shown_of(repository)
    assert keys <= set(before)
    (directory / file).rename(repository / "moved away")
    capsys.readouterr()
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "replaced"
    after, left, second = shown_of(repository)
    assert not keys & set(after)
    assert {key: after[key] for key in ("valid_nll", "selected_epoch")} == {
        key: before[key] for key in ("valid_nll", "selected_epoch")
    }
    assert left == files - {file}
    assert second != first
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "unchanged"
    assert shown_of(repository)[2] == second
    (repository / "moved away").rename(directory / file)
    run_publish(repository)
    assert outcomes(capsys)["sotu-vae_mine-0"] == "updated"
    assert shown_of(repository) == (before, files, second)


def test_a_measure_that_is_no_number_any_more_is_not_shown_as_the_old_one(repository: Path) -> None:
    directory = write_run(repository / "runs")
    run_publish(repository)
    metrics = json.loads((directory / "evaluation/metrics.json").read_text())
    write_json(directory / "evaluation/metrics.json", {**metrics, "nll": None})
    run_publish(repository)
    assert "nll" not in shown_of(repository)[0]
    assert "au" in shown_of(repository)[0]
    for none in (10**400, "much"):
        write_json(directory / "evaluation/metrics.json", {**metrics, "nll": none})
        with pytest.raises(DataError, match=r"metrics\.json is not as evaluate writes it: nll: .* a valid number"):
            run_publish(repository)


def test_a_column_of_the_curves_that_is_gone_goes_from_the_row(repository: Path) -> None:
    directory = write_run(repository / "runs")
    run_publish(repository)
    kept = [{key: value for key, value in row.items() if key != "valid_au"} for row in curve(3)]
    (directory / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    run_publish(repository)
    assert {"valid_nll", "mi_estimate"} <= set(shown_of(repository)[0])
    assert "valid_au" not in shown_of(repository)[0]


def test_what_somebody_added_in_mlflow_goes_and_their_tags_stay(repository: Path) -> None:
    write_run(repository / "runs")
    run_publish(repository)
    store = connect()
    _, _, run_id = shown_of(repository)
    store.client.set_tag(run_id, "reviewed", "yes")
    store.client.set_tag(run_id, "failure", "it never failed")
    run_publish(repository)
    [run] = rows(store)
    assert (run.info.run_id, run.data.tags["reviewed"]) == (run_id, "yes")
    assert "failure" not in run.data.tags
    store.client.log_metric(run_id, "valid_nll", 1.0, step=99)
    run_publish(repository)
    [run] = rows(store)
    assert points(store, run, "valid_nll") == [(row["epoch"], row["valid_nll"]) for row in curve(3)]
    run_id = run.info.run_id
    for log, what in ((store.client.log_metric, ("bleu", 1.0)), (store.client.log_param, ("a", "1"))):
        log(run_id, *what)
        run_publish(repository)
        [run] = rows(store)
        assert "bleu" not in run.data.metrics
        assert "a" not in run.data.params
        run_id = run.info.run_id
    (repository / "note.txt").write_text("note")
    store.client.log_artifact(run_id, str(repository / "note.txt"), "notes/deep")
    assert "notes/deep/note.txt" in shown_of(repository)[1]
    run_publish(repository)
    assert "notes/deep/note.txt" not in shown_of(repository)[1]


def test_a_file_that_left_the_report_leaves_its_row(repository: Path) -> None:
    write_run(repository / "runs")
    figure = write_reports(repository / "reports") / "figures/old.svg"
    figure.parent.mkdir()
    figure.write_text("<svg/>")
    run_publish(repository)
    figure.unlink()
    run_publish(repository)
    store = connect()
    [run] = store.client.search_runs([store.experiment_id], "tags.kind = 'report'")
    assert store.artifacts(run) == {"report.html", "results.csv"}
    link = store.client.get_experiment(store.experiment_id).tags["mlflow.note.content"]
    assert run.info.run_id in link


def test_candidates_that_are_gone_leave_their_run(repository: Path) -> None:
    directory = with_candidates(write_run(repository / "runs"))
    run_publish(repository)
    store = connect()
    [before] = rows(store)
    account = json.loads((directory / "model/candidates.json").read_text())
    write_json(directory / "model/candidates.json", {**account, "candidates": account["candidates"][1:]})
    run_publish(repository)
    assert set(nested(store, rows(store)[0])) == {"alpha=3.0", "alpha=9.0"}
    (directory / "evaluation/metrics.json").unlink()  # the row is written anew, and what is under it comes along
    run_publish(repository)
    [after] = rows(store)
    assert after.info.run_id != before.info.run_id
    assert set(nested(store, after)) == {"alpha=3.0", "alpha=9.0"}
    (directory / "model/candidates.json").unlink()
    run_publish(repository)
    assert nested(store, rows(store)[0]) == {}
    assert store.client.search_runs([store.experiment_id], "tags.kind = 'candidate'") == []


@pytest.mark.parametrize("cut_off", ["delete_run", "create_run", "log_batch", "set_terminated"])
def test_a_row_written_anew_heals_wherever_it_was_cut_off(
    repository: Path, monkeypatch: pytest.MonkeyPatch, cut_off: str
) -> None:
    directory = with_candidates(write_run(repository / "runs"))
    run_publish(repository)
    (directory / "evaluation/metrics.json").unlink()
    store, record = connect(), run_record(directory, True)
    done = getattr(store.client, cut_off)

    def breaks(*arguments: Any, **named: Any) -> None:
        done(*arguments, **named)
        raise ConnectionError("cut off")

    with monkeypatch.context() as broken:
        broken.setattr(store.client, cut_off, breaks)
        with pytest.raises(UnavailableError, match="cut off"):
            store.publish(record)
    run_publish(repository)
    metrics, files, _ = shown_of(repository)
    assert "nll" not in metrics
    assert "fppl" in metrics
    assert "evaluation/metrics.json" not in files
    assert set(nested(store, rows(store)[0])) == {"alpha=2.0", "alpha=3.0", "alpha=9.0"}


# Nothing is taken for what it is not.


@pytest.mark.parametrize(
    "name",
    [
        "curves.jsonl",
        "evaluation/metrics.json",
        "ngram.json",
        "samples.parquet",
        "model/candidates.json",
        "timings/train.json",
    ],
)
def test_a_file_of_another_run_is_refused_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Before anything is sent: the store here does not exist."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    own, other = (with_candidates(write_run(tmp_path / "runs", system)) for system in ("vae_mine", "lstm_lm"))
    for directory in (own, other):
        write_samples(directory, ["a sentence"])
        timings = json.loads((directory / "timings/train.json").read_text())
        system = {"dataset": "sotu", "system": directory.parent.name, "seed": 0}
        write_json(directory / "timings/train.json", timings | system)
    shutil.copy(other / name, own / name)
    with pytest.raises(DataError, match=rf"{name} is of sotu-lstm_lm-0, in the run directory of sotu-vae_mine-0"):
        run_publish(tmp_path)


def test_a_measure_of_another_training_of_the_run_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    directory = write_run(tmp_path / "runs")
    diverged = write_run(tmp_path / "elsewhere", diverged=True)
    shutil.copy(diverged / "ngram.json", directory / "ngram.json")
    with pytest.raises(DataError, match=r"ngram\.json says diverged, .* finished: they are of different trainings"):
        run_publish(tmp_path)
    changed(directory / "ngram.json", status="finished", failure=None, model_sha256="0" * 64)
    with pytest.raises(DataError, match=r"ngram\.json is of another training than config\.json"):
        run_publish(tmp_path)


@pytest.mark.parametrize("place", ["runs/sotu/vae_mine/0/ngram.json", "runs/sotu/vae_mine/0/evaluation", "reports/key"])
def test_a_link_that_leads_out_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    write_run(tmp_path / "runs")
    write_reports(tmp_path / "reports")
    link, target = tmp_path / place, tmp_path / "elsewhere"
    if link.exists():
        link.rename(target)
    else:
        target.write_text("a secret")
    link.symlink_to(target)
    with pytest.raises(DataError, match=f"{place} is a link to {target}, outside of .*remove the link"):
        run_publish(tmp_path)


def test_links_within_a_run_and_into_dvcs_cache_and_a_linked_folder_of_runs_are_taken(repository: Path) -> None:
    """`dvc config cache.type symlink`, the cache shared with others; and runs on a larger disk."""
    directory = write_run(repository.parent / "large disk")
    cached = repository.parent / "shared/files/md5" / "ab" / ("0123456789" * 3)
    cached.parent.mkdir(parents=True)
    (directory / "ngram.json").rename(cached)
    (directory / "ngram.json").symlink_to(cached)
    (directory / "curves.jsonl").rename(directory / "curves-of-today.jsonl")
    (directory / "curves.jsonl").symlink_to("curves-of-today.jsonl")
    (repository / "runs").mkdir()
    (repository / "runs/sotu").symlink_to(repository.parent / "large disk/sotu")
    (directory.parent / "latest").symlink_to("0")
    (directory / "a").symlink_to("b")
    (directory / "b").symlink_to("a")
    run_publish(repository)
    assert {"fppl", "valid_nll"} <= set(shown_of(repository)[0])
