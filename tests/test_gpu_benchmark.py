"""`python -m benchmarks.gpu` at tiny sizes: on a CPU everything is eager, and what it says of itself must hold."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu import __main__ as benchmark
from benchmarks.gpu import table
from benchmarks.gpu.__main__ import ROOT, Section

PARTS = ("nll_on_cpu_and_gpu", "same_seed", "stop_and_resume", "divergence", "steps", "aggressive", "side_by_side")


def test_one_command_checks_measures_and_ends_with_a_table(tmp_path: Path) -> None:
    out = tmp_path / "results" / "gpu.json"
    only = ",".join([*PARTS, "captured_against_eager", "samples", "evaluation", "many"])
    options = ["--tiny", "--out", str(out), "--only", only]
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    errors = {name: one["error"] for name, one in found["sections"].items() if "error" in one}
    assert not errors
    rows = {row["row"]: row for row in found["table"]}
    assert [rows[label]["reached"] for label in table.CHECKS.values()] == [True] * 5
    assert rows["captured against eager"]["now"] == "11 of 11"
    assert rows["vae_05, batch 32, tokens/s"]["now"] > 0
    assert rows["seven systems side by side, tokens/s"]["now"] > 0
    assert rows["evaluation, s"]["now"] > 0
    lines = done.stdout.splitlines()
    assert lines[-len(found["table"]) - 2].split() == list(table.HEAD)


@pytest.fixture
def plan() -> dict[str, object]:
    return {"sizes": "tiny", "corpus": None, "settings": benchmark.settings_by_system()}


def test_what_fails_or_hangs_costs_itself_alone(tmp_path: Path, plan: dict[str, object]) -> None:
    sections = [
        Section("now", "steps", 60, {"system": "nobody"}),
        Section("now", "steps", 0.01, {"system": "vae_05"}),
        Section("baseline", "samples", 60),
    ]
    checkouts = {"now": str(ROOT), "baseline": str(ROOT)}
    made = benchmark.results(sections, plan, checkouts, time.monotonic() + 300, tmp_path / "log")
    failed, hung, samples = (outcome for _, outcome in made)
    assert "KeyError: 'nobody'" in failed["error"]
    assert hung == {"error": "not done after 0 s"}
    assert samples["result"]["seconds"] > 0


def test_nothing_is_begun_when_the_time_is_over(tmp_path: Path, plan: dict[str, object]) -> None:
    made = list(benchmark.results([Section("now", "samples", 60)], plan, {"now": str(ROOT)}, 0.0, tmp_path / "log"))
    assert [outcome for _, outcome in made] == [{"error": "skipped: no time left"}]


def test_the_table_sets_targets_against_the_baseline() -> None:
    def rate(captured: float, eager: float) -> dict[str, object]:
        return {"result": {"captured": {"tokens_s": captured, "reserved_gb": 0.5}, "eager": {"tokens_s": eager}}}

    sections = {
        "now steps vae_05": rate(290.0, 90.0),
        "baseline steps vae_05": {"result": {"eager": {"tokens_s": 100.0}}},
        "now steps vae_mine": rate(310.0, 90.0),
        "now samples": {"result": {"seconds": 4.5}},
        "baseline samples": {"result": {"seconds": 9.0}},
        "now same_seed vae_05": {"result": {"passed": True}},
        "now same_seed lagging": {"result": {"passed": False}},
        "now stop_and_resume vae_05": {"error": "not done after 30 s"},
    }
    rows = {row["row"]: row for row in table.rows(sections)}
    assert rows["vae_05, batch 32, tokens/s"] == {
        "row": "vae_05, batch 32, tokens/s",
        "baseline": 100.0,
        "eager": 90.0,
        "now": 290.0,
        "ratio": 2.9,
        "target": "3x",
        "reached": False,
    }
    without = rows["vae_mine, batch 32, tokens/s"]
    assert without["ratio"] == pytest.approx(310 / 90), "without a baseline, beside the eager path"
    assert without["reached"] is None
    assert (rows["100,000 samples, s"]["ratio"], rows["100,000 samples, s"]["reached"]) == (2.0, False)
    assert rows["GPU memory a run, GB"]["reached"] is True
    assert (rows["the same seed"]["now"], rows["the same seed"]["reached"]) == ("lagging", False)
    assert (rows["SIGTERM and resume"]["now"], rows["SIGTERM and resume"]["reached"]) == ("vae_05", False)
    assert rows["divergence"]["reached"] is None
    assert "NO" in table.text(list(rows.values()))


def test_another_checkout_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(against=tmp_path, out=tmp_path / "gpu.json", only="")
    assert stopped.value.code == 65
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(against=None, out=tmp_path / "gpu.json", only="steps,nothing")
    assert stopped.value.code == 2
