"""The wiring: dvc.yaml against the steps' command lines, what reruns when, and that no dependency is missing.

One copy of the project runs once, with three systems on a corpus made here; each test that changes something does so in
a copy of that.
"""

import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tiny_project import PARAMS, SYSTEMS, copy_of_the_project, write_corpus, write_params

from components.step import Step
from pipelines.machine.stages import RUN_STAGES
from textvae.provenance import imported_by

ROOT = Path(__file__).resolve().parents[2]
LISTS_IMPORTS = """
import atexit, json, os, sys, uuid
from pathlib import Path

def listed():
    name = getattr(sys.modules["__main__"].__spec__, "name", "")
    if name.startswith("components."):
        from textvae.provenance import project_modules
        said = {"command": [name, *sys.argv[1:]], "files": [str(file) for file in project_modules()]}
        Path(os.environ["LISTED_IMPORTS"], f"{uuid.uuid4()}.json").write_text(json.dumps(said))

if "LISTED_IMPORTS" in os.environ:
    atexit.register(listed)
"""
"""A sitecustomize.py: every step that ends says what it was called with and which project files it has imported."""


class Finished(NamedTuple):
    """A copy of the project in which the whole grid has run, and what its steps said of their imports."""

    project: Path
    imports: Path
    said: str


def run(project: Path, *command: str, code: int = 0, **variables: str) -> str:
    """What `python -m COMMAND` says in the project; it must end with the exit code."""
    result = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        env={**environment(project), **variables},
        capture_output=True,
        text=True,
    )
    assert result.returncode == code, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout + result.stderr


def environment(project: Path) -> dict[str, str]:
    """As `make` sets it: the interpreter's folder first on PATH; nothing of the caller's project."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "TEXTVAE", "PYTHONPATH"))}
    return {**inherited, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(project)}


def stages_run(said: str) -> set[str]:
    return set(re.findall(r"Running stage '([^']+)'", said))


def of_run(system: str, seed: int = 1) -> set[str]:
    """The stages of one run."""
    return {f"{stage}@tiny-{system}-{seed}" for stage in RUN_STAGES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Two runs side by side."""
    project, imports = tmp_path_factory.mktemp("finished") / "project", tmp_path_factory.mktemp("imports")
    copy_of_the_project(project)
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    write_corpus(project)
    write_params(project, PARAMS)
    (imports / "sitecustomize.py").write_text(LISTS_IMPORTS)
    path = f"{project}:{imports}"
    said = run(project, "pipelines.machine.repro", "--jobs", "2", PYTHONPATH=path, LISTED_IMPORTS=str(imports))
    return Finished(project, imports, said)


def copied(finished: Finished, folder: Path) -> Path:
    """A copy to change, results and dvc's cache included: dvc knows files by their content, wherever they lie."""
    return Path(shutil.copytree(finished.project, folder / "project", symlinks=True))


