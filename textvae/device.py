"""Which device a step runs on, with how many threads and with which float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def float32_precision(*, tf32: bool) -> Iterator[None]:
    """Inside, a GPU multiplies float32 matrices in TF32 (10 bits of mantissa) or, without, in IEEE float32 (23).

    Two switches, and both are needed: cuDNN's LSTM uses TF32 by default, and only the second one turns that off. They
    are those that all versions of torch have; its newer `fp32_precision` raises where they are mixed. They are
    the process's, so no `yield` inside; a CUDA graph keeps what held at its capture. Without a GPU they do nothing.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
