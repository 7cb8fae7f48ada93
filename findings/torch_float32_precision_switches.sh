#!/usr/bin/env bash
# torch 2.13.0 (any build, no GPU needed): the switches for TF32 do not mean the same things.
#
# 1. torch.set_float32_matmul_precision("highest"), whose documentation speaks of float32 matrix multiplications in full
#    precision, leaves cuDNN's recurrent layers in TF32, torch's default for them: an nn.LSTM on a GPU keeps multiplying
#    with 10 bits of mantissa (measured on an H100: relative error 3e-4 before and after, 3e-7 with cuDNN's own switch off).
# 2. torch.backends.fp32_precision = "ieee", the newer switch for all of them, does reach those layers. After it merely
#    reading the older torch.backends.cudnn.allow_tf32 is a RuntimeError, although convolutions and recurrent layers say
#    "ieee" alike; a library that saves and restores the old flag around its work breaks on it.
# So this project sets the two old switches, both, and restores them, and never touches the new ones.
#
# Seen:  after "highest": rnn tf32
#        after the new switch: rnn ieee, conv ieee, reading the old one: RuntimeError
# Ends with 0 while torch does this, with 1 when it does something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0
"$folder/venv/bin/python" - <<'END'
import sys

import torch

torch.set_float32_matmul_precision("highest")
first = torch.backends.cudnn.rnn.fp32_precision
print(f'after "highest": rnn {first}')

torch.backends.fp32_precision = "ieee"
now = torch.backends.cudnn.rnn.fp32_precision, torch.backends.cudnn.conv.fp32_precision
try:
    old = str(torch.backends.cudnn.allow_tf32)
except RuntimeError as error:
    old = type(error).__name__
print(f"after the new switch: rnn {now[0]}, conv {now[1]}, reading the old one: {old}")
sys.exit(0 if (first, now, old) == ("tf32", ("ieee", "ieee"), "RuntimeError") else 1)
END