@pytest.fixture
def project(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the test's own."""
    return copied(finished, tmp_path)


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


def test_every_command_of_dvc_fits_its_steps_signature(finished: Finished) -> None:
    for name, stage in stages(finished.project).items():
        step, options = step_and_options(stage.cmd)
        parameters = {p.name: p for p in step.parameters}
        unknown = set(options) - set(parameters) - {"timings"}
        missing = {p.name for p in step.parameters if p.default is inspect.Parameter.empty} - set(options)
        assert not unknown, (name, unknown)
        assert not missing, (name, missing)
        declared_in, declared_out = {d.def_path for d in stage.deps}, {o.def_path for o in stage.outs}
        for parameter in step.parameters:
            value = options.get(parameter.name, "")
            read = parameter.kind in ("input", "inputs", "settings") and parameter.name in options
            if read and value != "params.yaml":
                assert value in declared_in, f"{name} reads {value} and does not declare it"
            if parameter.kind == "output" and parameter.name in options:
                assert any(out == value or out.startswith(f"{value}/") for out in declared_out), (name, value)


def test_every_project_file_that_a_stage_imports_decides_whether_it_reruns(finished: Finished) -> None:
    """A missing dependency is a stale result. Every step has listed what it had imported when it ended; its stage
    depends on the hash of each, in settings/code, or on the directory that holds it."""
    imports = {}
    for file in finished.imports.glob("*.json"):
        said = json.loads(file.read_text())
        imports[tuple(said["command"])] = {Path(name) for name in said["files"]}
    for name, stage in stages(finished.project).items():
        step, options = step_and_options(stage.cmd)
        imported = imports.pop(tuple(shlex.split(stage.cmd)[2:]))
        assert Path(f"components/{step.name}.py") in imported
        dependencies = {dep.def_path for dep in stage.deps}
        declared = {Path(dependency) for dependency in dependencies}
        code = f"settings/code/{step.name}.json"
        if code in dependencies:
            hashes = json.loads((finished.project / code).read_text())
            assert hashes == {path: sha256(finished.project / path) for path in hashes}
            declared |= {Path(path) for path in hashes}
        if name.startswith("train@"):
            objective = json.loads((finished.project / options["settings"]).read_text())["objective"]["name"]
            declared |= {Path(path) for path in imported_by(f"textvae.objectives.{objective}")}
        if name.startswith("fetch@"):
            declared |= {Path(path) for path in imported_by("textcorpus.readers.lines")}
        missing = {file for file in imported if not any(file.is_relative_to(d) for d in declared)}
        assert not missing, f"{name} imports files on which it does not depend: {sorted(map(str, missing))}"
    assert not imports, "what else has run?"


def test_what_a_step_does_not_run_costs_no_rerun(finished: Finished) -> None:
    """How MLflow is talked to and how a text is inspected are no code of any stage, nor one step's code another's."""
    for file in (finished.project / "settings/code").iterdir():
        step, code = file.stem, set(json.loads(file.read_text()))
        assert not [path for path in code if path.startswith(("tracking/", "pipelines/"))]
        assert not code & {"textcorpus/inspection.py", "textvae/training_time.py", "textvae/explore.py"}
        assert {path for path in code if path.startswith("components/")} == {
            *("components/__init__.py", "components/step.py", f"components/{step}.py")
        }
        assert ("textvae/training.py" in code) == (step == "train")
        assert any(path.startswith("reporting/") for path in code) == (step == "report")


def sha256(file: Path) -> str:
    from textvae.files import sha256_of_file

    return sha256_of_file(file)


def test_a_second_repro_does_nothing(project: Path) -> None:
    said = run(project, "pipelines.machine.repro")
    assert stages_run(said) == set()
    assert not re.search(r"^\[tiny-|to make|could not", said, re.MULTILINE), "no dvc for each run, nothing measured"


def test_editing_one_systems_file_retrains_that_system_only_and_to_the_same_bytes(project: Path) -> None:
    file = project / "textvae/objectives/vae_mine.py"
    outputs = [project / "runs/tiny/vae_mine/1" / name for name in ("model/model.safetensors", "curves.jsonl")]
    before = [sha256(output) for output in outputs]
    file.write_text(file.read_text() + "\n# a comment\n")
    ran = stages_run(run(project, "dvc", "repro"))
    # The same model comes out, so nothing behind it runs; the report shows how long the training took.
    assert ran - {"report"} == {"settings", "train@tiny-vae_mine-1"}
    assert [sha256(output) for output in outputs] == before


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
    assert ran == {"settings", "report"} | of_run("lstm_lm", seed=2)
    assert [row.split(",")[1:3] for row in results(project)] == [["lstm_lm", "1"], ["lstm_lm", "2"]]
    assert results(project)[0] == before["lstm_lm"]


def results(project: Path) -> list[str]:
    return (project / "reports/results.csv").read_text().splitlines()[1:]


WITH_A_GPU = """
import sys
from pathlib import Path
from pipelines.machine.repro import reproduce
from pipelines.machine.stages import to_train
from textvae.config import Params

if sys.argv[1:]:
    print(to_train(Params.load(Path("params.yaml")).grid.points()))
else:
    sys.exit(reproduce(2, runs_per_gpu=4, gpu=lambda: True))
"""


def test_on_a_machine_with_a_gpu_what_is_to_be_trained_is_trained_side_by_side_and_to_the_same_bytes(
    project: Path,
) -> None:
    (project / "with_a_gpu.py").write_text(WITH_A_GPU)
    systems, step = ("lstm_lm", "vae_mine"), project / "components/train_group.py"
    files = {file: file.read_text() for s in systems for file in [project / f"textvae/objectives/{s}.py"]}
    outputs = [project / f"runs/tiny/{s}/1/{name}" for s in systems for name in ("model/config.json", "curves.jsonl")]
    before, real = [sha256(output) for output in outputs], step.read_text()

    for file, content in files.items():
        file.write_text(content + "\n# a comment\n")
    step.write_text("raise SystemExit(75)")  # as $TEXTVAE_MAX_MINUTES would end it
    stopped = run(project, "with_a_gpu", code=75)
    assert not [name for name in stages_run(stopped) if name.startswith("train")]
    step.write_text(real)

    said = run(project, "with_a_gpu")
    assert sorted(re.findall(r"^\[tiny\] tiny (\w+) seed 1: done", said, re.MULTILINE)) == [*systems]
    assert {name for name in stages_run(said) if "train" in name} == {f"train@tiny-{system}-1" for system in systems}
    assert not re.search(r"^\[tiny-.*\] epoch", said, re.MULTILINE), "the stages have trained nothing"
    assert [sha256(output) for output in outputs] == before
    assert not list((project / ".state").glob("*/*"))

    for file, content in files.items():  # what dvc's cache has, it takes from there
        file.write_text(content)
    run(project, "dvc", "repro", "preprocess@tiny")
    assert run(project, "with_a_gpu", "--what-is-to-be-trained") == "[]\n"


class Broken(NamedTuple):
    """The grid brought up to date with settings under which vae_05 diverges and vae_mine crashes."""

    project: Path
    said: str
    status: str
    rows: dict[str, list[str]]


@pytest.fixture(scope="module")
def broken(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Broken:
    """`make repro` ends with 1."""
    project = copied(finished, tmp_path_factory.mktemp("broken"))
    changed = json.loads(json.dumps(PARAMS))
    changed["systems"]["vae_05"]["training"] = {"optimizer": "sgd", "learning_rate": 1e30, "clip_norm": 1e30}
    write_params(project, changed)
    file = project / "textvae/objectives/vae_mine.py"  # a crash, not a NaN
    head = "    def begin(self, step: int) -> None:\n"
    assert head in file.read_text()
    file.write_text(file.read_text().replace(head, f"{head}        raise MemoryError\n"))
    said = run(project, "pipelines.machine.repro", "--jobs", "2", code=1)
    rows = {row.split(",")[1]: row.split(",") for row in results(project)}
    return Broken(project, said, run(project, "pipelines.machine.status"), rows)


def test_editing_a_systems_settings_reruns_that_system_only(broken: Broken) -> None:
    assert stages_run(broken.said) == {"settings", "report", "train@tiny-vae_mine-1"} | of_run("vae_05")


def test_how_long_it_takes_is_said_before_and_after_each_run_and_no_failure_of_measuring_it_stops_the_runs(
    finished: Finished, broken: Broken
) -> None:
    assert re.search(
        r"^3 runs to make, 2 at a time: about \d+:\d\d at most, if nothing else", finished.said, re.MULTILINE
    )
    assert re.findall(r"^(\d of \d) made", finished.said, re.MULTILINE) == ["1 of 3", "2 of 3", "3 of 3"]
    assert "how long this will take could not be measured\n" in broken.said  # the first steps of vae_05 diverge


def test_a_run_that_fails_stops_no_other_and_shows_in_the_report(broken: Broken) -> None:
    assert re.findall(r"^FAILED: (\S+):", broken.said, re.MULTILINE) == ["tiny-vae_mine-1"]
    assert broken.rows["lstm_lm"][3]
    assert not broken.rows["vae_mine"][3]
    assert re.search(r"tiny-lstm_lm-1 +done", broken.status)
    assert re.search(r"tiny-vae_mine-1 +failed \(see ", broken.status)


def test_a_diverged_run_is_a_row_of_the_report_and_no_failure(broken: Broken) -> None:
    config = json.loads((broken.project / "runs/tiny/vae_05/1/model/config.json").read_text())
    assert config["status"] == "diverged"
    assert config["failure"]["step"] >= 1
    assert re.search(r"tiny-vae_05-1 +failed \(diverged", broken.status)
    assert broken.rows["vae_05"][3] == ""
    assert "diverged" in (broken.project / "reports/report.md").read_text()


def git(project: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(command, cwd=project, check=True, capture_output=True, text=True).stdout


def test_a_clone_has_the_text_and_the_results_and_runs_nothing(project: Path, tmp_path: Path) -> None:
    """docs/dvc.md to the letter: in another order `settings` would run in the clone, and dvc.lock would change."""
    section = (ROOT / "docs/dvc.md").read_text().split("## Your text and your results")[1].split("## A remote")[0]
    words = ("dvc add data/tiny.txt", "dvc repro", "git add data/tiny.txt.dvc dvc.lock", "git commit")
    places = [section.index(f"    {command}") for command in words]
    assert places == sorted(places)
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    git(project, "add", "--all")
    git(project, "commit", "-q", "-m", "The project")
    try:
        run(project, "dvc", "add", "-q", "data/tiny.txt")
        assert stages_run(run(project, "dvc", "repro")) == {"settings"}
        git(project, "add", "data/tiny.txt.dvc", "dvc.lock")
        run(project, "dvc", "remote", "add", "-f", "-d", "shared", str(remote))
        git(project, "commit", "-qam", "First results")
        run(project, "dvc", "push", "-q")
        git(tmp_path, "clone", "-q", str(project), str(clone))
    finally:
        (project / "data/tiny.txt.dvc").unlink()
    run(clone, "dvc", "pull", "-q")
    assert (clone / "data/tiny.txt").read_text() == (project / "data/tiny.txt").read_text()
    assert (clone / "reports/results.csv").read_text() == (project / "reports/results.csv").read_text()
    assert stages_run(run(clone, "dvc", "repro")) == set()
    assert git(clone, "status", "--short") == ""
