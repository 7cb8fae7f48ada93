"""The verdict: every rule of docs/report.md on made-up numbers, each branch."""

from __future__ import annotations

from itertools import permutations
from statistics import fmean, stdev
from typing import Any

import pytest

from reporting.differences import Difference, Differences
from reporting.results import COLUMNS, Row
from reporting.verdict import Verdict, state, verdict

IN_USE = {"mi": 2.0, "gain": 1.0}
COLLAPSED = {"mi": 0.02, "gain": -0.01}


def row(system: str, seed: int = 1, **numbers: Any) -> Row:
    """A line of results.csv; standard errors of 0.02 nats."""
    about = {"dataset": "sotu", "system": system, "seed": str(seed), "status": "finished", "missing": "", "failure": ""}
    return {**dict.fromkeys(COLUMNS), **about, "mi_se": 0.02, "gain_se": 0.02, **numbers}


def seeds(system: str, nll_iw: list[float], gain: list[float] | float = 1.0, **numbers: Any) -> list[Row]:
    """One line per seed."""
    gains = gain if isinstance(gain, list) else [gain] * len(nll_iw)
    return [
        row(system, number, nll_iw=value, **{**IN_USE, "gain": one, **numbers})
        for number, (value, one) in enumerate(zip(nll_iw, gains, strict=True), start=1)
    ]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ({"mi": 0.05, "gain": 0.0}, "collapsed"),  # 0.05 + 2 x 0.02 < 0.1
        ({"mi": 0.07, "gain": 0.0}, "on the border"),  # 0.07 + 2 x 0.02 > 0.1
        ({"mi": 0.13, "gain": 0.5}, "on the border"),  # 0.13 - 2 x 0.02 < 0.1
        ({"mi": 0.15, "gain": 0.15}, "in use"),
        ({"mi": 2.0, "gain": 0.05}, "unread"),  # the encoder tells sentences apart, the decoder does not look
        ({"mi": 2.0, "gain": -0.3}, "unread"),
        ({"mi": 2.0, "gain": 0.12}, "on the border"),  # an MI for certain, but a gain of perhaps 0.1
        ({"mi": 0.05, "gain": 0.0, "mi_se": 0.03}, "on the border"),  # the same MI, less certain
        ({"mi": 2.0, "gain": 1.0, "status": "pending"}, "not judged"),
        ({"mi": None, "gain": None, "status": "failed"}, "not judged"),
    ],
)
def test_the_state_of_a_code_follows_from_mi_and_gain_with_their_standard_errors(
    numbers: dict[str, Any], expected: str
) -> None:
    assert state(row("vae", **numbers)) == expected


def paired(rows: list[Row], sentence_se: float) -> Differences:
    """The differences of these lines: the seeds' own, with an error over the sentences."""
    found = []
    for one, other in permutations(dict.fromkeys(row["system"] for row in rows), 2):
        for measure in ("nll_iw", "gain"):
            values = {(row["system"], row["seed"]): row[measure] for row in rows if row[measure] is not None}
            seeds_of_both = [seed for system, seed in values if system == one and (other, seed) in values]
            of_seeds = [values[one, seed] - values[other, seed] for seed in seeds_of_both]
            if of_seeds:
                sd = stdev(of_seeds) if len(of_seeds) > 1 else None
                sizes = len(of_seeds), 100, 100
                found.append(Difference("sotu", one, other, measure, *sizes, fmean(of_seeds), sentence_se, sd))
    return Differences(found)


def take(*systems: list[Row], sentence_se: float = 0.05) -> Verdict:
    """The verdict on these lines together."""
    rows = [line for lines in systems for line in lines]
    return verdict(rows, paired(rows, sentence_se))


def test_the_lowest_nll_iw_is_taken_where_each_difference_is_clear() -> None:
    # 2 nats: over the seeds without any spread, over the sentences 1.984 (t with 99 degrees) x 0.05 = 0.10
    found = take(seeds("vae_05", [60.0, 60.1, 60.2]), seeds("vae_bow", [62.0, 62.1, 62.2]))
    assert found.taken == "vae_05"
    assert found.headline == "take VAE-0.5"
    assert found.sentences[0] == (
        "Of the systems whose code is in use with every seed it has the lowest NLL-IW, and the difference to each "
        "other one is clear (VAE-BOW +2.00 [+1.90, +2.10])."
    )


