"""InfoVAE: part of the KL is replaced by an MMD between q(z) and p(z) (Zhao et al. 2019, https://arxiv.org/abs/1706.02262).

Shapes: M, N samples, D latent.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from textvae.corpus import Batch
from textvae.objectives.base import Losses, Objective
from textvae.strict import Weight


class InfoVAE(Objective):
    """Minimises reconstruction + (1 - a) KL + (a + l - 1) MMD(q(z), p(z)); a = 1, l = 1000 is the MMD-VAE."""

    class Config(Objective.Config):
        """The weights a (`mi_weight`) and l (`mmd_weight`), alpha and lambda in the paper."""

        mi_weight: float = Field(default=0.0, ge=-1000, le=1)
        mmd_weight: Weight = 10.0

        @model_validator(mode="after")
        def mmd_is_minimised(self) -> InfoVAE.Config:
            if self.mi_weight + self.mmd_weight < 1:
                raise ValueError("`mi_weight` + `mmd_weight` is below 1, so that the MMD would be maximised: raise one")
            return self

    config: Config
    least_batch = 2

    def kl_weight(self, step: int) -> float:
        """1 - a, at every step."""
        return 1.0 - self.config.mi_weight

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + (1 - a) KL + (a + l - 1) MMD. A batch of one has no MMD."""
        code = self.encode(batch)
        reconstruction = self.reconstruct(batch, code.z_BD)
        total = reconstruction + beta * code.kl
        if len(batch) == 1:
            return Losses(total, reconstruction, code.kl)
        mmd = squared_mmd(code.z_BD, code.posterior.projected(self.noise.normal_like(code.z_BD)))
        weight = self.config.mi_weight + self.config.mmd_weight - 1
        return Losses(total + weight * mmd, reconstruction, code.kl, {"train_mmd": mmd})


def squared_mmd(x_MD: Tensor, y_ND: Tensor) -> Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3).

    Kernel exp(-||x - y||^2 / D^2), the reference implementation's: at 64 dimensions, where ||x - y||^2 is about 128
    and D^2 4096, it is nearly flat, so that the term does little. Zero in expectation for samples of one
    distribution; a single value may be negative. Raises ValueError below two samples a side.
    """
    if len(x_MD) < 2 or len(y_ND) < 2:
        raise ValueError("an unbiased MMD needs at least two samples a side")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = a.square().sum(1)[:, None] + b.square().sum(1)[None] - 2 * a @ b.T
        return torch.exp(-squared / a.shape[1] ** 2)

    def mean_without_diagonal(k: Tensor) -> Tensor:
        return (k.sum() - k.diagonal().sum()) / (len(k) * (len(k) - 1))

    within = mean_without_diagonal(kernel(x_MD, x_MD)) + mean_without_diagonal(kernel(y_ND, y_ND))
    return within - 2 * kernel(x_MD, y_ND).mean()


OBJECTIVE = InfoVAE
