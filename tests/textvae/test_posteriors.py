"""Families of posteriors: von Mises-Fisher against closed forms, quadrature, scipy and plain loops."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import integrate, special, stats
from tiny import Corpus, random_network, train_settings
from tiny_model import informative, written
from torch import Tensor
from torch.nn.functional import normalize

from components.settings import of_run
from textvae import von_mises_fisher as vmf
from textvae.config import EvaluationSettings, ModelSettings, Params
from textvae.corpus import Sentences
from textvae.errors import SettingsError
from textvae.estimators import importance_weighted_nll, mean_and_se, mutual_information, sanity_problems
from textvae.evaluation import measure
from textvae.generation import prior_codes
from textvae.inference import posteriors, word_log_probs
from textvae.latent import TextVAE, load
from textvae.posteriors import Gaussian, Posterior, VonMisesFisher, joined
from textvae.training import Trainer

TEXTS = ["the cat sees a small dog today", "a dog sleeps", "the old bird likes the cat"]
CASES = [(2, 1.0), (3, 20.0), (32, 1e-3), (32, 23.0), (64, 500.0)]
SPHERE = ModelSettings(embedding=6, hidden=7, latent=4, posterior="vmf", kappa=6.0)


def directions(count: int, dimensions: int, seed: int = 0) -> Tensor:
    return normalize(normals(count, dimensions, seed), dim=-1)


def normals(count: int, dimensions: int, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def log_area(dimensions: int) -> float:
    """Of the unit sphere."""
    return math.log(2) + dimensions / 2 * math.log(math.pi) - math.lgamma(dimensions / 2)


# --- constants ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dimensions", "kappa"), [*CASES, (64, 30.0), (512, 500.0), (64, 10_000.0)])
def test_the_constants_are_those_of_bessel_functions(dimensions: int, kappa: float) -> None:
    order, tolerance = dimensions / 2 - 1, 1e-11 if kappa <= 500 else 1e-7
    if special.ive(order, kappa) > 1e-280:
        bessel = math.log(special.ive(order, kappa)) + kappa
        expected = math.lgamma(dimensions / 2) - order * math.log(kappa / 2) + bessel
        assert vmf.log_mean_exp(dimensions, kappa) == pytest.approx(expected, abs=10 * tolerance)
        ratio = special.ive(order + 1, kappa) / special.ive(order, kappa)
        assert vmf.mean_cosine(dimensions, kappa) == pytest.approx(ratio, rel=1e-9)
    if kappa >= 1:
        entropy = stats.vonmises_fisher(np.eye(dimensions)[0], kappa).entropy()
        assert vmf.kl(dimensions, kappa) == pytest.approx(log_area(dimensions) - entropy, abs=1e-6)


@pytest.mark.parametrize("kappa", [0.01, 1.0, 50.0, 500.0])
def test_on_the_sphere_in_three_dimensions_all_is_elementary(kappa: float) -> None:
    """M = sinh(kappa) / kappa, A = coth(kappa) - 1 / kappa, Var(w) = 1 / kappa^2 - 1 / sinh^2(kappa)."""
    log_sinh = kappa + math.log1p(-math.exp(-2 * kappa)) - math.log(2)
    cosine = 1 / math.tanh(kappa) - 1 / kappa
    length, along, across = vmf.moments(3, kappa)
    assert vmf.log_mean_exp(3, kappa) == pytest.approx(log_sinh - math.log(kappa), abs=1e-10)
    assert length == pytest.approx(cosine, abs=1e-12)
    assert along == pytest.approx(1 / kappa**2 - math.exp(-2 * log_sinh), abs=1e-10)
    assert 3 * (length**2 + along) + 6 * across == pytest.approx(3), "the mean square of a unit vector is 1"
    assert vmf.kl(3, kappa) == pytest.approx(kappa * cosine - log_sinh + math.log(kappa), abs=1e-10)


def test_log_densities_are_scipy_s_over_the_uniform_density() -> None:
    mu, z = directions(1, 5), directions(20, 5, seed=1)
    expected = stats.vonmises_fisher(mu[0].numpy(), 7.0).logpdf(z.numpy()) + log_area(5)
    posterior = VonMisesFisher(mu, 7.0)
    np.testing.assert_allclose(posterior.log_prob(math.sqrt(5) * z), expected, atol=1e-10)
    assert not posterior.log_prior(z).any()


# --- samples -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dimensions", "kappa"), [*CASES, (2, 300.0), (64, 1e-6), (64, 10_000.0)])
def test_the_angle_s_quantiles_are_those_of_its_density(dimensions: int, kappa: float) -> None:
    """By quadrature, between the entries of the table, from the end that is nearer."""
    most = max((dimensions - 2) / 2 / kappa, 1e-300)
    mode = math.acos(-most + math.sqrt(most**2 + 1)) if dimensions > 2 else 0.0

    def log_density(theta: float) -> float:
        return kappa * math.cos(theta) + (dimensions - 2) * math.log(max(math.sin(theta), 1e-300))

    def mass(first: float, last: float) -> float:
        edges = np.linspace(first, last, 33)
        top = log_density(max(mode, 1e-9))
        parts = [
            integrate.quad(lambda theta: math.exp(log_density(theta) - top), a, b, epsabs=0, limit=200)[0]
            for a, b in itertools.pairwise(edges)
        ]
        return math.fsum(parts)

    ts = torch.tensor([-5.00003, -2.3004, -0.7001, 0.0003, 0.8006, 2.5002, 5.00007], dtype=torch.float64)
    angles = vmf.angle(ts, dimensions, kappa).tolist()
    first, last = (float(vmf.angle(torch.tensor([t], dtype=torch.float64), dimensions, kappa)) for t in (9, -9))
    assert first < last, "the larger t, the smaller the angle"
    whole = mass(first, last)
    for t, theta in zip(ts.tolist(), angles, strict=True):
        tail = mass(first, theta) if t > 0 else mass(theta, last)
        assert tail / whole == pytest.approx(stats.norm.sf(abs(t)), abs=2e-7 if dimensions < 8 else 2e-8)


def test_samples_are_distributed_as_those_of_an_exact_sampler() -> None:
    """scipy's, by rejection (Wood 1994), along the direction, along a coordinate and along one across: statistics of
    the Kolmogorov-Smirnov test below 0.02, which two equal laws exceed once in 30,000 times. The seeds are fixed."""
    dimensions, kappa, count = 16, 25.0, 20_000
    mu = directions(1, dimensions)
    ours = VonMisesFisher(mu, kappa).sample(normals(count, dimensions, seed=1)) / math.sqrt(dimensions)
    theirs = torch.from_numpy(stats.vonmises_fisher(mu[0].numpy(), kappa).rvs(count, random_state=2))
    torch.testing.assert_close(ours.norm(dim=-1), torch.ones(count, dtype=torch.float64))
    other = directions(1, dimensions, seed=3)[0]
    across = normalize(other - (other @ mu[0]) * mu[0], dim=0)
    for axis in (mu[0], torch.eye(dimensions, dtype=torch.float64)[2], across):
        assert stats.ks_2samp((ours @ axis).numpy(), (theirs @ axis).numpy()).statistic < 0.02


@pytest.mark.parametrize(("dimensions", "kappa"), CASES)
def test_samples_have_the_moments_and_the_kl(dimensions: int, kappa: float) -> None:
    posterior, count = VonMisesFisher(directions(1, dimensions), kappa), 20_000
    z = posterior.sample(normals(count, dimensions, seed=4))
    mean, log_var = (of[0] for of in posterior.moments())
    torch.testing.assert_close(mean, posterior.mean[0])
    assert ((z.mean(0) - mean).abs() < 6 * torch.exp(log_var / 2) / math.sqrt(count)).all()
    squares = (z - mean).square()
    assert ((squares.mean(0) - log_var.exp()).abs() < 6 * squares.std(0) / math.sqrt(count)).all()
    sampled, error = mean_and_se(posterior.log_prob(z) - posterior.log_prior(z))
    assert abs(sampled - float(posterior.kl())) < 6 * error + 1e-9


def test_samples_in_float32_stay_on_the_sphere_even_far_out() -> None:
    mu = directions(3, 64).float()
    near, far = 1e-5 * normals(2, 64, seed=1).float(), 30 * normals(1, 64, seed=2).float()
    noise = torch.cat([3 * mu[:1] + near[:1], near[1:] - 3 * mu[1:2], far])
    for kappa in (1e-4, 500.0):
        z = VonMisesFisher(mu, kappa).sample(noise)
        assert z.dtype == torch.float32
        torch.testing.assert_close(z.norm(dim=-1), torch.full((3,), 8.0), rtol=1e-5, atol=0)


def test_the_gradient_turns_a_sample_with_its_direction() -> None:
    """Against finite differences: as mu moves by a small angle towards delta, z turns by it in their plane."""
    mu, noise, step = directions(1, 6)[0], normals(1, 6, seed=5)[0], 1e-5
    other = directions(1, 6, seed=6)[0]
    delta = normalize(other - (other @ mu) * mu, dim=0)

    def turned(z: Tensor, by: float) -> Tensor:
        along, across = z @ mu, z @ delta
        cosine, sine = math.cos(by), math.sin(by)
        rest = z - along * mu - across * delta
        return rest + (cosine * along - sine * across) * mu + (sine * along + cosine * across) * delta

    torch.testing.assert_close(turned(mu, 0.3), math.cos(0.3) * mu + math.sin(0.3) * delta)
    z = VonMisesFisher(mu, 9.0).sample(noise)
    expected = (turned(z, step) - turned(z, -step)) / (2 * step)
    jacobian = torch.autograd.functional.jacobian(lambda at: VonMisesFisher(at, 9.0).sample(noise), mu)
    torch.testing.assert_close(jacobian @ delta, expected, atol=1e-8, rtol=0)


def test_the_mean_gradient_is_that_of_the_expectation() -> None:
    """f(z) = <a, z>^2, a unit vector with s = <a, mu>: E f = D (across (1 - s^2) + (along + A^2) s^2)."""
    dimensions, kappa, count = 5, 4.0, 50_000
    a = torch.eye(dimensions, dtype=torch.float64)[0]
    mu = normalize(torch.tensor([0.6, 0.8, 0.3, -0.2, 0.1], dtype=torch.float64), dim=0)
    delta = normalize(a - (a @ mu) * mu, dim=0)
    at = mu.expand(count, -1).clone().requires_grad_()
    z = VonMisesFisher(at, kappa).sample(normals(count, dimensions, seed=7))
    (z @ a).square().sum().backward()  # type: ignore[no-untyped-call]
    assert at.grad is not None
    found, error = mean_and_se(at.grad @ delta)
    length, along, across = vmf.moments(dimensions, kappa)
    expected = dimensions * 2 * float((a @ mu) * (a @ delta)) * (along + length**2 - across)
    assert expected > 20 * error
    assert abs(found - expected) < 5 * error


def test_a_table_that_was_made_in_inference_is_of_use_in_training() -> None:
    with torch.inference_mode():
        vmf.angle(torch.zeros(1), 9, 3.25)
    mu = directions(2, 9).requires_grad_()
    VonMisesFisher(mu, 3.25).sample(normals(2, 9)).sum().backward()  # type: ignore[no-untyped-call]
    assert mu.grad is not None


# --- estimators --------------------------------------------------------------------------------------------------


def test_the_information_equals_plain_loops() -> None:
    """Every number of eq. 6, with Bessel's function from scipy."""
    dimensions, kappa, count = 6, 9.0, 30
    mu = normalize(directions(1, dimensions) + 0.7 * directions(count, dimensions, seed=1), dim=-1).float()
    posterior = VonMisesFisher(mu, kappa)
    z = posterior.double().sample(normals(count, dimensions, seed=2))
    found = mutual_information(posterior, z)
    order = dimensions / 2 - 1
    constant = math.lgamma(dimensions / 2) - order * math.log(kappa / 2) + math.log(special.iv(order, kappa))
    own, whole, others = [], [], []
    for s in range(count):
        units = [[value / math.hypot(*row) for value in row] for row in mu.tolist()]
        cosines = [math.fsum(a * b for a, b in zip(z[s].tolist(), unit, strict=True)) for unit in units]
        densities = [math.exp(kappa * cosine / math.sqrt(dimensions) - constant) for cosine in cosines]
        own.append(math.log(densities[s]))
        whole.append(math.log(math.fsum(densities) / count))
        others.append(math.log(math.fsum(densities[:s] + densities[s + 1 :]) / (count - 1)))

    def mean(values: list[float]) -> float:
        return math.fsum(values) / count

    assert found.mi == pytest.approx(mean(own) - mean(whole), abs=1e-10)
    assert found.mi_upper == pytest.approx(mean(own) - mean(others), abs=1e-10)
    assert found.kl_agg == pytest.approx(mean(whole), abs=1e-10), "q(z) over the uniform prior"
    assert found.kl_sampled == pytest.approx(mean(own), abs=1e-10)
    assert found.kl == pytest.approx(kappa * special.iv(order + 1, kappa) / special.iv(order, kappa) - constant)
    assert 0.3 < found.mi < math.log(count) - 0.3
    assert sanity_problems(found) == []


