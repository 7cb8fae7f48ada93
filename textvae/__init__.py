"""Text VAEs: what they are, how they are trained and measured. Start with `from textvae import load`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from textvae.latent import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    # Imported late, so that steps that need no torch (fetch, preprocess, report) do not need it installed; by its name,
    # so that it is no code of theirs (textvae/provenance.py).
    if name == "load":
        return import_module("textvae.latent").load
    raise AttributeError(f"module 'textvae' has no attribute {name!r}")
