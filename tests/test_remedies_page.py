"""docs/remedies.md: its lists run, its sweep has one budget for all, and its tables are what its CSV says."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_files import corpus_description, write_with_hashes
from ruamel.yaml import YAML

from components.settings import resolve
from pipelines.machine.sweep import Sweep, described, planned
from reporting.results import COLUMNS, Row, read_results, write_csv
from textvae.config import Params
from textvae.errors import DataError

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("remedies", ROOT / "tools/remedies.py")
assert SPEC is not None
assert SPEC.loader is not None
remedies = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(remedies)
PAGE = (ROOT / "docs/remedies.md").read_text(encoding="utf-8")
TRIALS = remedies.read_trials(remedies.SWEEP)
PARAMS = Params.load(ROOT / "params.yaml")


def test_the_grid_of_the_page_runs_here_and_on_a_cluster() -> None:
    """The list to paste, and the one to give to `submit -S`, which takes what `dvc exp run -S` does."""
    pasted = YAML(typ="safe", pure=True).load(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])  # type: ignore[index]
    systems = [*remedies.CONTROLS, *remedies.CLAIMS]
    assert pasted["grid"]["systems"] == systems
    given = re.findall(r"-S '?([a-z.]+=[^' \n]+)'?", PAGE)
    assert [override.split("=")[0] for override in given] == ["grid.systems", "grid.seeds", "report.baseline"]
    for override in given:
        key, value = override.split("=")
        section, name = key.split(".")
        assert YAML(typ="safe", pure=True).load(value) == pasted[section][name]
    grid = PARAMS.grid.model_copy(update={"systems": systems})
    resolve(PARAMS.model_copy(update={"grid": grid, "report": PARAMS.report.model_copy(update={"baseline": "vae"})}))


def test_every_remedy_has_the_same_number_of_trials_and_the_entry_is_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = Sweep.load(ROOT / "sweep-remedies.yaml")
    assert set(remedies.CLAIMS) <= set(sweep.trials)
    trials = {system: listed for system, listed in sweep.trials.items() if system in remedies.CLAIMS}
    assert {len(listed) for listed in trials.values()} == {3}
    monkeypatch.chdir(tmp_path)
    write_with_hashes(tmp_path / "corpora/sotu/corpus/corpus.json", corpus_description("sotu"))
    first = planned(Sweep(dataset="sotu", seed=1, trials={system: [{}] for system in trials}), PARAMS)
    found = planned(sweep, PARAMS)
    assert len(found) == 1 + 3 * len(trials)
    for entry in first:
        (same,) = (trial for trial in found if trial.system == entry.system and trial.index == 0)
        assert same.train == entry.train


def test_the_entries_of_params_yaml_are_what_the_rule_takes_of_the_trials() -> None:
    (plain,) = (trial for trial in TRIALS if trial.system == "vae")
    for system in remedies.CLAIMS:
        own = [trial for trial in TRIALS if trial.system == system]
        listed = [described(changes) for changes in Sweep.load(ROOT / "sweep-remedies.yaml").trials[system]]
        assert [trial.changes for trial in own] == listed[: len(own)], system
        assert len(own) >= 2  # sa_vae's third, the dearest of all, has not been run (docs/remedies.md)
        assert remedies.taken(own, plain.nll_iw + remedies.ALLOWED).changes == listed[0], system


def test_the_rule_takes_the_largest_gain_that_costs_little_and_the_least_cost_where_all_cost_more() -> None:
    def trial(changes: str, nll_iw: float, gain: float) -> Any:
        return remedies.Trial("bn_vae", changes, 60.0, nll_iw, 1.0, 1.0, gain, 1.0)

    trials = [trial("little", 58.0, 0.1), trial("more", 58.1, 0.5), trial("too much", 58.4, 2.0)]
    assert remedies.taken(trials, 58.1).changes == "more"
    assert remedies.taken(trials, 57.0).changes == "little"


# --- the tables --------------------------------------------------------------------------------------------------


def test_the_page_s_tables_are_those_of_its_csv() -> None:
    """`python tools/remedies.py` writes them."""
    rows = read_results(remedies.CSV) if remedies.CSV.exists() else []
    assert remedies.filled(PAGE, rows, TRIALS) == PAGE


def of(name: str, system: str) -> list[Row]:
    return [row for row in read_results(ROOT / "results" / name) if row["system"] == system]


def cells(text: str, system: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(f"| {system} |")).strip("| ").split(" | ")


def test_means_and_spreads_are_those_that_the_readme_prints_of_the_same_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    text = remedies.tables(of("sotu-seeds.csv", "lstm_lm"))
    nll, iw, *_, fppl, rppl, train, evaluate = cells(text, "LSTM-LM")[1:]
    of_readme = cells(readme, "LSTM-LM")
    assert [nll, iw, fppl, rppl] == [of_readme[1], of_readme[4], of_readme[8], of_readme[9]]
    assert (train, evaluate) == ("–", "–")


def remedy(seed: str, **values: Any) -> Row:
    measured = {"nll": 67.0, "nll_iw": 65.5, "mi": 2.0, "mi_se": 0.1, "gain": 1.0, "gain_se": 0.1, "au": 3.0}
    return {"dataset": "sotu", "system": "bn_vae", "seed": seed, "status": "finished", **measured, **values}


def test_a_row_says_what_it_cost_and_what_became_of_the_code_beside_its_paper_s_claim() -> None:
    rows = [remedy("1", train_cpu_s=170.0), remedy("2", train_cpu_s=174.0, nll_iw=65.7), remedy("3", mi=0.0, mi_se=0.0)]
    rows += [{**remedy("1"), "system": "vae", "nll_iw": 66.0}, {**remedy("1"), "system": "lstm_lm", "nll_iw": 65.5}]
    text = remedies.tables(rows)
    _, nll, iw, *_, train, evaluate = cells(text, "`bn_vae`")
    assert (nll, iw, train, evaluate) == ("67.00 ± 0.00", "65.57 ± 0.12", "172 ± 3", "–")
    claim = text.split("claimed by its paper")[1]
    (line,) = (line for line in claim.splitlines() if line.startswith("| `bn_vae`"))
    assert remedies.CLAIMS["bn_vae"] in line
    here = "in use with 2 of 3 seeds, collapsed with 1 of 3 seeds; NLL-IW -0.43 beside `vae`, +0.07 beside LSTM-LM"
    assert line.endswith(f"*here:* {here} |")
    assert "*here:* not run yet" in claim
    failed = remedies.outcome([{**remedy("1"), "status": "failed", "mi": None}], "bn_vae")
    assert failed.startswith("failed with 1 of 1 seeds")


def test_a_project_s_runs_replace_those_of_the_same_seed(tmp_path: Path) -> None:
    rows = [remedy("1", nll=1.0), remedy("2"), {**remedy("1"), "system": "mine_bow"}]
    (tmp_path / "reports").mkdir()
    write_csv(tmp_path / "reports/results.csv", COLUMNS, rows)
    with pytest.raises(DataError, match=r"train\.json is missing"):
        remedies.collected([], tmp_path)
    for seed in ("1", "2"):
        for step, seconds in (("train", 160.5), ("evaluate", 30.25)):
            file = tmp_path / f"runs/sotu/bn_vae/{seed}/timings/{step}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"cpu_s": seconds}))
    before = [remedy("1", nll=2.0), remedy("3"), {**remedy("1"), "system": "skip_vae"}]
    found = remedies.collected(before, tmp_path)
    assert [(row["system"], row["seed"]) for row in found] == [("skip_vae", "1"), *(("bn_vae", s) for s in "123")]
    assert (found[1]["nll"], found[1]["train_cpu_s"], found[1]["evaluate_cpu_s"]) == (1.0, 160.5, 30.25)
    write_csv(tmp_path / "kept.csv", [*COLUMNS, *remedies.TIMES], found)
    again = read_results(tmp_path / "kept.csv")
    assert remedies.tables(again) == remedies.tables(found)


def test_a_page_without_a_place_for_the_tables_is_refused() -> None:
    with pytest.raises(DataError, match="put them round its tables"):
        remedies.filled(PAGE.replace("<!-- end -->", ""), [], TRIALS)
