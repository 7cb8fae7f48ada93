"""The chunked output layer (textvae/softmax.py) beside F.cross_entropy on full logits, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import products
from benchmarks.sizes import Plan
from benchmarks.timing import Row, rates, table
from textvae.command_line import run
from textvae.softmax import linear_cross_entropy


def chunked(rows_RH: Tensor, weight_VH: Tensor, targets_R: Tensor) -> int:
    """Ours."""
    linear_cross_entropy(rows_RH, weight_VH, targets_R)[0].backward()  # type: ignore[no-untyped-call]
    return len(rows_RH)


def full(rows_RH: Tensor, weight_VH: Tensor, targets_R: Tensor) -> int:
    """On all logits at once."""
    F.cross_entropy(F.linear(rows_RH, weight_VH), targets_R, reduction="sum").backward()  # type: ignore[no-untyped-call]
    return len(rows_RH)


def alone(compute: Callable[[], None], rows: int) -> int:
    """The matrix products."""
    compute()
    return rows


def rows(plan: Plan) -> Iterator[Row]:
    """Several sizes: rows (tokens in a batch), hidden units, classes."""
    for name, (count, hidden, classes) in plan.amounts.output_layer.items():
        torch.manual_seed(0)
        rows_RH = torch.randn(count, hidden, requires_grad=True)
        weight_VH = torch.randn(classes, hidden, requires_grad=True)
        problem = rows_RH, weight_VH, torch.randint(classes, (count,))
        compute = products.prepared(list(products.output(count, hidden, classes, backward=True)))
        ways = {
            "project": partial(chunked, *problem),
            "reference": partial(full, *problem),
            "limit": partial(alone, compute, count),
        }
        found = rates(ways, plan.amounts.rounds)
        label = f"output layer, {name} ({count} x {hidden} x {classes}), tokens/s"
        yield Row(label, found["project"], found["reference"], limit=found["limit"])


def main() -> None:
    """Compare at several sizes."""
    print(table(rows(Plan("full"))))


if __name__ == "__main__":
    run(main)
