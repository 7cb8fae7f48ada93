"""A corpus that repeats itself: copies draw their own noise, and errors count what was copied once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from textvae.corpus import Sentences, hashed_batches, hashed_normal, hashed_normals, hashed_subset
from textvae.estimators import LatentInformation, mean_and_se, mutual_information, sanity_problems
from textvae.posteriors import Gaussian

LATENT = 4
NOISE_SEEDS = range(40)


def corpus(distinct: int, copies: list[int]) -> Sentences:
    """`distinct` sentences that occur once, and one for each number of copies; shuffled."""
    rows = [[4 + n, 5] for n in range(distinct)]
    for number, count in enumerate(copies):
        rows += [[4 + distinct + number]] * count
    return Sentences.of([rows[n] for n in np.random.default_rng(0).permutation(len(rows))])


def spread_posteriors(sentences: Sentences, spread: float) -> Gaussian:
    """Equal for equal sentences, with means that differ between the others."""
    kinds = int(sentences.kinds.max()) + 1
    generator = torch.Generator().manual_seed(1)
    mu_GD = spread * torch.randn(kinds, LATENT, generator=generator, dtype=torch.float64)
    log_var_GD = -spread * torch.rand(kinds, LATENT, generator=generator, dtype=torch.float64)
    return Gaussian(mu_GD, log_var_GD)[sentences.kinds]


def measured(sentences: Sentences, spread: float, seed: int) -> LatentInformation:
    posterior = spread_posteriors(sentences, spread)
    z_ND = posterior.sample(hashed_normals(sentences, seed, LATENT, "elbo 0"))
    return mutual_information(posterior, z_ND, sentences.kinds)


# --- noise and subsets -------------------------------------------------------------------------------------------


def test_copies_are_counted_and_equal_sentences_share_a_number() -> None:
    sentences = Sentences.of([[4, 5], [6], [4, 5], [4], [4, 5], [6]])
    assert sentences.copies == [0, 0, 1, 0, 2, 1]
    assert sentences.kinds.tolist() == [0, 1, 0, 2, 0, 1]
    assert sentences.subset(np.array([2, 4])).copies == [0, 1]
    assert Sentences.of([[4], [4, 4]]).copies == [0, 0]


def test_a_first_copy_has_the_noise_of_the_sentence_and_the_others_their_own() -> None:
    sentences = corpus(20, [6])
    noise = hashed_normals(sentences, 7, 5, "elbo")
    assert len(noise.unique(dim=0)) == len(sentences)
    for n in range(len(sentences)):
        if sentences.copies[n] == 0:
            assert torch.equal(noise[n], hashed_normal(sentences[n], 7, (5,), "elbo"))


def test_the_order_of_a_corpus_with_copies_changes_no_noise_and_no_subset() -> None:
    sentences = corpus(20, [6, 3])
    permuted = sentences.subset(np.random.default_rng(3).permutation(len(sentences)))

    def noise_of(of: Sentences) -> set[tuple[float, ...]]:
        return {(*of[n].tolist(), *row) for n, row in enumerate(hashed_normals(of, 7, 3, "elbo").tolist())}

    def chosen(of: Sentences) -> list[list[int]]:
        return sorted(of[n].tolist() for n in hashed_subset(of, 9, "nll_iw"))

    assert noise_of(sentences) == noise_of(permuted)
    assert chosen(sentences) == chosen(permuted)


def test_a_subset_and_a_batch_hold_as_many_copies_as_chance_gives_them() -> None:
    """By the sentence alone, they held all copies of a sentence or none. 400 of 1,000 sentences are one reply:
    hypergeometric, in 100 drawn 40 with a standard deviation of 4.6; in a batch of 50 20 with one of 3.4."""
    sentences = corpus(600, [400])
    reply = int(np.bincount(sentences.kinds.numpy()).argmax())
    drawn = [int((sentences.kinds[hashed_subset(sentences, 100, f"purpose {p}")] == reply).sum()) for p in range(20)]
    assert 40 - 5 * 4.6 / math.sqrt(20) < np.mean(drawn) < 40 + 5 * 4.6 / math.sqrt(20)
    assert all(abs(count - 40) < 5 * 4.6 for count in drawn)
    batches = hashed_batches(sentences, 50)
    in_batch = [int((sentences.kinds[batches == number] == reply).sum()) for number in range(20)]
    assert all(abs(count - 20) < 5 * 3.4 for count in in_batch)


# --- standard errors ---------------------------------------------------------------------------------------------


def test_the_error_of_a_mean_counts_copies_as_one_cluster() -> None:
    # Mean 2, residuals -2, -2, 2, 2. By itself each: sqrt(16 / 3) / 2. As clusters {0, 1}, {2}, {3}: their totals are
    # -4, 2, 2, and sqrt(3 / 2 * 24) / 4 = 1.5 is larger.
    values = torch.tensor([0.0, 0.0, 4.0, 4.0])
    assert mean_and_se(values, torch.tensor([7, 7, 1, 2])) == pytest.approx((2.0, 1.5))
    assert mean_and_se(values)[1] == pytest.approx(math.sqrt(16 / 3) / 2)
    # Clusters {0, 2}, {1, 3} have totals of 0: chance, and no reason to be certain.
    assert mean_and_se(values, torch.tensor([0, 1, 0, 1])) == mean_and_se(values)


def test_without_copies_and_with_nothing_else_the_error_is_the_plain_one() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert mean_and_se(values, torch.randperm(50)) == mean_and_se(values)
    assert mean_and_se(values, torch.zeros(50, dtype=torch.long)) == mean_and_se(values), "one cluster has no spread"
    with pytest.raises(ValueError, match="do not fit"):
        mean_and_se(values, torch.zeros(49))


def test_the_error_is_that_of_drawing_sentences_that_are_then_copied() -> None:
    """2,000 corpora of 60 sentences drawn from N(0, 1), the first 20 of them three times: the mean over 100 lines has a
    standard deviation of sqrt(20 * 9 + 40) / 100 = 0.148, not 1 / sqrt(100)."""
    generator = torch.Generator().manual_seed(0)
    kinds = torch.cat([torch.arange(60), torch.arange(20).repeat(2)])
    corpora = torch.randn(2000, 60, generator=generator, dtype=torch.float64)[:, kinds]
    found = [mean_and_se(values, kinds) for values in corpora]
    truth = math.sqrt(20 * 9 + 40) / 100
    assert np.std([mean for mean, _ in found]) == pytest.approx(truth, rel=0.08)
    assert math.sqrt(np.mean([se**2 for _, se in found])) == pytest.approx(truth, rel=0.03)


@pytest.mark.parametrize(
    ("copies", "spread"), [([15], 0.3), ([15], 1.0), ([130, 110, 70], 0.05), ([130, 110, 70], 1.0)]
)
def test_noise_seeds_agree_within_their_errors(copies: list[int], spread: float) -> None:
    """One model, 40 noise seeds, on a text with 10% copies of one sentence and on a chat, 70% of it three replies: the
    squared distance of MI and KL to their mean, in standard errors, averages to 1, or below, since the errors count the
    differences between sentences as well. With one draw for all copies 21 of 40 seeds of the chat ended in "this is a
    bug"."""
    sentences = corpus(135, copies)
    found = [measured(sentences, spread, seed) for seed in NOISE_SEEDS]
    for name in ("mi", "mi_upper", "kl_agg", "kl_sampled"):
        values = np.array([getattr(one, name) for one in found])
        errors = np.array([getattr(one, f"{name}_se") for one in found])
        # Chi-squared with 39 degrees of freedom, over 39: 1.9 is four standard deviations above 1.
        assert np.sum(((values - values.mean()) / errors) ** 2) / 39 < 1.9, name
    differences = np.array([(one.kl_sampled - one.kl) / one.kl_difference_se for one in found])
    assert np.mean(differences**2) < 1.9
    assert [sanity_problems(one) for one in found] == [[]] * len(found)
