"""The output layer and its cross-entropy in one function, in chunks of rows: the full logits never exist.

The softmax is two thirds of a training step and its logits most of the memory. Here the gradient is formed in the
forward pass, where there will be a backward one. Shapes: R rows (token positions), H hidden, V classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK_ROWS = 1024


class _LinearCrossEntropy(torch.autograd.Function):
    """(sum of the rows' losses, losses_R); the second output carries no gradient."""

    @staticmethod
    def forward(
        ctx: Any, rows_RH: Tensor, weight_VH: Tensor, targets_R: Tensor, mask_R: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        losses_R = rows_RH.new_empty(len(rows_RH))
        needs_rows, needs_weight, *_ = ctx.needs_input_grad
        grad_rows_RH = torch.empty_like(rows_RH) if needs_rows else None
        grad_weight_VH = torch.zeros_like(weight_VH) if needs_weight else None
        for chunk in _chunks(rows_RH):
            rows, logits, targets = rows_RH[chunk], rows_RH[chunk] @ weight_VH.T, targets_R[chunk, None]
            losses_R[chunk] = _cross_entropy(logits, targets)
            residual = torch.softmax(logits, dim=1)  # d loss / d logits = softmax - one-hot
            residual.scatter_add_(1, targets, residual.new_full(targets.shape, -1.0))
            if grad_rows_RH is not None:
                torch.mm(residual, weight_VH, out=grad_rows_RH[chunk])
            if grad_weight_VH is not None:
                if mask_R is not None:
                    rows = rows * mask_R[chunk, None]
                grad_weight_VH.addmm_(residual.T, rows)
        if mask_R is not None:
            losses_R *= mask_R
            if grad_rows_RH is not None:
                grad_rows_RH *= mask_R[:, None]
        ctx.save_for_backward(grad_rows_RH, grad_weight_VH)
        ctx.mark_non_differentiable(losses_R)
        return losses_R.sum(), losses_R

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        rows, weight = ctx.saved_tensors
        scale = gradients[0]
        return (None if rows is None else rows * scale), (None if weight is None else weight * scale), None, None


def linear_cross_entropy(
    rows_RH: Tensor, weight_VH: Tensor, targets_R: Tensor, mask_R: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `softmax(rows @ weight.T)` against `targets`, in nats.

    Args: rows_RH, weight_VH float; targets_R int64 in [0, V); mask_R bool, False for rows that do not count.
    Returns: the sum over rows (differentiable in rows and weight) and the losses (R), detached.
    """
    # Asked here: inside `forward` gradients are always off, and a parameter's `needs_input_grad` is True under no_grad.
    if torch.is_grad_enabled() and (rows_RH.requires_grad or weight_VH.requires_grad):
        total, losses_R = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
            rows_RH, weight_VH, targets_R, mask_R
        )
        return total, losses_R
    losses_R = rows_RH.new_empty(len(rows_RH))
    for chunk in _chunks(rows_RH):
        losses_R[chunk] = _cross_entropy(rows_RH[chunk] @ weight_VH.T, targets_R[chunk, None])
    if mask_R is not None:
        losses_R *= mask_R
    return losses_R.sum(), losses_R


def _chunks(rows_RH: Tensor) -> list[slice]:
    return [slice(start, start + CHUNK_ROWS) for start in range(0, len(rows_RH), CHUNK_ROWS)]


def _cross_entropy(logits_RV: Tensor, targets_R1: Tensor) -> Tensor:
    """losses_R, by log_softmax, not logsumexp, which is ten times slower on a CPU."""
    return -torch.log_softmax(logits_RV, dim=1).gather(1, targets_R1)[:, 0]
