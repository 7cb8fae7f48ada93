"""Two functions timed in turns."""

import time
from collections.abc import Callable

import torch


def compare(name: str, ours: Callable[[], object], plain: Callable[[], object], rounds: int = 7) -> None:
    """Print the best time of each of two functions, run in turns on one thread, and how many times faster ours is."""
    torch.set_num_threads(1)
    best = {"ours": float("inf"), "plain": float("inf")}
    for _ in range(rounds):
        for which, function in (("ours", ours), ("plain", plain)):
            started = time.perf_counter()
            function()
            best[which] = min(best[which], time.perf_counter() - started)
    ratio = best["plain"] / best["ours"]
    print(f"{name}: ours {best['ours']:.4f} s, plain {best['plain']:.4f} s, {ratio:.2f} times as fast")
