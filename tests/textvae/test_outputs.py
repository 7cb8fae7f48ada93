"""Outputs: whole or not there, one writer at a time, nothing left behind by one that was killed."""

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from machine_faults import STEPS, killed_within, outputs_of, raising, step_named, system_error

from textvae import locks, outputs, state
from textvae.errors import SettingsError, UnavailableError
from textvae.files import LEFT_SECONDS, read_json, write_json
from textvae.outputs import own_folder, written_when_complete
from textvae.state import StateStore


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_of_two_writers_the_later_one_is_told_and_the_first_one_ends_well(tmp_path: Path) -> None:
    with written_when_complete({"x": tmp_path / "x", "y": tmp_path / "y"}) as first:
        first["x"].write_text("first")
        first["y"].write_text("first")
        with pytest.raises(UnavailableError, match=r"x is being written by process \d+ on .*: wait until it ends"):
            written_when_complete({"z": tmp_path / "z", "x": tmp_path / "x"}).__enter__()
    assert names(tmp_path) == ["x", "y"]
    assert (tmp_path / "x").read_text() == "first"


@pytest.mark.parametrize("name", STEPS)
def test_every_step_has_each_of_its_outputs_for_itself(name: str, tmp_path: Path) -> None:
    """Whatever the other process is: it is another step, or the same one."""
    step = step_named(name)
    for output in outputs_of(step):
        given = dict.fromkeys((parameter.name for parameter in step.parameters), None)
        given |= {one: tmp_path / one for one in outputs_of(step)}  # type: ignore[misc]
        with own_folder(tmp_path / output), pytest.raises(UnavailableError, match=f"{output} is being written by"):
            step(**given)
    assert names(tmp_path) == []


def test_a_pipe_or_a_device_is_no_output_and_stays(tmp_path: Path) -> None:
    """A rename would put a file in its place: root's `--timings /dev/null` took the null device."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match="pipe is a device or a pipe, and outputs are files: name one"):
        written_when_complete({"x": tmp_path / "pipe"}).__enter__()
    with pytest.raises(SettingsError, match="pipe is a device or a pipe"):
        write_json(tmp_path / "pipe", {})
    assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["pipe"]


def test_what_a_killed_writer_has_left_is_removed_by_the_next(tmp_path: Path) -> None:
    def writer() -> object:
        return written_when_complete({"x": tmp_path / "x"})

    killed_within(writer)  # type: ignore[arg-type]
    assert names(tmp_path) == [".x.tmp"]
    (tmp_path / ".x.tmp" / "x").write_text("half")
    (tmp_path / ".x.tmp" / "more").mkdir()
    with written_when_complete({"x": tmp_path / "x"}) as temporary:
        assert names(tmp_path / ".x.tmp") == [outputs.LOCK]
        temporary["x"].write_text("whole")
    assert names(tmp_path) == ["x"]
    (tmp_path / ".x.tmp").write_text("a file, as of old")
    with written_when_complete({"x": tmp_path / "x"}) as temporary:
        temporary["x"].write_text("again")
    assert names(tmp_path) == ["x"]


def test_the_lock_of_a_writer_that_has_just_ended_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened before it was removed, it would keep nobody else out."""
    taken, calls = outputs.taken, []

    def taken_too_late(lock: object) -> bool:
        calls.append(lock)
        if len(calls) == 1:
            (tmp_path / ".x.tmp" / outputs.LOCK).unlink()
            (tmp_path / ".x.tmp").rmdir()
        return taken(lock)  # type: ignore[arg-type]

    monkeypatch.setattr(outputs, "taken", taken_too_late)
    with own_folder(tmp_path / "x"):
        assert len(calls) == 2
        with pytest.raises(UnavailableError):
            own_folder(tmp_path / "x").__enter__()


