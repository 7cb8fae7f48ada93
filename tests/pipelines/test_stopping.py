"""SIGTERM and SIGHUP to a command's own process alone: the steps that it has started hear of it before it ends."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_project import PARAMS, ROOT, write_params

from pipelines.machine import paper, sweep

STEP = """
import signal, sys, time
from pathlib import Path

def saves(number, frame):
    time.sleep(0.5)
    Path("saved").touch()
    sys.exit(143)

signal.signal(signal.SIGTERM, saves)
print("begun", flush=True)
while True:
    signal.pause()
"""
TRAINING = """
import time
from pathlib import Path
from textvae.state import stop_request

with stop_request() as stop:
    print("begun", flush=True)
    while stop.reason() is None:
        time.sleep(0.01)
    Path("saving").write_text(str(stop.reason()))
    Path("saving").rename("saved")
"""
"""Stops as every training does."""
DVC = {
    "__init__.py": "",
    "__main__.py": """
        import os, signal, subprocess, sys
        from pathlib import Path

        signal.signal(signal.SIGTERM, lambda *_: Path("dvc was told").touch())
        # a shell in between, which is not replaced by what it runs
        sys.exit(subprocess.run(["sh", "-c", f"{sys.executable} step.py; exit $?"]).returncode)
    """,
    "exceptions.py": "class DvcException(Exception): pass",
    "lock.py": "class LockError(Exception): pass\nmake_lock = None",
    "dvcfile.py": "Lockfile = None",
    "repo.py": "Repo = None",
    "stage/__init__.py": "Stage = None",
    "stage/cache.py": "class RunCacheNotFoundError(Exception): pass",
}
"""A dvc that does nothing but run a step, whatever it is told."""
SIGNALS = [signal.SIGTERM, signal.SIGHUP]
pytestmark = pytest.mark.usefixtures("hangups_heard")
LONG = 300
"""Seconds after which a command that was to end has hung."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml, the step and that dvc."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("TEXTVAE_MAX_MINUTES", raising=False)
    write_params(tmp_path, PARAMS)
    (tmp_path / "step.py").write_text(STEP)
    for name, content in DVC.items():
        (tmp_path / "dvc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "dvc" / name).write_text(textwrap.dedent(content))
    return tmp_path


def begun(command: list[str]) -> subprocess.Popen[str]:
    """A command whose step has begun."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "begun" in line:
            return process
    raise AssertionError(process.communicate(timeout=LONG)[1])


@pytest.mark.parametrize("number", SIGNALS)
def test_make_repro_passes_it_on_and_waits_until_the_states_are_saved(project: Path, number: signal.Signals) -> None:
    process = begun([sys.executable, "-m", "pipelines.machine.repro"])
    process.send_signal(number)
    out, errors = process.communicate(timeout=LONG)
    assert (process.returncode, errors) == (143, "terminated: run it again to go on where it stopped\n"), out
    assert (project / "saved").exists()
    assert not (project / "dvc was told").exists(), "it might be writing dvc.lock"


def test_make_itself_passes_sigterm_on(project: Path) -> None:
    (project / "Makefile").write_text((ROOT / "Makefile").read_text())
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (project / ".venv/bin/python").chmod(0o755)
    process = begun(["make", "repro", "-o", ".venv/.ready"])
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LONG)
    assert process.returncode != 0
    assert "terminated: run it again" in errors
    assert (project / "saved").exists(), "make has ended last"


def test_a_step_whose_caller_was_killed_saves_its_state_too(project: Path) -> None:
    """SIGKILL cannot be passed on: a training sees that nobody reads any more what it prints."""
    (project / "step.py").write_text(TRAINING)
    process = begun([sys.executable, "-m", "pipelines.machine.repro"])
    process.kill()
    process.communicate(timeout=LONG)
    deadline = time.monotonic() + 60
    while not (project / "saved").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (project / "saved").read_text().startswith("nobody reads ")


@pytest.mark.parametrize("module", [paper, sweep])
def test_the_other_commands_that_start_trainings_do_the_same(
    module: Any, project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def steps_run(*_: Any) -> None:
        with subprocess.Popen([sys.executable, "step.py"], stdout=subprocess.PIPE) as step:  # which waits for it
            assert step.stdout is not None
            step.stdout.readline()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(module, "planned", steps_run)
    (project / "sweep.yaml").write_text("{dataset: tiny, seed: 1, trials: {}}")
    given: dict[str, Any] = {"sweep": Path("sweep.yaml"), "jobs": 1, "table": None}
    if module is paper:
        given = {"dataset": "tiny", "text": None, "folder": None, "minutes": None, "systems": "vae_05", "alpha": None}
        given |= {"seed": 1, "jobs": 1, "measure": False, "params": Path("params.yaml")}
    with pytest.raises(SystemExit) as ended:
        module.main(**given)
    assert ended.value.code == 143
    assert capfd.readouterr().err.splitlines()[-1] == "terminated: run it again to go on where it stopped"
    assert (project / "saved").exists()


def test_a_reader_who_goes_away_stops_nothing(project: Path) -> None:
    """`make repro | head -1`: the step is told nothing; what it says goes nowhere, and it comes to its end."""
    (project / "step.py").write_text("import sys\nprint('begun', flush=True)\nsys.stdin.readline()\nprint('x')\n" * 2)
    command = [sys.executable, "-m", "pipelines.machine.repro"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.stdout.close()
    process.stdin.write("\n\n")
    process.stdin.close()
    assert process.stderr is not None
    assert "Broken pipe" not in process.stderr.read()
