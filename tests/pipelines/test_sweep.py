"""pipelines/machine/sweep.py on the tiny corpus: what it trains, what it writes, what a second call leaves alone."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import yaml
from made_files import changed
from tiny_project import PARAMS, ROOT, write_corpus, write_params

from components.fetch import fetch
from components.preprocess import preprocess
from pipelines.machine.sweep import Sweep, main, planned
from textvae.config import Params, PreprocessSettings
from textvae.errors import DataError, SettingsError
from textvae.files import read_json

pytest_plugins = ["tracking_fixtures"]
SWEEP = {
    "dataset": "tiny",
    "seed": 3,
    "trials": {"vae_05": [{}], "vae_mine": [{"objective": {"alpha": 3.0}, "training": {"epochs": 1}}]},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "data").mkdir()
    write_corpus(tmp_path, 120)
    write_params(tmp_path, PARAMS)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP, sort_keys=False))
    return tmp_path


def made_corpus() -> None:
    params = Params.load(Path("params.yaml"))
    settings = params.fetch("tiny").model_copy(update={"sha256": None})
    fetch(settings=settings, raw=Path("corpora/tiny/raw"))
    preprocess(
        raw=Path("corpora/tiny/raw"),
        settings=PreprocessSettings(dataset="tiny", vocabulary_size=100),
        corpus=Path("corpora/tiny/corpus"),
    )


def sweep() -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "pipelines.machine.sweep"], capture_output=True, text=True)


def test_every_trial_is_trained_measured_on_the_validation_set_and_shown_once(
    project: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in this process, then by the command."""
    shutil.copy(template, project / "mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")  # put back afterwards: a sweep sets it for its process
    made_corpus()
    main(sweep=Path("sweep.yaml"), jobs=2, table=None)
    table = (project / "results/sweep-tiny.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    named = [(row["system"], row["seed"], row["changes"]) for row in rows]
    assert named == [
        ("vae_05", "3", "as in params.yaml"),
        ("vae_mine", "3", "alpha 3.0, epochs 1"),
    ]
    for row, trial in zip(rows, planned(Sweep.load(Path("sweep.yaml")), Params.load(Path("params.yaml"))), strict=True):
        metrics = read_json(trial.metrics)
        assert metrics["split"] == "valid"
        assert metrics["sentences"] == read_json(Path("corpora/tiny/raw/source.json"))["sentences"]["valid"]
        assert (float(row["nll_iw"]), float(row["mi"])) == (metrics["nll_iw"], metrics["mi"])
        assert read_json(trial.folder / "model/config.json")["settings"]["objective"] == trial.train["objective"]

    client = mlflow.MlflowClient(f"sqlite:///{project}/mlflow.db")
    experiment = client.get_experiment_by_name("textvae-sweep")
    names = {run.info.run_name for run in client.search_runs([experiment.experiment_id])}
    assert names == {"vae_05: as in params.yaml", "vae_mine: alpha 3.0, epochs 1"}

    written = {path: path.stat().st_mtime_ns for path in project.glob("sweeps/**/model/*")}
    second = sweep()
    assert second.returncode == 0, second.stderr
    assert written == {path: path.stat().st_mtime_ns for path in project.glob("sweeps/**/model/*")}
    assert (project / "results/sweep-tiny.csv").read_text() == table
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_a_failing_trial_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_corpus()
    (project / "corpora/tiny/corpus/train.parquet").unlink()
    (project / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, "trials": {"vae_05": [{}]}}))
    with pytest.raises(SystemExit) as failed:
        main(sweep=Path("sweep.yaml"), jobs=1, table=None)
    assert failed.value.code == 65
    assert (
        "vae_05 (as in params.yaml): train ended with exit code 65: see sweeps/tiny/vae_05/" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trials": {"vae": [{}]}}, "no entry for vae"),
        ({"dataset": "nowhere"}, "no entry for nowhere"),
        ({"trials": {"vae_mine": [{"objective": {"alfa": 3.0}}]}}, "alfa"),
        ({"trails": {}}, "trails"),
        ({"seed": -1}, "seed"),
        ({"trials": {"vae_05": [{}, {"objective": {"annealing_epochs": 1}}]}}, "`as in params.yaml` and `annealing"),
    ],
)
def test_a_wrong_sweep_is_refused_before_anything_is_trained(
    project: Path, changes: dict, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made_corpus()
    (project / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, **changes}))
    with pytest.raises(SystemExit) as refused:
        main(sweep=Path("sweep.yaml"), jobs=1, table=None)
    assert refused.value.code == SettingsError.exit_code
    assert message in capsys.readouterr().err
    assert not (project / "sweeps").exists()


def test_another_corpus_is_another_trial(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(sweep=Path("sweep.yaml"), jobs=1, table=None)
    assert refused.value.code == DataError.exit_code
    assert "corpora/tiny/corpus/corpus.json is missing" in capsys.readouterr().err
    sweep, params = Sweep.load(Path("sweep.yaml")), Params.load(Path("params.yaml"))
    made_corpus()
    before = [trial.folder for trial in planned(sweep, params)]
    assert before == [trial.folder for trial in planned(sweep, params)]
    about = Path("corpora/tiny/corpus/corpus.json")
    changed(about, sha256="0" * 64)
    assert not {trial.folder for trial in planned(sweep, params)} & set(before)