def test_a_folder_appears_after_the_files_that_belong_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between a model directory and its learning curves, `make paper` took the training for over and ended at
    each later call."""
    outputs, rename = {name: tmp_path / name for name in ("model", "curves", "config")}, Path.replace
    with written_when_complete(outputs) as temporary:
        temporary["model"].mkdir()
        for name in ("curves", "config"):
            temporary[name].write_text("")

        def replace(path: Path, target: Path) -> None:
            assert "model" not in names(tmp_path)
            rename(path, target)

        monkeypatch.setattr(Path, "replace", replace)
    assert names(tmp_path) == ["config", "curves", "model"]


@pytest.mark.parametrize("is_told", [True, False])
def test_a_lock_that_a_killed_process_has_left_to_its_child_is_waited_for(
    is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child has the lock, too, from its fork until it runs another program: ngram was killed just there, lmplz had
    the lock for a moment, and ngram, run again at once, ended."""
    read, write = os.pipe()
    if (holder := os.fork()) == 0:
        with own_folder(tmp_path / "x"):
            if (child := os.fork()) == 0:
                signal.pause()  # before it runs another program
            os.write(write, str(child).encode())
            os._exit(0)  # as by SIGKILL: nothing is tidied up
    os.waitpid(holder, 0)
    child = int(os.read(read, 20))

    sleep = time.sleep

    def a_moment_later(seconds: float) -> None:
        if not is_told:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            sleep(seconds)

    monkeypatch.setattr(locks.time, "sleep", a_moment_later)
    try:
        if is_told:  # it does not end
            with pytest.raises(UnavailableError, match="x is being written by process"):
                own_folder(tmp_path / "x").__enter__()
        else:
            with own_folder(tmp_path / "x"):
                pass
            assert names(tmp_path) == []
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.close(read)
        os.close(write)


def test_a_lock_whose_holder_lives_or_is_elsewhere_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks.time, "sleep", raising(AssertionError("it waits")))
    with own_folder(tmp_path / "x"):
        for holder in (locks.signature(os.getpid()), "process 1 on another-machine", "process 999999999999 on x", ""):
            (tmp_path / ".x.tmp" / outputs.LOCK).write_text(holder)
            with pytest.raises(UnavailableError, match=holder or "another process"):
                own_folder(tmp_path / "x").__enter__()


def test_a_writer_who_cannot_even_sign_its_lock_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk the first byte that is written is the lock's."""
    monkeypatch.setenv("TEXTVAE_STATE", str(tmp_path / "state"))
    for module, block in ((outputs, lambda: own_folder(tmp_path / "x")), (state, lambda: StateStore("ab").locked("x"))):
        monkeypatch.setattr(module, "sign", raising(system_error(errno.ENOSPC)))
        with pytest.raises(OSError, match="No space left"), block():
            pass
    assert names(tmp_path) == ["state"]
    assert names(tmp_path / "state") == []


def test_a_file_takes_no_folders_place_nor_a_folder_a_files(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "kept").write_text("")
    a_file, a_folder = {"x": tmp_path / "runs"}, {"x": tmp_path / "runs" / "kept"}
    said = "runs is a folder, and this writes a file"
    with pytest.raises(SettingsError, match=said), written_when_complete(a_file) as temporary:
        temporary["x"].write_text("sentences")
    said = "kept is a file, and this writes a folder"
    with pytest.raises(SettingsError, match=said), written_when_complete(a_folder) as temporary:
        temporary["x"].mkdir()
    assert names(tmp_path / "runs") == ["kept"]
    for nothing in (Path(), Path(".."), Path("/")):
        with pytest.raises(SettingsError, match="give the name of a file"):
            written_when_complete({"x": nothing}).__enter__()


def test_a_json_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    left, young = tmp_path / ".a.json.1.tmp", tmp_path / ".a.json.2.tmp"
    for file in (left, young):
        file.write_text("half")
    os.utime(left, (0, left.stat().st_mtime - LEFT_SECONDS - 1))
    write_json(tmp_path / "a.json", 1)
    assert names(tmp_path) == [young.name, "a.json"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    (tmp_path / "b.json").mkdir()
    with pytest.raises(IsADirectoryError):
        write_json(tmp_path / "b.json", 1)
    assert names(tmp_path) == [young.name, "a.json", "b.json"]
    assert read_json(tmp_path / "a.json") == 1
