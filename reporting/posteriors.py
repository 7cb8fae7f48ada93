"""What posterior.parquet says of the codes: information per dimension, and where the means lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reporting.artifacts import Run
from textvae.errors import DataError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """The codes of the test sentences of one run (N sentences, D dimensions)."""

    mu_ND: Array
    log_var_ND: Array

    @classmethod
    def read(cls, path: Path) -> Posterior:
        """Of posterior.parquet. Raises DataError where it is damaged."""
        try:
            table = pq.read_table(path, columns=["mu", "log_var"])
            found = cls(*(matrix(table[name]) for name in ("mu", "log_var")))
        except MemoryError:  # Arrow's own is an ArrowException
            raise
        except (OSError, KeyError, AttributeError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({error}); run evaluate again") from None
        with np.errstate(over="ignore"):
            finite = np.isfinite(found.mu_ND**2).all() and np.isfinite(np.exp(np.abs(found.log_var_ND))).all()
        if found.mu_ND.shape != found.log_var_ND.shape or not finite:
            raise DataError(f"{path} has codes that are not finite, or not of one size; run evaluate again")
        return found

    def kl_D(self) -> Array:
        """Mean analytic KL of each dimension, in nats; they add up to the KL column."""
        terms: Array = 0.5 * (self.mu_ND**2 + np.exp(self.log_var_ND) - 1 - self.log_var_ND)
        return np.asarray(terms.mean(axis=0))

    def variance_D(self) -> Array:
        """Variance (N - 1) of each dimension's posterior mean: what AU counts from 0.01 on."""
        return np.asarray(self.mu_ND.var(axis=0, ddof=1))

    def principal_components(self) -> tuple[Array, float]:
        """The means on the plane of their first two principal components, [N, 2], and its share of their variance.

        The origin is the prior's mean, not the mean of the means. The signs are fixed by the largest entry of each
        component, so that equal posteriors give equal pictures.
        """
        centred = self.mu_ND - self.mu_ND.mean(axis=0)
        _, singular, components = np.linalg.svd(centred, full_matrices=False)
        plane = components[:2]
        signs = np.sign(plane[np.arange(len(plane)), np.abs(plane).argmax(axis=1)])
        share = float((singular[:2] ** 2).sum() / max((singular**2).sum(), np.finfo(float).tiny))
        return self.mu_ND @ (plane * signs[:, None]).T, share


def matrix(column: pa.ChunkedArray) -> Array:
    """A column of vectors as rows, in float64."""
    vectors = column.combine_chunks()
    values = vectors.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float64).reshape(len(vectors), vectors.type.list_size)


def posterior_of(run: Run) -> Posterior | None:
    """A run's codes; None where it has none (a language model, a run that diverged or was not evaluated)."""
    if run.posterior is None or run.status == "failed":
        return None
    found = Posterior.read(run.posterior)
    return found if len(found.mu_ND) > 1 and found.mu_ND.shape[1] > 1 else None
