"""What a machine refuses (a disk, a folder, memory) ends every command in one line and an exit code; a bug does not."""

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from machine_faults import STEPS, arguments_of, lacking_memory, raising, step_named, system_error, the_error

from components import step as step_module
from textvae.errors import IO_ERROR_EXIT_CODE, MEMORY_EXIT_CODE, DataError, MemoryLackError, exit_codes
from textvae.files import read_json, sha256_of_file
from textvae.kenlm_lm import lmplz_error
from textvae.step_settings import NgramSettings


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR, errno.EMFILE])
def test_what_the_system_refuses_is_one_line_that_names_the_place(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    remedy = "let this user" if number in (errno.EROFS, errno.EACCES, errno.EPERM) else "put that right"
    with the_error(capsys, IO_ERROR_EXIT_CODE, "/a/place: ", remedy, "run this again"), exit_codes():
        raise system_error(number, Path("/a/place"))


def test_the_place_of_a_renaming_is_its_new_name_and_of_other_libraries_their_words(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with the_error(capsys, IO_ERROR_EXIT_CODE, "error: /new: Is a directory"), exit_codes():
        raise OSError(errno.EISDIR, "x", "/old", None, "/new")
    with the_error(capsys, IO_ERROR_EXIT_CODE, "no space left for /a: free some"), exit_codes():
        raise system_error(errno.ENOSPC, Path("/a"))
    with the_error(capsys, IO_ERROR_EXIT_CODE, "open '/x/y' for writing"), exit_codes():
        raise PermissionError(errno.EACCES, "Cannot open '/x/y'\n for writing")


def test_an_error_is_one_line_whatever_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    with (
        the_error(capsys, DataError.exit_code, "x.parquet cannot be read (no such field: tokens): run it again"),
        exit_codes(),
    ):
        raise DataError("x.parquet cannot be read (no such field:\r\n  tokens\n): run it again".replace("\n)", ")"))


def test_a_bug_keeps_its_traceback() -> None:
    for bug in (ValueError("a bug"), RuntimeError("a size does not fit"), OSError("without a number")):
        with pytest.raises(type(bug)), exit_codes():
            raise bug


@pytest.mark.parametrize("name", STEPS)
def test_every_step_names_an_output_that_cannot_be_and_an_input_that_may_not_be_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_module, "read_settings", lambda *_: None)
    step, given = step_named(name), tmp_path / "given"
    given.write_text("")
    with the_error(capsys, IO_ERROR_EXIT_CODE, "given: File exists"):  # a file where a folder should be
        step.main(arguments_of(step, given, given))
    for number in (errno.EROFS, errno.EACCES):
        monkeypatch.setattr(step, "function", raising(system_error(number, given)))
        with the_error(capsys, IO_ERROR_EXIT_CODE, f"{given}: ", "let this user read and write"):
            step.main(arguments_of(step, given, tmp_path))
        with monkeypatch.context() as on_such_a_disk:
            on_such_a_disk.setattr(Path, "mkdir", raising(system_error(number, tmp_path)))
            with the_error(capsys, IO_ERROR_EXIT_CODE, f"{tmp_path}: ", "let this user read and write"):
                step.main(arguments_of(step, given, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


@pytest.mark.parametrize("number", range(len(lacking_memory())))
def test_too_little_memory_is_one_line_that_names_it(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    error = lacking_memory()[number]
    where = "the GPU" if "CU" in str(error) else "this machine"
    with (
        the_error(capsys, MEMORY_EXIT_CODE, f"too little memory on {where} (", "free some, or lower x"),
        exit_codes("lower x"),
    ):
        raise error


@pytest.mark.parametrize(("name", "remedy"), [("train", "training.batch_size"), ("evaluate", "JOBS=1")])
def test_a_step_names_the_setting_that_takes_less_memory(
    name: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(step_module, "read_settings", lambda *_: None)
    step = step_named(name)
    monkeypatch.setattr(step, "function", raising(MemoryError()))
    with the_error(capsys, MEMORY_EXIT_CODE, remedy):
        step.main(arguments_of(step, tmp_path, tmp_path / "out"))


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "reading"),
        (-6, "threw MallocException\nCannot allocate memory for 806596920 bytes in malloc"),
        (-6, "terminate called\nwhat(): std::bad_alloc"),
    ],
)
def test_lmplz_without_memory_asks_for_less(code: int, said: str) -> None:
    error = lmplz_error(code, said, NgramSettings())
    assert isinstance(error, MemoryLackError)
    assert "free some, or lower ngram.memory" in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize("reader", [read_json, sha256_of_file])
def test_a_file_that_cannot_be_read_to_its_end_is_named(
    reader: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad sector, or a network volume that is gone: the system's error says no name."""
    for place, name in ((hashlib, "file_digest"), (Path, "read_text")):
        monkeypatch.setattr(place, name, raising(system_error(errno.EIO)))
    (tmp_path / "read").touch()
    with pytest.raises(OSError, match=r"Input/output error: '.*/read'"):
        reader(tmp_path / "read")
