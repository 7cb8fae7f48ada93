"""From what is known of a text to an entry of params.yaml that fits it."""

import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from textcorpus.statistics import quantile
from textvae.config import DatasetEntry, Params
from textvae.strict import LONGEST_NAME

HELD_OUT = 500
"""Sentences that valid and test should have: a standard error of NLL near 1 nat, MI below log 500 = 6.2 nats."""
FRACTIONS = (0.05, 0.2)
RARE = 3
"""A word that occurs less often in training is left to UNK: nothing can be learned of it."""
LARGEST_VOCABULARY = {"reduced": 5_000, "paper": 20_000}
LONGEST_SHARE = 0.99
LENGTHS = (20, 200)
MOST_TIMES = 10
"""A small text's epochs are multiplied at most by this."""
SPLIT_NAMES = {"train": "train", "valid": "valid|validation|dev|val", "test": "test"}


@dataclass(frozen=True)
class Facts:
    """What a text's training sentences are like."""

    sentences: int
    lengths: Mapping[int, int]
    words: Counter[str]


def published_splits(names: list[str]) -> dict[str, str] | None:
    """The files called train, valid (dev, val) and test, where there is exactly one of each."""
    found = {
        split: [name for name in names if re.search(rf"(?<![a-z])({words})(?![a-z])", Path(name).name.lower())]
        for split, words in SPLIT_NAMES.items()
    }
    splits = {split: files[0] for split, files in found.items() if len(files) == 1}
    return splits if len(splits) == len(set(splits.values())) == 3 else None


def held_out_fraction(sentences: int) -> float:
    """Of a text of so many sentences, for valid and for test each: enough to measure, never most of it."""
    least, most = FRACTIONS
    return min(most, max(least, round(HELD_OUT / max(sentences, 1), 2)))


def dataset_name(path: str) -> str:
    """`my_text` for `data/my-text.txt.gz`."""
    stem = re.sub(r"(\.(txt|text|tar|tgz|gz|bz2|xz|zip))+$", "", path.rstrip("/").rsplit("/", 1)[-1])
    name = re.sub(r"\W+", "_", stem, flags=re.ASCII).strip("_").lower() or "mine"
    return (name if name[0].isalpha() else f"text_{name}")[:LONGEST_NAME]


def up_to(value: int, step: int) -> int:
    """`value` rounded up to a multiple of `step`."""
    return -(-value // step) * step


def suggested_entry(params: Params, source: dict[str, Any], facts: Facts, gpu: bool) -> dict[str, Any]:
    """The entry below `datasets`. With a GPU the paper's sizes; else those of the first `reduced` entry of params.yaml.

    A text with fewer training sentences than that entry's gets as many more epochs, so that it is trained for about as
    many steps, and the schedules are stretched with them.
    """
    frequent = sum(count >= RARE for count in facts.words.values())
    size = min(up_to(max(frequent, 100), 100), LARGEST_VOCABULARY["paper" if gpu else "reduced"])
    longest = min(max(up_to(quantile(facts.lengths, LONGEST_SHARE), 10), LENGTHS[0]), LENGTHS[1])
    own = {"preprocess": {"max_length": longest, "vocabulary_size": size}}
    base = None if gpu else next((entry for entry in params.datasets.values() if entry.reduced), None)
    if base is None:
        return {"source": source, "settings": own}
    sections: Mapping[str, Any] = base.settings
    settings = {**own, **{key: dict(value) for key, value in sections.items() if key != "preprocess"}}
    most = base.settings.get("preprocess", {}).get("train_sentences")
    if most and facts.sentences > most:
        settings["preprocess"]["train_sentences"] = most
    for made in ("sampling", "examples"):  # sentences as long as the text's
        if "max_length" in settings.get(made, {}):
            settings[made]["max_length"] = max(settings[made]["max_length"], longest)
    times = 1 if not most else min(MOST_TIMES, max(1, round(most / facts.sentences)))
    systems = {name: stretched(base.systems[name], times) for name in params.grid.systems if name in base.systems}
    return {"source": source, "reduced": True, "settings": stretched(settings, times), "systems": systems}


def stretched(settings: Mapping[str, Any], times: int) -> dict[str, Any]:
    """`settings` with every number of epochs in it `times` as large."""

    def value_of(key: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return stretched(value, times)
        return value * times if re.search(r"(^|_)epochs?$", key) else value

    return {key: value_of(key, value) for key, value in settings.items()}


def with_entry(params: Params, name: str, entry: Mapping[str, Any]) -> Params:
    """`params` with one more data set. Raises pydantic's error for an entry that is none."""
    return params.model_copy(update={"datasets": {**params.datasets, name: DatasetEntry.model_validate(entry)}})


def yaml_text(name: str, entry: dict[str, Any]) -> str:
    """The entry as it stands in params.yaml, indented as below `datasets:`."""
    yaml = YAML()
    yaml.default_flow_style = None  # the innermost mappings on one line each
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump({name: entry}, stream)
    return "".join(f"  {line}" for line in stream.getvalue().splitlines(keepends=True))
