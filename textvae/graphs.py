"""A training step as one launch: CUDA graphs, one for each kind of step and shape of batch.

A step is some 500 kernels of a few microseconds, which Python launches more slowly than a GPU runs them. A graph holds
them all: it is recorded once and then replayed, with the same addresses, so that what a step reads and writes beside
its batch (weights, moments, beta, the seed of its noise) lives in tensors that stay where they are.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from textvae.corpus import Batch

WIDTHS = 4
"""Trained on a GPU, batches are as wide as a multiple of this, so that few shapes occur."""
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Captured(Generic[Result]):
    graph: torch.cuda.CUDAGraph
    batch: Batch
    """What the graph reads."""
    result: Result
    """What it writes."""


class Graphs:
    """Runs the steps of one training: as they are, or on a GPU captured.

    Args: device; generator, of the noise, which a graph must know to draw new numbers at every replay.
    """

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self.generator = generator
        self.enabled = device.type == "cuda"
        """Whether steps are captured at all."""
        self.clear()

    def clear(self) -> None:
        """Forget the graphs: whoever replaces a tensor that they use (an optimiser's moments) must."""
        self._seen: set[tuple[Any, ...]] = set()
        self._captured: dict[tuple[Any, ...], _Captured[Any]] = {}
        self._pool = torch.cuda.graph_pool_handle() if self.enabled else None

    def run(self, kind: str, step: Callable[[Batch], Result], batch: Batch) -> Result:
        """`step(batch)`. `kind` names the step: two that do different things have different kinds.

        The first step of a kind and shape is taken as it is, which also prepares what a capture cannot (libraries'
        handles, moments), the second is captured: a shape that occurs once costs no capture. The result's tensors are
        overwritten by the next step of that kind and shape.
        """
        key = (kind, *batch.tokens_BT.shape)
        if not self.enabled or key not in self._seen:
            self._seen.add(key)
            return step(batch)
        if key not in self._captured:
            self._captured[key] = self._capture(step, batch)
        captured: _Captured[Result] = self._captured[key]
        captured.batch.tokens_BT.copy_(batch.tokens_BT)
        captured.batch.lengths_B.copy_(batch.lengths_B)
        captured.graph.replay()
        return captured.result

    def _capture(self, step: Callable[[Batch], Result], batch: Batch) -> _Captured[Result]:
        own = Batch(batch.tokens_BT.clone(), batch.lengths_B.clone(), batch.indices, batch.target_tokens)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        stream = torch.cuda.current_stream()
        with uncollected(), torch.cuda.graph(graph, self._pool, stream, capture_error_mode="thread_local"):
            result = step(own)
        return _Captured(graph, own, result)


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected in the block: a dead training's graph may be in it, whose end would spoil a capture."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
