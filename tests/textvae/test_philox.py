"""Philox against its published answers, and what is made of its words against the distributions they should have."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from textvae.philox import LOW, Words, blocks, normals, philox, uniforms

NUMBERS = torch.arange(2000)


def words(*values: int) -> Words:
    a, b, c, d = (torch.tensor([value]) for value in values)
    return a, b, c, d


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        # The known answers of Random123, the authors' own implementation (`philox4x32 10` in its kat_vectors).
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((LOW, LOW, LOW, LOW), (LOW, LOW), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
        # What torch's own C++ engine (`at::philox_engine`) says for seed 12345, subsequence 67890, offset 3.
        ((3, 0, 67890, 0), (12345, 0), "8806bbb3 095800b1 5da25f47 709d8d07"),
    ],
)
def test_the_known_answers(counter: tuple[int, ...], key: tuple[int, int], expected: str) -> None:
    assert " ".join(f"{int(word):08x}" for word in philox(words(*counter), key)) == expected


def test_a_block_has_the_counter_and_the_key_that_are_documented() -> None:
    """Also of the largest seed, and of numbers beyond 32 bits."""
    seed, purpose, numbers = 2**64 - 3, 5, [0, 7, 2**32 + 1, 2**40]
    first = [2, 0, 2, 5]
    found = blocks(seed, purpose, torch.tensor(numbers), torch.tensor(first), count=3)
    for row, number in enumerate(numbers):
        for column in range(3):
            expected = philox(
                words(first[row] + column, purpose, number % 2**32, number // 2**32), (2**32 - 3, 2**32 - 1)
            )
            assert [int(part[row, column]) for part in found] == [int(word) for word in expected]


@pytest.mark.parametrize(
    "draw",
    [lambda seed, purpose, numbers: uniforms(seed, purpose, numbers, 0 * numbers, 3), lambda *key: normals(*key, 9)],
)
def test_a_number_has_its_values_whoever_else_is_asked_for(draw: object) -> None:
    assert callable(draw)
    together = draw(3, 0, NUMBERS)
    assert len(set(together.flatten().tolist())) > 0.99 * together.numel()
    for number in (0, 1, 1999):
        assert torch.equal(draw(3, 0, torch.tensor([number]))[0], together[number])
    for other in (draw(4, 0, NUMBERS), draw(3, 1, NUMBERS), draw(3 + 2**32, 0, NUMBERS), draw(3, 0, NUMBERS + 2**32)):
        assert (other == together).double().mean() < 1e-3
        assert abs(float(np.corrcoef(other.flatten(), together.flatten())[0, 1])) < 6 / math.sqrt(together.numel())


def test_later_blocks_go_on_where_the_first_ones_end() -> None:
    first = torch.zeros_like(NUMBERS)
    assert torch.equal(uniforms(3, 0, NUMBERS, first + 2, 2), uniforms(3, 0, NUMBERS, first, 4)[:, 8:])
    assert torch.equal(normals(3, 0, NUMBERS, 5), normals(3, 0, NUMBERS, 8)[:, :5])


def uncorrelated(values_ND: Tensor) -> bool:
    """Whether the columns are, within 6 standard errors."""
    correlations = np.corrcoef(values_ND.double().numpy().T) - np.eye(values_ND.shape[1])
    return bool(np.abs(correlations).max() < 6 / math.sqrt(len(values_ND)))


def test_uniforms_are_uniform() -> None:
    numbers = torch.arange(20_000)
    values = uniforms(1, 0, numbers, 0 * numbers, 4)
    assert values.dtype == torch.float32
    assert 0 <= float(values.min()) < float(values.max()) < 1
    assert torch.equal(values * 2**24, torch.floor(values * 2**24)), "24 bits, which float32 holds exactly"
    assert stats.kstest(values.double().flatten(), "uniform").pvalue > 1e-3
    assert uncorrelated(values)
    assert uncorrelated(torch.stack([values[:-1].flatten(), values[1:].flatten()], dim=1)), "nor are neighbours"


def test_normals_are_standard_normal() -> None:
    values = normals(1, 0, torch.arange(20_000), 8)
    assert values.dtype == torch.float64
    flat = values.flatten().numpy()
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert float((flat**power).mean()) == pytest.approx(moment, abs=6 * math.sqrt(spread / len(flat)))
    assert np.abs(flat).max() > 4, "tails"
    assert uncorrelated(values)
    assert uncorrelated(values.square()), "nor are their sizes, which Box and Muller take from one radius"


@pytest.mark.parametrize("word", [0, LOW])
def test_the_least_and_the_largest_words_give_finite_values(word: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textvae.philox.philox", lambda counter, key: 4 * (torch.tensor([[word]]),))
    assert torch.isfinite(normals(1, 0, NUMBERS[:1], 2)).all()
    assert 0 <= float(uniforms(1, 0, NUMBERS[:1], NUMBERS[:1], 1).max()) < 1
