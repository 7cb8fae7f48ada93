"""The synthetic corpus: its entropy against enumeration, against hand calculation, and against what is drawn."""

import math
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fetching import SPLITS, fetched

from textcorpus import grammar
from textcorpus.grammar import Rules
from textvae.config import FetchSettings, GrammarSettings, validated
from textvae.errors import SettingsError


def settings(**given: Any) -> GrammarSettings:
    sizes = {"train": 2000, "valid": 200, "test": 200}
    return GrammarSettings(**{"topics": 3, "nouns": 2, "verbs": 2, "adjectives": 1, "sentences": sizes, **given})


def enumerated(rules: Rules, symbol: str) -> list[tuple[str, float]]:
    """Every derivation with its probability."""
    if symbol not in rules:
        return [(symbol, 1.0)]
    found = []
    for p, expansion in rules[symbol]:
        for parts in product(*(enumerated(rules, part) for part in expansion)):
            found.append((" ".join(text for text, _ in parts), p * math.prod(q for _, q in parts)))
    return found


def distribution(given: GrammarSettings) -> list[dict[str, float]]:
    """For each topic every sentence with its probability. Fails where a sentence has two derivations."""
    tables = []
    for topic in range(1, given.topics + 1):
        derivations = enumerated(grammar.rules(topic, given), "S")
        tables.append(dict(derivations))
        assert len(tables[-1]) == len(derivations)
    return tables


def entropy(probabilities: list[float]) -> float:
    assert math.fsum(probabilities) == pytest.approx(1, abs=1e-9)
    return -math.fsum(p * math.log(p) for p in probabilities)


@pytest.mark.parametrize("sizes", [{}, {"topics": 2, "nouns": 3, "verbs": 1, "adjectives": 2}], ids=["a", "b"])
def test_the_entropy_and_the_information_are_those_of_all_sentences(sizes: dict[str, int]) -> None:
    given = settings(**sizes)
    tables = distribution(given)
    k = given.topics
    whole: Counter[str] = Counter()
    for table in tables:
        for sentence, p in table.items():
            whole[sentence] += p / k  # type: ignore[assignment]
    h = entropy(list(whole.values()))
    assert grammar.entropy(given) == pytest.approx(h, abs=1e-9)
    # I(sentence; topic) = H(sentence) - H(sentence | topic), and the sentence determines its topic
    conditional = sum(entropy(list(table.values())) for table in tables) / k
    assert h - conditional == pytest.approx(math.log(k), abs=1e-9)
    assert len(whole) == sum(map(len, tables))


def test_the_entropy_of_the_smallest_grammar_by_hand() -> None:
    # One noun, verb and adjective: what is left is the topic (log 2), the shape, and per noun phrase the determiner
    # (1, 1/2, 1/3 of 11/6: 6/11, 3/11, 2/11) and whether there is an adjective (0.4); per preposition 12/25, 6/25,
    # 4/25, 3/25. Expected noun phrases: 0.2 * 1 + 0.5 * 2 + 0.3 * 3 = 2.1; prepositions 0.3.
    shape = entropy([0.2, 0.5, 0.3])
    noun_phrase = entropy([6 / 11, 3 / 11, 2 / 11]) + entropy([0.6, 0.4])
    preposition = entropy([12 / 25, 6 / 25, 4 / 25, 3 / 25])
    by_hand = math.log(2) + shape + 2.1 * noun_phrase + 0.3 * preposition
    given = settings(topics=2, nouns=1, verbs=1, adjectives=1)
    assert grammar.entropy(given) == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_drawn_has_the_nll_of_the_entropy_under_the_true_model(seed: int) -> None:
    given = settings(sentences={"train": 4000, "valid": 2, "test": 2}, seed=seed)
    model = {sentence: p / given.topics for table in distribution(given) for sentence, p in table.items()}
    drawn = [" ".join(words) for split, words in grammar.sentences(given) if split == "train"]
    nll = [-math.log(model[sentence]) for sentence in drawn]
    mean = math.fsum(nll) / len(nll)
    standard_error = math.sqrt(math.fsum((x - mean) ** 2 for x in nll) / (len(nll) - 1) / len(nll))
    assert abs(mean - grammar.entropy(given)) < 4 * standard_error
    assert standard_error < 0.05
    # topics are uniform: chi-square with 2 degrees of freedom, P(> 18.4) = 1e-4
    topics = Counter(next(word for word in sentence.split() if word.startswith("noun"))[:5] for sentence in drawn)
    expected = len(drawn) / 3
    assert len(topics) == 3
    assert sum((n - expected) ** 2 / expected for n in topics.values()) < 18.4


def test_fetch_writes_the_sizes_that_were_asked_for_and_what_is_known(tmp_path: Path) -> None:
    given = settings()
    lines, description = fetched(tmp_path, grammar=given.model_dump())
    assert {split: len(lines[split]) for split in SPLITS} == {"train": 2000, "valid": 200, "test": 200}
    assert description["sentences"] == given.sentences
    assert description["dropped"] == {}  # draws that repeat stay: the NLL of the rest would not be the entropy
    assert len(set(lines["train"])) < 2000
    origin = description["origin"]
    assert (origin["entropy"], origin["topics"]) == (grammar.entropy(given), 3)
    assert origin["topic_information"] == math.log(3)


def test_a_seed_is_a_corpus_and_splits_do_not_depend_on_each_other(tmp_path: Path) -> None:
    def hashes(**given: Any) -> dict[str, str]:
        found: dict[str, str] = fetched(
            tmp_path / str(len(list(tmp_path.iterdir()))), grammar=settings(**given).model_dump()
        )[1]["sha256"]
        return found

    first = hashes()
    assert first == hashes()
    assert not set(first.values()) & set(hashes(seed=1).values())
    larger = hashes(sentences={"train": 3000, "valid": 200, "test": 200})
    assert (larger["valid.txt"], larger["test.txt"]) == (first["valid.txt"], first["test.txt"])
    assert first["valid.txt"] != first["test.txt"]
    # what the seed 0 has always given
    assert first["valid.txt"] == "a17d10842e5b4f069ff10400d38788678657e7887b7b7947d37e9ef2963bbd0e"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"topics": 1}, "grammar.topics"),
        ({"sentences": {"train": 10}}, "a number for train, valid and test"),
        ({"sentences": {"train": 10, "valid": 0, "test": 1}}, "grammar.sentences.valid"),
    ],
)
def test_sizes_that_make_no_corpus_are_refused(change: dict[str, Any], message: str) -> None:
    source = {"dataset": "mine", "tokenizer": "spaces", "grammar": settings().model_dump() | change}
    with pytest.raises(SettingsError, match=message):
        validated(FetchSettings, source, "datasets.mine.source")
