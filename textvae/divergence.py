"""Losses and gradient norms that are not finite: noticed at once on a CPU, on a GPU without asking it at every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

MOST_VALUES = 16
"""In one check."""


class DivergedError(ArithmeticError):
    """A loss is not finite. It is a result, not a crash: the run ends as `diverged`.

    `step` is the one that diverged (0-based) where it was noticed later, else None: the current one.
    """

    def __init__(self, term: str, value: float, largest_energy: float | None, step: int | None = None) -> None:
        self.term, self.value, self.largest_energy, self.step = term, value, largest_energy, step
        super().__init__(f"{term} is {value}")


class Divergence:
    """Watches the values of every step.

    On a CPU `check` raises. On a GPU, where the answer would be waited for, it remembers the first values that are not
    finite and sets `found`, by which the fused optimisers leave weights and moments as they are from that step on;
    `ask` raises for what was remembered.

    Args: device; largest_energy, for the error; deferred, by default on a GPU.
    """

    def __init__(
        self, device: torch.device, largest_energy: Callable[[], float | None], deferred: bool | None = None
    ) -> None:
        self.largest_energy = largest_energy
        self.deferred = device.type == "cuda" if deferred is None else deferred
        self.step = torch.zeros((), dtype=torch.float64, device=device)
        """The current one; whoever begins a step fills it in."""
        self.found = torch.zeros((), device=device)
        """1 from the first value on that was not finite, else 0: `found_inf` of torch's fused optimisers."""
        self._values = torch.zeros(MOST_VALUES, dtype=torch.float64, device=device)
        self._names = torch.zeros((), dtype=torch.float64, device=device)
        self._step = torch.zeros((), dtype=torch.float64, device=device)
        self._known_names: list[tuple[str, ...]] = []

    def check(self, values: Mapping[str, Tensor]) -> None:
        """Look at named scalars, the ones that explain the others first. Raises DivergedError unless deferred."""
        if not self.deferred:
            for name, value in values.items():
                if not torch.isfinite(value):
                    raise DivergedError(name, float(value.detach()), self.largest_energy())
            return
        names = tuple(values)
        if names not in self._known_names:
            self._known_names.append(names)
        found = torch.stack([value.detach() for value in values.values()]).double()
        broken = torch.isfinite(found).all().logical_not()
        first = broken & (self.found == 0)
        kept = self._values[: len(found)]
        kept.copy_(torch.where(first, found, kept))
        self._names.masked_fill_(first, self._known_names.index(names))
        self._step.copy_(torch.where(first, self.step, self._step))
        self.found.masked_fill_(broken, 1.0)

    def ask(self) -> None:
        """Raises DivergedError for what `check` has remembered, with its term and step."""
        if not self.deferred or not float(self.found):
            return
        names = self._known_names[int(self._names)]
        values = dict(zip(names, self._values.tolist(), strict=False))
        term = next(name for name, value in values.items() if not abs(value) < float("inf"))
        raise DivergedError(term, values[term], self.largest_energy(), int(self._step))
