"""One file per system. `objective_class(name)` imports textvae/objectives/<name>.py and finds the class in it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.errors import SettingsError
from textvae.files import fingerprint
from textvae.provenance import imported_by
from textvae.step_settings import TrainingSettings
from textvae.strict import Location, dotted, shown, validated

if TYPE_CHECKING:
    from textvae.objectives.base import Objective

FOLDER = Path(__file__).parent


def objective_names() -> list[str]:
    """Every system that has a file."""
    return sorted(file.stem for file in FOLDER.glob("*.py") if file.stem not in ("__init__", "base"))


def objective_class(name: Any, key: str = "objective.name") -> type[Objective]:
    """The objective of that name, which stands at `key`. Raises SettingsError naming the ones there are."""
    if name not in objective_names():
        raise SettingsError(f"{key}: no objective {shown(name)} (there are: {', '.join(objective_names())})")
    module = importlib.import_module(f"textvae.objectives.{name}")
    found: type[Objective] = module.OBJECTIVE
    return found


def objective_sha256(name: str) -> str:
    """Hash of the objective's source file and what it imports: whoever keys on it sees when a system's code changed."""
    return fingerprint(imported_by(f"textvae.objectives.{name}"))


def alternatives(
    objective: dict[str, Any], key: Callable[[Location], str] = dotted
) -> tuple[str | None, list[dict[str, Any]]]:
    """The name of the setting that is a list (textvae/selection.py), and the objective with each of its values.

    Raises SettingsError for a second list, an empty one, and one that names a value twice.
    """
    lists = [name for name, value in objective.items() if isinstance(value, list)]
    if not lists:
        return None, [objective]
    name, values = lists[0], objective[lists[0]]
    if len(lists) > 1:
        names = " and ".join(key(("objective", one)) for one in lists)
        raise SettingsError(f"{names} are lists: one setting at a time can be selected")
    if not values or any(value in values[:i] for i, value in enumerate(values)):
        raise SettingsError(f"{key(('objective', name))} is {shown(values)}: give different values, at least one")
    return name, [{**objective, name: value} for value in values]


def checked(
    objective: dict[str, Any], training: TrainingSettings | None = None, key: Callable[[Location], str] = dotted
) -> dict[str, Any]:
    """`objective` with its defaults filled in, a list kept as a list. `key` says what a setting is called.

    Raises SettingsError for what is wrong in it or, where `training` is given, cannot work with that.
    """
    chosen = objective_class(objective.get("name"), key(("objective", "name")))
    name, listed = alternatives(objective, key)
    if name is not None and training is not None and training.iw_sentences < 2:
        raise SettingsError(
            f"{key(('training', 'iw_sentences'))}: {name} is a list, of which one is selected by NLL-IW with its "
            "standard error: 2 or more are needed (found 1)"
        )
    complete = []
    for one in listed:
        config = validated(chosen.Config, one, key=lambda location: key(("objective", *location)))
        if training is not None:
            chosen.check(config, training, key)
        complete.append(config.model_dump())
    return complete[0] if name is None else {**complete[0], name: [one[name] for one in complete]}
