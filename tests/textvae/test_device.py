"""What decides how a device computes."""

import pytest
import torch

from textvae.device import float32_precision


def switches() -> tuple[object, ...]:
    """What torch would do for a product of matrices and for cuDNN's LSTM, asked by both of its interfaces."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    newer = matmul.fp32_precision, torch.backends.cudnn.rnn.fp32_precision
    return matmul.allow_tf32, cudnn.allow_tf32, torch.get_float32_matmul_precision(), *newer


def test_float32_is_what_it_is_told_to_be_and_afterwards_what_it_was() -> None:
    """For products and for the LSTM alike, nested, and after an error; torch never finds its two interfaces at odds."""
    before = switches()[:3]
    with float32_precision(tf32=True):
        assert switches() == (True, True, "high", "tf32", "tf32")
        with float32_precision(tf32=False):
            assert switches()[:4] == (False, False, "highest", "ieee")
            assert switches()[4] != "tf32"
        assert switches() == (True, True, "high", "tf32", "tf32")
    with pytest.raises(KeyError), float32_precision(tf32=True):
        raise KeyError
    assert switches()[:3] == before
