"""Everything measured, as tables and figures: results.csv, differences.csv, curves.csv, report.md, report.html."""

from pathlib import Path
from typing import Annotated

from components.step import Input, Output, step
from reporting import html, markdown
from reporting.artifacts import collect
from reporting.differences import differences, numbers_of, write_differences
from reporting.results import COLUMNS, curve_rows, measures_by_run, result_rows, write_csv
from reporting.text_table import all_tables
from reporting.texts import text_profiles
from textvae.config import ReportSettings
from textvae.files import write_json


@step
def report(
    runs: Annotated[list[Path], Input("Artifact", "A folder of runs, or a run's own; repeat it.")],
    corpora: Annotated[list[Path], Input("Dataset", "A folder of corpora, or a corpus's own; repeat it.")],
    settings: ReportSettings,
    reports: Annotated[Path, Output("Artifact", "The folder of the reports.")],
    page: Annotated[Path | None, Output("HTML", "report.html once more, as a file of its own.")] = None,
    summary: Annotated[Path | None, Output("Markdown", "report.md once more, as a file of its own.")] = None,
) -> dict[str, object]:
    """Gather what all runs measured into results.csv, differences.csv (of every two systems, over the same sentences),
    curves.csv, report.md and report.html, and table.json for DVC.

    Results are found by their file names below the folders given, and told apart by the data set, system and seed
    written inside. The settings name the grid: a run of it that diverged is shown as failed, one without results as
    pending, and nothing outside it is shown. Exit code 65: two runs of a data set were measured on different sentences,
    or a file is damaged.

    \b
    Examples:
      python -m components.report --runs runs --corpora corpora --settings settings/report.json --reports reports
    """
    experiment = collect(runs, corpora, settings)
    numbers = {dataset: numbers_of(experiment, dataset) for dataset in settings.datasets}
    rows, paired = result_rows(experiment, numbers), differences(experiment, numbers)
    texts = {dataset: text_profiles(experiment, dataset) for dataset in settings.datasets}
    tables = all_tables(experiment, rows, paired, texts)
    reports.mkdir()
    write_csv(reports / "results.csv", COLUMNS, rows)
    write_differences(reports / "differences.csv", paired)
    write_csv(reports / "curves.csv", *curve_rows(experiment))
    write_json(reports / "table.json", measures_by_run(rows))
    for name, text, copy in (
        ("report.md", markdown.report(experiment, rows, paired, tables), summary),
        ("report.html", html.report(experiment, rows, paired, tables, texts), page),
    ):
        (reports / name).write_text(text, encoding="utf-8")
        if copy is not None:
            copy.write_text(text, encoding="utf-8")
    return {status: sum(row["status"] == status for row in rows) for status in ("finished", "failed", "pending")}


if __name__ == "__main__":
    report.main()
