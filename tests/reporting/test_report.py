"""The report: what it shows are the runs' own numbers, told apart by what the files say, with nothing left out."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
from report_reading import make, markdown_rows, results, row_of
from report_runs import (
    FAILURE,
    SETTINGS,
    measures,
    perplexities,
    write_experiment,
    write_run,
)

from components.report import report
from reporting.terminal import results_table
from textvae.errors import DataError, SettingsError
from textvae.files import read_json, write_json

HEADER = (
    "dataset,system,seed,nll,nll_iw,kl,ppl,mi,mi_se,mi_upper,mi_batch,kl_agg,au,gain,fppl,rppl,rppl_pad".split(",")  # noqa: SIM905
)


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two data sets, three systems, two seeds, with a run that diverged, one missing and one that waits for ngram."""
    write_experiment(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports on these, made once."""
    folder = tmp_path_factory.mktemp("experiment")
    write_experiment(folder)
    return make(folder)


def test_results_have_every_grid_point_in_order_with_the_numbers_of_the_runs(experiment: Path) -> None:
    reports = make(experiment)
    rows = results(reports)
    grid_points = [(d, s, seed) for d in SETTINGS.datasets for s in SETTINGS.systems for seed in SETTINGS.seeds]
    assert list(rows) == grid_points
    assert (reports / "results.csv").read_text().splitlines()[0].split(",")[: len(HEADER)] == HEADER
    metrics = read_json(experiment / "runs/ptb/vae_mine/1/evaluation/metrics.json")
    ngram = read_json(experiment / "runs/ptb/vae_mine/1/ngram.json")
    expected = {key: repr({**metrics, **ngram}[key]) for key in HEADER[3:]}
    assert {key: rows["ptb", "vae_mine", "1"][key] for key in HEADER[3:]} == expected


def test_a_measure_that_a_system_lacks_is_empty_and_not_zero(reports: Path) -> None:
    row = results(reports)["ptb", "lstm_lm", "1"]
    assert [row[key] for key in ("kl", "mi", "mi_se", "au", "gain")] == [""] * 5
    assert row["nll"] == "61.125"


def test_a_metrics_file_without_a_measure_is_refused_rather_than_shown_as_having_none(experiment: Path) -> None:
    path = experiment / "runs/ptb/vae_05/1/evaluation/metrics.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "gain"})
    with pytest.raises(DataError, match="ptb, vae_05, seed 1 has no 'gain'"):
        make(experiment)


def test_identity_is_what_the_files_say_and_not_where_they_lie(experiment: Path) -> None:
    reports = make(experiment)
    honest = {name: (reports / name).read_bytes() for name in ("results.csv", "curves.csv", "report.md", "report.html")}
    moved = experiment / "runs" / "moved"
    moved.mkdir()
    shutil.move(experiment / "runs/ptb/vae_mine/1", moved / "seed_2_of_vae_05")
    shutil.move(experiment / "runs/ptb/vae_05/2", experiment / "runs/ptb/vae_mine/1")
    shutil.move(experiment / "corpora/ptb", experiment / "corpora/yahoo")
    again = make(experiment)
    assert {name: (again / name).read_bytes() for name in honest} == honest


def test_times_that_say_whose_they_are_need_not_lie_beside_their_run(experiment: Path) -> None:
    folder = experiment / "runs/ptb/vae_mine/1"
    plain = (make(experiment) / "report.html").read_text()
    write_json(folder / "timings/train.json", {**read_json(folder / "timings/train.json"), "wall_s": 4321.0})
    expected = (make(experiment) / "report.html").read_text()
    assert expected != plain, "the report shows how long a training took"
    loose = []
    for number, path in enumerate(sorted(experiment.glob("runs/*/*/*/timings/*.json"))):
        dataset, system, seed = path.parts[-5:-2]
        loose.append(experiment / "loose" / str(number))
        owner = {"dataset": dataset, "system": system, "seed": int(seed)}
        write_json(loose[-1] / "timings/step.json", {**read_json(path), **owner})
        path.unlink()
    page, summary = experiment / "page", experiment / "summary"
    runs, corpora, reports = [experiment / "runs", *loose], [experiment / "corpora"], experiment / "kubeflow"
    report(runs=runs, corpora=corpora, settings=SETTINGS, reports=reports, page=page, summary=summary)
    assert (reports / "report.html").read_text() == page.read_text() == expected
    assert (reports / "report.md").read_bytes() == summary.read_bytes()


def test_a_file_in_place_of_a_folder_is_refused(experiment: Path) -> None:
    file = experiment / "runs/ptb/vae_mine/1/ngram.json"
    with pytest.raises(DataError, match=r"ngram\.json is a file: give a folder"):
        report(runs=[file], corpora=[], settings=SETTINGS, reports=experiment / "reports")


def test_a_run_that_diverged_is_a_failed_row_that_says_why(reports: Path) -> None:
    row = results(reports)["sotu", "vae_mine", "2"]
    assert (row["status"], row["failure"]) == ("failed", FAILURE["message"])
    assert all(row[key] == "" for key in HEADER[3:])
    assert row_of(reports, "Table 2", "sotu", "VAE-MINE, seed 2")[0] == f"*failed*: {FAILURE['message']}"
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert f'<span class="badge">failed</span> {FAILURE["message"]}' in page
    # the seed that did not diverge is shown, as one of two, without a spread
    assert row_of(reports, "Table 2", "sotu", "VAE-MINE (1 of 2 seeds)")[0] == "62.10 (2.50)"


def test_a_run_without_results_is_pending_and_one_with_some_shows_them(reports: Path) -> None:
    rows = results(reports)
    absent, partial = rows["sotu", "vae_05", "2"], rows["sotu", "vae_05", "1"]
    assert (absent["status"], absent["missing"]) == ("pending", "train evaluate ngram")
    assert all(absent[key] == "" for key in HEADER[3:])
    assert (partial["status"], partial["missing"], partial["nll"], partial["fppl"]) == ("pending", "ngram", "64.0", "")
    assert row_of(reports, "Table 2", "sotu", "VAE-0.5, seed 2")[0] == "*pending*: waiting for train, evaluate, ngram"
    assert row_of(reports, "Table 2", "sotu", "VAE-0.5, seed 1")[0] == "*pending*: waiting for ngram"
    assert row_of(reports, "Table 2", "sotu", "VAE-0.5 (1 of 2 seeds)")[4] == "–"


def test_a_report_of_nothing_yet_shows_the_whole_grid_as_pending(tmp_path: Path) -> None:
    report(runs=[tmp_path], corpora=[tmp_path], settings=SETTINGS, reports=tmp_path / "reports")
    assert {row["status"] for row in results(tmp_path / "reports").values()} == {"pending"}
    assert len(markdown_rows(tmp_path / "reports", "Table 2")) == 12 + 3  # and the paper's three on PTB
    assert "waiting for train" in results_table(tmp_path / "reports/results.csv")


def test_two_different_results_of_one_run_are_an_error_that_names_both(experiment: Path) -> None:
    stale = experiment / "runs/old/metrics.json"
    shutil.copytree(experiment / "runs/ptb/vae_05/1/evaluation", stale.parent)
    make(experiment)  # an equal copy is no conflict
    write_json(stale, {**read_json(stale), "nll": 1.0})
    with pytest.raises(DataError) as error:
        make(experiment)
    assert str(stale) in str(error.value)
    assert str(experiment / "runs/ptb/vae_05/1/evaluation/metrics.json") in str(error.value)
    assert not (experiment / "reports/results.csv").exists() or results(
        experiment / "reports"
    )  # the old one stays whole


def test_results_of_different_trainings_are_an_error(experiment: Path) -> None:
    path = experiment / "runs/ptb/vae_mine/1/ngram.json"
    write_json(path, {**read_json(path), "status": "diverged", "failure": FAILURE})
    with pytest.raises(DataError, match="ptb, vae_mine, seed 1: its files say diverged and finished"):
        make(experiment)


def test_a_run_that_evaluate_found_to_be_of_no_use_is_a_failed_row(experiment: Path) -> None:
    run = experiment / "runs/ptb/vae_mine/1"
    metrics = read_json(run / "evaluation/metrics.json")
    write_json(run / "evaluation/metrics.json", {**metrics, "status": "diverged", "failure": FAILURE})
    row = results(make(experiment))["ptb", "vae_mine", "1"]
    assert (row["status"], row["failure"]) == ("failed", FAILURE["message"])
    assert row["fppl"] == "280.0", "what was measured of its sentences stays"


def test_runs_outside_the_grid_and_unfinished_outputs_are_not_shown(experiment: Path) -> None:
    expected = (make(experiment) / "results.csv").read_bytes()
    write_run(
        experiment / "runs/ptb/vae_mine/3", "ptb", "vae_mine", 3, metrics=measures(1.0), ngram=perplexities(1.0, 1.0)
    )
    write_run(experiment / "runs/ptb/vae_mine/.1.tmp", "ptb", "vae_mine", 1, metrics=measures(1.0))
    assert (make(experiment) / "results.csv").read_bytes() == expected


def test_curves_have_every_epoch_of_every_run(reports: Path) -> None:
    with (reports / "curves.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 4 + 4 + (4 + 2) + 2 * 3 * 4  # sotu: lstm_lm, vae_05, vae_mine; ptb
    first = next(row for row in rows if (row["dataset"], row["system"]) == ("ptb", "vae_mine"))
    assert first["valid_nll"] == repr(62.0 * (1 + math.exp(-0.5)))
    assert next(row for row in rows if row["system"] == "lstm_lm")["valid_kl"] == ""


def test_damaged_curves_name_the_line(experiment: Path) -> None:
    path = experiment / "runs/ptb/vae_mine/1/curves.jsonl"
    path.write_text(path.read_text() + '{"epoch": ')
    with pytest.raises(DataError, match=r"curves\.jsonl, line 5: not JSON"):
        make(experiment)


def test_the_same_inputs_give_the_same_bytes_whatever_their_order(experiment: Path) -> None:
    first = make(experiment)
    entries = sorted((experiment / "runs").iterdir(), reverse=True)
    report(runs=entries, corpora=[experiment / "corpora"], settings=SETTINGS, reports=experiment / "again")
    for name in ("results.csv", "curves.csv", "report.md", "report.html"):
        assert (first / name).read_bytes() == (experiment / "again" / name).read_bytes()


def test_the_step_runs_from_the_command_line(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(experiment / "report.json", SETTINGS.model_dump())
    where = ["--runs", str(experiment / "runs"), "--corpora", str(experiment / "corpora")]
    with pytest.raises(SystemExit) as ended:
        report.main([*where, "--settings", str(experiment / "report.json"), "--reports", str(experiment / "made")])
    assert ended.value.code == 0
    assert (experiment / "made/results.csv").read_bytes() == (make(experiment) / "results.csv").read_bytes()
    with pytest.raises(SystemExit) as ended:
        report.main([*where, "--settings", json.dumps({"datasets": []}), "--reports", str(experiment / "made")])
    assert ended.value.code == SettingsError.exit_code
    assert "datasets" in capsys.readouterr().err


def test_what_the_step_returns_counts_the_runs(experiment: Path) -> None:
    arguments = {"corpora": [experiment / "corpora"], "settings": SETTINGS, "reports": experiment / "reports"}
    assert report(runs=[experiment / "runs"], **arguments) == {"finished": 9, "failed": 1, "pending": 2}
