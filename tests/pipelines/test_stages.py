"""What dvc leaves of its own files when it is killed, or the disk is full, while it writes them."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from dvc.repo import Repo
from tiny_project import ROOT

from pipelines.machine.stages import mended

LOCKS = Path(".dvc/tmp/rwlock")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dvc project with one stage, up to date."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    Path("given").touch()
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp"))
    Path("dvc.yaml").write_text(
        "stages:\n  one:\n    cmd: echo 1 >> times; echo 1 > out\n    deps: [given]\n    outs: [out]\n"
    )
    with Repo() as repo:
        repo.reproduce()
    LOCKS.write_text("{}")
    return tmp_path


def test_what_is_whole_stays(project: Path) -> None:
    before = Path("dvc.lock").read_bytes()
    assert not mended()
    assert (Path("dvc.lock").read_bytes(), LOCKS.read_text()) == (before, "{}")
    Path("dvc.lock").unlink()
    LOCKS.unlink()
    assert not mended()


@pytest.mark.parametrize("left", [b"", b"\0\0\0", b'{"a": [', b"schema: '2.0'\nstages: 7\n", b"\xff"])
@pytest.mark.parametrize("name", ["dvc.lock", str(LOCKS)])
def test_what_is_half_written_is_moved_away_and_nothing_runs_again(
    project: Path, name: str, left: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_bytes(left)
    assert mended()
    assert f"{name} of dvc was left by a dead process: moved to " in capsys.readouterr().err.replace(f"{project}/", "")
    assert Path(f"{name}.left").read_bytes() == left
    with Repo() as repo:
        repo.reproduce()
    assert Path("times").read_text() == "1\n"
    assert "one" in Path("dvc.lock").read_text()
    json.loads(LOCKS.read_text())


def test_a_lock_of_a_process_whose_number_another_has_now_goes_and_a_living_dvc_s_stays(project: Path) -> None:
    """After a reboot, or in the next container, the numbers are the same ones again."""
    for command, stays in (("read line; exit", False), ("read line; exit # dvc", True)):
        with subprocess.Popen(["sh", "-c", command], stdin=subprocess.PIPE) as process:
            LOCKS.write_text(json.dumps({"write": {"out": {"pid": process.pid, "cmd": "dvc repro"}}, "read": {}}))
            assert mended() != stays
            assert LOCKS.exists() == stays
            process.communicate()
    assert mended()
