"""The bounds where the mutual information, the best energy and the true gradient are known.

Correlated Gaussians: d pairs of coordinates with correlation rho, I = -d/2 log(1 - rho^2).
A discrete joint distribution: its energy is a table, and every expectation is a finite sum.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, vmap

from textvae.mutual_information import (
    Marginal,
    XiKind,
    derangement,
    donsker_varadhan,
    jensen_shannon_bound,
    log_partition,
    log_xi,
    marginal_scores,
    tangent_bound,
    update_log_z,
)

MARGINALS: tuple[Marginal, ...] = ("all_pairs_with_self", "all_pairs", "shuffle")
KINDS: tuple[XiKind, ...] = ("reciprocal", "literal")


def gaussian_pairs(count: int, rho: float, dimensions: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x, noise = torch.randn(2, count, dimensions, generator=generator)
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def gaussian_pmi(x: Tensor, z: Tensor, rho: float) -> Tensor:
    """log p(x, z) - log p(x) p(z), summed over the last dimension."""
    quadratic = (rho**2 * (x.square() + z.square()) - 2 * rho * x * z).sum(-1)
    return -0.5 * x.shape[-1] * math.log(1 - rho**2) - quadratic / (2 * (1 - rho**2))


# --- The pieces --------------------------------------------------------------------------------------------------


def test_marginal_scores_of_a_matrix_whose_pairs_are_known() -> None:
    f = torch.tensor([[0.0, 1.0, 2.0], [10.0, 11.0, 12.0], [20.0, 21.0, 22.0]])
    assert marginal_scores(f, "all_pairs_with_self").tolist() == [0, 1, 2, 10, 11, 12, 20, 21, 22]
    assert marginal_scores(f, "all_pairs").tolist() == [1, 2, 10, 12, 20, 21]
    assert marginal_scores(f.T, "all_pairs").tolist() == [10, 20, 1, 21, 2, 12], "a transposed view too"
    assert marginal_scores(f[0], "shuffle").tolist() == [0, 1, 2]


def test_log_partition_is_the_log_of_a_mean() -> None:
    # exp f = [[1, 2], [6, 3]]: the mean of all is 3, off the diagonal 4; of the vector 1, 6 it is 3.5.
    f = torch.tensor([[1.0, 2.0], [6.0, 3.0]]).log()
    assert log_partition(f, "all_pairs_with_self").exp().item() == pytest.approx(3)
    assert log_partition(f, "all_pairs").exp().item() == pytest.approx(4)
    assert log_partition(f[:, 0], "shuffle").exp().item() == pytest.approx(3.5)


@pytest.mark.parametrize("marginal", MARGINALS)
def test_scores_far_beyond_exp_s_range_are_no_trouble(marginal: Marginal) -> None:
    """f = 1000 everywhere, in float32, where exp overflows at 88: log Z = 1000, Ihat = 0, the gradient sums to 0.
    At xi = Z the bound itself, -exp(2000), has no number: minus infinity, not NaN."""
    f = torch.full((4, 4), 1000.0, requires_grad=True)
    log_z = log_partition(f[0] if marginal == "shuffle" else f, marginal)
    assert log_z.item() == pytest.approx(1000)
    bound = tangent_bound(f.diagonal(), log_z, log_xi(log_z, "reciprocal"))
    assert bound.item() == pytest.approx(0, abs=1e-3)
    (gradient,) = torch.autograd.grad(bound, f, retain_graph=True)
    assert gradient.isfinite().all()
    assert gradient.sum().item() == pytest.approx(0, abs=1e-4)
    assert tangent_bound(f.diagonal(), log_z, log_xi(log_z, "literal")).item() == -math.inf


@pytest.mark.parametrize("marginal", MARGINALS)
def test_a_batch_of_one_and_a_wrong_shape_are_refused(marginal: Marginal) -> None:
    one = torch.zeros(1) if marginal == "shuffle" else torch.zeros(1, 1)
    with pytest.raises(ValueError, match="batch of one"):
        log_partition(one, marginal)
    for wrong in (torch.zeros(3, 3) if marginal == "shuffle" else torch.zeros(4), torch.zeros(2, 3)):
        with pytest.raises(ValueError, match="needs a"):
            log_partition(wrong, marginal)


def test_derangements_are_uniform() -> None:
    """Four elements have 9 derangements, 6 of them single cycles. 9,000 draws: 1,000 each, by chi^2 on 8 degrees."""
    generator = torch.Generator().manual_seed(0)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(9000):
        permutation = tuple(derangement(4, generator).tolist())
        counts[permutation] = counts.get(permutation, 0) + 1
    expected = {p for p in itertools.permutations(range(4)) if all(p[i] != i for i in range(4))}
    assert set(counts) == expected
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 26.1, "chi^2 at 0.001"


def test_derangement_is_reproducible_and_needs_two() -> None:
    first, again = (derangement(32, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(first.sort().values, torch.arange(32))
    with pytest.raises(ValueError, match="at least 2"):
        derangement(1, torch.Generator())


def test_moving_average_of_z_lives_in_log_space() -> None:
    # 0.9 x 2 + 0.1 x 7 = 2.5
    average = update_log_z(torch.tensor(math.log(2.0)), torch.tensor(math.log(7.0)), 0.9)
    assert average.exp().item() == pytest.approx(2.5)
    huge = update_log_z(torch.tensor(1000.0), torch.tensor(2000.0), 0.9)
    assert huge.item() == pytest.approx(2000 + math.log(0.1))
    batch = torch.tensor(3.0, requires_grad=True)
    for average in (update_log_z(torch.tensor(50.0), batch, 0.0), update_log_z(None, batch, 0.9)):
        assert average.item() == 3
        assert not average.requires_grad
    assert not update_log_z(torch.tensor(1.0), batch, 0.5).requires_grad
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match="below 1"):
            update_log_z(None, batch, decay)


# --- Ceilings ----------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    size=st.integers(2, 9),
    seed=st.integers(0, 10**6),
    scale=st.sampled_from([0.1, 1.0, 30.0, 1000.0]),
    diagonal=st.floats(-50, 2000),
    any_log_xi=st.floats(-100, 100),
)
def test_with_self_no_energy_and_no_xi_exceed_info_nce_and_log_m(
    size: int, seed: int, scale: float, diagonal: float, any_log_xi: float
) -> None:
    f = scale * torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    f = f + diagonal * torch.eye(size)
    log_z = log_partition(f, "all_pairs_with_self")
    value = donsker_varadhan(f.diagonal(), log_z).item()
    info_nce = (f.diagonal() - f.logsumexp(1)).mean().item() + math.log(size)
    assert value <= info_nce + 1e-9 <= math.log(size) + 2e-9
    for xi in (*(log_xi(log_z, kind) for kind in KINDS), torch.tensor(any_log_xi)):
        assert tangent_bound(f.diagonal(), log_z, xi).item() <= value + 1e-9


def test_an_energy_that_knows_the_pairs_reaches_log_m_with_self_and_has_no_ceiling_without() -> None:
    f = torch.full((8, 8), -300.0).fill_diagonal_(300)
    for marginal, expected in zip(MARGINALS, (math.log(8), 600, 600), strict=True):
        log_z = log_partition(f.roll(1, 1).diagonal() if marginal == "shuffle" else f, marginal)
        assert donsker_varadhan(f.diagonal(), log_z).item() == pytest.approx(expected, abs=1e-3)


# --- Correlated Gaussians ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rho", "dimensions"), [(0.5, 20), (0.8, 2), (0.3, 4)])
def test_the_pmi_gives_the_mutual_information_from_a_million_pairs(rho: float, dimensions: int) -> None:
    """At f = PMI, Z = 1, Var f = d rho^2 under the joint, Var exp f = exp(2I) - 1 under the marginals."""
    generator = torch.Generator().manual_seed(10)
    joint, marginal = [], []
    for _ in range(20):
        x, z = gaussian_pairs(50_000, rho, dimensions, generator)
        joint.append(gaussian_pmi(x, z, rho))
        marginal.append(gaussian_pmi(x, z.roll(1, 0), rho))
    f_joint, f_marginal = torch.cat(joint).double(), torch.cat(marginal).double()
    information = -dimensions / 2 * math.log(1 - rho**2)
    assert information < 3
    log_z = log_partition(f_marginal, "shuffle")
    assert abs(log_z.item()) < 4e-3 * math.sqrt(math.exp(2 * information) - 1)
    error = 1e-3 * math.sqrt(dimensions * rho**2 + math.exp(2 * information) - 1)
    assert abs(donsker_varadhan(f_joint, log_z).item() - information) < 4 * error
    for kind in KINDS:  # near Z = 1 both lines touch the logarithm
        assert abs(tangent_bound(f_joint, log_z, log_xi(log_z, kind)).item() - information) < 4 * error


def test_at_8_nats_the_marginals_decide_what_a_batch_says() -> None:
    """rho = 0.9, d = 10: I = 8.30, f = PMI. With self a batch says at most log M, and more in a larger batch; the
    others say more than log M and more than I, on average, since no batch holds the pairs that make up Z."""
    generator = torch.Generator().manual_seed(11)
    information = -5 * math.log(1 - 0.9**2)
    means = {}
    for size in (8, 32):
        values: dict[Marginal, list[float]] = {marginal: [] for marginal in MARGINALS}
        for _ in range(200):
            x, z = gaussian_pairs(size, 0.9, 10, generator)
            f = gaussian_pmi(x[:, None], z[None], 0.9)
            shuffled = f[torch.arange(size), derangement(size, generator)]
            for marginal in MARGINALS:
                log_z = log_partition(shuffled if marginal == "shuffle" else f, marginal)
                values[marginal].append(donsker_varadhan(f.diagonal(), log_z).item())
        assert max(values["all_pairs_with_self"]) <= math.log(size) + 1e-5
        means[size] = {marginal: sum(v) / 200 for marginal, v in values.items()}
        assert means[size]["shuffle"] > means[size]["all_pairs"] > information > math.log(size)
    assert means[8]["all_pairs_with_self"] < means[32]["all_pairs_with_self"]


def test_a_trained_energy_is_a_lower_bound_on_fresh_samples() -> None:
    """f = w . (xz, x^2, z^2), a family that holds the PMI up to a constant; rho = 0.8, I = 0.511."""
    generator = torch.Generator().manual_seed(12)
    weight = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.03)

    def energy(x: Tensor, z: Tensor) -> Tensor:
        return torch.stack([x * z, x.square().expand_as(x * z), z.square().expand_as(x * z)], -1) @ weight

    for _ in range(300):
        x, z = (tensor[:, 0] for tensor in gaussian_pairs(128, 0.8, 1, generator))
        f = energy(x[:, None], z[None])
        log_z = log_partition(f, "all_pairs")
        optimizer.zero_grad()
        (-tangent_bound(f.diagonal(), log_z, log_xi(log_z, "reciprocal"))).backward()
        optimizer.step()
    with torch.no_grad():
        x, z = (tensor[:, 0] for tensor in gaussian_pairs(400_000, 0.8, 1, generator))
        f_joint, f_marginal = energy(x, z), energy(x, z.roll(1))
        bound = donsker_varadhan(f_joint, log_partition(f_marginal, "shuffle")).item()
    information = -0.5 * math.log(1 - 0.8**2)
    error = math.sqrt((f_joint.var() + (f_marginal - f_marginal.logsumexp(0)).exp().var() * 400_000**2) / 400_000)
    assert information - 0.03 < bound < information + 4 * error


# --- The Jensen-Shannon bound ------------------------------------------------------------------------------------


def jensen_shannon_quadrature(rho: float, scale: float = 1.0, shift: float = 0.0) -> float:
    """E_joint[log sigma(f)] + E_marginal[log sigma(-f)] at f = scale PMI + shift, by the trapezoid rule on a grid."""
    grid = torch.linspace(-9, 9, 1201, dtype=torch.float64)
    x, z = grid[:, None], grid[None]
    pmi = gaussian_pmi(x[..., None], z[..., None], rho)
    product = torch.exp(-(x.square() + z.square()) / 2) / (2 * math.pi)
    f = scale * pmi + shift
    density = product * (torch.exp(pmi) * torch.nn.functional.logsigmoid(f) + torch.nn.functional.logsigmoid(-f))
    return (density.sum() * (grid[1] - grid[0]) ** 2).item()


@pytest.mark.parametrize(("rho", "scale", "shift"), [(0.8, 1.0, 0.0), (0.8, 0.5, 0.3), (0.3, 1.0, 0.0)])
def test_jensen_shannon_bound_against_quadrature(rho: float, scale: float, shift: float) -> None:
    x, z = gaussian_pairs(1_000_000, rho, 1, torch.Generator().manual_seed(13))
    f_joint = scale * gaussian_pmi(x, z, rho).double() + shift
    f_marginal = scale * gaussian_pmi(x, z.roll(1, 0), rho).double() + shift
    found = jensen_shannon_bound(f_joint, marginal_scores(f_marginal, "shuffle")).item()
    terms = (torch.nn.functional.softplus(-f_joint), torch.nn.functional.softplus(f_marginal))
    error = math.sqrt(sum(term.var().item() for term in terms) / 1e6)
    assert error < 1e-3
    assert abs(found - jensen_shannon_quadrature(rho, scale, shift)) < 4 * error


def test_jensen_shannon_bound_is_highest_at_the_pmi_and_0_when_everything_is_told_apart() -> None:
    best = jensen_shannon_quadrature(0.8)
    assert best > max(jensen_shannon_quadrature(0.8, *other) for other in ((0.8, 0.0), (1.2, 0.0), (1.0, 0.2)))
    assert jensen_shannon_bound(torch.zeros(3), torch.zeros(3)).item() == pytest.approx(-2 * math.log(2))
    assert jensen_shannon_bound(torch.full((3,), 500.0), torch.full((3,), -500.0)).item() == 0


# --- xi on a discrete joint distribution -------------------------------------------------------------------------
# The whole population is the batch: 32 pairs whose counts are the joint distribution. The pairs of
# `all_pairs_with_self` are then exactly the product of the marginals, and steps on the table f are steps on the true
# objective.

COUNTS = torch.tensor([[6, 1, 1, 2], [1, 5, 2, 1], [2, 1, 4, 6]])
PAIRS = torch.arange(12).repeat_interleave(COUNTS.flatten())
JOINT = COUNTS.double() / COUNTS.sum()
PRODUCT = JOINT.sum(1, keepdim=True) * JOINT.sum(0, keepdim=True)
PMI = (JOINT / PRODUCT).log()
INFORMATION = (JOINT * PMI).sum().item()


def population_scores(table: Tensor) -> tuple[Tensor, Tensor]:
    """f of the joint pairs and log Z."""
    x, z = PAIRS // 4, PAIRS % 4
    f = table[x][:, z]
    return f.diagonal(), log_partition(f, "all_pairs_with_self")


def test_the_population_s_log_z_and_bound_are_the_table_s() -> None:
    table = torch.randn(3, 4, generator=torch.Generator().manual_seed(14), dtype=torch.float64)
    f_joint, log_z = population_scores(table)
    assert log_z.item() == pytest.approx((PRODUCT * table.exp()).sum().log().item(), abs=1e-12)
    assert donsker_varadhan(f_joint, log_z).item() < INFORMATION
    assert donsker_varadhan(*population_scores(PMI)).item() == pytest.approx(INFORMATION, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_steps_with_xi_recomputed(kind: XiKind) -> None:
    """Literal ends at xi = 1 and f = PMI; reciprocal at f = PMI + a constant that depends on the start, xi = 1/Z. The
    bound is I at both."""
    for start in (-1.0, 0.7):
        table = torch.full((3, 4), start, dtype=torch.float64, requires_grad=True)
        for _ in range(600):
            f_joint, log_z = population_scores(table)
            bound = tangent_bound(f_joint, log_z, log_xi(log_z, kind))
            (gradient,) = torch.autograd.grad(bound, table)
            table = (table + 2 * gradient).detach().requires_grad_()
        distance = table.detach() - PMI
        assert bound.item() == pytest.approx(INFORMATION, abs=1e-6)
        assert distance.std().item() < 1e-3
        if kind == "literal":
            assert distance.abs().max().item() < 1e-3
            assert log_xi(log_z, kind).item() == pytest.approx(0, abs=1e-3)
        else:
            assert distance.mean().item() == pytest.approx(start - PMI.mean().item(), abs=1e-6), "never normalised"


def test_exact_alternation_is_a_2_cycle_for_literal_and_stands_still_for_reciprocal() -> None:
    """f* = PMI - log xi maximises the bound at xi (eq. 15), which is then I. It has Z = 1/xi: literal goes to 1/xi and
    back, reciprocal stays. Literal's line at its new xi = Z is below I by Z^2 - 2 log Z - 1."""
    for kind in KINDS:
        visited = [torch.tensor(0.5, dtype=torch.float64)]
        for _ in range(4):
            table = (PMI - visited[-1]).requires_grad_()
            f_joint, log_z = population_scores(table)
            bound = tangent_bound(f_joint, log_z, visited[-1])
            assert bound.item() == pytest.approx(INFORMATION, abs=1e-12)
            assert torch.autograd.grad(bound, table, retain_graph=True)[0].abs().max().item() < 1e-12
            visited.append(log_xi(log_z, kind))
            value = log_z.exp().item()
            loose = value**2 - 2 * log_z.item() - 1 if kind == "literal" else 0
            assert loose > 0.3 or kind == "reciprocal"
            renewed = tangent_bound(f_joint, log_z, visited[-1]).item()
            assert renewed == pytest.approx(INFORMATION - loose, abs=1e-12)
        signs = [1, -1, 1, -1, 1] if kind == "literal" else [1] * 5
        assert [round(xi.item(), 12) for xi in visited] == [sign * 0.5 for sign in signs]


