"""`submit --local` with a stand-in for the engine: which steps run, with what, and what a failure does."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_engine import FakeEngine
from tiny_project import PARAMS, write_corpus, write_params

from pipelines.cluster import submit
from pipelines.cluster.experiment import RUN_STEPS

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "pipelines/cluster/cluster.yaml"
IMAGES = ["textvae-data:abc", "textvae-train:abc", "textvae-ngram:abc"]
RUNS = ["tiny-lstm_lm-1", "tiny-vae_mine-1"]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The stand-in as podman, and a project with a tiny corpus as the current folder."""
    made = FakeEngine(tmp_path / "engine", IMAGES)
    made.put("podman")
    monkeypatch.setenv("FAKE_ENGINE", str(made.folder))
    monkeypatch.setenv("PATH", str(made.folder / "bin"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    grid = {"datasets": ["tiny"], "systems": ["lstm_lm", "vae_mine"], "seeds": ["1"]}
    write_params(project, {**PARAMS, "grid": grid})
    write_corpus(project)
    monkeypatch.chdir(project)
    return made


def local(**options: object) -> int:
    """The exit code of a run."""
    arguments = {"local": True, "tag": "abc", "cluster": CLUSTER, **options}
    with pytest.raises(SystemExit) as ended:
        submit.main(**arguments)  # type: ignore[arg-type]
    return int(ended.value.code or 0)


def test_every_step_runs_once_in_its_image_and_not_again_when_it_has_been_done(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert local() == 0
    steps = engine.steps()
    assert steps[:2] == ["fetch", "preprocess"]
    assert steps[-2:] == ["report", "publish"]
    assert sorted(steps[2:-2]) == sorted(2 * (*RUN_STEPS, "gather"))
    images = {call[call.index("-m") + 1]: call[call.index("python") - 1] for call in engine.runs()}
    assert images["components.train"] == "textvae-train:abc"  # the cluster's is train-cuda
    assert images["components.ngram"] == "textvae-ngram:abc"
    said = capsys.readouterr().out
    results = re.search(r"^results: (.*)/results.csv$", said, re.MULTILINE)
    assert results is not None
    assert Path(results[1]).read_text() == "reports"
    for run in RUNS:
        assert re.search(rf"^train {run} +SUCCEEDED in ", said, re.MULTILINE)

    assert local() == 0
    assert engine.steps() == [*steps, "publish"]
    assert capsys.readouterr().out.count("CACHED") == len(steps) - 1


def test_a_group_of_runs_is_trained_once_and_before_each_of_them(engine: FakeEngine, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER.read_text().replace("runs_per_gpu: 1 ", "runs_per_gpu: 8 "))
    assert local(cluster=tmp_path / "cluster.yaml") == 0
    steps = engine.steps()
    assert steps[:3] == ["fetch", "preprocess", "train_group"]
    assert sorted(steps[3:-2]) == sorted(2 * (*RUN_STEPS, "gather"))
    calls = {call[call.index("-m") + 1]: call for call in engine.runs()}
    group, train = (calls[f"components.{step}"] for step in ("train_group", "train"))
    assert train[train.index("--finished") + 1] == str(Path(group[group.index("--finished") + 1]))
    assert local(cluster=tmp_path / "cluster.yaml") == 0
    assert engine.steps() == [*steps, "publish"]


def test_a_changed_setting_or_image_runs_what_it_concerns(engine: FakeEngine) -> None:
    assert local() == 0
    done = len(engine.steps())
    assert local(overrides=["defaults.sampling.sentences=50"]) == 0
    assert sorted(engine.steps()[done:]) == sorted(["report", "publish", *2 * ("sample", "ngram", "gather")])
    done = len(engine.steps())
    Path("data/tiny.txt").write_text("another corpus .\n" * 20)
    assert local() == 0
    assert engine.steps()[done : done + 2] == ["fetch", "preprocess"]


def test_a_step_that_fails_gives_its_exit_code_and_holds_up_only_what_needs_it(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str]
) -> None:
    (engine.folder / "fail").write_text("vae_mine 65\n")
    assert local() == 65
    steps = engine.steps()
    assert steps.count("train") == 2
    assert steps.count("evaluate") == 1
    assert not {"report", "publish"} & set(steps)
    captured = capsys.readouterr()
    assert "[train tiny-vae_mine-1] error: as told" in captured.out
    found = re.search(r"FAILED: train tiny-vae_mine-1: exit code 65, see (.*)", captured.err)
    assert found is not None
    assert Path(found[1]).read_text() == "error: as told\n"
    (engine.folder / "fail").write_text("")
    assert local() == 0
    assert engine.steps().count("train") == 3


def test_a_missing_image_is_named_before_anything_runs(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    (engine.folder / "images").write_text("\n".join(IMAGES[:2]))
    assert local() == 69
    assert engine.runs() == []
    said = capsys.readouterr().err
    assert "podman has no image textvae-ngram:abc" in said
    assert "make images" in said


def test_without_an_engine_each_is_named_with_a_reason(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    (engine.folder / "bin/podman").unlink()
    engine.put("docker")
    assert local() == 0
    assert engine.steps()[-1] == "publish"
    (engine.folder / "down").touch()
    assert local() == 69
    said = capsys.readouterr().err
    assert "podman is not installed, docker does not work (cannot connect to the daemon)" in said


def test_a_step_is_an_ordinary_user_and_its_password_is_not_on_the_command_line(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hunter2")
    assert local() == 0
    for call in engine.runs():
        user = call[call.index("--user") + 1]
        assert not user.startswith("0:")
        assert not any("hunter2" in argument for argument in call)
        assert "--env=MLFLOW_TRACKING_PASSWORD" in call
        here = Path("data/tiny.txt").resolve()
        assert f"--mount=type=bind,source={here},target=/app/data/tiny.txt,readonly" in call


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_containers_and_ends_the_run(engine: FakeEngine, number: signal.Signals) -> None:
    (engine.folder / "wait").touch()
    command = [sys.executable, "-m", "pipelines.cluster.submit", "--local", "--tag", "abc"]
    command += ["--cluster", str(CLUSTER)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert any("waiting" in line for line in lines)
        process.send_signal(number)
        rest = "".join(lines)
    assert process.returncode == 128 + number
    assert re.search(rf"^fetch tiny +FAILED after [\d:]+: exit code {128 + number}$", rest, re.MULTILINE)
    assert engine.steps() == ["fetch"]
