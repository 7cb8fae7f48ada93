"""What `dvc metrics`, `dvc exp show` and `dvc plots` show: the table's measures under its names, and nothing twice."""

from pathlib import Path
from typing import Any

import yaml
from report_reading import make, results
from report_runs import write_experiment

from reporting import names
from reporting.results import CURVE_COLUMNS
from textvae.files import read_json

PIPELINE: dict[str, Any] = yaml.safe_load((Path(__file__).resolve().parents[2] / "dvc.yaml").read_text())


def test_the_measures_of_dvc_are_those_of_the_table(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    reports = make(tmp_path)
    table, rows = read_json(reports / "table.json"), results(reports)
    assert {(d, s, seed) for d in table for s in table[d] for seed in table[d][s]} == set(rows)
    for (dataset, system, seed), row in rows.items():
        expected = {m.label: float(row[key]) for key, m in names.MEASURES.items() if row[key] != ""}
        assert table[dataset][system][seed] == expected
    assert table["ptb"]["lstm_lm"]["1"].keys().isdisjoint({"KL", "MI", "AU"})


def test_only_the_table_is_a_metric_and_every_plot_has_a_title_and_axes() -> None:
    metrics = {name: stage["metrics"] for name, stage in PIPELINE["stages"].items() if "metrics" in stage}
    assert metrics == {"report": ["reports/table.json"]}
    for plot in PIPELINE["plots"]:
        ((name, said),) = plot.items()
        assert all(said[key] for key in ("title", "x_label", "y_label")), name
        ((file, column),) = said["y"].items()
        assert file in PIPELINE["stages"]["report"]["outs"]
        assert column in CURVE_COLUMNS
