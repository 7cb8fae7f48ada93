"""Makes reports of run directories, and reads them back."""

from __future__ import annotations

import csv
from pathlib import Path

from report_runs import SETTINGS

from components.report import report
from textvae.config import ReportSettings


def make(folder: Path, settings: ReportSettings = SETTINGS, name: str = "reports") -> Path:
    """The reports on `folder`'s runs and corpora."""
    report(runs=[folder / "runs"], corpora=[folder / "corpora"], settings=settings, reports=folder / name)
    return folder / name


def results(reports: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """results.csv by grid point."""
    with (reports / "results.csv").open(encoding="utf-8", newline="") as stream:
        return {(row["dataset"], row["system"], row["seed"]): row for row in csv.DictReader(stream)}


def markdown_rows(reports: Path, title: str) -> list[list[str]]:
    """The cells of the table below a title of report.md, its head left out."""
    text = (reports / "report.md").read_text(encoding="utf-8")
    section = text[text.index(f"## {title}") :].split("\n\n")[1]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines()[2:]]


def row_of(reports: Path, title: str, dataset: str, model: str) -> list[str]:
    """The numbers of one line of a table of report.md."""
    here = ""
    for cells in markdown_rows(reports, title):
        here = cells[0] or here
        if (here, cells[1]) == (dataset, model):
            return cells[2:]
    raise AssertionError(f"no {model} on {dataset}")
