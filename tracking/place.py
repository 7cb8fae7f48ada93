"""Where MLflow is, who may write to it at a time, and what its failures mean.

mlflow is imported late: an image that trains may lack it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from textvae.addresses import masked, shown
from textvae.errors import NO_SPACE, DataError, SettingsError, TextVAEError, UnavailableError, lacks_memory, one_line
from textvae.progress import duration
from textvae.provenance import ROOT

if TYPE_CHECKING:
    from mlflow import MlflowClient

LOCK_SECONDS = 60.0
BUSY_SECONDS = 15.0
REQUEST_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "30", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""mlflow's own are 120 s and 7 retries: 20 minutes for a server that hangs."""
REMEDY = "nothing finished is lost, the runs are in their folders: when it is there again, run `make publish`"
LATER = "then run `make publish`: nothing finished is lost"
PERMANENT = {*range(400, 500), 501} - {408, 409, 425, 429, 499}
"""Statuses of answers that a repetition would get too."""
RACES = ("must be in the 'active' state", "RESOURCE_ALREADY_EXISTS")
"""Refused because somebody else has just removed it, or made it."""
OTHERWISE = (
    "change what it names: names and settings are params.yaml's, store and experiment $MLFLOW_TRACKING_URI's and "
    "$MLFLOW_EXPERIMENT_NAME's"
)
CHANGE = {
    404: "check that $MLFLOW_TRACKING_URI, $MLFLOW_RUN_ID name what is there, a server of MLflow 3",
    413: "let the proxy before it take larger requests",
    501: "check that $MLFLOW_TRACKING_URI names a server of MLflow 3",
}
WAITING_SECONDS = 15.0
"""After so long without an answer, and again and again, a line says what is waited for."""
FULL = "database or disk is full"
"""What SQLite says, and whoever passes it on."""
PLACES = (PermissionError, FileExistsError, NotADirectoryError)


def repository_root() -> Path:
    """The nearest folder upwards with a params.yaml or a .git; from DVC's copies of it, the repository they came from.

    `dvc exp run --temp` and `--queue` work in `.dvc/tmp/exps/[standalone/]tmpNAME`, a git clone that they delete.
    """
    here = Path.cwd().resolve()
    found = next((f for f in (here, *here.parents) if (f / "params.yaml").is_file() or (f / ".git").exists()), here)
    for folder in found.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return found


