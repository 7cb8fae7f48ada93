"""Where the random numbers of a training come from, and dropout by them."""

from __future__ import annotations

import torch
from torch import Tensor


class Noise:
    """The generators of one training, seeded at every step: its own, so that trainings can take turns within a step.

    (On a GPU they must be. A CUDA graph reads its generator's seed on the device, where another training's may be
    written before it has.)

    Args: device; own, False for torch's global ones.
    """

    def __init__(self, device: torch.device, own: bool = True) -> None:
        self.choices = torch.Generator() if own else torch.default_generator
        """Of what is decided on the CPU."""
        self.generator = self.choices if device.type == "cpu" else torch.Generator(device)
        """Of tensors on the device."""

    def seed(self, seed: int) -> None:
        """Begin both anew."""
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