def test_what_all_trainings_share_does_not_hide_a_difference() -> None:
    """The seeds move both by 5 nats, and differ by 0.9 to 1.1: paired it is clear, unpaired intervals would overlap."""
    found = take(seeds("vae_05", [55.0, 60.0, 65.0]), seeds("vae_bow", [56.0, 60.9, 66.1]))
    assert found.taken == "vae_05"


@pytest.mark.parametrize(("sentence_se", "taken"), [(0.05, "vae_05"), (1.2, "vae_bow")])
def test_a_difference_that_other_sentences_may_turn_is_not_clear(sentence_se: float, taken: str) -> None:
    """2 nats with every seed, but only 1.7 standard errors over the sentences; the gain, of the same error, tells."""
    one, other = seeds("vae_05", [60.0, 60.1, 60.2], gain=1.0), seeds("vae_bow", [62.0, 62.1, 62.2], gain=9.0)
    assert take(one, other, sentence_se=sentence_se).taken == taken


def test_a_pair_that_was_not_compared_is_not_told_apart() -> None:
    lines = [*seeds("vae_05", [60.0, 60.1, 60.2]), *seeds("vae_bow", [62.0, 62.1, 62.2])]
    found = verdict(lines, Differences([]))
    assert found.taken is None
    assert "VAE-BOW not comparable" in found.sentences[0]


def test_a_collapsed_system_is_not_taken_however_well_it_fits() -> None:
    collapsed = seeds("infovae", [50.0, 50.1, 50.2], gain=-0.01, mi=0.02)
    found = take(collapsed, seeds("vae_bow", [62.0, 62.1, 62.2]))
    assert found.taken == "vae_bow"
    assert found.headline == "take VAE-BOW"
    assert found.sentences[0] == "No other system's code is in use with every seed."
    assert "Collapsed: InfoVAE (MI 0.02, gain -0.01)." in found.sentences
    assert "With a code in use: VAE-BOW (MI 2.00, gain 1.00)." in found.sentences


def test_an_nll_iw_too_close_to_call_leaves_it_to_the_gain() -> None:
    found = take(
        seeds("vae_05", [60.0, 60.5, 61.0], [1.0, 1.01, 1.02]), seeds("vae_bow", [60.2, 60.4, 61.2], [2.0, 2.01, 2.02])
    )
    assert found.taken == "vae_bow"
    assert found.headline == "take VAE-BOW"
    assert "VAE-0.5 has the lowest NLL-IW, but not clearly (VAE-BOW +0.10" in found.sentences[0]
    assert "VAE-BOW's decoder gains clearly the most from the code (VAE-0.5 -1.00" in found.sentences[0]


def test_nll_iw_and_gain_may_both_be_too_close_to_call() -> None:
    found = take(
        seeds("vae_05", [60.0, 60.5, 61.0], [1.0, 1.5, 2.0]),
        seeds("vae_bow", [60.2, 60.4, 61.2], [1.2, 1.4, 2.1]),
        seeds("lagging", [90.0, 90.1, 90.2], [9.0, 9.1, 9.2]),  # the largest gain does not make up for this NLL-IW
    )
    assert found.taken is None
    assert found.headline == "too close to call between VAE-0.5 and VAE-BOW"
    assert "LaggingVAE" not in found.sentences[0]


@pytest.mark.parametrize(
    ("full", "taken"),
    [
        ("vae_05", None),  # the smaller gain is at its ceiling: it may be the larger one
        ("vae_bow", "vae_bow"),  # the larger one is at least so much larger
        ("vae_05 vae_bow", None),
    ],
)
def test_a_gain_at_its_ceiling_is_not_ranked_below_another(full: str, taken: str | None) -> None:
    lines = [
        seeds(system, nll_iw, gain=gain, at_ceiling="mi gain" if system in full.split() else "")
        for system, nll_iw, gain in (("vae_05", [60.0, 60.5, 61.0], 3.4), ("vae_bow", [60.2, 60.4, 61.2], 4.6))
    ]
    found = take(*lines)
    assert found.taken == taken
    named = {"vae_05": "VAE-0.5", "vae_bow": "VAE-BOW", "vae_05 vae_bow": "VAE-0.5 and VAE-BOW"}[full]
    assert (f"at its ceiling: {named})" in found.sentences[0]) is (taken is None)