def tracking_uri() -> str:
    """$MLFLOW_TRACKING_URI, else the SQLite database `mlflow.db` at the repository's root, by its absolute path.

    Raises SettingsError for a folder whose name an address cannot have: the database would be made somewhere else.
    """
    if given := os.environ.get("MLFLOW_TRACKING_URI"):
        return given
    path = str(repository_root() / "mlflow.db")
    if "?" in path or unquote(path) != path:
        raise SettingsError(
            f"{path} cannot be MLflow's database, as its address would mean another file (a ? or a % in a folder's "
            "name): rename the folder, or set $MLFLOW_TRACKING_URI to a server's address or to sqlite:////FOLDER/FILE.db"
        )
    return f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store, None for any other. Raises SettingsError where it names none: all would be lost."""
    if not uri.startswith("sqlite://"):
        return None
    path = uri.removeprefix("sqlite://").partition("?")[0].removeprefix("/")
    if path in ("", ":memory:"):
        raise SettingsError(f"$MLFLOW_TRACKING_URI is {shown(uri)}, which names no file: write sqlite:///FILE.db")
    return Path(path)


@contextmanager
def locked(uri: str) -> Iterator[None]:
    """One process of this machine at a time: MLflow lets two create the same database, experiment or row.

    Raises UnavailableError when another process keeps the lock for LOCK_SECONDS.
    """
    database = sqlite_path(uri)
    if database is not None:
        database.parent.mkdir(parents=True, exist_ok=True)
        path = database.with_name(database.name + ".lock")
    else:
        digest = hashlib.sha256(uri.encode()).hexdigest()[:16]
        path = Path(tempfile.gettempdir()) / f"textvae-mlflow-{os.getuid()}-{digest}.lock"
    with path.open("a") as stream:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"MLflow at {shown(uri)}: another process has held {path} for {LOCK_SECONDS:.0f} s; {REMEDY}"
                    ) from None
                time.sleep(0.05)
        yield


def make_database(path: Path, client: type[MlflowClient]) -> None:
    """Make an SQLite store where there is none: under another name, so that an interruption leaves no half of one."""
    path = path.resolve()
    if path.exists() and path.stat().st_size:
        return
    making = path.with_name(f".{path.name}.making")
    try:
        remove_database(making)
        client(tracking_uri=f"sqlite:///{making}").search_experiments(max_results=1)
        making.replace(path)
    finally:
        remove_database(making)


def remove_database(path: Path) -> None:
    """Remove an SQLite file and what belongs to it."""
    for end in ("", "-journal", "-wal", "-shm"):
        path.with_name(path.name + end).unlink(missing_ok=True)


def check_database(path: Path) -> None:
    """Find out in seconds what MLflow retries for minutes.

    Raises UnavailableError for a database that stays locked or is read-only, DataError for one that is damaged or that
    whoever made it has not finished.
    """
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as database:
            database.execute("BEGIN IMMEDIATE")
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            # The last that MLflow writes into a new one is an experiment.
            made = "experiments" in tables and database.execute("SELECT 1 FROM experiments").fetchone() is not None
            database.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        if FULL in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from None
        raise UnavailableError(
            f"MLflow's database {path} cannot be written: {error} (waited {BUSY_SECONDS:.0f} s); {REMEDY}"
        ) from None
    except sqlite3.DatabaseError as error:
        raise DataError(f"MLflow's database {path} is damaged: {error}; {remade(path)}") from None
    if tables and not made:
        raise DataError(
            f"MLflow's database {path} is half made (whoever made it was stopped) and holds nothing; {remade(path)}"
        )


def remade(path: Path) -> str:
    """The remedy for a database that cannot be used: it holds nothing that the run directories do not."""
    return f"move it away, `make publish` makes it again from the run directories ({path})"


@contextmanager
def explained(uri: str, what: str) -> Iterator[None]:
    """Turn what MLflow and its transports raise at `what` into an error that names the store, the reason, the remedy.

    That is a DataError where MLflow has refused and would again, an UnavailableError where it may be otherwise later.
    What takes long is said to.
    """
    from mlflow.exceptions import MlflowException

    try:
        with said_to_wait(f"MLflow at {shown(uri)}: {what}"):
            yield
    except TextVAEError:
        raise
    except Exception as error:
        if lacks_memory(error) or (isinstance(error, OSError) and error.errno in NO_SPACE):
            raise
        if not isinstance(error, (MlflowException, OSError)) and not raised_elsewhere(error):
            raise
        if FULL in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(sqlite_path(uri) or shown(uri))) from None
        text = " ".join(str(error).split()).rpartition("Caused by ")[2] or type(error).__name__
        reason = masked(text, uri)[:300]
        status = http_status(error)
        place = f"MLflow at {shown(uri)}"
        if isinstance(error, ImportError):
            raise UnavailableError(
                f"{place} needs what is not installed here: {reason}; install it, {LATER}"
            ) from error
        if isinstance(error, PLACES):
            raise UnavailableError(
                f"{place} keeps files where this user may not write: {reason}; let this user write there, or start the "
                f"server so that it takes the files itself (--serve-artifacts); {LATER}"
            ) from error
        if status in (401, 403):
            raise UnavailableError(
                f"{place} refuses the login for {what}: {reason}; set $MLFLOW_TRACKING_USERNAME and _PASSWORD, or "
                f"_TOKEN, of somebody who may write there; {LATER}"
            ) from error
        if status in PERMANENT and not any(race in str(error) for race in RACES):
            raise DataError(
                f"{place} refuses {what}, and would again: {reason}; {CHANGE.get(status, OTHERWISE)}; {LATER}"
            ) from error
        raise UnavailableError(f"{place} failed: {reason}; {REMEDY}") from error


def raised_elsewhere(error: Exception) -> bool:
    """Whether an error was raised in MLflow or another library: one of this project's own is a bug that shows."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    file = Path(frame.f_code.co_filename)
    return not file.is_relative_to(ROOT) or file.is_relative_to(sys.prefix)


@contextmanager
def said_to_wait(what: str) -> Iterator[None]:
    """While the block runs, say every WAITING_SECONDS what it waits for, and how long it has."""
    done, started = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(WAITING_SECONDS):
            print(f"waiting for {what}, {duration(time.monotonic() - started)}", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def http_status(error: Exception) -> int:
    """The status of the answer that an error of MLflow's client stands for; 0 where nothing has answered."""
    from mlflow.exceptions import MlflowException

    answered = getattr(getattr(error, "response", None), "status_code", None)  # an error of `requests`
    if answered is not None:
        return int(answered)
    # mlflow takes a status that it has no code for (413 of a proxy, say) for 500, and names it in its message only.
    if named := re.search(r"failed with error code (\d{3}) ", str(error)):
        return int(named[1])
    return int(error.get_http_status_code()) if isinstance(error, MlflowException) else 0


def import_client(limits: Mapping[str, str]) -> type[MlflowClient]:
    """mlflow's client class, without telemetry or chatter. Raises UnavailableError where mlflow is not installed."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    quiet = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}
    for name, value in {**limits, **quiet, "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1"}.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise UnavailableError(f"mlflow is not installed ({error}): install the project's extra `tracking`") from None
    except MemoryError:
        raise
    except Exception as error:  # where what it imports does not fit it, of any kind
        raise UnavailableError(
            f"mlflow cannot be imported ({one_line(error)}): install the project's extra `tracking` again"
        ) from None
    for name in ("mlflow", "mlflow.store.db.utils", "urllib3", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # every failure is raised, and then said once
    client: type[MlflowClient] = MlflowClient
    return client
