"""Free bits: each dimension of the code may cost `threshold` nats for nothing (Kingma et al. 2016).

https://arxiv.org/abs/1606.04934, with every dimension a group of its own. Shapes: B sentences, D latent.
"""

from __future__ import annotations

from torch import Tensor

from textvae.corpus import Batch
from textvae.objectives.base import Losses, Objective
from textvae.posteriors import Gaussian, Posterior
from textvae.strict import Weight


class FreeBitsVAE(Objective):
    """Minimises reconstruction + sum_d max(threshold, mean_B KL_d). No annealing: this stands in its place."""

    class Config(Objective.Config):
        """Kingma et al.'s lambda, in nats per dimension; 0 is the plain VAE without annealing."""

        threshold: Weight = 0.1

    config: Config
    gaussian_only = True

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + the KL above the threshold; the KL that is shown is the whole one."""
        code = self.encode(batch)
        reconstruction = self.reconstruct(batch, code.z_BD)
        kept = thresholded_kl(code.posterior, self.config.threshold)
        return Losses(reconstruction + kept, reconstruction, code.kl)


def thresholded_kl(posterior: Posterior, threshold: float) -> Tensor:
    """sum_d max(threshold, mean_B KL_d), KL_d dimension d's part of KL(q(z|x) || p(z)), in nats.

    The mean over the batch comes before the maximum: a dimension pays for what it says on average, and below the
    threshold no sentence's posterior is pulled towards the prior.
    """
    assert isinstance(posterior, Gaussian)
    kl_BD = posterior.kl_of_dimensions()
    return kl_BD.mean(0).clamp_min(threshold).sum()


OBJECTIVE = FreeBitsVAE
