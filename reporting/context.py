"""What stands around the numbers in both reports: what was run, with which settings, where and for how long."""

from __future__ import annotations

from reporting.artifacts import Experiment, Record
from reporting.names import dataset_name, listed, seeds_named, system_name
from reporting.tables import Cell, Column, Line, Table
from textvae.progress import duration

TIMES = "Times"
STEPS = ("train", "evaluate", "sample", "ngram", "examples")


def overview(experiment: Experiment) -> str:
    """What was asked for, and what became of it."""
    settings = experiment.settings
    statuses = [run.status for run in experiment.runs]
    counts = [f"{n} {status}" for status in ("finished", "failed", "pending") if (n := statuses.count(status))]
    return (
        f"{listed([dataset_name(dataset) for dataset in settings.datasets])}; "
        f"{listed([system_name(system) for system in settings.systems])}; "
        f"{seeds_named(settings.seeds)}. "
        f"{len(statuses)} run{'s' if len(statuses) > 1 else ''}: {', '.join(counts)}."
    )


def warnings(experiment: Experiment) -> list[str]:
    """What a reader must know before the numbers."""
    reduced = [dataset_name(dataset) for dataset in experiment.settings.datasets if experiment.is_reduced(dataset)]
    unfinished = [run for run in experiment.runs if run.unfinished]
    found = []
    if unfinished:
        found.append(
            "Trainings that are not over: "
            + ", ".join(f"{system_name(run.system)} ({run.unfinished})" for run in unfinished)
            + ". Their numbers are those of the best weights so far, and nothing about the systems follows from them."
        )
    if not reduced:
        return found
    return [
        *found,
        f"Reduced settings on {listed(reduced)}: model, corpus or training smaller than the paper's, so that the runs "
        "end soon. Compare the systems with one another, not with published numbers.",
    ]


def settings_of(experiment: Experiment, dataset: str) -> dict[str, dict[str, str]]:
    """Settings by key: first those that all systems of a data set share (under ""), then each system's own."""
    flat = {
        run.system: flatten(run.config.get("settings") or {})
        for run in reversed(experiment.runs_of(dataset))
        if run.config is not None
    }
    flat = {system: flat[system] for system in experiment.settings.systems if system in flat}
    if not flat:
        return {}
    first = next(iter(flat.values()))
    shared = {key: value for key, value in first.items() if all(other.get(key) == value for other in flat.values())}
    own = {s: {key: value for key, value in values.items() if key not in shared} for s, values in flat.items()}
    return {"": shared, **own} if len(flat) > 1 else own


def flatten(settings: Record, prefix: str = "") -> dict[str, str]:
    """Nested settings as `training.batch_size: 32`."""
    flat: dict[str, str] = {}
    for key, value in sorted(settings.items()):
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)}
    return flat


def times(experiment: Experiment) -> Table:
    """Where each run was made, and how long its steps took."""
    columns = [Column("Dataset", ""), Column("Model", ""), Column("Seed", "")]
    columns += [Column(step, f"Wall time of the step {step} (h:mm:ss or m:ss).") for step in STEPS]
    columns += [Column("CPU", "CPU time of all steps together.")]
    columns += [Column("Memory", "Peak memory of the largest step, in MB."), Column("Device", "Of the training.")]
    columns += [Column("Threads", "Of the training."), Column("Host", ""), Column("Commit", "Of the code.")]
    lines = []
    for run in experiment.runs:
        records = list(run.timings.values())
        if not records:
            continue
        training = run.timings.get("train", records[0])
        walls = [run.timings[step]["wall_s"] if step in run.timings else None for step in STEPS]
        seconds = [*walls, sum(record["cpu_s"] for record in records)]
        peak = max(record["peak_rss_mb"] for record in records)
        rest = (
            str(training["device"]),
            str(training["threads"]),
            ", ".join(sorted({str(record["host"]) for record in records})),
            ", ".join(sorted({str(record["commit"]) for record in records})),
        )
        cells = (
            Cell(run.seed),
            *(Cell("–") if wall is None else Cell(duration(wall), value=wall) for wall in seconds),
            Cell(f"{peak:,.0f}", value=peak),
            *(Cell(text) for text in rest),
        )
        lines.append(Line("ours", run.dataset, system_name(run.system), run.system, cells))
    return Table(TIMES, tuple(columns), tuple(lines))


def versions(experiment: Experiment) -> str:
    """Every version of every package that took part."""
    found: dict[str, set[str]] = {}
    for run in experiment.runs:
        for record in run.timings.values():
            for package, version in record.get("versions", {}).items():
                found.setdefault(package, set()).add(version)
    return ", ".join(f"{package} {' / '.join(sorted(found[package]))}" for package in sorted(found))


def hashes(experiment: Experiment) -> dict[str, str]:
    """What tells whether two reports are of the same text and the same code."""
    found = {
        f"corpus {dataset_name(dataset)}": str(corpus["sha256"])
        for dataset, corpus in experiment.corpora.items()
        if "sha256" in corpus
    }
    for step in STEPS:
        records = [run.timings[step] for run in experiment.runs if step in run.timings]
        codes = sorted({str(record["code_sha256"]) for record in records})
        if codes:
            found[f"code of {step}"] = ", ".join(codes)
    return found


def commands(experiment: Experiment) -> list[str]:
    """What makes it again, in a clone of the repository; the commits are those that the steps ran on."""
    records = [record for run in experiment.runs for record in run.timings.values()]
    commits = sorted({str(record["commit"]) for record in records} - {"unknown"})
    settings = experiment.settings
    first = f"{settings.datasets[0]}-{settings.systems[0]}-{settings.seeds[0]}"
    lines = ["make repro", f"dvc repro {' '.join(f'{step}@{first}' for step in STEPS)}  # one run"]
    if len(commits) == 1:
        changed = "  # and changes that were not committed" if commits[0].endswith("-dirty") else ""
        return [f"git checkout {commits[0].removesuffix('-dirty')}{changed}", *lines]
    if commits:
        return [f"# the steps ran on several commits: {', '.join(commits)}", *lines]
    return lines
