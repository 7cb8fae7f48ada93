"""The chunked output layer (textvae/softmax.py) against F.cross_entropy on full logits, forward and backward."""

import torch
import torch.nn.functional as F

from benchmarks.timing import compare
from textvae.softmax import linear_cross_entropy

SIZES = {
    "the paper's (PTB), batch 32": (700, 512, 10_000),
    "batch 128": (2_800, 512, 10_000),
    "reduced": (430, 192, 5_000),
}


def main() -> None:
    """Compare at several sizes: rows (tokens in a batch), hidden, classes."""
    for name, (rows, hidden, classes) in SIZES.items():
        torch.manual_seed(0)
        rows_RH = torch.randn(rows, hidden, requires_grad=True)
        weight_VH = torch.randn(classes, hidden, requires_grad=True)
        targets_R = torch.randint(classes, (rows,))

        def ours(x=rows_RH, w=weight_VH, t=targets_R) -> None:  # type: ignore[no-untyped-def]
            linear_cross_entropy(x, w, t)[0].backward()

        def plain(x=rows_RH, w=weight_VH, t=targets_R) -> None:  # type: ignore[no-untyped-def]
            F.cross_entropy(F.linear(x, w), t, reduction="sum").backward()

        compare(f"{name} ({rows} x {hidden} x {classes})", ours, plain)


if __name__ == "__main__":
    main()
