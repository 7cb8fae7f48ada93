"""What is worth keeping of the paper's grid: small files, of which `results/` in the repository can have a copy."""

import shutil
from pathlib import Path
from typing import Any

from pipelines.machine.paper_runs import slices
from reporting.artifacts import Experiment, Run, collect
from reporting.context import warnings
from reporting.differences import numbers_of
from reporting.markdown import rendered
from reporting.markdown import row as line
from reporting.names import dataset_name, system_name
from reporting.results import result_rows
from reporting.tables import beyond_table, table_1, table_2
from textvae.config import ReportSettings
from textvae.control_characters import visible
from textvae.progress import duration

COPIED = ("results.csv", "differences.csv")


def write_results(folder: Path, settings: ReportSettings) -> None:
    """Write `results/` below the folder of a grid that has been reported: results.csv and differences.csv; table.md,
    the report's tables beside the paper's; of every run its curves and settings; README.md, how far each is, on which
    card and in how many minutes."""
    experiment = collect([folder / "runs"], [folder / "corpora"], settings)
    results, (dataset,) = folder / "results", settings.datasets
    results.mkdir(exist_ok=True)
    for name in COPIED:
        shutil.copyfile(folder / "reports" / name, results / name)
    for run in experiment.runs:
        if run.config is not None:
            shutil.copyfile(
                folder / "settings" / dataset / run.system / "train.json", results / f"{run.system}.settings.json"
            )
            curves = folder / "runs" / dataset / run.system / run.seed / "curves.jsonl"
            shutil.copyfile(curves, results / f"{run.system}.curves.jsonl")
    (results / "table.md").write_text(tables(experiment), encoding="utf-8")
    (results / "README.md").write_text(about(experiment, slices(folder)), encoding="utf-8")


def tables(experiment: Experiment) -> str:
    """Table 1, Table 2 and what the paper has no column for, with the paper's own rows and their footnotes."""
    numbers = {dataset: numbers_of(experiment, dataset) for dataset in experiment.settings.datasets}
    rows = result_rows(experiment, numbers)
    parts = [f"> {warning}" for warning in warnings(experiment)]
    parts += [
        rendered(table) for table in (table_1(experiment), table_2(experiment, rows), beyond_table(experiment, rows))
    ]
    return visible("\n\n".join(parts) + "\n")


def about(experiment: Experiment, done: list[dict[str, Any]]) -> str:
    """README.md."""
    (dataset,) = experiment.settings.datasets
    name = dataset_name(dataset)
    unfinished = [run for run in experiment.runs if run.config is None or run.unfinished]
    parts = [f"# {name}: the paper's systems with the paper's settings" + (", unfinished" if unfinished else "")]
    if unfinished:
        parts.append(
            f"{len(unfinished)} of {len(experiment.runs)} trainings are not over: **nothing about these systems "
            "follows from their numbers**, which are those of the best weights so far."
        )
    parts.append(
        "The tables are in [table.md](table.md), every number in results.csv, the pairs of systems in differences.csv."
    )
    head = ["system", "epochs", "kept", "learning rate", "validation NLL", "validation NLL-IW"]
    lines = [line(head), line(["---"] + ["---:"] * (len(head) - 1)), *map(progress_line, experiment.runs)]
    parts.append("\n".join(lines))
    parts.append("`SYSTEM.curves.jsonl` are the learning curves (validation set), `SYSTEM.settings.json` the settings.")
    parts += ["## Where, and for how long", "\n".join(map(slice_line, done)) or "Nothing was trained."]
    parts.append(
        f"Made by `make paper DATASET={dataset}` ([docs/paper.md](../../docs/paper.md)); the same command goes on."
    )
    return visible("\n\n".join(parts) + "\n")


def progress_line(run: Run) -> str:
    """How far a training is, and what it has come to on the validation set."""
    name = system_name(run.system)
    if run.config is None or not run.curves:
        return line([name, "none yet" if run.config is None else run.failure, "", "", "", ""])
    epochs, selected = run.config["settings"]["training"]["epochs"], run.config["selected"]
    far = run.unfinished or (run.failure if run.failure else f"over after {len(run.curves)} of {epochs}")
    nlls = [f"{selected[key]:.2f}" if key in selected else "" for key in ("valid_nll", "valid_nll_iw")]
    return line([name, far, f"epoch {selected.get('epoch', 0):g}", f"{run.curves[-1]['lr']:g}", *nlls])


def slice_line(said: dict[str, Any]) -> str:
    """One slice of training."""
    versions = f"torch {said['versions'].get('torch')}" + (
        f", CUDA {said['cuda']}, cuDNN {said['cudnn']}" if "cuda" in said else ""
    )
    driver = f", driver {said['driver']}" if "driver" in said else ""
    return (
        f"- {said['started']}: {duration(said['wall_s'])}, {said['trainings']} trainings side by side on "
        f"{said['device']}{driver}, {versions}, commit {said['commit']}"
    )
