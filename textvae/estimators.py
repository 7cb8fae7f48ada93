"""One function per reported number. They take log densities and posteriors, never models.

Shape suffixes: N sentences, S points of the latent space, D latent dimensions, K samples or codes per sentence.
Everything is in nats per sentence. `q(z|x_n)` and `p(z)` are a posterior's (textvae/posteriors.py), and
`q(z) = (1/N) sum_n q(z|x_n)` is the aggregated posterior. Equation numbers are those of Qian & Cheung,
"Enhancing Variational Autoencoders with Mutual Information Neural Estimation for Text Generation", EMNLP 2019.
A shape that does not fit raises ValueError.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from textvae.posteriors import Posterior

USELESS_NLL = 100


def mean_and_se(values_N: Tensor, kinds_N: Tensor | None = None) -> tuple[float, float]:
    """The mean over sentences and its standard error, std (N - 1 in the denominator) / sqrt(N), in float64.

    `kinds_N` are numbers that equal sentences share. A corpus may hold a sentence many times because it was copied, not
    because it was said anew; so where there are copies the error is the larger of that and of the one with the G
    different sentences as clusters, sqrt(G / (G - 1) sum_g (sum_{n in g} (value_n - mean))^2) / N (Liang & Zeger 1986;
    the larger: with few clusters the second is too small by chance, Angrist & Pischke 2009, section 8.2).

    Raises ValueError below two values: one has no standard error.
    """
    if values_N.ndim != 1 or len(values_N) < 2:
        raise ValueError(f"a standard error needs a vector of at least 2 values, not {tuple(values_N.shape)}")
    if kinds_N is not None and kinds_N.shape != values_N.shape:
        raise ValueError(f"{tuple(kinds_N.shape)} numbers of sentences do not fit {tuple(values_N.shape)} values")
    values_N = values_N.detach().double()
    mean, error = values_N.mean().item(), values_N.std(correction=1).item() / math.sqrt(len(values_N))
    if kinds_N is None:
        return mean, error
    clusters_G, cluster_of_N = torch.unique(kinds_N, return_inverse=True)
    if 1 < len(clusters_G) < len(values_N):
        totals_G = torch.zeros(len(clusters_G), dtype=torch.float64).index_add_(0, cluster_of_N, values_N - mean)
        correction = math.sqrt(len(clusters_G) / (len(clusters_G) - 1))
        error = max(error, correction * totals_G.norm().item() / len(values_N))
    return mean, error


def importance_weighted_nll(log_p_xz_NK: Tensor, log_q_z_NK: Tensor) -> Tensor:
    """nll_N = -log (1/K) sum_k p(x_n, z_k) / q(z_k|x_n), z_k ~ q(z|x_n) (Burda et al. 2015, eq. 8).

    Its expectation is an upper bound of -log p(x_n) that falls with K; K = 1 is minus the ELBO, and the exact
    posterior gives -log p(x_n) from any K samples. Computed in float64.
    """
    _same_shape(log_p_xz_NK, log_q_z_NK)
    log_weight_NK = log_p_xz_NK.double() - log_q_z_NK.double()
    return math.log(log_weight_NK.shape[1]) - torch.logsumexp(log_weight_NK, 1)


def perplexity(total_nll: float, total_tokens: int) -> float:
    """PPL = exp(total NLL / target tokens), EOS counted. An NLL that is an upper bound makes it one too.

    Raises ValueError without tokens, OverflowError above 709 nats a token.
    """
    if total_tokens < 1:
        raise ValueError(f"a perplexity needs at least one token, not {total_tokens}")
    return math.exp(total_nll / total_tokens)


def uselessness(total_nll: float, total_tokens: int) -> str | None:
    """Why an NLL (nats, of so many target tokens) is no model's, or None: it is not finite, or above 100 nats a token,
    where a uniform distribution over a million words has 13.8. A perplexity is a number up to 709, so this comes first.
    """
    if total_nll <= USELESS_NLL * total_tokens:
        return None
    return f"an NLL of {total_nll / total_tokens:.4g} nats a token: above {USELESS_NLL} no number says anything"


class AggregatePosterior(NamedTuple):
    """log q(z) at S points: under all N components, and under the N - 1 others than the point's own."""

    log_q_S: Tensor
    log_q_others_S: Tensor


