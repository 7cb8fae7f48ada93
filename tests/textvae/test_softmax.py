"""The fused output layer against torch's cross-entropy on the full logits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from textvae import softmax
from textvae.softmax import linear_cross_entropy

ROWS, HIDDEN, CLASSES = 7, 5, 11


def problem(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(ROWS, HIDDEN, generator=generator, dtype=dtype)
    weight = torch.randn(CLASSES, HIDDEN, generator=generator, dtype=dtype)
    # A class that several rows share, the first and the last one among them.
    return rows.requires_grad_(), weight.requires_grad_(), torch.tensor([4, 0, 10, 4, 4, 7, 10])


@pytest.mark.parametrize("chunk", [1, 2, 6, 7, 8, 1024])
def test_values_and_gradients_are_those_of_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "CHUNK_ROWS", chunk)
    rows, weight, targets = problem()
    total, losses = linear_cross_entropy(rows, weight, targets)
    expected = F.cross_entropy(rows @ weight.T, targets, reduction="none")
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(total, expected.sum())
    # The scale stands for what comes after: a division by the batch, a weight.
    ours = torch.autograd.grad(-2.5 * total, (rows, weight))
    torch.testing.assert_close(ours, torch.autograd.grad(-2.5 * expected.sum(), (rows, weight)))


def test_gradients_agree_with_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "CHUNK_ROWS", 3)
    rows, weight, targets = problem()
    assert torch.autograd.gradcheck(lambda r, w: linear_cross_entropy(r, w, targets)[0], (rows, weight))


def test_a_frozen_input_gets_no_gradient_and_none_is_computed() -> None:
    rows, weight, targets = problem()
    for frozen, free in ((weight, rows), (rows, weight)):
        expected = torch.autograd.grad(linear_cross_entropy(rows, weight, targets)[0], free)[0]
        frozen.requires_grad_(False)
        total, _ = linear_cross_entropy(rows, weight, targets)
        kept = total.grad_fn.saved_tensors  # type: ignore[union-attr]
        assert [tensor is None for tensor in kept] == [rows is frozen, weight is frozen]
        total.backward()  # type: ignore[no-untyped-call]
        assert frozen.grad is None
        torch.testing.assert_close(free.grad, expected)
        frozen.requires_grad_(True)
        free.grad = None


def test_the_losses_of_the_rows_carry_no_gradient() -> None:
    assert not linear_cross_entropy(*problem())[1].requires_grad


def test_inputs_are_left_as_they_were() -> None:
    rows, weight, targets = problem()
    before = rows.detach().clone(), weight.detach().clone()
    linear_cross_entropy(rows, weight, targets)[0].backward()  # type: ignore[no-untyped-call]
    assert torch.equal(rows, before[0])
    assert torch.equal(weight, before[1])


def test_without_gradients_the_values_are_the_same() -> None:
    rows, weight, targets = problem()
    with torch.inference_mode():
        without = linear_cross_entropy(rows, weight, targets)[1]
    assert torch.equal(without, linear_cross_entropy(rows, weight, targets)[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_there_is_one_matrix_product_a_chunk(
    mode: Callable[[], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights as a network has them, Parameters: a gradient is a second and a third product as large as the first."""
    monkeypatch.setattr(softmax, "CHUNK_ROWS", 3)
    rows, weight, targets = problem()
    layer = torch.nn.Parameter(weight.detach())
    counted = []
    for context, inputs in ((mode(), rows.detach()), (nullcontext(), rows)):
        with context, torch.profiler.profile() as profile:
            linear_cross_entropy(inputs, layer, targets)
        names = [event.name for event in profile.events()]
        counted.append((sum(name in ("aten::mm", "aten::addmm_") for name in names), names.count("aten::softmax")))
    assert counted == [(3, 0), (9, 3)]


def test_large_logits_do_not_overflow_in_float32() -> None:
    rows, weight, targets = problem(torch.float32)
    rows = (300 * rows).detach().requires_grad_()
    total, losses = linear_cross_entropy(rows, weight, targets)
    assert losses.max() > 500
    torch.testing.assert_close(losses, F.cross_entropy(rows @ weight.T, targets, reduction="none"))
    assert torch.isfinite(torch.autograd.grad(total, rows)[0]).all()


def in_a_new_thread(act: Callable[[], None]) -> None:
    """A thread begins without blocks."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    for error in errors:
        raise error


def check_against_cross_entropy(dtype: torch.dtype, classes: int = CLASSES) -> None:
    rows, weight, targets = problem(dtype)
    weight = torch.cat([weight.detach()] * 3)[:classes].requires_grad_()
    expected = F.cross_entropy(rows @ weight.T, targets, reduction="sum")
    total, _ = linear_cross_entropy(rows, weight, targets)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(
        torch.autograd.grad(total, (rows, weight)), torch.autograd.grad(expected, (rows, weight))
    )


def test_logits_of_any_size_and_type_follow_each_other() -> None:
    def act() -> None:
        for dtype in (torch.float32, torch.float64, torch.float32):
            for classes in (CLASSES, 3 * CLASSES, CLASSES):
                check_against_cross_entropy(dtype, classes)

    in_a_new_thread(act)


def test_training_may_follow_an_evaluation() -> None:
    """What is made in inference mode cannot be written to outside it."""

    def act() -> None:
        with torch.inference_mode():
            linear_cross_entropy(*problem())
        check_against_cross_entropy(torch.float64)

    in_a_new_thread(act)


def test_a_second_step_takes_no_memory_for_logits() -> None:
    classes = 5000

    def act() -> None:
        rows, targets = torch.randn(ROWS, HIDDEN, requires_grad=True), torch.arange(ROWS)
        weight = torch.randn(classes, HIDDEN)  # frozen: its gradient would be as large as the logits
        largest = []
        for _ in range(2):
            with torch.profiler.profile(profile_memory=True) as profile:
                linear_cross_entropy(rows, weight, targets)[0].backward()  # type: ignore[no-untyped-call]
            largest.append(max(event.self_cpu_memory_usage for event in profile.events()))
        assert largest[0] >= 4 * ROWS * classes > largest[1]

    in_a_new_thread(act)


def test_another_thread_does_not_spoil_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, inside = softmax._cross_entropy, threading.current_thread()
    rows, weight, targets = problem()

    def interrupted(*blocks: Tensor) -> Tensor:
        if threading.current_thread() is inside:
            in_a_new_thread(lambda: linear_cross_entropy(-rows, weight, targets)[0].backward())  # type: ignore[no-untyped-call]
        return plain(*blocks)

    monkeypatch.setattr(softmax, "_cross_entropy", interrupted)
    check_against_cross_entropy(torch.float64)
