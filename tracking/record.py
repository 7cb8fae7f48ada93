"""What a row of MLflow says, and what makes two rows the same; knows nothing of mlflow."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textvae.files import fingerprint, json_text, sha256_of_file


@dataclass(frozen=True)
class RunIdentity:
    """What makes a run itself: equal identities are one row of MLflow, and a changed setting is another row."""

    dataset: str
    system: str
    seed: int | str
    settings: Mapping[str, Any]
    """{model: {..}, training: {..}, objective: {name, ..}} as in the model's config.json."""
    corpus_sha256: str
    code_sha256: str
    """As in timings/train.json."""
    candidate: str = ""
    """`alpha=2.5` for the training of one value out of a list, of which one is kept; empty for a run."""

    @property
    def name(self) -> str:
        """`sotu-vae_mine-0`, or `alpha=2.5`."""
        return self.candidate or f"{self.dataset}-{self.system}-{self.seed}"

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 of settings, data, seed and code."""
        return fingerprint({**vars(self), "seed": str(self.seed), "settings": dict(self.settings)})

    @property
    def tags(self) -> dict[str, str]:
        """The tags that are known before training starts."""
        kind = "candidate" if self.candidate else "run"
        return {"kind": kind, "dataset": self.dataset, "system": self.system, "seed": str(self.seed)}

    @property
    def params(self) -> dict[str, str]:
        """The settings, flattened: {"training.batch_size": "32"}."""
        return flattened(self.settings)


@dataclass(frozen=True)
class Point:
    """One value of one curve; `step` is the epoch, `timestamp` milliseconds since 1970."""

    key: str
    value: float
    step: int
    timestamp: int


@dataclass(frozen=True)
class Record:
    """One row of MLflow as it should be."""

    fingerprint: str
    name: str
    status: str
    """FINISHED or FAILED."""
    tags: Mapping[str, str]
    params: Mapping[str, str]
    curves: Sequence[Point]
    metrics: Mapping[str, float]
    artifacts: Mapping[str, Path]
    """Path inside the run's artifacts -> file."""
    started: int
    ended: int
    children: Sequence[Record] = ()
    """Rows nested under this one."""

    def content(self) -> str:
        """Hash of what the row says itself and of which rows are under it; times are left out: a rerun with the same
        numbers changes nothing."""
        files = {name: sha256_of_file(path) for name, path in self.artifacts.items()}
        curves = [[point.key, point.step, point.value] for point in self.curves]
        children = [child.fingerprint for child in self.children]
        said = [self.name, self.status, self.tags, self.params, curves, self.metrics, files, children]
        return hashlib.sha256(json_text(said).encode()).hexdigest()


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys and text; what is not text is written as JSON."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str) else json_text(value).strip()
    return flat


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among `values`, as floats: MLflow draws nothing else, and a database changes infinity."""
    found = {}
    for key, value in values.items():
        if type(value) in (int, float) and abs(value) <= sys.float_info.max:
            found[key] = float(value)
    return found


def epoch_points(row: Mapping[str, Any], timestamp: int) -> list[Point]:
    """The points of one row of curves.jsonl, at the row's epoch."""
    epoch = int(row["epoch"])
    values = numbers({key: value for key, value in row.items() if key not in ("epoch", "seed")})
    return [Point(key, value, epoch, timestamp) for key, value in values.items()]
