"""Programs that are interrupted while they import, or are started without standard streams."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("components", "pipelines")


@pytest.mark.parametrize("package", PACKAGES)
def test_ctrl_c_while_a_program_imports_is_one_line(package: str) -> None:
    command = [sys.executable, "-c", f"import {package}\nraise KeyboardInterrupt"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (said.returncode in (130, -signal.SIGINT), said.stderr) == (True, "interrupted\n")
    command[-1] = f"import {package}\nraise RuntimeError('a bug')"
    assert "Traceback" in subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("closed", ["2>&-", ">&- 2>&-", "<&-", "<&- >&- 2>&-"])
def test_a_program_without_standard_streams_prints_into_no_file(tmp_path: Path, package: str, closed: str) -> None:
    code = f"import {package}, os, sys; output = open('output', 'w'); print('x', file=sys.stderr); os.write(2, b'y')"
    command = f"exec {sys.executable} -c \"{code}; print('z'); sys.stdin.close()\" {closed}"
    ended = subprocess.run(["sh", "-c", command], cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "output").read_bytes() == b""