def test_nll_iw_of_a_decoder_on_the_sphere_falls_to_the_truth() -> None:
    """p(x|z) = vMF(x; z, kappa) and p(z) uniform: p(x) is uniform (1, over the uniform density) and p(z|x) is
    vMF(z; x, kappa). With that q the weights are constant; with half the kappa around another direction they are not.
    """
    dimensions, kappa = 3, 4.0
    x = directions(1, dimensions)[0]

    def nll(q: VonMisesFisher, repeats: int, samples: int) -> tuple[float, float]:
        z = q.sample(normals(repeats * samples, dimensions, seed=3).view(repeats, samples, dimensions))
        log_p_xz = VonMisesFisher(normalize(z, dim=-1), kappa).log_prob(math.sqrt(dimensions) * x) + q.log_prior(z)
        return mean_and_se(importance_weighted_nll(log_p_xz, q.log_prob(z)))

    for samples in (1, 3):
        assert nll(VonMisesFisher(x, kappa), 10, samples) == pytest.approx((0, 0), abs=1e-12)
    far = VonMisesFisher(normalize(x + 0.5 * directions(1, dimensions, seed=8)[0], dim=0), kappa / 2)
    means = {samples: nll(far, 200, samples) for samples in (1, 10, 500)}
    assert means[1][0] > means[10][0] > means[500][0]
    assert means[1][0] > 10 * means[500][0] + 4 * means[1][1]
    assert abs(means[500][0]) < 4 * means[500][1] < 0.05


