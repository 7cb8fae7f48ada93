#!/usr/bin/env bash
# torch 2.13.0: `ctx.needs_input_grad` is True under no_grad and inference_mode.
#
# A custom autograd function that forms its gradient in the forward pass asks `ctx.needs_input_grad` whether to. One would
# guess that under `torch.no_grad()` or `torch.inference_mode()`, where no backward pass can come, the answer is False. It is
# True for every input with `requires_grad`, that is for every Parameter, so each evaluation pays for gradients that are thrown
# away. Nor does `torch.is_grad_enabled()` help inside `forward`: it is False there in training as well. Only the caller of
# `apply` can tell.
#
# Exits with 0 while this is so, with 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
"$work/venv/bin/python" - <<'END'
import sys
from contextlib import nullcontext

import torch

seen = {}


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        seen[mode] = (ctx.needs_input_grad[0], torch.is_grad_enabled())
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return gradient


weight = torch.nn.Parameter(torch.ones(3))
for mode, context in {"training": nullcontext(), "no_grad": torch.no_grad(), "inference_mode": torch.inference_mode()}.items():
    with context:
        needs_backward = Square.apply(weight).requires_grad
    print(f"torch {torch.__version__}, {mode}: needs_input_grad {seen[mode][0]}, is_grad_enabled in forward {seen[mode][1]}, "
          f"result requires grad {needs_backward}")
sys.exit(seen != {"training": (True, False), "no_grad": (True, False), "inference_mode": (True, False)})
END