def test_two_seeds_hardly_ever_tell() -> None:
    """With one degree of freedom an interval is 9 standard deviations wide on each side."""
    assert take(seeds("vae_05", [60.0, 60.4]), seeds("vae_bow", [62.0, 62.0])).taken is None  # 1.8, 0.28 x 9 = 2.5
    assert take(seeds("vae_05", [60.0, 60.4]), seeds("vae_bow", [64.0, 64.0])).taken == "vae_05"


def test_one_seed_names_no_winner_but_who_collapsed() -> None:
    found = take([row("vae_05", nll_iw=60.0, **COLLAPSED)], [row("vae_bow", nll_iw=50.0, **IN_USE)])
    assert found.taken is None
    assert found.headline == "one seed, no winner"
    assert found.sentences[1:] == (
        "Collapsed: VAE-0.5 (MI 0.02, gain -0.01).",
        "With a code in use: VAE-BOW (MI 2.00, gain 1.00).",
    )
    found = take([row("vae_05", nll_iw=60.0, **IN_USE)], [row("vae_bow", nll_iw=50.0, **IN_USE)])
    assert found.sentences[0].endswith(
        "Here VAE-BOW has the lowest NLL-IW (VAE-0.5 +10.00 (standard error over the sentences 0.05))."
    )


def test_none_is_taken_where_no_code_is_in_use() -> None:
    unread = seeds("vae_05", [60.0, 60.1], gain=0.01)
    found = take(unread)
    assert found.headline == "take none"
    assert found.sentences[1:] == ("With a code that the decoder does not read: VAE-0.5 (MI 2.00, gain 0.01).",)
    waiting = row("vae_bow", 1, status="pending", missing="train evaluate ngram")
    found = take([unread[0]], [waiting])
    assert found.headline == "take none so far"
    assert found.sentences[-1] == "VAE-BOW, seed 1, is not judged: it is waiting for train, evaluate, ngram."


def test_a_system_that_collapsed_or_diverged_with_one_seed_is_not_taken() -> None:
    mixed = [*seeds("cyclical", [50.0, 50.1]), row("cyclical", 3, nll_iw=50.2, **COLLAPSED)]
    failed = [*seeds("vae_mine", [40.0, 40.1]), row("vae_mine", 3, status="failed", failure="nan")]
    found = take(mixed, failed, seeds("vae_bow", [60.0, 60.1, 60.2]))
    assert found.taken == "vae_bow"
    text = " ".join(found.sentences)
    assert "CyclicalVAE is not the same with every seed: in use with seeds 1 and 2 and collapsed with seed 3." in text
    assert "VAE-MINE diverged with seed 3, and is not to be taken." in text


def test_nothing_is_said_before_there_is_something_to_say() -> None:
    waiting = [row("vae_05", n, status="pending", missing="train", mi=None, gain=None) for n in range(5)]
    found = take([row("lstm_lm", nll_iw=60.0, gain=None)], waiting)
    assert found.headline == "nothing to say yet, no system with a code has been measured"
    assert found.sentences == ("5 runs are not finished, and not judged.",)


@pytest.mark.parametrize(
    ("language_model", "said"),
    [
        (
            [70.0, 70.1, 70.2],
            "VAE-0.5 is also a better model of the text than LSTM-LM (NLL-IW -10.00 [-10.10, -9.90]).",
        ),
        ([50.0, 50.1, 50.2], "VAE-0.5 is a worse model of the text than LSTM-LM"),
        ([60.0, 60.2, 60.1], "too close to call"),
    ],
)
def test_the_system_taken_is_set_beside_the_language_model(language_model: list[float], said: str) -> None:
    lines = [row("lstm_lm", n, nll_iw=value) for n, value in enumerate(language_model, start=1)]
    found = take(seeds("vae_05", [60.0, 60.1, 60.2]), lines)
    assert found.taken == "vae_05"
    assert said in found.sentences[1]
