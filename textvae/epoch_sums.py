"""Means over an epoch's steps, without asking a GPU for them at every step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

MOST_NAMES = 32


class EpochSums:
    """Sums of named scalars, each weighted by the sentences of its batch: float64, on the device of the values. They
    are read at the epoch's end and when a state is saved."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.load({}, {})

    def load(self, sums: Mapping[str, float], counts: Mapping[str, int]) -> None:
        """Go on from these. Raises ValueError where they are no sums of that many sentences each."""
        if sums.keys() != counts.keys() or len(sums) > MOST_NAMES:
            raise ValueError("its sums and counts are not of the same names")
        if not {*map(type, sums.values())} <= {float} or not all(type(n) is int and n > 0 for n in counts.values()):
            raise ValueError("its sums are no numbers, or of no sentences")
        self.counts = dict(counts)
        """The sentences in each sum: a batch of one has no Ihat, for example."""
        self._sums = torch.zeros(MOST_NAMES, dtype=torch.float64, device=self.device)
        self._sums[: len(sums)] = torch.tensor(list(sums.values()), dtype=torch.float64)
        self._places = {name: place for place, name in enumerate(sums)}
        self._places_of: dict[tuple[str, ...], Tensor] = {}

    def add(self, values: Mapping[str, Tensor], sentences: int) -> None:
        """Another step's."""
        names = tuple(values)
        if names not in self._places_of:
            places = [self._places.setdefault(name, len(self._places)) for name in names]
            self._places_of[names] = torch.tensor(places, device=self.device)
        step = torch.stack(list(values.values())).double()
        self._sums.index_add_(0, self._places_of[names], step, alpha=sentences)
        for name in names:
            self.counts[name] = self.counts.get(name, 0) + sentences

    @property
    def sums(self) -> dict[str, float]:
        """What has come together, waited for."""
        return dict(zip(self._places, self._sums.tolist(), strict=False))
