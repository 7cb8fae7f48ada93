"""The pipeline in real containers: the results of dvc.yaml's commands, and true exit codes. `make test-containers`."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_project import PARAMS, copy_of_the_project, write_corpus, write_params

from pipelines.containers.engine import Engine
from textvae.provenance import commit

pytestmark = pytest.mark.containers
ROOT = Path(__file__).resolve().parents[2]
TAG = commit().removesuffix("-dirty")
IMAGES = ("data", "ngram", "train")
GRID = {"datasets": ["tiny"], "systems": ["lstm_lm", "vae_mine"], "seeds": ["1"]}


def in_project(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a module of the project in `folder`."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a tiny corpus, in which dvc and the containers run."""
    folder = tmp_path_factory.mktemp("project")
    copy_of_the_project(folder)
    write_params(folder, {**PARAMS, "grid": GRID})
    write_corpus(folder)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    initialised = in_project(folder, "dvc", "init", "-q", "-f")
    assert initialised.returncode == 0, initialised.stderr
    return folder


def ran(image: str, *command: str) -> str:
    """What a command says in an image."""
    engine = Engine.find().program
    full = [engine, "run", "--rm", "--network", "none", f"textvae-{image}:{TAG}", *command]
    return subprocess.run(full, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_holds_what_its_steps_need_and_no_more(image: str) -> None:
    said = ran(image, "python", "-m", "components", "--check")
    assert f"commit {TAG}" in said
    assert ("torch" in said) == (image == "train")
    assert ("lmplz /usr/local/bin/lmplz" in said) == (image == "ngram")
    tools = "for tool in cc g++ make cmake git; do command -v $tool; done; ls /opt/venv/bin; id -u; ls -a / /app"
    found = ran(image, "bash", "-c", tools).split()
    assert not {"cc", "g++", "make", "cmake", "git", "pip", ".git", "wheels", "constraints.txt"} & {
        Path(word).name for word in found
    }
    assert "10001" in found


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_of_the_commit(image: str) -> None:
    command = [Engine.find().program, "image", "inspect", f"textvae-{image}:{TAG}"]
    [described] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert described["Config"]["Labels"]["org.opencontainers.image.revision"] == TAG
    assert described["Config"]["User"] == "10001:10001"


def test_containers_give_the_results_of_dvc_repro(project: Path) -> None:
    here = in_project(project, "pipelines.cluster.submit", "--local", "--tag", TAG)
    assert here.returncode == 0, here.stdout + here.stderr
    [results] = [Path(line.split(maxsplit=1)[1]) for line in here.stdout.splitlines() if line.startswith("results: ")]
    repro = in_project(project, "dvc", "repro")
    assert repro.returncode == 0, repro.stdout + repro.stderr
    mine, theirs = results.read_text(), (project / "reports/results.csv").read_text()
    rows = list(csv.DictReader(mine.splitlines()))
    assert [row["system"] for row in rows if row["system"] in GRID["systems"]] == GRID["systems"]
    assert mine == theirs
    again = in_project(project, "pipelines.cluster.submit", "--local", "--tag", TAG)
    assert (again.stdout.count("CACHED"), again.stdout.count("SUCCEEDED")) == (15, 1)  # publish is never cached


def test_a_step_that_fails_in_its_container_fails_the_run(project: Path) -> None:
    params = yaml.safe_load((project / "params.yaml").read_text())
    broken = project / "data/broken.txt"
    broken.write_bytes(b"\xff\xfe not text\n" * 50)
    params["datasets"]["tiny"]["source"]["path"] = "data/broken.txt"
    write_params(project, params)
    here = in_project(project, "pipelines.cluster.submit", "--local", "--tag", TAG)
    assert here.returncode == 65, here.stdout + here.stderr
    assert "FAILED: fetch tiny: exit code 65" in here.stderr
    assert "[fetch tiny] error: " in here.stdout
