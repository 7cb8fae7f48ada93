"""MLflow's addresses, databases and failures: every one is a line, and no database is there half."""

import errno
import os
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
from machine_faults import killed_within, raising, the_error

from textvae.errors import SettingsError, UnavailableError, exit_codes
from tracking import connect, place, ui
from tracking.place import check_database, explained, make_database

pytest_plugins = ["tracking_fixtures"]


def raised_in_a_library(error: Exception) -> None:
    """Raise it in code of another package."""
    exec(compile("raise error", "/usr/lib/python3/site-packages/botocore/client.py", "exec"), {"error": error})


def test_what_reaches_the_store_of_files_may_fail_in_its_own_words() -> None:
    """As boto3 and SQLAlchemy do, whose errors are no kind of OSError; a fault of this project's own stays one."""
    for error in (KeyError("no way to s3"), ZeroDivisionError("no way to s3")):
        with pytest.raises(UnavailableError, match=r"no way to s3.*make publish"), explained("https://host", "a row"):
            raised_in_a_library(error)
    with pytest.raises(UnavailableError, match=r"failed: ValueError; "), explained("https://host", "a row"):
        raised_in_a_library(ValueError())
    with pytest.raises(ZeroDivisionError), explained("https://host", "a row"):
        raise ZeroDivisionError
    with pytest.raises(MemoryError), explained("https://host", "a row"):
        raised_in_a_library(MemoryError())


@pytest.mark.parametrize(("name", "taken"), [("a b", True), ("50% off", True), ("a?b", False), ("a%41b", False)])
def test_a_folder_whose_name_an_address_cannot_have_gets_no_database_somewhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, taken: bool
) -> None:
    """sqlite:////home/me/what?/mlflow.db would be the file /home/me/what, the next folder's, too."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / name
    folder.mkdir()
    (folder / "params.yaml").touch()
    monkeypatch.chdir(folder)
    if taken:
        assert place.tracking_uri() == f"sqlite:///{folder}/mlflow.db"
        return
    with pytest.raises(SettingsError, match=r"mlflow.db cannot be MLflow's database, .* rename the folder"):
        place.tracking_uri()


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("mysql+nosuch://u:pw@h/db", "Can't load plugin: sqlalchemy.dialects:mysql.nosuch"),
        ("mssql://u:pw@h/db", "No module named 'pyodbc'; install it"),
        ("http://[::1/?token=abcdef", "Invalid IPv6 URL"),
        ("http://h:abc/", "Invalid url"),
        ("nonsense://h?token=abcdef", "unsupported URI 'nonsense://h'"),
        ("sqlite://", "names no file: write sqlite:///FILE.db"),
        ("sqlite:///?token=abcdef", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_an_address_without_a_driver_or_a_meaning_is_one_line(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str, said: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(SystemExit) as ended, exit_codes():
        connect()
    assert ended.value.code in (2, 65, 69)
    [line] = capsys.readouterr().err.splitlines()
    assert said in line
    assert "abcdef" not in line
    assert "pw@" not in line


# A new database: whole, or not there.


def test_a_database_appears_when_it_is_whole(repository: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's tables are copied here: what makes them is interrupted, killed or finds the disk full half way."""

    class Client:
        """Writes the first tables, then does what `then` says."""

        then: Callable[[], None]

        def __init__(self, tracking_uri: str) -> None:
            self.path = Path(tracking_uri.removeprefix("sqlite:///"))

        def search_experiments(self, max_results: int) -> None:
            with closing(sqlite3.connect(self.path)) as database:
                database.execute("CREATE TABLE experiments (id)")
                database.commit()
            self.path.with_name(self.path.name + "-journal").touch()
            Client.then()
            shutil.copy(template, self.path)

    def store_files() -> list[str]:
        return sorted(path.name for path in repository.glob(".mlflow*")) + [path.name for path in repository.glob("m*")]

    path = repository / "mlflow.db"
    path.unlink()
    full = sqlite3.OperationalError("database or disk is full")
    for stopped in (KeyboardInterrupt(), full, OSError(errno.ENOSPC, "full")):
        monkeypatch.setattr(Client, "then", raising(stopped), raising=False)
        with pytest.raises(type(stopped)):
            make_database(path, Client)  # type: ignore[arg-type]
        assert store_files() == []
    monkeypatch.setattr(Client, "then", lambda: os.kill(os.getpid(), signal.SIGKILL))
    killed_within(lambda: nullcontext(make_database(path, Client)))  # type: ignore[arg-type]
    assert store_files() == [".mlflow.db.making", ".mlflow.db.making-journal"]
    monkeypatch.setattr(Client, "then", lambda: None)
    path.touch()  # what SQLite leaves where it only opens one
    make_database(path, Client)  # type: ignore[arg-type]
    assert store_files() == ["mlflow.db"]
    assert path.read_bytes() == template.read_bytes()
    make_database(path, raising(AssertionError("it is there")))  # type: ignore[arg-type]


def test_mlflow_makes_its_tables_under_another_name(template: Path) -> None:
    """What made the template of these tests leaves nothing beside it."""
    assert [file.name for file in template.parent.iterdir()] == ["mlflow.db"]
    check_database(template)
    with closing(sqlite3.connect(template)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("tables", [["alembic_version"], ["experiments", "runs"]])
def test_a_half_made_database_is_recognised_and_the_remedy_said(
    repository: Path, capsys: pytest.CaptureFixture[str], tables: list[str]
) -> None:
    (repository / "mlflow.db").unlink()
    with closing(sqlite3.connect(repository / "mlflow.db")) as database:
        for table in tables:
            database.execute(f"CREATE TABLE {table} (id)")
    with the_error(capsys, 65, "mlflow.db is half made", "move it away, `make publish` makes it again"), exit_codes():
        connect()


def test_a_full_disk_under_the_database_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        the_error(capsys, 74, "no space left for /a.db: free some"),
        exit_codes(),
        explained("sqlite:////a.db", "a row"),
    ):
        raised_in_a_library(RuntimeError("(sqlite3.OperationalError) database or disk is full"))


def test_what_is_waited_for_is_said_again_and_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "WAITING_SECONDS", 0.001)
    said, deadline = "", time.monotonic() + 60
    with explained("http://u:pw@host/?token=abcdef", "the row x"):
        while said.count("waiting for MLflow at http://host/: the row x, 0:") < 2:
            assert time.monotonic() < deadline
            said += capsys.readouterr().err
    capsys.readouterr()
    assert "waiting" not in {thread.name for thread in threading.enumerate()}


def test_make_ui_serves_nothing_that_a_link_leads_to(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    connect()
    (repository / "mlartifacts").mkdir()
    (repository / "mlartifacts" / "text").symlink_to("/etc/hostname")
    with the_error(capsys, 65, "text is a link to /etc/hostname, outside of"):
        ui.main()


def test_a_row_that_is_asked_for_once_more_may_be_gone_or_its_server_away(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = connect()
    with pytest.raises(UnavailableError, match="a row was removed while it was published"):
        store.run_id("0a")
    monkeypatch.setattr(store, "find", raising(ConnectionError("cut off")))
    with pytest.raises(UnavailableError, match=r"the row of the report|failed: cut off"):
        store.run_id("0a")
