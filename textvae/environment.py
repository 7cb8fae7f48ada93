"""What $TEXTVAE_STATE and the variables of minutes say."""

import os
from pathlib import Path

from textvae.errors import SettingsError


def state_root() -> Path:
    """$TEXTVAE_STATE, else `.state` at the project's root."""
    return Path(os.environ.get("TEXTVAE_STATE") or Path(__file__).resolve().parent.parent / ".state")


def minutes_from_environment(name: str, default: float | None) -> float | None:
    """A positive number of minutes from an environment variable. Raises SettingsError for anything else."""
    text = os.environ.get(name)
    if not text:
        return default
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 < minutes < float("inf"):
        raise SettingsError(f"${name} is {text!r}: give a positive number of minutes")
    return minutes
