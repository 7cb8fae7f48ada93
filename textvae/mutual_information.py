"""Lower bounds of the mutual information I(x, z), trained through an energy f(x, z).

Shape suffixes: M sentences of a batch. f_MM[i, j] = f(x_i, z_j), so its diagonal holds the joint scores. A bound is
in nats. Equation numbers are those of Qian & Cheung, EMNLP 2019. With Z = E_marginal[exp f] and any xi > 0 (eq. 12)

    I(x, z)  >=  E_joint[f] - log Z  >=  E_joint[f] - xi Z + log xi + 1,

the first Donsker & Varadhan's bound, the second its tangent line, equal to it at xi = 1/Z. Both are bounds for the true
expectations; what a *batch* says depends on its marginal pairs:

    all_pairs_with_self   the whole M x M matrix, diagonal included
    all_pairs             the matrix without its diagonal
    shuffle               M pairs (x_i, z_j), j a permutation without fixed points

`all_pairs_with_self` keeps the bounds in finite batches: for any f and xi both values are at most InfoNCE's of the
same matrix, mean_i [f_ii - log mean_j exp f_ij] (Jensen), hence at most log M in every batch and, on average over
batches that f was not trained on, at most I. Its price: Z counts joint pairs, its expectation is
((M - 1) Z + E_joint[exp f]) / M, so the gradient is biased even at a fixed xi. The Z of the other two is unbiased, and
they have no ceiling: log Z of few pairs is too small on average, so that a good f exceeds log M and I itself.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

Marginal = Literal["all_pairs_with_self", "all_pairs", "shuffle"]
XiKind = Literal["reciprocal", "literal"]


def derangement(size: int, generator: torch.Generator) -> Tensor:
    """A permutation (int64, on the generator's device) without fixed points, uniform among all of those.

    Uniform permutations until one has no fixed point, 2.7 of them on average; Sattolo's algorithm would need one
    but yields single cycles only. Raises ValueError below size 2, where there is none.
    """
    if size < 2:
        raise ValueError(f"a permutation without fixed points needs at least 2 elements, not {size}")
    identity_M = torch.arange(size, device=generator.device)
    while True:
        permutation_M = torch.randperm(size, generator=generator, device=generator.device)
        if not (permutation_M == identity_M).any():
            return permutation_M


def marginal_scores(scores: Tensor, marginal: Marginal) -> Tensor:
    """The scores, as a vector, that stand for E_marginal: of f_M for `shuffle`, of f_MM for the other two.

    Raises ValueError where the shape does not fit, and for a batch of one: it has no marginal pair.
    """
    shape = tuple(scores.shape)
    if shape != ((scores.numel(),) if marginal == "shuffle" else (len(scores), len(scores))):
        expected = "a vector" if marginal == "shuffle" else "a square matrix"
        raise ValueError(f"{marginal} needs {expected} of scores, not the shape {shape}")
    if shape[0] < 2:
        raise ValueError("a batch of one sentence has no marginal pairs: leave the mutual information out")
    if marginal == "all_pairs":
        # Without its last element the flattened matrix has one diagonal element at the start of every M + 1.
        return scores.flatten()[:-1].view(shape[0] - 1, shape[0] + 1)[:, 1:].flatten()
    return scores.flatten()


def log_partition(scores: Tensor, marginal: Marginal) -> Tensor:
    """log Z, Z the mean of exp f over the marginal pairs (the Z_psi of eq. 11), by logsumexp: exp f never appears.

    Raises ValueError as `marginal_scores` does.
    """
    scores = marginal_scores(scores, marginal)
    return torch.logsumexp(scores, 0) - math.log(len(scores))


def donsker_varadhan(f_joint_M: Tensor, log_z: Tensor) -> Tensor:
    """E_joint[f] - log Z, the first line of eq. 12. Its batch gradient, with Z in a denominator, is biased."""
    return f_joint_M.mean() - log_z


def log_xi(log_z: Tensor, kind: XiKind) -> Tensor:
    """log xi for the next tangent line, no gradient.

    `reciprocal`: xi = 1/Z, which maximises eq. 12. `literal`: xi = Z, which eq. 13 and line 9 of Algorithm 1 say; the
    bound is then loose by Z^2 - 2 log Z - 1, so that training drives Z to 1.
    """
    return -log_z.detach() if kind == "reciprocal" else log_z.detach()


def tangent_bound(f_joint_M: Tensor, log_z: Tensor, log_xi: Tensor) -> Tensor:
    """E_joint[f] - xi Z + log xi + 1, the last line of eq. 12; xi is a constant for the gradient, as eq. 14 wants.

    xi Z is exp(log xi + log Z): it overflows only where the bound itself leaves the floating-point range. At xi = 1/Z
    of the same pairs, value and gradient are Donsker & Varadhan's. For a xi that does not come from these pairs,
    and `shuffle` or `all_pairs`, the gradient is unbiased.
    """
    log_xi = log_xi.detach()
    return f_joint_M.mean() + log_xi + (1 - torch.exp(log_xi + log_z))


def update_log_z(log_z_average: Tensor | None, log_z_batch: Tensor, decay: float) -> Tensor:
    """log (decay Z + (1 - decay) Z_batch), a moving average of Z in log space, no gradient; None: there is none yet.

    Decay 0 gives the batch's. Raises ValueError unless 0 <= decay < 1.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"the decay of Z's average must be at least 0 and below 1, not {decay}")
    if log_z_average is None or decay == 0:
        return log_z_batch.detach()
    return torch.logaddexp(log_z_average + math.log(decay), log_z_batch.detach() + math.log1p(-decay))


def jensen_shannon_bound(f_joint_M: Tensor, f_marginal: Tensor) -> Tensor:
    """E_joint[-softplus(-f)] - E_marginal[softplus(f)] (Brakel & Bengio 2017; Hjelm et al. 2019, eq. 4), at most 0.

    `f_marginal` comes from `marginal_scores`. A lower bound of 2 JSD(joint || marginal) - 2 log 2, reached
    at f = the pointwise mutual information: it grows with the MI, and is no estimate of it.
    """
    return -softplus(-f_joint_M).mean() - softplus(f_marginal).mean()
