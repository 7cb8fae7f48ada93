"""The compiled pipeline's commands, run here as Kubeflow's launcher would, give the results of dvc.yaml's."""

import importlib
import itertools
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from tiny_project import PARAMS, write_corpus, write_params

from pipelines.cluster.experiment import RUN_STEPS, compile_experiment
from pipelines.cluster.resources import Cluster
from pipelines.containers.graph import Container, Graph
from textvae.config import Params

pytest_plugins = ["tracking_fixtures"]
ROOT = Path(__file__).resolve().parents[2]
GRID = {"datasets": ["tiny"], "systems": ["lstm_lm", "vae_mine"], "seeds": ["3"]}


def run_step(command: list[str]) -> None:
    """`python -m components.STEP ...` within this process."""
    python, dash_m, module, *arguments = command
    assert (python, dash_m) == ("python", "-m")
    step = getattr(importlib.import_module(module), module.removeprefix("components."))
    with pytest.raises(SystemExit) as ended:
        step.main(arguments)
    assert not ended.value.code, command


def run_container(container: Container) -> int:
    """A container's command within this process."""
    run_step(container.command)
    return 0


def run_dvc_commands() -> None:
    """The commands of dvc.yaml for every item of the grid, in the file's order."""
    for stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values():
        keys = list(stage.get("matrix", {}))
        for values in itertools.product(*(GRID[f"{key}s"] for key in keys)):
            item = dict(zip(keys, values, strict=True))
            command = re.sub(r"\$\{item\.(\w+)\}", lambda found, item=item: item[found[1]], stage["cmd"])
            run_step(shlex.split(command))


@pytest.mark.parametrize("runs_per_gpu", [1, 2])
def test_the_compiled_pipeline_gives_dvcs_results(
    runs_per_gpu: int, tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(template, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "data").mkdir()
    write_corpus(tmp_path)
    write_params(tmp_path, {**PARAMS, "grid": GRID})
    cluster = Cluster.load(ROOT / "pipelines/cluster/cluster.yaml").model_copy(update={"runs_per_gpu": runs_per_gpu})
    compile_experiment(Params.load(Path("params.yaml")), cluster, "abc", tmp_path / "pipeline.yaml")
    graph = Graph(Path("pipeline.yaml"), tmp_path / "artifacts", run_container, str, "0a1b-2c3d", "tiny run")
    outputs = graph.outputs()
    assert len(graph.finished) == graph.count() == 2 + (runs_per_gpu > 1) + (len(RUN_STEPS) + 1) * 2 + 2
    assert not list((tmp_path / "state").glob("*"))
    run_dvc_commands()
    reports = Path(outputs["report/reports"]["uri"])
    for name in ("results.csv", "curves.csv"):
        assert (reports / name).read_bytes() == (tmp_path / "reports" / name).read_bytes()
    assert outputs["report/page"]["metadata"]["finished"] == 2
    page = Path(outputs["report/page"]["uri"])
    assert page.read_text() == (reports / "report.html").read_text()

    from tracking import connect

    store = connect()
    rows = {run.info.run_name: run for run in store.client.search_runs([store.experiment_id])}
    assert set(rows) == {"tiny-lstm_lm-3", "tiny-vae_mine-3", "tiny run"}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in rows.items()}
    parent = rows["tiny run"].info.run_id
    assert parents == {"tiny-lstm_lm-3": parent, "tiny-vae_mine-3": parent, "tiny run": None}
    assert rows["tiny run"].data.tags["pipeline_run"] == "0a1b-2c3d"
    versions = store.client.search_model_versions("name = 'textvae-tiny'")
    assert {version.run_id for version in versions} == {run.info.run_id for run in rows.values()} - {parent}
