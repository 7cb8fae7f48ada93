"""report.html: one file that opens from disk, in light and dark, and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reporting import context
from reporting.artifacts import Experiment, Run
from reporting.differences import Differences
from reporting.examples import example_tables
from reporting.latent_plots import POINTS, codes_of, dimensions, planes
from reporting.names import dataset_name, styles, system_name
from reporting.plots import kl_against_reconstruction, learning_curves
from reporting.results import Row
from reporting.svg import legend
from reporting.tables import Line, Table
from reporting.text_plots import fppl_against_rppl, text_figures
from reporting.texts import TextProfiles
from reporting.time_plots import step_times
from reporting.verdict import RULES, verdicts
from textvae.control_characters import visible

FOLDER = Path(__file__).parent


def report(
    experiment: Experiment,
    rows: list[Row],
    differences: Differences,
    tables: Sequence[Table],
    texts: dict[str, TextProfiles | None],
) -> str:
    """The whole page."""
    loader = FileSystemLoader(FOLDER)
    environment = Environment(
        loader=loader,
        autoescape=True,
        finalize=shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"dataset_name": dataset_name, "system_name": system_name}
    script = (FOLDER / "script.js.j2").read_text(encoding="utf-8")
    systems, datasets = experiment.settings.systems, experiment.settings.datasets
    return environment.get_template("page.html.j2").render(
        overview=context.overview(experiment),
        warnings=context.warnings(experiment),
        verdicts=verdicts(rows, differences),
        rules=RULES,
        tables=tables,
        grouped=grouped,
        definitions={column.label: column.definition for table in tables[1:] for column in table.columns[2:]},
        legend={system: Markup(svg) for system, svg in legend(systems).items()},
        styles=styles(systems),
        datasets=[figures(experiment, dataset, texts[dataset]) for dataset in datasets],
        points=f"{POINTS:,}",
        failed=any(run.status == "failed" for run in experiment.runs),
        settings={dataset: context.settings_of(experiment, dataset) for dataset in datasets},
        steps=context.STEPS,
        times=context.times(experiment),
        commands=context.commands(experiment),
        hashes=context.hashes(experiment),
        versions=context.versions(experiment),
        script=Markup(script),
        # The browser runs this script only, whatever a run's text may contain.
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def shown(value: Any) -> Any:
    """A text of the page without what a browser or a terminal would obey; markup is left as it is."""
    return visible(value) if type(value) is str else value


def figures(experiment: Experiment, dataset: str, texts: TextProfiles | None) -> dict[str, Any]:
    """Everything drawn of one data set; what cannot be drawn is empty."""
    codes = codes_of(experiment, dataset)
    drawn: dict[str, list[str] | str | None] = {
        "curves": learning_curves(experiment, dataset),
        "scatter": kl_against_reconstruction(experiment, dataset),
        "perplexities": fppl_against_rppl(experiment, dataset),
        "dimensions": dimensions(experiment, dataset, codes),
        "planes": planes(codes),
        "texts": text_figures(experiment, dataset, texts) if texts else [],
        "times": step_times(experiment, dataset),
    }
    safe = {
        name: [Markup(svg) for svg in found] if isinstance(found, list) else Markup(found or "")
        for name, found in drawn.items()
    }
    others = not_gaussian([run for run, _ in codes])
    return {"name": dataset, "examples": example_tables(experiment, dataset), "not_gaussian": others, **safe}


def not_gaussian(runs: list[Run]) -> list[str]:
    """The names of the systems whose posteriors are no Gaussians."""
    models = {run.system: run.config["settings"]["model"] for run in runs if run.config is not None}
    return [system_name(name) for name, model in models.items() if model.get("posterior", "gaussian") != "gaussian"]


def grouped(table: Table, line: Line) -> str:
    """What the lines that stay together when a table is sorted have in common; a run's times stand alone."""
    if table.title == context.TIMES:
        return ""
    return line.system if table.columns[1].label == "Model" else line.dataset
