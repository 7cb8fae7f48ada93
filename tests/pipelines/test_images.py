"""The images: what each holds and is for, and that building one says what went wrong."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from fake_engine import FakeEngine

from components import __main__ as check
from pipelines.cluster.resources import Cluster
from pipelines.containers import images
from textvae.errors import DataError, UnavailableError
from textvae.provenance import commit

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "pipelines/cluster/cluster.yaml"
TAG = commit().removesuffix("-dirty")


def test_the_dockerfile_makes_the_images_that_the_cluster_names_for_their_steps() -> None:
    text = (ROOT / "docker/Dockerfile").read_text()
    steps = dict(re.findall(r'^FROM base AS ([\w-]+)$[^"]*TEXTVAE_STEPS="([^"]*)"', text, re.MULTILINE))
    cluster = Cluster.load(CLUSTER)
    assert sorted(steps) == images.named_images(cluster)
    for step, place in cluster.steps:
        assert step in steps[place.image].split()
        assert step in steps[place.image.removesuffix("-cuda")].split()
    assert steps["train"] == steps["train-cuda"]


def test_an_image_gets_the_projects_own_dependencies_and_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name in ("data", "ngram", "train"):
        assert set(project["dependencies"]) < set(images.requirements(name, ROOT))
        assert ("torch" in images.requirements(name, ROOT)) == (name == "train")
    [cuda] = [line for line in images.requirements("train-cuda", ROOT) if line.startswith("torch")]
    assert cuda.replace("===", "==") in (ROOT / "constraints.txt").read_text().splitlines()


def test_a_build_gets_the_files_of_the_commit_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/torch-1-cp311.whl").write_text("")
    (tmp_path / "context").mkdir()
    assert images.export(tmp_path / "context", tmp_path / "here") == TAG
    found = {path.name for path in (tmp_path / "context").iterdir()}
    assert {"docker", "textvae", "components", "constraints.txt", "wheels", "requirements"} <= found
    assert not {".git", ".venv", "mlflow.db", "runs", "project.tar"} & found
    assert [path.name for path in (tmp_path / "context/wheels").iterdir()] == ["torch-1-cp311.whl"]


def test_a_build_gets_nothing_that_a_link_leads_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither from the folder of wheels nor from the commit: whoever has the image has what is in it."""
    (tmp_path / "secret").write_text("of this machine")
    for name in ("here", "first", "second"):
        (tmp_path / name).mkdir()
    (tmp_path / "here/torch-1-cp311.whl").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=r"torch-1-cp311\.whl is a link to .*secret"):
        images.export(tmp_path / "first", tmp_path / "here")
    repository = tmp_path / "repository"
    repository.mkdir()
    (repository / "link").symlink_to(tmp_path / "secret")
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for command in (["init", "--quiet"], ["add", "link"], ["commit", "--quiet", "-m", "a link"]):
        subprocess.run([*git, *command], check=True)
    monkeypatch.setattr(images, "ROOT", repository)
    with pytest.raises(DataError, match=r"the commit has what no image may: .*link"):
        images.export(tmp_path / "second", None)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    """The stand-in as podman."""
    made = FakeEngine(tmp_path / "engine", [])
    made.put("podman")
    monkeypatch.setenv("FAKE_ENGINE", str(made.folder))
    monkeypatch.setenv("PATH", f"{made.folder / 'bin'}:/usr/bin:/bin")
    return made


def built(*names: str, **options: object) -> int:
    """The exit code of building images."""
    try:
        images.main(list(names), cluster=CLUSTER, **options)  # type: ignore[arg-type]
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_each_image_is_built_and_tried(engine: FakeEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "pip.conf"
    secret.write_text("[global]\n")
    assert built(base="debian", pip_conf=secret) == 0
    names = ["data", "ngram", "train", "train-cuda"]
    for call, name in zip(engine.calls("build"), names, strict=True):
        assert call[call.index("--target") + 1] == name
        assert {f"COMMIT={TAG}", "BASE=debian"} <= set(call)
        assert f"id=pip.conf,src={secret}" in call
    tried = [call[call.index("python") - 1] for call in engine.runs()]
    assert tried == [f"textvae-{name}:{TAG}" for name in names]
    assert f"built textvae-train-cuda:{TAG}, 543 MB" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--target", "--check"])
def test_a_build_that_fails_or_an_image_that_lacks_something_is_an_error(
    engine: FakeEngine, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    (engine.folder / "fail").write_text(f"{word} 1\n")
    assert built("ngram", "data") == 69
    assert len(engine.calls("build")) == 1
    assert f"textvae-ngram:{TAG}" in capsys.readouterr().err


def test_wrong_names_and_folders_are_named(engine: FakeEngine, capsys: pytest.CaptureFixture[str]) -> None:
    assert built("nobody") == 2
    assert "'nobody'; there are data, ngram, train, train-cuda" in capsys.readouterr().err
    assert built("data", wheels=Path("/nowhere")) == 2
    assert "/nowhere: no such file or folder" in capsys.readouterr().err


def test_the_check_names_what_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "packages", lambda: ["numpy", "kenlm"])
    found = check.versions(["sample"])
    assert found.keys() == {"python", "numpy", "kenlm"}
    monkeypatch.setattr(check, "packages", lambda: ["numpy", "missing-thing"])
    with pytest.raises(UnavailableError, match="an image for sample needs missing-thing"):
        check.versions(["sample"])
    monkeypatch.setattr(check, "packages", lambda: ["numpy"])
    monkeypatch.setenv("KENLM_BIN", "/nowhere")
    with pytest.raises(UnavailableError, match="lmplz is not"):
        check.versions(["ngram"])
