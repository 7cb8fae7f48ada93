"""The matrix products of the sentence VAE by themselves: no way of computing it on the same library is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from textvae.config import ModelSettings

BLOCK = 1024
"""Rows of logits at a time: a product with all of them is no faster."""


class Product(NamedTuple):
    """(rows x inner) @ (inner x columns), so many times."""

    rows: int
    inner: int
    columns: int
    times: int = 1


def lstm(batch: int, places: int, inputs: int, hidden: int, backward: bool) -> Iterator[Product]:
    """Of an LSTM over `places` positions: all inputs together, the states one place after the other."""
    rows, gates = batch * places, 4 * hidden
    yield Product(rows, inputs, gates)
    yield Product(batch, hidden, gates, places)
    if backward:
        yield Product(rows, gates, inputs)
        yield Product(gates, rows, inputs)
        yield Product(batch, gates, hidden, places)
        yield Product(gates, rows, hidden)


def output(rows: int, hidden: int, classes: int, backward: bool) -> Iterator[Product]:
    """Of the output layer."""
    for start in range(0, rows, BLOCK):
        block = min(BLOCK, rows - start)
        yield Product(block, hidden, classes)
        if backward:
            yield Product(block, classes, hidden)
            yield Product(classes, block, hidden)


def of_step(sizes: ModelSettings, classes: int, batch: int, words: int) -> list[Product]:
    """Of a training step on sentences of so many words and EOS."""
    places = words + 1
    return [
        *lstm(batch, places + 1, sizes.embedding, sizes.hidden, backward=True),
        *lstm(batch, places, sizes.embedding + sizes.latent, sizes.hidden, backward=True),
        *output(batch * places, sizes.hidden, classes, backward=True),
    ]


def of_reading(sizes: ModelSettings, classes: int, codes: int, words: int) -> list[Product]:
    """Of log p(x|z) of a sentence for so many codes."""
    places = words + 1
    return [
        *lstm(codes, places, sizes.embedding + sizes.latent, sizes.hidden, backward=False),
        *output(codes * places, sizes.hidden, classes, backward=False),
    ]


def of_writing(sizes: ModelSettings, classes: int, rows: int) -> list[Product]:
    """Of a word each of so many sentences; what the words and the codes give to the LSTM's input can be kept."""
    return [Product(rows, sizes.hidden, 4 * sizes.hidden), *output(rows, sizes.hidden, classes, backward=False)]


def prepared(products: Sequence[Product]) -> Callable[[], None]:
    """A function that computes them, in memory that is there already."""
    filled = {
        shape: (torch.ones(shape[0], shape[1]), torch.ones(shape[1], shape[2]), torch.empty(shape[0], shape[2]))
        for shape in {product[:3] for product in products}
    }

    def compute() -> None:
        for product in products:
            left, right, result = filled[product[:3]]
            for _ in range(product.times):
                torch.mm(left, right, out=result)

    return compute
