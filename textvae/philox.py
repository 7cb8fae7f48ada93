"""Philox4x32-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011) as torch operations.

Each block of four random words is a function of a key and a counter, so any of them can be drawn by itself, on the
device that needs it and in whatever company: the words are the same everywhere. Here the key is a seed, and the counter
(block, purpose, a number of 64 bits): block by block a stream of its own for each number and purpose. Words are int64
tensors with values below 2**32; torch's products wrap at 64 bits, as those of unsigned words do.

Shapes: N numbers, K blocks, D values of each number.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

Words = tuple[Tensor, Tensor, Tensor, Tensor]

ROUNDS = 10
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
"""What the key grows by from round to round."""
LOW = 2**32 - 1
WORDS = 4
"""In a block."""


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """The block of random words of every counter; the counter's words broadcast."""
    a, b, c, d = counter
    for i in range(ROUNDS):
        first, second = ((key[word] + i * WEYL[word]) & LOW for word in (0, 1))
        left, right = a * MULTIPLIERS[0], c * MULTIPLIERS[1]
        a, b, c, d = ((right >> 32) ^ b ^ first) & LOW, right & LOW, ((left >> 32) ^ d ^ second) & LOW, left & LOW
    return a, b, c, d


def blocks(seed: int, purpose: int, numbers_N: Tensor, first_N: Tensor, count: int) -> Words:
    """K = `count` blocks of each number from its first on, as four words (N, K); 0 <= seed < 2**64."""
    blocks_NK = first_N[:, None] + torch.arange(count, device=first_N.device)
    numbers_N1 = numbers_N[:, None]
    counter = blocks_NK, torch.full_like(numbers_N1, purpose), numbers_N1 & LOW, numbers_N1 >> 32
    return philox(counter, (seed & LOW, seed >> 32))


def uniforms(seed: int, purpose: int, numbers_N: Tensor, first_N: Tensor, count: int) -> Tensor:
    """Values in [0, 1) from so many blocks of each number, four a block: (N, 4 K), float32, 24 random bits."""
    words_NK4 = torch.stack(blocks(seed, purpose, numbers_N, first_N, count), dim=2)
    return (words_NK4.flatten(1) >> 8).float() * 2.0**-24


def normals(seed: int, purpose: int, numbers_N: Tensor, dimensions: int) -> Tensor:
    """Standard normal values (N, D) of each number, float64, two a block (Box & Muller 1958).

    The words are the same on every device; logarithm, root, sine and cosine are the device's, to its last bits.
    """
    a, b, c, d = blocks(seed, purpose, numbers_N, torch.zeros_like(numbers_N), (dimensions + 1) // 2)
    first, second = (((high << 21) | (low >> 11)).double() for high, low in ((a, b), (c, d)))  # 53 bits each
    radius = torch.sqrt(-2 * torch.log((first + 0.5) * 2.0**-53))  # of a number above 0
    angle = second * (2.0**-53 * 2 * math.pi)
    return torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=2).flatten(1)[:, :dimensions]
