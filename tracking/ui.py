"""`make ui`: MLflow's pages on the store of `tracking_uri`, on this machine only."""

import os
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress

from textvae.command_line import run
from textvae.errors import UnavailableError, exit_codes
from textvae.files import check_links
from tracking import page
from tracking.place import sqlite_path, tracking_uri
from tracking.store import connect

PORTS = range(5000, 5020)


def server_command(uri: str, port: int) -> list[str]:
    """The command line of a server on loopback that serves `uri`, to be run with `server_environment(uri)`.

    Clients and server name the same files for a run's artifacts, so that a row is the same whoever made it.
    """
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    database = sqlite_path(uri)
    if database is not None:
        artifacts = (database.parent.absolute() / "mlartifacts").as_uri()
        command += ["--no-serve-artifacts", "--default-artifact-root", artifacts]
    return command


def server_environment(uri: str) -> Mapping[str, str]:
    """The environment of that server: the store (which may carry a password), no telemetry, no workers for LLM jobs."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return {**os.environ, **quiet, "MLFLOW_BACKEND_STORE_URI": uri}


def free_port() -> int:
    """The first of PORTS that nobody uses. Raises UnavailableError where there is none."""
    for port in PORTS:
        with socket.socket() as listener, suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            return port
    raise UnavailableError(f"every port from {PORTS.start} to {PORTS.stop - 1} is in use: stop an older `make ui`")


def main() -> None:
    """Say where MLflow's pages are; where no server has the store, become one for this machine only.

    The store is $MLFLOW_TRACKING_URI, else mlflow.db at the repository's root. Ctrl-C ends the server.

    \b
    Examples:
      python -m tracking.ui
    """
    with exit_codes():
        uri = tracking_uri()
        store = connect()
        page.arrange(store)
        if uri.startswith(("http://", "https://")):
            print(f"MLflow: {page.look(store)}")
            return
        if (database := sqlite_path(uri)) is not None:
            check_links(database.parent / "mlartifacts")
        port = free_port()
        address = page.address(f"http://127.0.0.1:{port}", store.experiment_id)
        print(f"MLflow: {address} (Ctrl-C ends it)", flush=True)
        command = server_command(uri, port)
        os.execve(command[0], command, dict(server_environment(uri)))


if __name__ == "__main__":
    run(main)