def test_with_hardly_any_kappa_the_posterior_is_the_prior() -> None:
    dimensions, count = 32, 200
    posterior = VonMisesFisher(directions(count, dimensions), 1e-6)
    z = posterior.sample(normals(count, dimensions, seed=1))
    found = mutual_information(posterior, z)
    for value in (found.mi, found.mi_upper, found.kl, found.kl_agg):
        assert value == pytest.approx(0, abs=1e-5)
    assert sanity_problems(found) == []
    mean, log_var = posterior.moments()
    assert float(mean.abs().max()) < 1e-5
    assert float(log_var.abs().max()) < 1e-5, "a coordinate of the prior has variance 1"


# --- the interface -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [Gaussian, VonMisesFisher])
def test_a_posterior_is_indexed_joined_and_converted_as_a_tensor_is(family: type[Posterior]) -> None:
    def some(seed: int) -> Posterior:
        mu = directions(4, 3, seed).float()
        return Gaussian(mu, mu - 1) if family is Gaussian else VonMisesFisher(mu, 5.0)

    both = joined([some(0), some(1)])
    torch.testing.assert_close(both.mean, torch.cat([some(0).mean, some(1).mean]))
    torch.testing.assert_close(both[[5, 0]].mean, torch.stack([some(1).mean[1], some(0).mean[0]]))
    assert both[[5, 0], None].sample(torch.zeros(2, 7, 3)).shape == (2, 7, 3)
    double = both.double()
    assert double.mean.dtype == double.sample(normals(8, 3)).dtype == torch.float64
    points = double.sample(normals(8, 3))
    expected = torch.stack([double.log_prob(point) for point in points])
    torch.testing.assert_close(double.log_probs()(points), expected)
    codes = double.projected(3 * normals(5, 3))
    torch.testing.assert_close(double.projected(codes), codes)
    assert type(double) is family


