"""Whether the parts of a training's state are such as it can go on from: a right checksum does not say that."""

from __future__ import annotations

import math
from typing import Any

import torch

from textvae.checkpoint import flattened

CURVE_COLUMNS = {"epoch", "step", "lr", "valid_nll", "valid_nll_iw"}
"""Of those that every system has, what is read again."""
DEVICE_OPTIONS = ("foreach", "fused", "capturable")
"""Of an optimiser: how it computes, not what."""


def check_curve(rows: Any) -> None:
    """Raise ValueError where these are no rows of a learning curve."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) and set(row) >= CURVE_COLUMNS for row in rows):
        raise ValueError("its learning curve has no rows")
    numbers = [number for row in rows for number in row.values()]
    if not all(type(number) in (int, float) and math.isfinite(number) for number in numbers):
        raise ValueError("its learning curve has more than numbers")


def check_moments(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError where what an optimiser keeps of a parameter is not there, or something else."""
    for parameter, kept in optimizer.state.items():
        found = {name: getattr(value, "shape", value) for name, value in kept.items()}
        moments = {"step": torch.Size(), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
        if found != (moments if isinstance(optimizer, torch.optim.Adam) else {"momentum_buffer": None}):
            raise ValueError("its optimiser has other moments")


def of_this_device(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimiser's saved state with the options that this machine's optimiser has: one saved on a GPU goes on on a
    CPU, and the other way round. Raises ValueError where other options are others."""
    own = [{name: group[name] for name in DEVICE_OPTIONS if name in group} for group in optimizer.param_groups]
    groups = [{**saved, **options} for saved, options in zip(state["param_groups"], own, strict=True)]
    for saved, group in zip(groups, optimizer.param_groups, strict=True):
        for option in saved.keys() & group.keys() - {"params"}:
            if flattened("", saved[option], {}) != flattened("", group[option], {}):  # JSON knows no tuples
                raise ValueError(f"its optimiser has another {option}")
    return {**state, "param_groups": groups}
