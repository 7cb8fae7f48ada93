"""Faults made on purpose, by means that work as root: what each gives is a context, or what to raise."""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from components.step import Step

STEPS = ("settings", "fetch", "preprocess", "train", "evaluate", "sample", "examples", "ngram", "gather", "report")
"""Those that write something."""


def step_named(name: str) -> Step:
    """A step by its name."""
    found = getattr(importlib.import_module(f"components.{name}"), name)
    assert isinstance(found, Step)
    return found


def outputs_of(step: Step) -> list[str]:
    """The names of what a step writes."""
    return [parameter.name for parameter in step.parameters if parameter.kind == "output"]


def arguments_of(step: Step, given: Path, target: Path) -> list[str]:
    """A command line for a step whose settings are not read: every input is `given`, every output below `target`."""
    arguments = []
    for parameter in step.parameters:
        values = {"input": given, "inputs": given, "output": target / parameter.name, "settings": "{}"}
        if parameter.kind in values:
            arguments += [parameter.option, str(values[parameter.kind])]
        elif parameter.name == "seed":
            arguments += ["--seed", "1"]
    return arguments


def raising(error: BaseException) -> Callable[..., Any]:
    """A function that raises `error`, to stand in the place of another."""

    def raises(*_: Any, **__: Any) -> Any:
        raise error

    return raises


def system_error(number: int, place: Path | None = None) -> OSError:
    """What the operating system says of a place that it refuses."""
    return OSError(number, os.strerror(number), *([] if place is None else [str(place)]))


def lacking_memory() -> list[Exception]:
    """What the libraries raise where memory runs out; the first two are made by asking for too much."""
    made: list[Exception] = []
    for ask in (lambda: np.empty(10**16), lambda: torch.empty(10**16)):
        with pytest.raises((MemoryError, RuntimeError)) as asked:
            ask()
        made.append(asked.value)  # type: ignore[arg-type]
    said = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 15.77 GiB"
    made += [MemoryError(), pa.ArrowMemoryError("malloc of size 10 failed"), torch.OutOfMemoryError(said)]
    made += [RuntimeError("cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED"), RuntimeError("std::bad_alloc")]
    return [*made, system_error(12)]


def killed_within(block: Callable[[], AbstractContextManager[Any]]) -> None:
    """Enter a context in another process and kill that with SIGKILL, so that nothing is tidied up."""
    child = os.fork()
    if child == 0:
        with block():
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


@contextmanager
def the_error(capsys: pytest.CaptureFixture[str], code: int, *said: str) -> Iterator[None]:
    """The block ends the process with this exit code and one line, which says all of `said`, without a traceback."""
    with pytest.raises(SystemExit) as ended:
        yield
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == code, lines
    assert [line[:7] for line in lines] == ["error: "], lines
    for text in said:
        assert text in lines[0]
