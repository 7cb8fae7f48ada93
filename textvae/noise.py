"""Where the random numbers of a training come from, and dropout by them."""

from __future__ import annotations

import torch
from torch import Tensor


class Noise:
    """The generators of one training, seeded at every step.

    On a CPU torch's global one. On a GPU a training has one of its own there for noise, and one on the CPU for choices:
    trainings that take turns would seed the global one in between, and a CUDA graph reads its seed on the device,
    where another training's may stand already.
    """

    def __init__(self, device: torch.device) -> None:
        own = device.type == "cuda"
        self.generator: torch.Generator | None = torch.Generator(device) if own else None
        """Of tensors on the device; None: the global one."""
        self.choices: torch.Generator = torch.Generator() if own else torch.default_generator
        """Of what is decided on the CPU."""

    def seed(self, seed: int) -> None:
        """Begin both anew."""
        if self.generator is not None:
            self.generator.manual_seed(seed)
        self.choices.manual_seed(seed)

    def normal_like(self, value: Tensor) -> Tensor:
        """Standard normal noise of the shape, type and device of `value`."""
        return torch.randn(value.shape, generator=self.generator, dtype=value.dtype, device=value.device)

    def uniform(self, shape: torch.Size, device: torch.device) -> Tensor:
        """Uniform noise in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=device)


def dropout(value: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """`value`, each element 0 with probability `rate`, else divided by 1 - rate: F.dropout, with a generator."""
    if rate == 0:
        return value
    kept = torch.empty_like(value).bernoulli_(1 - rate, generator=generator).div_(1 - rate)
    return value * kept