def log_aggregate_posterior(z_SD: Tensor, posterior: Posterior, own_S: Tensor, chunk: int = 256) -> AggregatePosterior:
    """log (1/N) sum_n q(z|x_n), the q(z) of eqs. 6 and 19, at points z_s drawn from component own_S[s].

    Float64, `chunk` points against all N components at a time, by matrix products (`Posterior.log_probs` says what they
    cost in digits). A point's own component is computed by itself, so
    log q(z_s) >= log q(z_s|x_own) - log N, and with it MI <= log N, hold to rounding whatever the posteriors are.

    `own_S` may name a component several times (several samples per sentence). `log_q_others_S` is -inf at N = 1.
    """
    count, dimensions = posterior.mean.shape
    if z_SD.ndim != 2 or z_SD.shape[1] != dimensions or own_S.shape != z_SD.shape[:1]:
        raise ValueError(
            f"points {tuple(z_SD.shape)} with owners {tuple(own_S.shape)} do not fit components {(count, dimensions)}"
        )
    posterior, z_SD = posterior.double(), z_SD.detach().double()
    log_q_own_S = posterior[own_S].log_prob(z_SD)
    log_probs_at = posterior.log_probs()
    log_others_S = torch.empty_like(log_q_own_S)
    for start in range(0, len(z_SD), chunk):
        rows = slice(start, start + chunk)
        log_density_SN = log_probs_at(z_SD[rows])
        log_density_SN.scatter_(1, own_S[rows, None], -math.inf)
        log_others_S[rows] = torch.logsumexp(log_density_SN, 1)
    return AggregatePosterior(
        log_q_S=torch.logaddexp(log_others_S, log_q_own_S) - math.log(count),
        log_q_others_S=log_others_S - math.log(max(count - 1, 1)),
    )


@dataclass(frozen=True)
class LatentInformation:
    """What `mutual_information` measures, in nats, each with its standard error over sentences."""

    sentences: int
    mi: float
    mi_se: float
    mi_upper: float
    mi_upper_se: float
    kl: float
    kl_se: float
    kl_sampled: float
    kl_sampled_se: float
    kl_difference_se: float
    """Of kl_sampled - kl, paired by sentence."""
    kl_agg: float
    kl_agg_se: float


def mutual_information(posterior: Posterior, z_ND: Tensor, kinds_N: Tensor | None = None) -> LatentInformation:
    """The terms of eq. 6 from one posterior sample per sentence, z_n ~ q(z|x_n), q(z) over all N sentences.

        mi         = mean [log q(z_n|x_n) - log q(z_n)], eq. 9
        mi_upper   = mean [log q(z_n|x_n) - log q_{-n}(z_n)], q_{-n} the mixture of the N - 1 other sentences
        kl_agg     = mean [log q(z_n) - log p(z_n)] = KL(q(z) || p(z)), eq. 19
        kl_sampled = mean [log q(z_n|x_n) - log p(z_n)] = mi + kl_agg;  kl: the same, analytic

    mi is unbiased for the N sentences' own empirical distribution, and for the distribution that they are drawn
    from a lower bound, at most log N, in every sample; mi_upper is an upper bound of the latter, and has no ceiling
    (both: Poole et al. 2019, with the exact conditional as critic). kl_agg is unbiased for the empirical
    distribution too, hence for the other an upper bound by as much as mi is a lower one. The
    standard errors are those of the sampled z given the sentences, and a little too large for it: they count the
    spread between sentences as well, equal ones (`kinds_N`) as `mean_and_se` says. `kl_difference_se` alone counts
    every z by itself, since its mean is 0 for each. The densities are computed where `z_ND` is. Raises ValueError
    below two sentences.
    """
    if z_ND.shape != posterior.mean.shape or len(z_ND) < 2:
        raise ValueError(
            f"the MI needs one sample of each of at least 2 sentences, not {tuple(z_ND.shape)} for "
            f"{tuple(posterior.mean.shape)}"
        )
    posterior, z_ND = posterior.double(), z_ND.detach().double()
    log_q_z_x_N = posterior.log_prob(z_ND)
    log_p_z_N = posterior.log_prior(z_ND)
    own_N = torch.arange(len(z_ND), device=z_ND.device)
    log_q_z_N, log_q_others_N = log_aggregate_posterior(z_ND, posterior, own_N)
    kl_N = posterior.kl()
    per_sentence = log_q_z_x_N, log_p_z_N, log_q_z_N, log_q_others_N, kl_N
    log_q_z_x_N, log_p_z_N, log_q_z_N, log_q_others_N, kl_N = (of_N.cpu() for of_N in per_sentence)
    mi, mi_se = mean_and_se(log_q_z_x_N - log_q_z_N, kinds_N)
    mi_upper, mi_upper_se = mean_and_se(log_q_z_x_N - log_q_others_N, kinds_N)
    kl, kl_se = mean_and_se(kl_N, kinds_N)
    kl_sampled, kl_sampled_se = mean_and_se(log_q_z_x_N - log_p_z_N, kinds_N)
    _, kl_difference_se = mean_and_se(log_q_z_x_N - log_p_z_N - kl_N)
    kl_agg, kl_agg_se = mean_and_se(log_q_z_N - log_p_z_N, kinds_N)
    return LatentInformation(
        sentences=len(z_ND),
        mi=mi, mi_se=mi_se,
        mi_upper=mi_upper, mi_upper_se=mi_upper_se,
        kl=kl, kl_se=kl_se,
        kl_sampled=kl_sampled, kl_sampled_se=kl_sampled_se, kl_difference_se=kl_difference_se,
        kl_agg=kl_agg, kl_agg_se=kl_agg_se,
    )  # fmt: skip


