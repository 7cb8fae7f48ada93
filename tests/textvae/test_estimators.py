"""The reported numbers against closed forms, torch.distributions and plain Python loops."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from textvae.estimators import (
    active_units,
    decoder_gain,
    importance_weighted_nll,
    log_aggregate_posterior,
    mean_and_se,
    mutual_information,
    mutual_information_in_batches,
    perplexity,
    posterior_mean_variances,
    sanity_problems,
    uselessness,
)
from textvae.posteriors import Gaussian


def posteriors(
    sentences: int, dimensions: int, seed: int = 0, log_sigma: float = -0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Overlapping posteriors of different widths, and one sample of each, in float64."""
    generator = torch.Generator().manual_seed(seed)
    mu, spread, noise = torch.randn(3, sentences, dimensions, generator=generator, dtype=torch.float64)
    log_var = 2 * log_sigma + 0.4 * spread
    return mu + 0.3, log_var, mu + 0.3 + torch.exp(log_var / 2) * noise


def loop_log_density(z: list[float], mu: list[float], log_var: list[float]) -> float:
    return math.fsum(
        -0.5 * ((a - m) ** 2 / math.exp(v) + v + math.log(2 * math.pi)) for a, m, v in zip(z, mu, log_var, strict=True)
    )


def loop_log_mean_exp(values: list[float]) -> float:
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values) / len(values))


# --- Gaussians ---------------------------------------------------------------------------------------------------


def test_gaussian_functions_agree_with_torch_distributions() -> None:
    mu, log_var, z = posteriors(7, 5)
    q = Independent(Normal(mu, torch.exp(log_var / 2)), 1)
    p = Independent(Normal(torch.zeros_like(mu), torch.ones_like(mu)), 1)
    torch.testing.assert_close(Gaussian(mu, log_var).kl(), kl_divergence(q, p))
    torch.testing.assert_close(Gaussian(mu, log_var).log_prob(z), q.log_prob(z))
    torch.testing.assert_close(Gaussian.log_prior(z), p.log_prob(z))
    pairs = Independent(Normal(mu[None], torch.exp(log_var / 2)[None]), 1).log_prob(z[:, None])
    torch.testing.assert_close(Gaussian(mu, log_var)[None].log_prob(z[:, None]), pairs)


def test_gaussian_kl_keeps_the_digits_of_a_nearly_collapsed_posterior_in_float32() -> None:
    """KL = (mu^2 + log_var^2 / 2) / 2 + O(log_var^3): 7.5e-9 at mu = log_var = 1e-4, less than float32 sees at 1."""
    kl = Gaussian(torch.full((1, 1), 1e-4), torch.full((1, 1), 1e-4)).kl()
    assert kl.dtype == torch.float32
    assert kl.item() == pytest.approx(7.5e-9, rel=2e-3)


def test_gaussian_kl_has_the_right_gradient() -> None:
    mu, log_var, _ = posteriors(3, 2)
    parameters = mu.requires_grad_(), log_var.requires_grad_()
    assert torch.autograd.gradcheck(lambda *parameters: Gaussian(*parameters).kl(), parameters)


def test_mean_and_se() -> None:
    # 1 2 3 4: variance (2.25 + 0.25 + 0.25 + 2.25) / 3 = 5/3, divided by 4 values.
    assert mean_and_se(torch.tensor([1.0, 2.0, 3.0, 4.0])) == pytest.approx((2.5, math.sqrt(5 / 12)))
    with pytest.raises(ValueError, match="at least 2"):
        mean_and_se(torch.ones(1))


def test_mean_and_se_of_float32_values_is_taken_in_float64() -> None:
    """2^24 + 1 is the first integer that float32 does not have."""
    values = torch.tensor([16_777_216.0, 1.0, 0.0, 0.0])
    assert mean_and_se(values)[0] == 16_777_217 / 4


# --- NLL-IW and perplexity ---------------------------------------------------------------------------------------


