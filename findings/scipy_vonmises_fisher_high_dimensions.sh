#!/usr/bin/env bash
# scipy 1.17.1: vonmises_fisher has an infinite density in the dimensions of sentence codes.
#
# The normalising constant holds log I_v(kappa), v = dim / 2 - 1, as the log of scipy.special.ive, which underflows to 0
# for an order that is large against kappa: at dim 512 for kappa 10, at 256 for 0.1. `logpdf` is
# then inf and `entropy` nan at every point of the sphere, with no more than numpy's RuntimeWarning (silenced below, as
# in many a program), although both are ordinary numbers: near those of the uniform distribution, which
# `uniform_direction` has no trouble with. Whoever trains a hyperspherical VAE, or clusters embeddings, and checks himself
# against scipy meets it; a logsumexp of the power series' terms (all positive, by gammaln) has no such limit.
#
# Seen:  dim 64, kappa 10: logpdf 49.995446, by the series 49.995446
#        dim 512, kappa 10: logpdf inf, entropy nan, by the series 877.870465
# Ends with 0 while scipy does this, with 1 when it does something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'END'
import math
import sys
import warnings

import numpy as np
from scipy.special import gammaln, logsumexp
from scipy.stats import vonmises_fisher

warnings.simplefilter("ignore", RuntimeWarning)


def by_series(dim: int, kappa: float) -> float:
    """The log density at the mean direction."""
    v, k = dim / 2 - 1, np.arange(500)
    log_bessel = logsumexp((2 * k + v) * math.log(kappa / 2) - gammaln(k + 1) - gammaln(k + v + 1))
    return kappa + v * math.log(kappa) - dim / 2 * math.log(2 * math.pi) - log_bessel


seen = {}
for dim in (64, 512):
    mean = np.eye(dim)[0]
    made = vonmises_fisher(mean, 10)
    seen[dim] = float(made.logpdf(mean)), float(made.entropy()), by_series(dim, 10)
    print(f"dim {dim}, kappa 10: logpdf {seen[dim][0]:.6f}, entropy {seen[dim][1]:.6f}, by the series {seen[dim][2]:.6f}")
right = abs(seen[64][0] - seen[64][2]) < 1e-9 and math.isfinite(seen[512][2])
sys.exit(0 if right and seen[512][0] == math.inf and math.isnan(seen[512][1]) else 1)
END
