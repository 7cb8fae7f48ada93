"""Which estimates have a largest possible value, and are so near it that they only say "at least"."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

NEAR = 0.95
"""A number above this share of its ceiling is a bound: shown with a `>`, and ranked against none at its ceiling."""
BATCH = 32
"""Sentences of a batch of mi_batch (`textvae.inference.HE_BATCH`)."""
CEILINGS: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "mi": lambda row: row.get("sentences"),
    "mi_batch": lambda row: None if row.get("sentences") is None else min(BATCH, row["sentences"]),
    "gain": lambda row: row.get("gain_codes"),
}
"""What an estimate in nats is at most the logarithm of, by the columns of its run."""


def ceiling(row: Mapping[str, Any], key: str) -> float | None:
    """The largest value that a run's measure can have, in nats; None where there is none, or none is known."""
    count = CEILINGS[key](row) if key in CEILINGS else None
    return math.log(count) if count else None


def measures_at_ceiling(row: Mapping[str, Any]) -> list[str]:
    """Those of a run's measures that are within 5% of their ceilings."""
    found = []
    for key in CEILINGS:
        value, most = row.get(key), ceiling(row, key)
        if value is not None and most is not None and value >= NEAR * most:
            found.append(key)
    return found


def at_ceiling(row: Mapping[str, Any], key: str) -> bool:
    """Whether a row of results.csv says so of a measure."""
    return key in (row.get("at_ceiling") or "").split()
