"""Paired differences against plain loops in float64: over the same sentences and seeds, and never over others."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from report_reading import make, markdown_rows, results
from report_runs import grid, measures, write_corpus, write_run, write_sentences
from scipy import stats

from reporting.differences import Difference, mean_and_se, read_differences, t_975
from reporting.summary import signed
from reporting.terminal import results_table
from textvae import estimators
from textvae.errors import DataError

SYSTEMS, SEEDS = ["lstm_lm", "vae_05", "vae_bow"], [1, 2, 3]
COUNT = 14
"""Sentences; the last is a copy of the first."""
SUBSETS = {"nll": range(COUNT), "nll_iw": (0, 2, 3, 5, 8, 13), "gain": (0, 1, 4, 13)}


def made(system: str, seed: int) -> dict[str, list[float | None]]:
    """Numbers of sentences: what a sentence costs everybody, what a system and a training make of it."""
    of_all, own = np.random.default_rng(0), np.random.default_rng([SYSTEMS.index(system), seed])
    values: dict[str, list[float | None]] = {}
    for name, subset in SUBSETS.items():
        if (system, name) != ("lstm_lm", "gain"):
            numbers = 60 + 20 * of_all.normal(size=COUNT) + SYSTEMS.index(system) + own.normal(size=COUNT)
            values[name] = [float(value) if n in subset else None for n, value in enumerate(numbers)]
    return values


def mean(values: dict[str, list[float | None]], name: str) -> float:
    known = [value for value in values[name] if value is not None]
    return math.fsum(known) / len(known)


def write(folder: Path, *, without: tuple[str, int] | None = None, **change: Any) -> Path:
    """Three systems with three seeds, one of them perhaps missing; `change`: of the last run's sentences."""
    write_corpus(folder / "corpora", "sotu")
    for system in SYSTEMS:
        for seed in SEEDS:
            if (system, seed) == without:
                continue
            run, values = folder / "runs" / system / str(seed), made(system, seed)
            numbers = measures(mean(values, "nll")) | {"nll_iw": mean(values, "nll_iw")}
            if system != "lstm_lm":
                numbers |= {"kl": 3.0, "mi": 2.0, "mi_se": 0.02, "gain": mean(values, "gain"), "gain_se": 0.02}
            write_run(run, "sotu", system, seed, metrics=numbers)
            identity = {"dataset": "sotu", "system": system, "seed": seed}
            last = change if (system, seed) == (SYSTEMS[-1], SEEDS[-1]) else {}
            write_sentences(run / "evaluation/sentences.parquet", identity, values, **last)
    return folder


SETTINGS = grid(["sotu"], SYSTEMS, [str(seed) for seed in SEEDS])


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(write(tmp_path_factory.mktemp("paired")), SETTINGS)


def looped(system: str, other: str, name: str, seeds: list[int]) -> dict[str, float]:
    """By loops over sentences and seeds; the two copies of the first sentence are one cluster."""
    table = [(made(system, seed)[name], made(other, seed)[name]) for seed in seeds]
    averaged, texts = [], []
    for n in SUBSETS[name]:
        averaged.append(sum(own[n] - others[n] for own, others in table) / len(seeds))  # type: ignore[operator]
        texts.append(n % (COUNT - 1))
    count, middle = len(averaged), math.fsum(averaged) / len(averaged)
    plain = math.sqrt(sum((value - middle) ** 2 for value in averaged) / (count - 1) / count)
    sums = [sum(v - middle for v, own in zip(averaged, texts, strict=True) if own == text) for text in set(texts)]
    clustered = math.sqrt(len(sums) / (len(sums) - 1) * sum(one**2 for one in sums)) / count
    error = max(plain, clustered)
    found = {"difference": middle, "sentence_se": error, "sentences": count, "different_sentences": len(sums)}
    of_seeds = [sum(own[n] - others[n] for n in SUBSETS[name]) / count for own, others in table]  # type: ignore[operator]
    if len(seeds) > 1:
        of_all = sum(of_seeds) / len(seeds)
        found["seed_sd"] = math.sqrt(sum((value - of_all) ** 2 for value in of_seeds) / (len(seeds) - 1))
        by_sentences = stats.t.ppf(0.975, len(sums) - 1) * error
        by_seeds = stats.t.ppf(0.975, len(seeds) - 1) * found["seed_sd"] / math.sqrt(len(seeds))
        found["half_width"] = math.sqrt(by_sentences**2 + by_seeds**2)
    return found