def test_a_direction_has_the_length_1_to_the_digits_of_float64() -> None:
    mu = directions(50, 64).float()
    lengths = VonMisesFisher(mu, 500.0).double().direction.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(50, dtype=torch.float64), atol=1e-15, rtol=0)


def test_parameters_of_two_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Gaussian(torch.zeros(2, 3), torch.zeros(3))


# --- a model -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> TextVAE:
    network = random_network("vae", corpus.size, SPHERE).float()
    return load(written(tmp_path_factory.mktemp("vmf") / "model", network, corpus))


def test_all_codes_of_a_model_are_on_the_sphere(model: TextVAE) -> None:
    network = model.network
    assert network is not None
    prior = prior_codes(network, 1, torch.arange(500))
    torch.testing.assert_close(prior.norm(dim=-1), torch.full((500,), 2.0, dtype=torch.float64))
    # A coordinate of the unit sphere in 4 dimensions is 2 B - 1, B ~ Beta(3/2, 3/2).
    uniform = stats.beta(1.5, 1.5, loc=-1, scale=2)
    assert stats.kstest((prior[:, 1] / 2).numpy(), uniform.cdf).statistic < 0.1
    mean, log_var = model.encode(TEXTS)
    assert mean.shape == log_var.shape == (3, 4)
    length = np.linalg.norm(mean, axis=1)
    np.testing.assert_allclose(length, 2 * vmf.mean_cosine(4, 6.0))
    assert [one.text for one in model.decode(mean, 8)] == [one.text for one in model.decode(5 * mean, 8)]
    assert [one.mean for one in model.reconstruct(TEXTS, max_length=8)] == [o.text for o in model.decode(mean, 8)]


