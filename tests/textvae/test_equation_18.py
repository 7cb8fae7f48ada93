"""Eq. 18 of the paper on an encoder whose mutual information and its derivative are known.

x ~ N(0, 1), z = w x + s e with e ~ N(0, 1): I(w) = log(1 + w^2 / s^2) / 2 and dI/dw = w / (s^2 + w^2). The critic is
optimal for the encoder: f(x, z; w) = log q(z|x) - log q(z) - log xi (eq. 15). w reaches the bound in two ways, through
the samples and through the critic's own formula; each can be cut. All expectations are by Gauss-Hermite quadrature.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

SIGMA = 0.9
NODES, WEIGHTS = (torch.from_numpy(array) for array in np.polynomial.hermite_e.hermegauss(60))
WEIGHTS = WEIGHTS / math.sqrt(2 * math.pi)


def critic(x: Tensor, z: Tensor, w: Tensor, log_xi: float) -> Tensor:
    variance = w**2 + SIGMA**2
    log_ratio = -((z - w * x) ** 2) / (2 * SIGMA**2) + z**2 / (2 * variance)
    return log_ratio - math.log(SIGMA) + 0.5 * torch.log(variance) - log_xi


def bound(w_samples: Tensor, w_critic: Tensor, log_xi: float) -> Tensor:
    """Eq. 12: E_joint[f] - xi E_marginal[exp f] + log xi + 1, w split into its two roles."""
    x, e = (grid.reshape(-1) for grid in torch.meshgrid(NODES, NODES, indexing="ij"))
    weight = torch.outer(WEIGHTS, WEIGHTS).reshape(-1)
    joint = (weight * critic(x, w_samples * x + SIGMA * e, w_critic, log_xi)).sum()
    other_z = torch.sqrt(w_samples**2 + SIGMA**2) * e  # of a z' that belongs to another x
    partition = (weight * torch.exp(critic(x, other_z, w_critic, log_xi))).sum()
    return joint - math.exp(log_xi) * partition + log_xi + 1


def derivatives(w: float, log_xi: float) -> tuple[float, float, float]:
    """The bound, its derivative through the samples, and its derivative through the critic."""
    samples, of_critic = (torch.tensor(w, dtype=torch.float64, requires_grad=True) for _ in range(2))
    value = bound(samples, of_critic, log_xi)
    through_samples, through_critic = torch.autograd.grad(value, (samples, of_critic))
    return value.item(), through_samples.item(), through_critic.item()


@pytest.mark.parametrize(("w", "log_xi"), list(itertools.product((0.3, 0.6), (0.0, 0.7))))
def test_at_the_optimal_critic_all_of_the_gradient_is_the_pathwise_one(w: float, log_xi: float) -> None:
    """Eq. 18 says that the part through the critic is 0, and it is, for every xi. The part through z and z', which
    Algorithm 1 takes, is then the whole derivative of I: "ignoring the gradients" can only mean the former."""
    value, through_samples, through_critic = derivatives(w, log_xi)
    assert value == pytest.approx(0.5 * math.log(1 + w**2 / SIGMA**2), abs=1e-9)
    assert through_critic == pytest.approx(0, abs=1e-9)
    assert through_samples == pytest.approx(w / (SIGMA**2 + w**2), abs=1e-9)
    assert through_samples > 0.3


def test_away_from_the_optimal_critic_the_part_through_it_does_not_vanish() -> None:
    """An envelope identity: it needs the optimum. With the critic of another encoder both parts are there."""
    samples, of_critic = (torch.tensor(w, dtype=torch.float64, requires_grad=True) for w in (0.6, 0.3))
    _, through_critic = torch.autograd.grad(bound(samples, of_critic, 0.0), (samples, of_critic))
    assert through_critic.item() > 0.1
