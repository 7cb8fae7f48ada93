"""Text on which lmplz can estimate the discounts of trigrams, for the tests of KenLM."""

from __future__ import annotations

import random

from textvae.config import NgramSettings

TRIGRAMS = NgramSettings(order=3, memory="64M")
WORDS = [f"w{i}" for i in range(400)]


def zipf_text(seed: int, sentences: int, words: int = len(WORDS), longest: int = 8) -> list[str]:
    """Sentences of 0 to `longest` words from the first `words`, by Zipf's law: discounts need rare words."""
    rng = random.Random(seed)
    weights = [1 / rank for rank in range(1, words + 1)]
    return [" ".join(rng.choices(WORDS[:words], weights, k=rng.randrange(longest + 1))) for _ in range(sentences)]