def test_reciprocal_xi_is_the_best_of_all() -> None:
    """Erratum to eq. 13: of all xi, 1/Z has the highest line, and it is Donsker & Varadhan's value."""
    f_joint, log_z = population_scores(PMI + 0.4)
    lines = [tangent_bound(f_joint, log_z, torch.tensor(value)).item() for value in torch.linspace(-2, 2, 41).tolist()]
    best = tangent_bound(f_joint, log_z, log_xi(log_z, "reciprocal")).item()
    assert best == pytest.approx(donsker_varadhan(f_joint, log_z).item(), abs=1e-12)
    assert max(lines) == pytest.approx(best, abs=1e-12), "the grid holds -0.4"
    assert best - tangent_bound(f_joint, log_z, log_xi(log_z, "literal")).item() > 0.4


# --- Gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marginal", MARGINALS)
def test_tangent_gradient_at_reciprocal_xi_is_donsker_varadhan_s(marginal: Marginal) -> None:
    f = 3 * torch.randn(6, 6, generator=torch.Generator().manual_seed(15), dtype=torch.float64)
    f.requires_grad_()
    log_z = log_partition(f.roll(1, 1).diagonal() if marginal == "shuffle" else f, marginal)
    line = tangent_bound(f.diagonal(), log_z, log_xi(log_z, "reciprocal"))
    exact = donsker_varadhan(f.diagonal(), log_z)
    assert line.item() == pytest.approx(exact.item(), abs=1e-12)
    (of_line,) = torch.autograd.grad(line, f, retain_graph=True)
    (of_exact,) = torch.autograd.grad(exact, f)
    torch.testing.assert_close(of_line, of_exact, rtol=0, atol=1e-12)
    assert of_exact.abs().max() > 0.1