def mutual_information_in_batches(posterior: Posterior, z_ND: Tensor, batch_of_N: Tensor) -> float:
    """`mi` with q(z) the mixture of the sentence's own batch, averaged over sentences (He et al. 2019's estimate).

    `batch_of_N` holds each sentence's batch number. A lower bound of the MI, at most log of the batch size: the
    figure that earlier papers report. Their code takes E log q(z|x) from the analytic entropy; here it is
    log q(z|x) at the same z, which has the same expectation and keeps the ceiling in every sample. A batch of one
    counts as 0.
    """
    shape = posterior.mean.shape
    if z_ND.shape != shape or batch_of_N.shape != shape[:1] or len(z_ND) == 0:
        raise ValueError(
            f"samples {tuple(z_ND.shape)}, batches {tuple(batch_of_N.shape)} and means {tuple(shape)} do not fit"
        )
    total = 0.0
    order_N = torch.argsort(batch_of_N, stable=True)
    sizes = torch.unique(batch_of_N, return_counts=True)[1].tolist()
    for batch in torch.split(order_N, sizes):
        of_batch, z = posterior[batch].double(), z_ND[batch].double()
        own = torch.arange(len(batch), device=z.device)
        log_q_z = log_aggregate_posterior(z, of_batch, own).log_q_S
        total += (of_batch.log_prob(z) - log_q_z).sum().item()
    return total / len(z_ND)


def posterior_mean_variances(mu_ND: Tensor) -> Tensor:
    """variance_D of the posterior means over the sentences, in float64, N - 1 in the denominator (as in the code of
    He et al. 2019). Raises ValueError below two sentences.
    """
    if mu_ND.ndim != 2 or len(mu_ND) < 2:
        raise ValueError(f"a variance needs the means of at least 2 sentences, not shape {tuple(mu_ND.shape)}")
    return mu_ND.detach().double().var(0, correction=1)


def active_units(mu_ND: Tensor, threshold: float = 0.01) -> int:
    """AU (eq. 20; Burda et al. 2015): the dimensions d with a Cov_x(E_q(z|x)[z_d]), a variance, >= threshold."""
    return int((posterior_mean_variances(mu_ND) >= threshold).sum())


def decoder_gain(log_p_x_NK: Tensor) -> Tensor:
    """gain_N = log p(x_n|z_n1) - log (1/K) sum_k p(x_n|z_nk), z_n1 (column 0) the sentence's own code, the others
    codes of K - 1 other sentences.

    InfoNCE (van den Oord et al. 2018) with the decoder as critic. Its mean is a lower bound of I_q(x, z), at most
    log K in every sample: the part of the MI that the decoder can read. Exactly 0 when the decoder ignores the
    code; negative when other sentences' codes suit it better. The bound is for the distribution that the sentences
    are drawn from; against the empirical MI of N sentences the codes of *other* sentences are too easy by O(K / N).
    Computed in float64. Raises ValueError below two codes, where the gain is 0 whatever the decoder does.
    """
    if log_p_x_NK.ndim != 2 or log_p_x_NK.shape[1] < 2:
        raise ValueError(f"a gain needs a matrix with the own code and others, not shape {tuple(log_p_x_NK.shape)}")
    log_p_x_NK = log_p_x_NK.double()
    return log_p_x_NK[:, 0] - torch.logsumexp(log_p_x_NK, 1) + math.log(log_p_x_NK.shape[1])


def sanity_problems(information: LatentInformation) -> list[str]:
    """One sentence for each check that mathematics promises and the numbers break; NaN breaks them all.

    MI <= log N; MI and KL_agg at least -6 standard errors; the sampled KL within max(6 paired standard errors,
    1e-3) of the analytic one. A slack of 1e-9 allows for rounding.
    """
    slack = 1e-9
    problems = []
    ceiling = math.log(information.sentences)
    if not information.mi <= ceiling + slack:
        problems.append(
            f"MI {information.mi:.6g} is above log N = {ceiling:.6g} (N = {information.sentences} sentences): "
            "q(z) lacks the sentence's own component"
        )
    for name, value, error in (
        ("MI", information.mi, information.mi_se),
        ("KL(q(z) || p(z))", information.kl_agg, information.kl_agg_se),
    ):
        if not value >= -6 * error - slack:
            problems.append(f"{name} {value:.6g} is below zero by more than 6 standard errors of {error:.2g}")
    difference = abs(information.kl_sampled - information.kl)
    if not difference <= max(6 * information.kl_difference_se, 1e-3):
        problems.append(
            f"the sampled KL {information.kl_sampled:.6g} is {difference:.2g} off the analytic {information.kl:.6g}, "
            f"more than 6 paired standard errors of {information.kl_difference_se:.2g}: z was not drawn from q(z|x)"
        )
    return problems


def _same_shape(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape or first.ndim != 2 or 0 in first.shape:
        raise ValueError(f"two matrices of one shape are needed, not {tuple(first.shape)} and {tuple(second.shape)}")