def linear_gaussian() -> tuple[Tensor, Tensor, Tensor, float, Tensor, float]:
    """p(x|z) = N(Wz, s^2 I) with orthogonal columns of W, so that the exact posterior of x is diagonal.

    Returns W, the posterior's mean and log variance, s^2, x and log p(x).
    """
    weight = torch.tensor([[1.0, 1.0], [1.0, -1.0], [0.5, 0.5], [0.5, -0.5]], dtype=torch.float64)
    noise = 0.5
    x = torch.tensor([1.0, -0.3, 0.7, 0.2], dtype=torch.float64)
    precision = 1 + (weight.square().sum(0)) / noise
    mean = weight.T @ x / noise / precision
    covariance = weight @ weight.T + noise * torch.eye(4, dtype=torch.float64)
    log_p_x = MultivariateNormal(torch.zeros(4, dtype=torch.float64), covariance).log_prob(x).item()
    return weight, mean, -precision.log(), noise, x, log_p_x


def linear_gaussian_nll_iw(shift: float, repeats: int, samples: int) -> tuple[Tensor, Tensor]:
    """log p(x, z) and log q(z) of `samples` from the exact posterior moved by `shift` standard deviations."""
    weight, mean, log_var, noise, x, _ = linear_gaussian()
    mean = mean + shift * torch.exp(log_var / 2)
    generator = torch.Generator().manual_seed(1)
    z = mean + torch.exp(log_var / 2) * torch.randn(repeats, samples, 2, generator=generator, dtype=torch.float64)
    x_mean = z @ weight.T
    log_p_x_z = Gaussian(x_mean, torch.full_like(x_mean, math.log(noise))).log_prob(x)
    return log_p_x_z + Gaussian.log_prior(z), Gaussian(mean.expand_as(z), log_var.expand_as(z)).log_prob(z)


def test_nll_iw_falls_with_k_to_the_truth() -> None:
    """q is the posterior moved by 1.2 sigma in both dimensions, so the ELBO's gap (k = 1) is 2 x 1.2^2 / 2 = 1.44."""
    truth = -linear_gaussian()[-1]
    log_p_xz, log_q_z = linear_gaussian_nll_iw(1.2, repeats=200, samples=500)
    means = {k: mean_and_se(importance_weighted_nll(log_p_xz[:, :k], log_q_z[:, :k])) for k in (1, 5, 50, 500)}
    assert means[1][0] > means[5][0] > means[50][0] > means[500][0]
    assert abs(means[1][0] - truth - 1.44) < 4 * means[1][1]
    assert means[5][0] - truth > 8 * means[5][1], "the bias of small k is real, not noise"
    assert abs(means[500][0] - truth) < 4 * means[500][1] < 0.1


def test_nll_iw_with_the_exact_posterior_is_the_truth_without_variance() -> None:
    truth = -linear_gaussian()[-1]
    log_p_xz, log_q_z = linear_gaussian_nll_iw(0.0, repeats=20, samples=3)
    for k in (1, 2, 3):
        nll = importance_weighted_nll(log_p_xz[:, :k], log_q_z[:, :k])
        torch.testing.assert_close(nll, torch.full_like(nll, truth), rtol=0, atol=1e-12)


def test_nll_iw_of_long_sentences_neither_underflows_nor_loses_digits() -> None:
    """Weights e^-5000 and 3 e^-5000 have mean 2 e^-5000; the input is float32, as a model gives it."""
    nll = importance_weighted_nll(torch.tensor([[-5000.0, -5000.0 + math.log(3)]]), torch.zeros(1, 2))
    assert nll.item() == pytest.approx(5000 - math.log(2), abs=1e-3)
    single = [-5000 - torch.rand(3, 4, generator=torch.Generator().manual_seed(1)), torch.full((3, 4), -31.4)]
    double = importance_weighted_nll(*(tensor.double() for tensor in single))
    torch.testing.assert_close(importance_weighted_nll(*single), double, rtol=0, atol=0)
    with pytest.raises(ValueError, match="one shape"):
        importance_weighted_nll(torch.zeros(2, 3), torch.zeros(2, 1))


