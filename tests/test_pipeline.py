"""The wiring: dvc.yaml against the steps' command lines, what reruns when, and that no dependency is missing.

One copy of the project runs once, with three systems on a corpus made here; the tests of this file share it.
"""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from tiny_project import PARAMS, SYSTEMS, copy_of_the_project, write_corpus, write_params

from components.step import Step
from pipelines.repro import RUN_STAGES

ROOT = Path(__file__).parent.parent
RUNS_A_STAGE = """
import json, runpy, sys
from components.provenance import project_modules
module, listing, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as ended:
    assert not ended.code, ended.code
open(listing, "w").write(json.dumps([str(file) for file in project_modules()]))
"""


def run(project: Path, *command: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=project, env=environment(project), capture_output=True, text=True
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


def environment(project: Path) -> dict[str, str]:
    """As `make` sets it: the interpreter's folder first on PATH; nothing of the caller's project."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "TEXTVAE", "PYTHONPATH"))}
    return {**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(project)}


def stages_run(said: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", said))


def tiny_copy(folder: Path) -> Path:
    copy_of_the_project(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which the whole grid has run, two runs side by side."""
    project = tiny_copy(tmp_path_factory.mktemp("project"))
    write_params(project, PARAMS)
    run(project, "pipelines.repro", "--jobs", "2")
    return project


@pytest.fixture
def project(finished: Path) -> Iterator[Path]:
    """The same, put back afterwards (dvc restores results from its run cache)."""
    yield finished
    for file in ("textvae/objectives/vae_05.py", "textvae/training.py"):
        shutil.copy(ROOT / file, finished / file)
    write_params(finished, PARAMS)
    write_corpus(finished)
    shutil.rmtree(finished / "runs/tiny/lstm_lm/2", ignore_errors=True)
    run(finished, "dvc", "repro")


def stages(project: Path) -> dict[str, Any]:
    """dvc's own reading of dvc.yaml, matrices expanded: name -> stage."""
    from dvc.repo import Repo

    with Repo(str(project)) as repo:
        return {stage.addressing.split(":")[-1]: stage for stage in repo.index.stages}


def step_and_options(cmd: str) -> tuple[Step, dict[str, str]]:
    """The step that a stage's command calls, and its options as the step's parameter names."""
    python, dash_m, module, *words = shlex.split(cmd)
    assert (python, dash_m) == ("python", "-m"), cmd
    name = module.removeprefix("components.")
    pairs = zip(words[::2], words[1::2], strict=True)
    options = {option.removeprefix("--").replace("-", "_"): value for option, value in pairs}
    return getattr(import_module(module), name), options


def test_every_command_of_dvc_fits_its_steps_signature(finished: Path) -> None:
    for name, stage in stages(finished).items():
        step, options = step_and_options(stage.cmd)
        parameters = {p.name: p for p in step.parameters}
        unknown = set(options) - set(parameters) - {"timings"}
        missing = {p.name for p in step.parameters if p.default is inspect.Parameter.empty} - set(options)
        assert not unknown, (name, unknown)
        assert not missing, (name, missing)
        declared_in, declared_out = {d.def_path for d in stage.deps}, {o.def_path for o in stage.outs}
        for parameter in step.parameters:
            value = options.get(parameter.name, "")
            if parameter.kind in ("input", "inputs", "settings") and value != "params.yaml":
                assert value in declared_in, f"{name} reads {value} and does not declare it"
            if parameter.kind == "output" and parameter.name in options:
                assert any(out == value or out.startswith(f"{value}/") for out in declared_out), (name, value)


def test_every_project_file_that_a_stage_imports_is_among_its_deps(finished: Path, tmp_path: Path) -> None:
    """A missing dependency is a stale result: each stage runs once more, elsewhere, and lists what it has imported."""
    (tmp_path / "run_stage.py").write_text(RUNS_A_STAGE)
    graph = stages(finished)
    wanted = ["settings", "fetch@tiny", "preprocess@tiny", "report"]
    wanted += [f"{stage}@tiny-{s}-1" for stage in RUN_STAGES for s in ("vae_mine", "lstm_lm")]
    for name in wanted:
        step, options = step_and_options(graph[name].cmd)
        for parameter in step.parameters:
            if parameter.kind == "output":
                options[parameter.name] = str(tmp_path / name / parameter.name)
        options.pop("timings", None)
        listing = tmp_path / f"{name}.json"
        arguments = [text for option, value in options.items() for text in (f"--{option.replace('_', '-')}", value)]
        command = [sys.executable, str(tmp_path / "run_stage.py"), f"components.{step.name}", str(listing), *arguments]
        result = subprocess.run(command, cwd=finished, env=environment(finished), capture_output=True, text=True)
        assert result.returncode == 0, f"{name}: {result.stderr}"
        imported = {Path(file) for file in json.loads(listing.read_text())} | {Path(f"components/{step.name}.py")}
        declared = [Path(dep.def_path) for dep in graph[name].deps]
        if name.startswith("train@"):
            settings = json.loads((finished / options["settings"]).read_text())
            objective = Path(f"textvae/objectives/{settings['objective']['name']}.py")
            assert settings["objective_sha256"] == sha256(finished / objective)
            declared.append(objective)  # declared by its hash in the settings file, which is a dep
        empty = {Path("components/__init__.py"), Path("pipelines/__init__.py")}
        missing = {file for file in imported - empty if not any(file.is_relative_to(d) for d in declared)}
        assert not missing, f"{name} imports files that dvc.yaml does not declare: {sorted(map(str, missing))}"


def test_no_stage_depends_on_how_mlflow_is_talked_to(finished: Path) -> None:
    """A view must not cost a training; the test above proves that none imports it either."""
    depending = {n for n, stage in stages(finished).items() for d in stage.deps if "tracking" in Path(d.def_path).parts}
    assert depending == set()


def sha256(file: Path) -> str:
    from textvae.files import sha256_of_file

    return sha256_of_file(file)


def test_a_second_repro_does_nothing(project: Path) -> None:
    assert stages_run(run(project, "dvc", "repro")) == set()


def test_editing_one_systems_settings_reruns_that_system_only(project: Path) -> None:
    changed = json.loads(json.dumps(PARAMS))
    changed["systems"]["vae_mine"]["objective"]["alpha"] = 3.0
    write_params(project, changed)
    ran = stages_run(run(project, "dvc", "repro"))
    own = {f"{stage}@tiny-vae_mine-1" for stage in RUN_STAGES}
    assert ran == {"settings", "report"} | own


def test_editing_one_systems_file_reruns_that_system_only(project: Path) -> None:
    file = project / "textvae/objectives/vae_05.py"
    file.write_text(file.read_text() + "\n# a comment\n")
    ran = stages_run(run(project, "dvc", "repro"))
    # The same model comes out, so nothing behind it runs; the report shows how long the training took.
    assert ran - {"report"} == {"settings", "train@tiny-vae_05-1"}


def test_editing_how_samples_are_drawn_retrains_nothing(project: Path) -> None:
    changed = json.loads(json.dumps(PARAMS))
    changed["datasets"]["tiny"]["settings"] = {"sampling": {"temperature": 0.5}}
    write_params(project, changed)
    ran = stages_run(run(project, "dvc", "repro"))
    assert ran == {"settings", "report"} | {f"{stage}@tiny-{s}-1" for stage in ("sample", "ngram") for s in SYSTEMS}


def test_editing_the_corpus_is_seen(project: Path) -> None:
    write_corpus(project, 401)
    assert {"settings", "fetch@tiny", "preprocess@tiny"} <= stages_run(run(project, "dvc", "repro", "preprocess@tiny"))


def test_a_new_seed_adds_its_runs_and_one_job_gives_the_numbers_of_two(project: Path) -> None:
    before = {row.split(",")[1]: row for row in results(project)}
    changed = json.loads(json.dumps(PARAMS))
    changed["grid"]["seeds"] = ["1", "2"]
    changed["grid"]["systems"] = ["lstm_lm"]
    write_params(project, changed)
    ran = stages_run(run(project, "dvc", "repro"))
    assert ran == {"settings", "report"} | {f"{stage}@tiny-lstm_lm-2" for stage in RUN_STAGES}
    assert [row.split(",")[1:3] for row in results(project)] == [["lstm_lm", "1"], ["lstm_lm", "2"]]
    assert results(project)[0] == before["lstm_lm"]


def test_training_again_gives_the_same_bytes(project: Path) -> None:
    outputs = [project / "runs/tiny/vae_mine/1" / name for name in ("model/model.safetensors", "curves.jsonl")]
    before = [sha256(file) for file in outputs]
    run(project, "dvc", "repro", "--force", "--single-item", "train@tiny-vae_mine-1")
    assert [sha256(file) for file in outputs] == before


def results(project: Path) -> list[str]:
    return (project / "reports/results.csv").read_text().splitlines()[1:]


def test_a_run_that_fails_stops_no_other_and_shows_in_the_report(project: Path) -> None:
    file = project / "textvae/objectives/vae_05.py"  # a crash, not a NaN
    file.write_text(file.read_text().replace("        code = self.encode(batch)\n", "        raise MemoryError\n", 1))
    command = [sys.executable, "-m", "pipelines.repro", "--jobs", "2"]
    done = subprocess.run(command, cwd=project, env=environment(project), capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED: tiny-vae_05-1" in done.stderr
    rows = {row.split(",")[1]: row.split(",") for row in results(project)}
    assert [bool(rows[system][3]) for system in SYSTEMS] == [True, False, True]
    status = run(project, "pipelines.status")
    assert re.search(r"tiny-lstm_lm-1 +done", status)
    assert re.search(r"tiny-vae_05-1 +failed", status)


def test_a_diverged_run_is_a_row_of_the_report(project: Path) -> None:
    changed = json.loads(json.dumps(PARAMS))
    changed["systems"]["vae_05"]["training"] = {"optimizer": "sgd", "learning_rate": 1e30, "clip_norm": 1e30}
    write_params(project, changed)
    run(project, "pipelines.repro", "--jobs", "1")
    config = json.loads((project / "runs/tiny/vae_05/1/model/config.json").read_text())
    assert config["status"] == "diverged"
    assert config["failure"]["step"] >= 1
    assert re.search(r"tiny-vae_05-1 +failed \(diverged", run(project, "pipelines.status"))
    rows = {row.split(",")[1]: row.split(",") for row in results(project)}
    assert rows["vae_05"][3] == ""
    assert "diverged" in (project / "reports/report.md").read_text()


def test_a_pulled_clone_is_up_to_date(project: Path, tmp_path: Path) -> None:
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    run(project, "dvc", "remote", "add", "--local", "-f", "-d", "there", str(remote))
    run(project, "dvc", "push", "-q")
    skipped = shutil.ignore_patterns("cache", "tmp", "runs", "corpora", "reports", "settings", ".state")
    shutil.copytree(project, clone, ignore=skipped)
    run(clone, "dvc", "pull", "-q")
    assert (clone / "reports/results.csv").read_text() == (project / "reports/results.csv").read_text()
    assert stages_run(run(clone, "dvc", "repro")) == set()