def test_xi_is_a_constant_for_the_gradient() -> None:
    """f on the joint 2 and 4, on the marginal log 3 and log 5, xi = e: df_joint = 1/2, df_marginal = -e exp(f) / 2."""
    f_joint = torch.tensor([2.0, 4.0], requires_grad=True)
    f_marginal = torch.tensor([3.0, 5.0]).log().requires_grad_()
    slope = torch.tensor(1.0, requires_grad=True)
    bound = tangent_bound(f_joint, log_partition(f_marginal, "shuffle"), slope)
    assert bound.item() == pytest.approx(3 - math.e * 4 + 1 + 1, rel=1e-6)
    bound.backward()
    assert f_joint.grad is not None
    assert f_marginal.grad is not None
    assert f_joint.grad.tolist() == [0.5, 0.5]
    assert f_marginal.grad.tolist() == pytest.approx([-1.5 * math.e, -2.5 * math.e], rel=1e-6)
    assert slope.grad is None
    log_z = log_partition(f_marginal, "shuffle")
    assert not any(log_xi(log_z, kind).requires_grad for kind in KINDS)


# The bias of a batch's gradient, without noise: on a 2 x 2 joint distribution all 4^M batches of M pairs are
# enumerated, and weighted with their probabilities. The true gradient on the table is p(x, z) - xi p(x) p(z) exp f.

