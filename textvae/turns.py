"""Work that pauses, so that several trainings can take turns in one process and a GPU works for all of them."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Working(Protocol):
    """What a device may still be at, such as a torch.cuda.Event behind it."""

    def query(self) -> bool:
        """Whether it is done."""
        ...


Turns: TypeAlias = Generator[Working | None, None, T]
"""Pauses wherever it yields; where that is `Working`, it is best gone on with once that is done."""


def run_out(turns: Generator[Any, None, T]) -> T:
    """Do it without pauses. Returns what it returns."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            result: T = end.value
            return result


def awaited(value: Tensor) -> Turns[float]:
    """The number in a scalar tensor; on a GPU others have their turns until it is known."""
    if not value.is_cuda:
        yield from ()
        return float(value)
    copy = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    yield event
    event.synchronize()
    return float(copy)
