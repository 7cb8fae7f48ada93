"""The output layer and its cross-entropy in one function, in chunks of rows: the full logits never exist.

The softmax is two thirds of a training step and its logits most of the memory. Here the gradient is formed in the
forward pass, where there will be a backward one. Shapes: R rows (token positions), H hidden, V classes, C rows of a
chunk.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK_ROWS = 1024
_kept = threading.local()


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
        for chunk, logits_CV, spare_CV in _chunks(rows_RH, weight_VH):
            rows, targets = rows_RH[chunk], targets_R[chunk, None]
            losses_R[chunk] = _cross_entropy(logits_CV, targets, spare_CV)
            residual = torch.softmax(logits_CV, dim=1, out=spare_CV)  # d loss / d logits = softmax - one-hot
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
    for chunk, logits_CV, spare_CV in _chunks(rows_RH, weight_VH):
        losses_R[chunk] = _cross_entropy(logits_CV, targets_R[chunk, None], spare_CV)
    if mask_R is not None:
        losses_R *= mask_R
    return losses_R.sum(), losses_R


def _chunks(rows_RH: Tensor, weight_VH: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Each chunk's place among the rows, its logits_CV, and as large a block to write to."""
    for start in range(0, len(rows_RH), CHUNK_ROWS):
        chunk = slice(start, start + CHUNK_ROWS)
        rows_CH = rows_RH[chunk]
        logits_CV, spare_CV = _blocks(rows_CH, weight_VH)
        torch.mm(rows_CH, weight_VH.T, out=logits_CV)
        yield chunk, logits_CV, spare_CV


def _blocks(rows_CH: Tensor, weight_VH: Tensor) -> list[Tensor]:
    """Two blocks (C, V) to write to. On a CPU they are this thread's, chunk after chunk and step after step: fresh ones
    of tens of megabytes, whose every page the system has to provide and to clear, took a tenth of a training step."""
    shape = len(rows_CH), len(weight_VH)
    if rows_CH.is_cuda:
        return [rows_CH.new_empty(shape) for _ in range(2)]
    kept: list[Tensor] = getattr(_kept, "blocks", [])
    if not kept or kept[0].dtype != rows_CH.dtype or kept[0].numel() < shape[0] * shape[1]:
        with torch.inference_mode(False):  # those of inference mode could not be written to in training
            kept = _kept.blocks = [rows_CH.new_empty(shape[0] * shape[1]) for _ in range(2)]
    return [block[: shape[0] * shape[1]].view(shape) for block in kept]


def _cross_entropy(logits_CV: Tensor, targets_C1: Tensor, log_probs_CV: Tensor) -> Tensor:
    """losses_C, by log_softmax, not logsumexp, which is ten times slower on a CPU. Overwrites `log_probs_CV`."""
    return -torch.log_softmax(logits_CV, dim=1, out=log_probs_CV).gather(1, targets_C1)[:, 0]
