"""MLflow stores for tests; a pytest plugin (`pytest_plugins`), so that the test files share one server."""

import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tracking_helpers import free_port

from tracking.place import import_client, make_database
from tracking.ui import server_command, server_environment


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables and nothing in it: making one takes seconds, copying it nothing."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    make_database(path, import_client({}))
    return path


@pytest.fixture
def repository(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository's root with an empty default store, as the current folder; servers get one second and one try."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    root = tmp_path / "my repository"
    root.mkdir()
    (root / "params.yaml").write_text("grid: {}\n")
    shutil.copy(template, root / "mlflow.db")
    monkeypatch.chdir(root)
    return root


@pytest.fixture(scope="session")
def mlflow_server(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server, started as `make ui` does."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    shutil.copy(template, folder / "mlflow.db")
    store = f"sqlite:///{folder}/mlflow.db"
    command, environment = server_command(store, port), server_environment(store)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    uri, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while True:
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert server.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
