"""One file per system. `objective_class(name)` imports textvae/objectives/<name>.py and finds the class in it."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.errors import SettingsError

if TYPE_CHECKING:
    from textvae.objectives.base import Objective

FOLDER = Path(__file__).parent


def objective_names() -> list[str]:
    """Every system that has a file."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in ("__init__", "base"))


def objective_class(name: Any) -> type[Objective]:
    """The objective of that name. Raises SettingsError naming the ones there are."""
    if name not in objective_names():
        raise SettingsError(f"objective.name: no objective {name!r} (there are: {', '.join(objective_names())})")
    module = importlib.import_module(f"textvae.objectives.{name}")
    found: type[Objective] = module.OBJECTIVE
    return found


def objective_sha256(name: str) -> str:
    """Hash of the objective's source file: a pipeline that keys on it sees when a system's code changed."""
    return hashlib.sha256((FOLDER / f"{name}.py").read_bytes()).hexdigest()
