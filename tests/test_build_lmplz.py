"""tools/build_lmplz.sh where nothing is to build, and what it says where it cannot. (`make test` itself builds.)"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "tools" / "build_lmplz.sh"
COMMANDS = ("bash", "dirname", "sed", "mktemp", "rm", "id", "tail")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project folder with the script, a pinned version, and a folder of commands without a compiler or apt-get."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "commands").mkdir()
    shutil.copy(SCRIPT, tmp_path / "tools")
    (tmp_path / "constraints.txt").write_text("kenlm==0.3.0\n")
    for command in COMMANDS:
        found = shutil.which(command)
        assert found, command
        (tmp_path / "commands" / command).symlink_to(found)
    return tmp_path


def build(project: Path, path: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with `path` in front of the few commands; its Python does not exist, so that none is used."""
    environment["PATH"] = f"{path}:{project / 'commands'}"
    command = [str(project / "tools" / SCRIPT.name), "/no/python", str(project / "bin")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def with_programs(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


def test_nothing_is_built_where_lmplz_and_query_are_already(project: Path) -> None:
    there = with_programs(project / "there", "lmplz", "query")
    for result in (
        build(project, KENLM_BIN=str(there)),
        build(project, KENLM_BIN=str(there / "lmplz")),
        build(project, path=str(there)),
    ):
        assert (result.returncode, result.stderr.split(" in ")[1].split()[0]) == (0, str(there))
    assert not (project / "bin").exists()
    with_programs(project / "bin", "lmplz", "query")
    assert build(project).returncode == 0


def test_a_kenlm_bin_without_them_is_an_error_not_a_reason_to_build(project: Path) -> None:
    result = build(project, KENLM_BIN=str(with_programs(project / "empty")))
    assert result.returncode == 69
    assert "correct it or unset it" in result.stderr


def test_without_a_compiler_and_a_way_to_install_one_it_says_what_to_install(project: Path) -> None:
    with_programs(project / "bin", "lmplz")  # an lmplz without query is not enough: the tests need both
    result = build(project)
    assert result.returncode == 69
    for package in ("g++", "cmake", "libboost-program-options-dev", "libboost-thread-dev", "libboost-test-dev"):
        assert package in result.stderr
    assert "KENLM_BIN" in result.stderr


def test_the_version_is_the_pinned_one_or_none(project: Path) -> None:
    (project / "constraints.txt").write_text("torch==2.13.0\n")
    result = build(project)
    assert result.returncode == 69
    assert "pins no version of kenlm" in result.stderr