def test_words_are_scored_at_the_mean_s_place_on_the_sphere(model: TextVAE) -> None:
    network, sentences = model.network, model.tokenised(TEXTS)
    assert network is not None
    z = posteriors(network, sentences).projected(posteriors(network, sentences).mean).float()
    for n, one in enumerate(model.score(TEXTS, samples=2)):
        [expected] = word_log_probs(network, Sentences.of([sentences[n]]), z[n : n + 1])
        assert one.log_probs == pytest.approx(expected, abs=1e-5)


def test_a_model_of_no_sentence_has_no_posterior(model: TextVAE, corpus: Corpus, tmp_path: Path) -> None:
    gaussian = load(written(tmp_path / "model", informative("vae", corpus), corpus))
    for one, latent in ((model, 4), (gaussian, 3)):
        assert [of.shape for of in one.encode([])] == [(0, latent)] * 2


def test_everything_is_measured_of_it(corpus: Corpus) -> None:
    network = random_network("vae", corpus.size, SPHERE).float()
    settings = EvaluationSettings(iw_sentences=5, iw_samples=10, gain_sentences=5)
    found = measure(network, corpus.test, settings, 1)
    assert found.columns["kl"] == pytest.approx(vmf.kl(4, 6.0))
    assert found.columns["kl_se"] == 0
    assert found.columns["mi"] <= math.log(len(corpus.test))
    assert found.columns["mi"] + found.columns["kl_agg"] == pytest.approx(found.columns["kl"], abs=1)
    torch.testing.assert_close(found.mu_ND, posteriors(network, corpus.test).mean)


def test_a_training_is_repeated_bit_for_bit_and_its_kl_is_a_constant(corpus: Corpus) -> None:
    schedule = {"beta_start": 0.1, "annealing_epochs": 1.0, "word_dropout": 0.0}
    settings = train_settings("vae_05", objective=schedule, epochs=3).model_copy(update={"model": SPHERE})
    first, second = (Trainer(settings, corpus.train, corpus.valid, corpus.size, 1).run() for _ in range(2))
    assert first.curves == second.curves
    assert all(torch.equal(weight, second.weights[name]) for name, weight in first.weights.items())
    for row in first.curves:
        assert (row["train_kl"], row["valid_kl"]) == pytest.approx([vmf.kl(4, 6.0)] * 2)
        assert row["grad_norm_encoder"] > 0
    assert first.curves[-1]["valid_nll"] < first.curves[0]["valid_nll"]


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kappa": 0.0}, "kappa\n +Input should be greater than 0"),
        ({"kappa": 20_000.0}, "kappa"),
        ({"latent": 1}, "`latent` is 1"),
        ({"means_deviation": 0.5}, "`means_deviation` moves the parameters of a Gaussian"),
        ({"committed_rate": 1.0}, "`committed_rate` moves the parameters of a Gaussian"),
        ({"svi_steps": 2}, "`svi_steps` moves the parameters of a Gaussian"),
    ],
)
def test_settings_that_do_not_fit_a_posterior_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSettings(**{**SPHERE.model_dump(), **changes})


@pytest.mark.parametrize("objective", ["free_bits", "pretrained_vae", "mdr_vae"])
def test_objectives_that_work_on_a_gaussian_s_kl_are_refused(objective: str, corpus: Corpus) -> None:
    settings = train_settings(objective).model_copy(update={"model": SPHERE})
    with pytest.raises(SettingsError, match=r"^model.posterior is vmf, whose KL is fixed by `kappa`"):
        Trainer(settings, corpus.train, corpus.valid, corpus.size, 1)


def test_the_settings_name_the_key_of_a_posterior_that_does_not_fit() -> None:
    params = Params.load(Path(__file__).resolve().parents[2] / "params.yaml")
    changed = params.model_dump(exclude_unset=True)
    changed["systems"]["free_bits"]["model"] = {"posterior": "vmf", "kappa": 5.0}
    with pytest.raises(SettingsError, match=r"^systems.free_bits.model.posterior is vmf"):
        of_run(Params.model_validate(changed), "sotu", "free_bits")