SMALL_JOINT = torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64)
SMALL_PRODUCT = SMALL_JOINT.sum(1, keepdim=True) * SMALL_JOINT.sum(0, keepdim=True)
SMALL_PMI = (SMALL_JOINT / SMALL_PRODUCT).log()
SMALL_TABLE = SMALL_PMI + torch.tensor([[0.5, -0.3], [0.2, -1.0]], dtype=torch.float64)


def true_gradient(table: Tensor, kind: XiKind) -> Tensor:
    z = (SMALL_PRODUCT * table.exp()).sum()
    return SMALL_JOINT - (z if kind == "literal" else 1 / z) * SMALL_PRODUCT * table.exp()


def gradient_bias(table: Tensor, size: int, marginal: Marginal, kind: XiKind, xi: str) -> Tensor:
    """E[batch gradient] - true gradient; xi of the `batch` itself, of the `previous` batch, or the `true` one."""
    cells = torch.tensor(list(itertools.product(range(4), repeat=2 * size if xi == "previous" else size)))
    probability = SMALL_JOINT.flatten()[cells].prod(1)
    assert probability.sum().item() == pytest.approx(1, abs=1e-12)
    true_log_z = (SMALL_PRODUCT * table.exp()).sum().log()

    def log_z_of(table: Tensor, x: Tensor, z: Tensor) -> Tensor:
        return log_partition(table[x, z.roll(1)] if marginal == "shuffle" else table[x][:, z], marginal)

    def batch_bound(table: Tensor, x: Tensor, z: Tensor) -> Tensor:
        log_z = log_z_of(table, x[:size], z[:size])
        for_xi = {"true": true_log_z, "batch": log_z}
        if xi == "previous":
            for_xi[xi] = log_z_of(table, x[size:], z[size:])
        return tangent_bound(table[x[:size], z[:size]], log_z, log_xi(for_xi[xi], kind))

    gradients = vmap(grad(batch_bound), in_dims=(None, 0, 0))(table, cells // 2, cells % 2)
    return (probability[:, None, None] * gradients).sum(0) - true_gradient(table, kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("marginal", ["shuffle", "all_pairs"])
def test_the_tangent_line_s_gradient_is_unbiased_at_a_xi_of_its_own(marginal: Marginal, kind: XiKind) -> None:
    """The claim of the paper's section 4.2, where it holds: xi is not the batch's, and Z holds no joint pairs."""
    assert true_gradient(SMALL_TABLE, kind).abs().max() > 0.1
    for table in (SMALL_PMI, SMALL_TABLE):
        assert gradient_bias(table, 4, marginal, kind, "true").abs().max().item() < 1e-12


@pytest.mark.parametrize("marginal", ["shuffle", "all_pairs"])
def test_a_batch_s_own_xi_biases_the_gradient_up_if_reciprocal_and_down_if_literal(marginal: Marginal) -> None:
    """Where it does not hold, as in lines 9 and 12 of Algorithm 1. At f = PMI the true gradient is 0. Reciprocal's
    batch gradient inflates f (its component along f is positive) without moving its mean; literal's deflates f, and
    its component along a constant is -Var Z of the batch, (E_joint[exp f] - 1) / M for shuffle: 1/24 at M = 4."""
    for table in (SMALL_PMI, SMALL_TABLE):
        reciprocal = gradient_bias(table, 4, marginal, "reciprocal", "batch")
        literal = gradient_bias(table, 4, marginal, "literal", "batch")
        assert (reciprocal * table).sum().item() > 0.01 > -0.01 > (literal * table).sum().item()
        assert reciprocal.sum().item() == pytest.approx(0, abs=1e-12)
        if table is SMALL_PMI and marginal == "shuffle":
            excess = (SMALL_JOINT * SMALL_PMI.exp()).sum().item() - 1
            assert literal.sum().item() == pytest.approx(-excess / 4, abs=1e-12)
            assert literal.sum().item() == pytest.approx(-1 / 24, abs=1e-12)


def test_the_bias_falls_with_the_batch() -> None:
    """As 1/M for shuffle: from 4 to 6 pairs by 1.5, exactly for literal, by higher orders more for reciprocal."""
    four, six = (gradient_bias(SMALL_PMI, size, "shuffle", "literal", "batch") for size in (4, 6))
    torch.testing.assert_close(four, 1.5 * six, rtol=0, atol=1e-12)
    four, six = (gradient_bias(SMALL_PMI, size, "shuffle", "reciprocal", "batch") for size in (4, 6))
    assert 1.5 < (four.norm() / six.norm()).item() < 1.7


def test_counting_the_own_pairs_biases_the_gradient_even_at_the_true_xi() -> None:
    """Z of `all_pairs_with_self` counts M joint pairs among M^2, so its gradient misses the true one by
    -xi (E_joint - E_marginal)[grad exp f] / M: the price of the ceiling. It deflates f."""
    for table in (SMALL_PMI, SMALL_TABLE):
        xi = 1 / (SMALL_PRODUCT * table.exp()).sum()
        expected = -xi * (SMALL_JOINT - SMALL_PRODUCT) * table.exp() / 4
        bias = gradient_bias(table, 4, "all_pairs_with_self", "reciprocal", "true")
        torch.testing.assert_close(bias, expected, rtol=0, atol=1e-12)
        assert (bias * table).sum().item() < -0.01


def test_the_xi_of_the_batch_before_is_harmless_if_literal_and_too_large_if_reciprocal() -> None:
    """Line 7 of Algorithm 1: xi is independent of the batch, so only its mean counts. E[Z] is Z, but E[1/Z] > 1/Z,
    which pushes all of f down."""
    assert gradient_bias(SMALL_TABLE, 3, "shuffle", "literal", "previous").abs().max().item() < 1e-12
    reciprocal = gradient_bias(SMALL_TABLE, 3, "shuffle", "reciprocal", "previous")
    assert reciprocal.max().item() < -0.01