@pytest.mark.parametrize("name", SUBSETS)
@pytest.mark.parametrize(("system", "other"), [("vae_05", "lstm_lm"), ("vae_bow", "lstm_lm"), ("vae_05", "vae_bow")])
def test_a_difference_over_seeds_is_that_of_a_loop(reports: Path, name: str, system: str, other: str) -> None:
    found = read_differences(reports / "differences.csv").between("sotu", name, system, other)
    if name == "gain" and other == "lstm_lm":
        assert found is None, "LSTM-LM has no code"
        return
    assert found is not None
    for key, value in looped(system, other, name, SEEDS).items():
        assert getattr(found, key) == pytest.approx(value, rel=1e-4 if key == "half_width" else 1e-9), key


def test_results_have_each_runs_difference_to_the_references_with_the_error_over_its_sentences(reports: Path) -> None:
    for (_, system, seed), row in results(reports).items():
        assert row["baseline"] == "vae_bow"
        for label, other in (("lstm_lm", "lstm_lm"), ("baseline", "vae_bow")):
            for name in ("nll", "nll_iw"):
                key = f"{name}_minus_{label}"
                if system == other:
                    assert row[key] == row[f"{key}_se"] == ""
                    continue
                expected = looped(system, other, name, [int(seed)])
                assert float(row[key]) == pytest.approx(expected["difference"], rel=1e-9)
                assert float(row[f"{key}_se"]) == pytest.approx(expected["sentence_se"], rel=1e-9)


def test_paired_errors_are_far_below_unpaired_ones(reports: Path) -> None:
    """What a sentence costs everybody cancels: 20 nats of spread between sentences, 1 between systems."""
    found = read_differences(reports / "differences.csv").between("sotu", "nll", "vae_bow", "lstm_lm")
    values = [value for value in made("vae_bow", 1)["nll"] if value is not None]
    assert found is not None
    assert found.sentence_se < 0.1 * np.std(values, ddof=1) / math.sqrt(len(values))


def test_the_table_shows_the_interval_and_both_chances(reports: Path) -> None:
    expected = looped("vae_05", "lstm_lm", "nll_iw", SEEDS)
    low, high = (signed(expected["difference"] + sign * expected["half_width"]) for sign in (-1, 1))
    chances = f"({expected['sentence_se']:.2f}; {expected['seed_sd'] / math.sqrt(3):.2f})"
    rows = {cells[1]: cells[2:] for cells in markdown_rows(reports, "Paired differences")}
    assert rows["VAE-0.5"][1] == f"{expected['difference']:+.2f} [{low}, {high}] {chances}"
    assert rows["LSTM-LM"][:2] == rows["VAE-BOW"][2:] == ["–", "–"]
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert "NLL-IW − LSTM-LM" in page
    assert "NLL-IW − VAE-BOW" in page
    assert chances in page


def test_with_one_seed_the_second_chance_is_not_known(tmp_path: Path) -> None:
    reports = make(write(tmp_path), grid(["sotu"], SYSTEMS, ["2"]))
    found = read_differences(reports / "differences.csv").between("sotu", "nll", "vae_05", "lstm_lm")
    assert found is not None
    assert (found.seed_sd, found.half_width, found.sign) == (None, math.inf, 0)
    expected = looped("vae_05", "lstm_lm", "nll", [2])
    rows = {cells[1]: cells[2:] for cells in markdown_rows(reports, "Paired differences")}
    assert rows["VAE-0.5"][0] == f"{expected['difference']:+.2f} ({expected['sentence_se']:.2f}; –)"
    assert "With one seed nothing is known of the second chance" in (reports / "report.md").read_text(encoding="utf-8")


def test_a_seed_that_one_of_the_two_lacks_is_left_out(tmp_path: Path) -> None:
    reports = make(write(tmp_path, without=("vae_05", 2)), SETTINGS)
    found = read_differences(reports / "differences.csv").between("sotu", "nll", "vae_05", "lstm_lm")
    assert found is not None
    assert found.seeds == 2
    assert found.difference == pytest.approx(looped("vae_05", "lstm_lm", "nll", [1, 3])["difference"], rel=1e-9)


def test_numbers_of_different_sentences_are_never_paired(tmp_path: Path) -> None:
    write(tmp_path, same_as="another hash")
    with pytest.raises(DataError, match=r"sotu, lstm_lm, seed 1 and sotu, vae_bow, seed 3 were not measured on"):
        make(tmp_path, SETTINGS)
    assert not (tmp_path / "reports").exists()
    make(tmp_path, grid(["sotu"], SYSTEMS[:2], ["1", "2", "3"]), "without")  # who is not in the grid disturbs nobody


