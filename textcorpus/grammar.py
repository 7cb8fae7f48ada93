"""A synthetic corpus with a known answer: a small probabilistic grammar with one of K equally likely topics a sentence.

Only the nouns depend on the topic, no two topics share one, and every sentence has a noun: so the sentence determines
its topic, and I(sentence; topic) = H(topic) = log K. No rule repeats, the word classes are disjoint and the shapes of
sentences differ: so a sentence has one derivation, and its entropy is that of the derivation, in closed form. No model
of the corpus has an NLL below it (but for the noise of a finite test set), and one that has it and ignores its code
shows that the code was not needed. Splits are independent draws, so a short sentence may be in two of them.
"""

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from random import Random

from textvae.config import GrammarSettings

Rules = dict[str, list[tuple[float, tuple[str, ...]]]]
"""For each symbol its expansions with their probabilities; what has no entry is a word."""


def rules(topic: int, settings: GrammarSettings) -> Rules:
    """The grammar of one topic, start symbol S. The r-th word of a class has a probability proportional to 1 / r."""
    return {
        "S": [(0.2, ("NP", "V")), (0.5, ("NP", "V", "NP")), (0.3, ("NP", "V", "NP", "P", "NP"))],
        "NP": [(0.6, ("D", "N")), (0.4, ("D", "A", "N"))],
        "D": zipf(["the", "a", "every"]),
        "P": zipf(["near", "with", "behind", "without"]),
        "N": zipf([f"noun{topic}.{rank}" for rank in range(1, settings.nouns + 1)]),
        "V": zipf([f"verb{rank}" for rank in range(1, settings.verbs + 1)]),
        "A": zipf([f"adjective{rank}" for rank in range(1, settings.adjectives + 1)]),
    }


def zipf(words: Sequence[str]) -> list[tuple[float, tuple[str, ...]]]:
    """One-word expansions, the r-th with a probability proportional to 1 / r."""
    total = sum(1 / rank for rank in range(1, len(words) + 1))
    return [(1 / rank / total, (word,)) for rank, word in enumerate(words, start=1)]


def entropy(settings: GrammarSettings) -> float:
    """The exact entropy of a sentence, in nats: log K and that of the derivation, which is alike in all topics."""
    return math.log(settings.topics) + derivation_entropy(rules(1, settings), "S")


def derivation_entropy(grammar: Rules, symbol: str) -> float:
    """H(X) = sum_r p_r (-log p_r + sum of H over the symbols of r), for a grammar without recursion; 0 for a word."""
    return sum(
        p * (-math.log(p) + sum(derivation_entropy(grammar, part) for part in expansion))
        for p, expansion in grammar.get(symbol, [])
    )


def sentences(settings: GrammarSettings) -> Iterator[tuple[str, list[str]]]:
    """Every sentence as words, with its split. A split's draws do not depend on the others'."""
    topics = [sampler(rules(topic, settings)) for topic in range(1, settings.topics + 1)]
    for split, number in settings.sentences.items():
        random = Random(f"{settings.seed} {split}")  # `random()` alone is promised to give the same in every Python
        for _ in range(number):
            yield split, drawn(topics[int(random.random() * len(topics))], "S", random)


Sampler = dict[str, tuple[list[float], list[tuple[str, ...]]]]
"""For each symbol the cumulative probabilities of its expansions, without the last, and the expansions."""


def sampler(grammar: Rules) -> Sampler:
    """The grammar, prepared to draw from."""
    return {
        symbol: (list(accumulate(p for p, _ in expansions))[:-1], [expansion for _, expansion in expansions])
        for symbol, expansions in grammar.items()
    }


def drawn(grammar: Sampler, symbol: str, random: Random) -> list[str]:
    """One random expansion of a symbol into words."""
    if symbol not in grammar:
        return [symbol]
    cumulative, expansions = grammar[symbol]
    expansion = expansions[bisect(cumulative, random.random())]
    return [word for part in expansion for word in drawn(grammar, part, random)]
