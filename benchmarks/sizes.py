"""How much each benchmark does: `full`, at the paper's sizes, or `tiny`, which only shows that all of it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.__main__ import settings_by_system
from benchmarks.gpu.workload import Workload
from textvae.training import Trainer


@dataclass(frozen=True)
class Amounts:
    """Of work in one round, and rounds."""

    rounds: int
    steps: dict[int, int]
    """Of training, by the batch's size."""
    codes: int
    """Of NLL-IW."""
    lengths: tuple[int, ...]
    """Of the sentences that it reads, in words."""
    samples: int
    longest: int
    """Words of a sample."""
    output_layer: dict[str, tuple[int, int, int]]
    """Rows, hidden units and classes."""
    preprocessed: int
    """Sentences."""


AMOUNTS = {
    "full": Amounts(
        rounds=5,
        steps={32: 8, 128: 2},
        codes=500,
        lengths=(10, 21, 31),
        samples=2048,
        longest=100,
        output_layer={"batch 32": (700, 512, 10_000), "batch 128": (2_800, 512, 10_000), "reduced": (430, 192, 5_000)},
        preprocessed=200_000,
    ),
    "tiny": Amounts(
        rounds=2,
        steps={4: 2, 8: 1},
        codes=6,
        lengths=(3, 5),
        samples=30,
        longest=20,
        output_layer={"tiny": (9, 4, 20)},
        preprocessed=1000,
    ),
}


class Plan:
    """Amounts, a made corpus with PTB's lengths, and trainings on it.

    Args: sizes, `full` or `tiny`.
    """

    def __init__(self, sizes: str) -> None:
        self.amounts = AMOUNTS[sizes]
        self.work = Workload(sizes, settings_by_system())

    def trainer(self, system: str, batch_size: int, objective: dict[str, Any] | None = None) -> Trainer:
        """A training on this machine's processor that has not begun."""
        return self.work.trainer(system, objective=objective, batch_size=batch_size, device="cpu")

    @property
    def classes(self) -> int:
        """Of the output layer."""
        output = self.trainer("lagging", 2).network.decoder.output
        return output.out_features