def test_an_nll_past_100_nats_a_token_or_not_finite_is_no_models() -> None:
    assert uselessness(7 * math.log(1e6), 7) is None
    assert uselessness(700.0, 7) is None
    for total, shown in ((701.0, "100.1 nats"), (1e300, "1.429e+299"), (math.inf, "inf"), (math.nan, "nan")):
        reason = uselessness(total, 7)
        assert reason is not None
        assert shown in reason


def test_perplexity_of_a_uniform_model_is_its_vocabulary() -> None:
    assert perplexity(30 * math.log(50), 30) == pytest.approx(50)
    with pytest.raises(ValueError, match="at least one token"):
        perplexity(1.0, 0)


# --- log q(z) ----------------------------------------------------------------------------------------------------


def test_aggregate_posterior_equals_plain_loops_over_50_sentences() -> None:
    """From float32, as a model gives it, to ten digits."""
    mu, log_var, z = (tensor.float() for tensor in posteriors(50, 6))
    found = log_aggregate_posterior(z, Gaussian(mu, log_var), torch.arange(50))
    for s in range(50):
        density = [loop_log_density(z[s].tolist(), mu[n].tolist(), log_var[n].tolist()) for n in range(50)]
        assert found.log_q_S[s].item() == pytest.approx(loop_log_mean_exp(density), abs=1e-10)
        others = density[:s] + density[s + 1 :]
        assert found.log_q_others_S[s].item() == pytest.approx(loop_log_mean_exp(others), abs=1e-10)
        assert abs(loop_log_mean_exp(density) - loop_log_mean_exp(others)) > 1e-6, "the own component matters here"


