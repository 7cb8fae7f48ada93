"""A thousand of the inputs of `make fuzz`, the same in every run; and that the fuzzing notices what it looks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fuzz
import pytest
from fuzz_files import left
from fuzz_given import Made, given
from fuzzing import Reader, Tally, at
from fuzzing import fuzz as fuzzed
from hypothesis import strategies as st

from textvae.errors import DataError

INPUTS = 1_000
"""Of all readers together. The report, cluster.yaml's pipeline and the like are run by `make fuzz` only."""


@pytest.mark.filterwarnings("ignore")
def test_every_reader_takes_an_input_or_refuses_it_in_one_line(tmp_path: Path) -> None:
    with at(tmp_path):
        made = Made(tmp_path)
        readers = [*given(made), *left(made)]
        tallies = fuzz.counted(readers, INPUTS, seed=0)
    assert {name: [*tally.surprises] for name, tally in tallies.items() if tally.surprises} == {}
    total = sum(tally.inputs for tally in tallies.values())
    assert total > 0.98 * INPUTS
    assert [name for name, tally in tallies.items() if not tally.refused and name != "states"] == []
    assert sum(tally.taken for tally in tallies.values()) > INPUTS / 10


def reader(read: Any, run_on: Any = lambda taken: None) -> Reader:
    return Reader("made", st.integers(0, 3), read, run_on)


def refusing(text: str, error: type[Exception] = DataError) -> Any:
    def read(number: int) -> int:
        if number == 2:
            raise error(text)
        return number

    return read


def test_what_is_counted() -> None:
    """Of the inputs 0 to 3, each of which is given once, 2 is refused, or surprises."""
    tally = fuzzed(reader(refusing("no")), 0, 50)
    assert (tally.inputs, tally.refused, tally.taken, tally.ran_on, tally.surprises.total()) == (4, 1, 3, 3, 0)
    for text, error in (("no", KeyError), ("", DataError)):
        tally = fuzzed(reader(refusing(text, error)), 0, 50)
        assert (tally.refused, tally.taken, tally.surprises.total(), [*tally.smallest.values()]) == (0, 3, 1, ["2"])
    later = fuzzed(reader(lambda number: number, refusing("no")), 0, 50)
    assert (later.taken, later.ran_on, later.refused_later, later.surprises.total()) == (4, 4, 1, 0)
    later = fuzzed(reader(lambda number: number, refusing("no", ValueError)), 0, 50)
    assert (later.taken, later.refused_later, later.surprises.total()) == (4, 0, 1)


def test_the_same_seed_gives_the_same_inputs() -> None:
    def seen(seed: int) -> list[int]:
        met: list[int] = []
        fuzzed(Reader("made", st.integers(), met.append, lambda taken: None), seed, 20)
        return met

    assert seen(1) == seen(1) != seen(2)


def test_the_table_has_all_readers_and_their_sum() -> None:
    one, other = Tally(inputs=1000, refused=600, taken=400, ran_on=40), Tally(inputs=5, refused_later=1)
    one.surprises["KeyError"] = 2
    lines = [line.split() for line in fuzz.table({"a": one, "b": other}).splitlines()[1:]]
    assert lines == [
        ["a", "1,000", "600", "400", "40", "0", "2"],
        ["b", "5", "0", "0", "0", "1", "0"],
        ["all", "1,005", "600", "400", "40", "1", "2"],
    ]
