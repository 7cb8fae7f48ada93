"""Which device a step runs on, and with how many threads."""

from __future__ import annotations

import torch

from textvae.errors import UnavailableError


def resolve_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`; on a CPU one thread, so that no sum depends on how many cores there are.

    Raises UnavailableError for `cuda` on a machine without one.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("`device: cuda`, but torch sees no CUDA device here: set `device: auto` or `cpu`")
    device = torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    return device