def test_aggregate_posterior_equals_torch_mixture() -> None:
    mu, log_var, _ = posteriors(40, 3)
    mixture = MixtureSameFamily(
        Categorical(torch.ones(40, dtype=torch.float64)), Independent(Normal(mu, torch.exp(log_var / 2)), 1)
    )
    torch.manual_seed(0)
    own = torch.randint(40, (100,))
    z = mixture.sample((100,))
    found = log_aggregate_posterior(z, Gaussian(mu, log_var), own)
    torch.testing.assert_close(found.log_q_S, mixture.log_prob(z), rtol=0, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_aggregate_posterior_does_not_depend_on_the_chunk(chunk: int) -> None:
    mu, log_var, z = posteriors(64, 5)
    whole = log_aggregate_posterior(z, Gaussian(mu, log_var), torch.arange(64))
    parts = log_aggregate_posterior(z, Gaussian(mu, log_var), torch.arange(64), chunk)
    for expected, found in zip(whole, parts, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("sigma", "error"), [(0.1, 1e-10), (0.01, 1e-8), (1e-3, 1e-6), (1e-4, 1e-4)])
def test_aggregate_posterior_stays_accurate_when_sigma_is_tiny(sigma: float, error: float) -> None:
    """The documented limits, times ten. Each sentence has a near-duplicate, so that more than the own component counts,
    and all of them lie far from the origin, which centring takes back."""
    mu, log_var, z = posteriors(60, 64, log_sigma=math.log(sigma))
    twins = torch.arange(60) // 2 * 2
    z = z - mu + mu[twins] + 100
    mu = mu[twins] + 100
    found = log_aggregate_posterior(z, Gaussian(mu, log_var), torch.arange(60))
    pairs = Gaussian(mu, log_var)[None].log_prob(z[:, None])
    torch.testing.assert_close(found.log_q_S, torch.logsumexp(pairs, 1) - math.log(60), rtol=0, atol=error)
    pairs = pairs.fill_diagonal_(-math.inf)
    torch.testing.assert_close(found.log_q_others_S, torch.logsumexp(pairs, 1) - math.log(59), rtol=1e-12, atol=error)


def test_aggregate_posterior_of_several_points_per_component_and_of_one_component() -> None:
    mu, log_var, z = posteriors(5, 2)
    once = log_aggregate_posterior(z, Gaussian(mu, log_var), torch.arange(5))
    twice = log_aggregate_posterior(z.repeat(2, 1), Gaussian(mu, log_var), torch.arange(5).repeat(2))
    torch.testing.assert_close(twice.log_q_others_S, once.log_q_others_S.repeat(2))
    alone = log_aggregate_posterior(z[:1], Gaussian(mu, log_var)[:1], torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(alone.log_q_S, Gaussian(mu, log_var)[:1].log_prob(z[:1]))
    assert alone.log_q_others_S.item() == -math.inf
    with pytest.raises(ValueError, match="do not fit"):
        log_aggregate_posterior(z, Gaussian(mu, log_var), torch.arange(4))


# --- MI, KL_agg --------------------------------------------------------------------------------------------------


def test_mutual_information_equals_plain_loops_over_50_sentences() -> None:
    """Every number of eq. 6 from nested loops, from float32 input, as a model gives it."""
    mu, log_var, z = (tensor.float() for tensor in posteriors(50, 4))
    found = mutual_information(Gaussian(mu, log_var), z)
    own, whole, others, prior, kl = [], [], [], [], []
    for s in range(50):
        density = [loop_log_density(z[s].tolist(), mu[n].tolist(), log_var[n].tolist()) for n in range(50)]
        own.append(density[s])
        whole.append(loop_log_mean_exp(density))
        others.append(loop_log_mean_exp(density[:s] + density[s + 1 :]))
        prior.append(loop_log_density(z[s].tolist(), [0.0] * 4, [0.0] * 4))
        kl.append(
            sum((m**2 + math.exp(v) - 1 - v) / 2 for m, v in zip(mu[s].tolist(), log_var[s].tolist(), strict=True))
        )

    def check(name: str, values: list[float]) -> None:
        mean = sum(values) / 50
        error = math.sqrt(sum((value - mean) ** 2 for value in values) / 49 / 50)
        assert getattr(found, name) == pytest.approx(mean, abs=1e-10), name
        assert getattr(found, f"{name}_se") == pytest.approx(error, abs=1e-10), name

    check("mi", [a - b for a, b in zip(own, whole, strict=True)])
    check("mi_upper", [a - b for a, b in zip(own, others, strict=True)])
    check("kl_agg", [a - b for a, b in zip(whole, prior, strict=True)])
    check("kl_sampled", [a - b for a, b in zip(own, prior, strict=True)])
    check("kl", kl)
    differences = [a - b - c for a, b, c in zip(own, prior, kl, strict=True)]
    mean = sum(differences) / 50
    assert found.kl_difference_se == pytest.approx(math.sqrt(sum((d - mean) ** 2 for d in differences) / 49 / 50))
    assert found.sentences == 50


@pytest.mark.parametrize(("dimensions", "slope", "sigma"), [(1, 1.0, 0.5), (2, 0.8, 0.6), (3, 0.5, 1.0), (1, 0.0, 0.7)])
def test_mutual_information_of_a_linear_gaussian_encoder(dimensions: int, slope: float, sigma: float) -> None:
    """x ~ N(0, I), q(z|x) = N(ax + 0.5, s^2 I): q(z) = N(0.5, a^2 + s^2), I = d/2 log(1 + a^2/s^2), KL_agg analytic.

    At 4,000 sentences the biases of mi and mi_upper are some 1e-3, far below their standard errors.
    """
    generator = torch.Generator().manual_seed(2)
    x, noise = torch.randn(2, 4000, dimensions, generator=generator, dtype=torch.float64)
    mu = slope * x + 0.5
    found = mutual_information(Gaussian(mu, torch.full_like(mu, 2 * math.log(sigma))), mu + sigma * noise)
    information = dimensions / 2 * math.log(1 + slope**2 / sigma**2)
    variance = slope**2 + sigma**2
    kl_agg = dimensions / 2 * (variance + 0.5**2 - 1 - math.log(variance))
    assert abs(found.mi - information) < 4 * found.mi_se + 1e-9
    assert abs(found.mi_upper - information) < 4 * found.mi_upper_se + 1e-9
    assert found.mi <= found.mi_upper + 1e-9
    assert abs(found.kl_agg - kl_agg) < 4 * found.kl_agg_se
    assert abs(found.kl - (information + kl_agg)) < 4 * found.kl_se + 1e-9
    assert sanity_problems(found) == []


def test_mutual_information_beyond_log_n_is_bracketed() -> None:
    """rho = 0.9 in 10 dimensions: I = 8.30, above log 1000 = 6.91. No estimate can reach it: the lower one stays under
    its ceiling, the upper one comes out above I."""
    generator = torch.Generator().manual_seed(3)
    x, noise = torch.randn(2, 1000, 10, generator=generator, dtype=torch.float64)
    variance = 1 - 0.9**2
    posterior = Gaussian(0.9 * x, torch.full_like(x, math.log(variance)))
    found = mutual_information(posterior, 0.9 * x + math.sqrt(variance) * noise)
    information = -5 * math.log(variance)
    assert information == pytest.approx(8.30, abs=0.01)
    assert 6 < found.mi < math.log(1000) < information < found.mi_upper - 6 * found.mi_upper_se


def test_mutual_information_of_separate_codes_is_log_n_and_of_pairs_log_half_n() -> None:
    """100 sentences with codes of their own carry log 100. When two share each code: mi = log 50, and without the own
    component log q(z) is that of one of 99, so mi_upper = log 99."""
    mu = 1000 * torch.arange(100, dtype=torch.float64)[:, None]
    log_var = torch.zeros_like(mu)
    noise = torch.randn(100, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    alone = mutual_information(Gaussian(mu, log_var), mu + noise)
    assert alone.mi == pytest.approx(math.log(100), abs=1e-12)
    assert sanity_problems(alone) == []
    pairs = mu // 2000 * 2000
    shared = mutual_information(Gaussian(pairs, log_var), pairs + noise)
    assert shared.mi == pytest.approx(math.log(50), abs=1e-8)
    assert shared.mi_upper == pytest.approx(math.log(99), abs=1e-8)


def test_mutual_information_of_a_collapsed_encoder_is_zero() -> None:
    """q(z|x) = p(z) for every x: everything is 0, and rounding does not raise a false alarm."""
    mu = torch.zeros(300, 64)
    found = mutual_information(Gaussian(mu, mu), torch.randn(300, 64, generator=torch.Generator().manual_seed(5)))
    for value in (found.mi, found.mi_upper, found.kl_agg, found.kl_sampled, found.kl):
        assert value == pytest.approx(0, abs=1e-12)
    assert sanity_problems(found) == []


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    sentences=st.integers(2, 12),
    dimensions=st.integers(1, 8),
    log_sigma=st.floats(-25, 3),
    spread=st.sampled_from([0.0, 1.0, 100.0]),
)
def test_mutual_information_never_exceeds_log_n(
    seed: int, sentences: int, dimensions: int, log_sigma: float, spread: float
) -> None:
    """Also where the expanded quadratic form has lost all its digits (sigma = 1e-11)."""
    mu, log_var, z = posteriors(sentences, dimensions, seed, log_sigma)
    found = mutual_information(Gaussian(spread * mu, log_var), spread * mu + z - mu)
    assert found.mi <= math.log(sentences) + 1e-9


def test_mutual_information_needs_one_sample_of_each_of_two_sentences() -> None:
    for shape in ((1, 3), (4, 3)):
        with pytest.raises(ValueError, match="at least 2 sentences"):
            mutual_information(Gaussian(torch.zeros(1, 3), torch.zeros(1, 3)), torch.zeros(shape))


# --- MI in batches -----------------------------------------------------------------------------------------------


def test_mutual_information_in_batches_equals_plain_loops() -> None:
    """Batches of different sizes with arbitrary numbers, their sentences scattered; the mean is over sentences."""
    mu, log_var, z = posteriors(20, 3)
    batch_of = [70, -3, 70, 5, 5, -3, 5, 70, 5, 5, -3, 5, 11, 5, 70, 5, 5, 70, -3, 5]
    values = []
    for s in range(20):
        members = [n for n in range(20) if batch_of[n] == batch_of[s]]
        density = {n: loop_log_density(z[s].tolist(), mu[n].tolist(), log_var[n].tolist()) for n in members}
        values.append(density[s] - loop_log_mean_exp(list(density.values())))
    assert values[12] == 0, "a batch of one carries nothing"
    found = mutual_information_in_batches(Gaussian(mu, log_var), z, torch.tensor(batch_of))
    assert found == pytest.approx(sum(values) / 20, abs=1e-11)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(6))
    again = mutual_information_in_batches(Gaussian(mu, log_var)[order], z[order], torch.tensor(batch_of)[order])
    assert again == pytest.approx(found, abs=1e-12)


def test_mutual_information_in_batches_has_the_batch_as_its_ceiling() -> None:
    mu, log_var, z = posteriors(96, 64, log_sigma=-3)
    posterior = Gaussian(mu, log_var)
    assert mutual_information(posterior, z).mi == pytest.approx(math.log(96), abs=1e-9)
    assert mutual_information_in_batches(posterior, z, torch.arange(96) % 3) == pytest.approx(math.log(32), abs=1e-9)
    one = mutual_information_in_batches(posterior, z, torch.zeros(96, dtype=torch.int64))
    assert one == pytest.approx(mutual_information(posterior, z).mi, abs=1e-12)
    with pytest.raises(ValueError, match="do not fit"):
        mutual_information_in_batches(posterior, z, torch.zeros(95))


# --- AU and gain -------------------------------------------------------------------------------------------------


def test_active_units_go_by_the_variance_of_the_posterior_means() -> None:
    """Deviations of 0.11 and 0.09 around a mean: as standard deviations both are above 0.01, as variances one is."""
    signs = torch.tensor([1.0, -1.0]).repeat(50)[:, None]
    mu = 3 + signs * torch.tensor([[0.11, 0.09, 0.0, 2.0]])
    expected = torch.tensor([0.11**2, 0.09**2, 0.0, 4.0], dtype=torch.float64) * 100 / 99
    torch.testing.assert_close(posterior_mean_variances(mu), expected, rtol=1e-5, atol=1e-12)
    assert active_units(mu) == 2
    assert active_units(mu, threshold=0.005) == 3
    assert active_units(torch.tensor([[0.0], [2.0]]), threshold=2.0) == 1, "at the threshold counts, N - 1 below"
    with pytest.raises(ValueError, match="at least 2 sentences"):
        active_units(torch.zeros(1, 4))


def test_decoder_gain_equals_plain_loops() -> None:
    log_p = -80 + 3 * torch.randn(6, 4, generator=torch.Generator().manual_seed(7))
    expected = [row[0] - loop_log_mean_exp(row) for row in log_p.tolist()]
    assert decoder_gain(log_p).tolist() == pytest.approx(expected, abs=1e-12)


def test_decoder_gain_is_zero_without_and_log_k_with_all_the_information() -> None:
    ignored = torch.randn(5, 1, generator=torch.Generator().manual_seed(8)).repeat(1, 32)
    assert decoder_gain(ignored).tolist() == pytest.approx([0.0] * 5, abs=1e-12)
    told = torch.full((5, 32), -2000.0)
    told[:, 0] = -10
    assert decoder_gain(told).tolist() == pytest.approx([math.log(32)] * 5, abs=1e-12)
    assert (decoder_gain(told.flip(1)) < 0).all(), "the own code is column 0"
    with pytest.raises(ValueError, match="own code and others"):
        decoder_gain(torch.zeros(5, 1))


@given(st.lists(st.lists(st.floats(-1e4, 0), min_size=5, max_size=5), min_size=1, max_size=4))
def test_decoder_gain_never_exceeds_log_k(rows: list[list[float]]) -> None:
    assert decoder_gain(torch.tensor(rows)).max().item() <= math.log(5) + 1e-9


def test_decoder_gain_is_a_lower_bound_that_rises_with_k() -> None:
    """z ~ N(0, 1), x = z + noise of 0.5, decoder exact: I = log(1 + 4) / 2 = 0.805."""
    generator = torch.Generator().manual_seed(9)
    own, noise = torch.randn(2, 4000, 1, generator=generator, dtype=torch.float64)
    others = torch.randn(4000, 255, generator=generator, dtype=torch.float64)
    log_p = Normal(torch.cat([own, others], 1), 0.5).log_prob(own + 0.5 * noise)
    information = math.log(5) / 2
    (few, few_se), (many, many_se) = (mean_and_se(decoder_gain(log_p[:, :k])) for k in (2, 256))
    assert few + 6 * few_se < many < information + 4 * many_se
    assert few < math.log(2)
    assert many == pytest.approx(information, abs=4 * many_se + 0.01)


# --- Sanity checks -----------------------------------------------------------------------------------------------


def test_sanity_names_each_broken_promise_alone() -> None:
    mu, log_var, z = posteriors(400, 8)
    fine = mutual_information(Gaussian(mu, log_var), z)
    assert sanity_problems(fine) == []
    broken = {
        "above log N": {"mi": math.log(400) + 1e-6},
        "MI -0.7 is below zero": {"mi": -0.7, "mi_se": 0.1},
        "KL(q(z) || p(z)) -0.7 is below": {"kl_agg": -0.7, "kl_agg_se": 0.1},
        "the sampled KL": {"kl_sampled": fine.kl + 7 * fine.kl_difference_se},
    }
    for words, change in broken.items():
        (problem,) = sanity_problems(dataclasses.replace(fine, **change))
        assert words in problem
    for change in ({"mi": -0.59, "mi_se": 0.1}, {"kl_sampled": fine.kl + 9e-4, "kl_difference_se": 0.0}):
        assert sanity_problems(dataclasses.replace(fine, **change)) == []


def test_sanity_calls_nan_a_problem() -> None:
    mu, log_var, z = posteriors(10, 2)
    z[3, 1] = math.nan
    assert len(sanity_problems(mutual_information(Gaussian(mu, log_var), z))) == 4


def test_sanity_catches_an_aggregate_posterior_without_the_own_component() -> None:
    mu, log_var, z = posteriors(200, 32)
    found = mutual_information(Gaussian(mu, log_var), z)
    (problem,) = sanity_problems(dataclasses.replace(found, mi=found.mi_upper))
    assert "own component" in problem


def test_sanity_catches_samples_that_are_not_the_posterior_s() -> None:
    """Two bugs of evaluation loops: sigma^2 for sigma in the reparametrisation, and the codes of other sentences."""
    mu, log_var, z = posteriors(500, 8)
    squared = mutual_information(Gaussian(mu, log_var), mu + (z - mu) * torch.exp(log_var / 2))
    assert any("not drawn from" in problem for problem in sanity_problems(squared))
    shifted = mutual_information(Gaussian(mu, log_var), z.roll(1, 0))
    assert any("MI -" in problem for problem in sanity_problems(shifted))
