"""Numbers at the largest value that their estimate can have: shown as bounds wherever they stand, and not ranked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from report_reading import make, results, row_of
from report_runs import grid, learning_curve, measures, write_corpus, write_run

from reporting.ceilings import BATCH, ceiling, measures_at_ceiling
from reporting.terminal import results_table
from textvae.inference import HE_BATCH

MI, GAIN, IN_BATCHES = math.log(1850), math.log(32), math.log(32)
"""The ceilings of the made runs: 1,850 test sentences, 32 codes."""
BELOW = {"kl": 9.0, "mi_se": 0.01, "mi_upper": 9.0, "kl_agg": 1.0, "au": 3, "gain_se": 0.01}


def write(folder: Path, numbers: dict[str, dict[str, float]], seeds: tuple[int, ...] = (1, 2)) -> Path:
    """Runs with these numbers; the reports on them."""
    write_corpus(folder / "corpora", "sotu")
    for system, own in numbers.items():
        for seed in seeds:
            metrics: dict[str, Any] = measures(60.0, **{**BELOW, "mi": 2.0, "mi_batch": 2.0, "gain": 1.0, **own})
            curves = learning_curve(3, 60.0, own.get("mi", 2.0) / 0.9)
            write_run(folder / "runs" / f"{system}{seed}", "sotu", system, seed, metrics=metrics, curves=curves)
    return make(folder, grid(["sotu"], list(numbers), [str(seed) for seed in seeds]))


def test_the_ceilings_are_those_of_the_estimates() -> None:
    assert BATCH == HE_BATCH
    row = {"sentences": 1850, "gain_codes": 128, "mi": 0.951 * MI, "mi_batch": 0.949 * IN_BATCHES, "gain": 3.45}
    assert [ceiling(row, key) for key in ("mi", "mi_batch", "gain")] == [MI, IN_BATCHES, math.log(128)]
    assert ceiling({"sentences": 20}, "mi_batch") == math.log(20), "fewer sentences than a batch has"
    assert ceiling(row, "mi_upper") is ceiling(row, "nll") is ceiling({"gain_codes": None}, "gain") is None
    assert measures_at_ceiling(row) == ["mi"]
    assert measures_at_ceiling({**row, "gain_codes": 32}) == ["mi", "gain"]
    assert measures_at_ceiling({"mi": None, "gain": None}) == []


def test_a_number_at_its_ceiling_is_shown_as_a_bound_in_every_table(tmp_path: Path) -> None:
    reports = write(tmp_path, {"vae_05": {}, "vae_bow": {"mi": 7.4, "mi_batch": 3.45, "gain": 3.4}})
    assert row_of(reports, "Table 2", "sotu", "VAE-BOW")[2] == "**> 7.40** ± 0.00"
    beyond = row_of(reports, "Beyond", "sotu", "VAE-BOW")
    assert (beyond[2], beyond[3], beyond[4]) == ("**> 3.40** ± 0.00 (0.01)", "9.00 ± 0.00", "> 3.45 ± 0.00")
    below = [cell.replace("</u>", "") for cell in row_of(reports, "Beyond", "sotu", "VAE-0.5")]
    assert not any("> " in cell for cell in below)
    text = (reports / "report.md").read_text(encoding="utf-8")
    assert "(MI on sotu at 7.52)" in text
    assert "(Gain on sotu at 3.47; MI batch on sotu at 3.47)" in text
    assert "With a code in use: VAE-0.5 (MI 2.00, gain 1.00), VAE-BOW (MI > 7.40, gain > 3.40)." in text
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert "<b>&gt; 7.40</b>" in page
    assert "seed 1: &gt; 7.4, seed 2: &gt; 7.4" in page
    found = results(reports)
    assert found["sotu", "vae_bow", "1"]["at_ceiling"] == "mi mi_batch gain"
    assert (found["sotu", "vae_05", "1"]["at_ceiling"], found["sotu", "vae_05", "1"]["gain_codes"]) == ("", "32")
    terminal = results_table(reports / "results.csv")
    line = next(line for line in terminal.splitlines() if "VAE-BOW" in line)
    assert "> 7.40" in line
    assert "> 3.40" in line
    assert "A number behind > is within 5%" in terminal
    assert max(map(len, terminal.splitlines())) <= 120


def test_one_seed_at_the_ceiling_makes_the_mean_a_bound(tmp_path: Path) -> None:
    write(tmp_path, {"vae_05": {"gain": 3.2}})
    run = tmp_path / "runs/vae_051"
    write_run(run, "sotu", "vae_05", 1, metrics=measures(60.0, **{**BELOW, "mi": 2.0, "mi_batch": 2.0, "gain": 3.46}))
    reports = make(tmp_path, grid(["sotu"], ["vae_05"], ["1", "2"]))
    assert row_of(reports, "Beyond", "sotu", "VAE-0.5")[2].startswith("> 3.33 ± 0.18")


def marks(reports: Path, systems: list[str]) -> list[str]:
    """The marks of the gain."""
    cells = [row_of(reports, "Beyond", "sotu", system)[2] for system in systems]
    return ["best" if "**" in cell else "second" if "<u>" in cell else "" for cell in cells]


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([3.3, 3.46, 1.0], ["best", "best", ""]),  # both at log 32, which of them is larger nobody knows
        ([3.46, 2.0, 1.0], ["best", "second", ""]),  # one alone is above the others
        ([3.3, 3.4, 3.46], ["", "", ""]),
    ],
)
def test_no_two_numbers_at_a_ceiling_are_ranked(tmp_path: Path, gains: list[float], expected: list[str]) -> None:
    systems = ["a", "b", "c"]
    reports = write(tmp_path, {system: {"gain": gain} for system, gain in zip(systems, gains, strict=True)})
    assert marks(reports, systems) == expected


def test_a_bound_is_not_ranked_below_a_number_with_a_higher_ceiling(tmp_path: Path) -> None:
    reports = write(tmp_path, {"a": {"gain": 3.4}, "b": {"gain": 3.9, "gain_codes": 128}, "c": {"gain": 1.0}})
    assert marks(reports, ["a", "b", "c"]) == ["best", "best", ""]
    text = (reports / "report.md").read_text(encoding="utf-8")
    assert "Gain: 500 sentences with 32 codes each (a, c); 500 sentences with 128 codes each (b)." in text


@pytest.mark.parametrize(("highest", "drawn"), [(7.4, True), (6.0, False)])
def test_the_picture_of_the_mi_has_its_ceiling_where_a_curve_is_near(
    tmp_path: Path, highest: float, drawn: bool
) -> None:
    """The made corpus has 1,900 validation sentences: 7.55."""
    page = (write(tmp_path, {"a": {"mi": highest}}) / "report.html").read_text(encoding="utf-8")
    svg = next(part for part in page.split("<svg")[1:] if 'id="sotu-valid_mi-figure_1"' in part)
    assert ("at most log 1,900" in svg) is drawn
