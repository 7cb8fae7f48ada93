"""report.html: one file that opens from disk, in light and dark, and fetches nothing."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.reporting.artifacts import Experiment
from components.reporting.context import overview, settings_of, times, versions, warnings
from components.reporting.names import dataset_name, styles, system_name
from components.reporting.plots import kl_against_reconstruction, learning_curves
from components.reporting.results import Row
from components.reporting.svg import legend
from components.reporting.tables import beyond_table, table_1, table_2

FOLDER = Path(__file__).parent


def report(experiment: Experiment, rows: list[Row]) -> str:
    """The whole page."""
    loader = FileSystemLoader(FOLDER)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"dataset_name": dataset_name, "system_name": system_name}
    systems, datasets = experiment.settings.systems, experiment.settings.datasets
    figures = {
        dataset: (
            [Markup(svg) for svg in learning_curves(experiment, dataset)],
            Markup(kl_against_reconstruction(experiment, dataset) or ""),
        )
        for dataset in datasets
    }
    tables = (table_1(experiment), table_2(experiment, rows), beyond_table(experiment, rows))
    return environment.get_template("template.html.j2").render(
        overview=overview(experiment),
        warnings=warnings(experiment),
        tables=tables,
        definitions={column.label: column.definition for table in tables[1:] for column in table.columns[2:]},
        legend={system: Markup(svg) for system, svg in legend(systems).items()},
        styles=styles(systems),
        figures=figures,
        failed=any(run.status == "failed" for run in experiment.runs),
        settings={dataset: settings_of(experiment, dataset) for dataset in datasets},
        times=times(experiment),
        versions=versions(experiment),
    )