def test_numbers_of_sentences_that_are_missing_or_damaged_are_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path) / "runs/vae_05/2/evaluation/sentences.parquet"
    whole = path.read_bytes()
    path.unlink()
    with pytest.raises(DataError, match=r"sotu, vae_05, seed 2 has metrics\.json and no sentences\.parquet: run"):
        make(tmp_path, SETTINGS)
    path.write_bytes(whole[:200])
    with pytest.raises(DataError, match=r"sentences\.parquet cannot be read"):
        make(tmp_path, SETTINGS)
    write_sentences(path, {"dataset": "sotu", "system": "vae_05", "seed": 2}, made("vae_05", 1))
    with pytest.raises(DataError, match=r"sentences\.parquet and metrics\.json are of different evaluations"):
        make(tmp_path, SETTINGS)


def test_a_baseline_outside_the_grid_has_no_columns(tmp_path: Path) -> None:
    reports = make(write(tmp_path), SETTINGS.model_copy(update={"baseline": "cyclical"}))
    assert {row["baseline"] for row in results(reports).values()} == {""}
    assert [len(cells) for cells in markdown_rows(reports, "Paired differences")] == [4, 4]


def test_the_terminal_needs_the_differences(tmp_path: Path) -> None:
    reports = make(write(tmp_path), SETTINGS)
    assert "Verdict on sotu:" in results_table(reports / "results.csv")
    text = (reports / "differences.csv").read_text(encoding="utf-8")
    for damage in ("a,b\n", text.replace("sotu,vae_05,lstm_lm,nll,3", "sotu,vae_05,lstm_lm,nll,three")):
        (reports / "differences.csv").write_text(damage, encoding="utf-8")
        with pytest.raises(DataError, match=r"differences\.csv is .*; run the report step again"):
            results_table(reports / "results.csv")
    (reports / "differences.csv").unlink()
    with pytest.raises(DataError, match=r"differences\.csv is missing"):
        results_table(reports / "results.csv")


def test_what_is_written_is_read_back(reports: Path) -> None:
    with (reports / "differences.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    known = read_differences(reports / "differences.csv").known
    assert len(rows) == len(known) == 3 + 3 + 1
    assert [row["difference"] for row in rows] == [repr(one.difference) for one in known]


# --- the interval --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degrees", [*range(1, 15), 30, 99, 999])
def test_the_quantiles_are_students(degrees: int) -> None:
    assert t_975(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), abs=2e-4)


@pytest.mark.parametrize("copies", [1, 3])
def test_the_error_without_torch_is_that_of_the_evaluation(copies: int) -> None:
    values = np.random.default_rng(copies).normal(size=30)
    kinds = np.arange(30) // copies
    expected = estimators.mean_and_se(torch.from_numpy(values), torch.from_numpy(kinds))
    assert mean_and_se(values, kinds) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(
    ("of_sentence", "of_seed", "of_both"), [(1.0, 0.0, 1.0), (1.0, 0.3, 1.0), (0.0, 0.3, 1.0), (0.5, 1.0, 0.5)]
)
def test_the_interval_holds_the_truth_as_often_as_it_says(
    seeds: int, of_sentence: float, of_seed: float, of_both: float
) -> None:
    """1,000 experiments with a true difference of 0: sentences and seeds drawn at random, each with its own effect.

    95% of 1,000 has a standard error of 0.7%. Welch's approximation, the textbook's, covers 89% with two seeds.
    """
    rng, count, inside = np.random.default_rng(7), 100, 0
    for _ in range(1000):
        difference_SN = of_sentence * rng.normal(size=count) + of_seed * rng.normal(size=(seeds, 1))
        difference_SN = difference_SN + of_both * rng.normal(size=(seeds, count))
        mean, error = mean_and_se(difference_SN.mean(0), np.arange(count))
        spread = float(np.std(difference_SN.mean(1), ddof=1))
        inside += Difference("d", "a", "b", "nll", seeds, count, count, mean, error, spread).sign == 0
    assert inside >= 930


def test_a_difference_turned_round_is_the_other_systems() -> None:
    one = Difference("d", "a", "b", "nll", 3, 50, 50, 1.5, 0.2, 0.1)
    assert (one.sign, one.turned().sign) == (1, -1)
    assert one.turned() == Difference("d", "b", "a", "nll", 3, 50, 50, -1.5, 0.2, 0.1)
