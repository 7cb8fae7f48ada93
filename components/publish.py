"""Everything measured -> MLflow, made equal to the run directories. It writes no file: no output has a run id."""

import csv
import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pyarrow import parquet

from components.step import IDENTITY, Input, step
from reporting.artifacts import read_content, read_curves
from reporting.ceilings import measures_at_ceiling
from reporting.differences import COLUMNS as DIFFERENCES
from reporting.names import dataset_name, styles, system_name
from textvae.config import ReportSettings
from textvae.errors import DataError
from textvae.files import check_links, fingerprint
from tracking import Record, RunIdentity, connect, epoch_points, numbers, page, registry
from tracking.run_directories import check_identity, run_directories, with_models
from tracking.store import Store

RUN_ARTIFACTS = (
    "model/config.json",
    "model/candidates.json",
    "curves.jsonl",
    "evaluation/metrics.json",
    "evaluation/sentences.parquet",
    "ngram.json",
    "examples.json",
)
SHOWN_SAMPLES = 200
ENDED = {"finished": "FINISHED", "diverged": "FAILED"}


@step
def publish(
    runs: Annotated[list[Path], Input("Artifact", "Folders of run directories, at any depth; repeat it.")],
    reports: Annotated[Path, Input("Artifact", "The folder that the report step wrote.")],
    settings: ReportSettings,
    models: Annotated[list[Path], Input("Model", "Model directories that their run directories lack.")] = [],  # noqa: B006
    pipeline_run: Annotated[str, "Id of a run of the pipeline: its row is made, and holds all others."] = "",
    pipeline_name: Annotated[str, "Name of that row."] = "",
) -> None:
    """Make MLflow equal the run directories: create the rows that are missing, complete those that are not.

    Run it as often as you like, after `dvc pull` too: a row is found by the hash of its settings, data, seed and code,
    so nothing appears twice and a changed setting is a new row. What a run directory no longer has goes from its row
    too. Exit code 65: a file is damaged, of another run, or a link that leads out; or MLflow refuses what it is told.
    69: MLflow does not answer. 74: the disk under it is full. The store is $MLFLOW_TRACKING_URI, else mlflow.db at
    the repository's root; the experiment is $MLFLOW_EXPERIMENT_NAME, else textvae. Where $MLFLOW_RUN_ID names a run,
    the rows are nested under it. Models are registered as textvae-DATASET.

    \b
    Examples:
      python -m components.publish --runs runs --reports reports --settings settings/report.json
    """
    grid = [(d, s, seed) for d in settings.datasets for s in settings.systems for seed in settings.seeds]
    colours = {system: style.light for system, style in styles(settings.systems).items()}
    with tempfile.TemporaryDirectory(prefix="textvae-runs-") as folder:
        found = run_directories(runs)
        check_links(reports)
        found |= with_models(found, models, Path(folder, "runs"))
        compared = compared_rows(reports)
        records = {}
        for point in (point for point in grid if point in found):
            record = run_record(found[point], settings.reduced.get(point[0], False), compared.get(point, {}))
            tags = {**record.tags, "mlflow.runColor": colours[point[1]]}
            text = samples_text(found[point], Path(folder, "-".join(point), "samples.txt"))
            records[point] = replace(record, tags=tags, artifacts={**record.artifacts, **text})
        store = connect()
        row, nested = publish_reports(store, report_record(reports), pipeline_run, pipeline_name)
        page.arrange(store, row)
        parent = row if nested else None
        for record in records.values():
            tell(record.name, store.publish(record, parent))
        for dataset in settings.datasets:
            own = {point: record for point, record in records.items() if point[0] == dataset}
            trained = [
                point
                for point, record in own.items()
                if record.status != "FAILED" and (found[point] / "model" / registry.FILES["weights"]).is_file()
            ]
            entries = [entry(found[point], own[point]) for point in trained]
            without = [record.fingerprint for point, record in own.items() if point not in trained]
            for what in registry.register(store, dataset, entries, without):
                tell(f"textvae-{dataset}", what)
    for point in grid:
        if point not in found:
            tell("-".join(point), "not trained yet")
    print(f"MLflow: {page.look(store)}", flush=True)


def tell(name: str, what: str) -> None:
    """A line for a row or a model, and what happened to it."""
    print(f"{name:<32} {what}", flush=True)


def publish_reports(store: Store, record: Record, pipeline_run: str, pipeline_name: str) -> tuple[str, bool]:
    """Publish the report; returns its row's run id, and whether all others are to be nested under that row.

    It goes into the row that $MLFLOW_RUN_ID is in, or makes one for a run of the pipeline, or is a row like all others.
    """
    tags = {**record.tags, "kind": "pipeline", "pipeline_run": pipeline_run}
    if given := os.environ.get("MLFLOW_RUN_ID"):
        outcome, run_id = store.adopt(given, replace(record, tags=tags))
        tell("the pipeline's run", outcome)
        return run_id, True
    if pipeline_run:
        own = fingerprint({"kind": "pipeline", "run": pipeline_run})
        record = replace(record, fingerprint=own, name=pipeline_name or f"pipeline {pipeline_run}", tags=tags)
    tell(record.name, store.publish(record))
    return store.run_id(record.fingerprint), bool(pipeline_run)


def compared_rows(reports: Path) -> dict[tuple[str, ...], dict[str, float]]:
    """What results.csv says of each run beside others, and its NLL, by data set, system and seed.

    Raises DataError where it is damaged.
    """
    path, columns = reports / "results.csv", ("nll", *(key for key in DIFFERENCES if key != "baseline"))
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return {
                tuple(row[key] for key in IDENTITY): {key: float(row[key]) for key in columns if row.get(key)}
                for row in csv.DictReader(stream)
            }
    except (KeyError, ValueError, TypeError, csv.Error) as error:
        raise DataError(f"{path} is damaged ({error!r}); run the report step again") from None


def run_record(directory: Path, reduced: bool, compared: Mapping[str, float] = MappingProxyType({})) -> Record:
    """What MLflow should say of one run directory; `compared`: what results.csv knows of it beside others.

    What has not been measured yet is left out.
    Raises DataError for a file that is missing, is not what its step writes, or is of another run.
    """
    check_identity(directory)
    config = read_content("config", directory / "model/config.json")
    timings = read_content("timings", directory / "timings/train.json")
    if (measured := directory / "evaluation/metrics.json").is_file():
        # What train calls finished, evaluate may find to be of no use.
        config |= {key: read_content("metrics", measured)[key] for key in ("status", "failure")}
    try:
        metrics = final_metrics(directory, config["selected"] or {})
        own = RunIdentity(
            **{key: config[key] for key in ("dataset", "system", "seed", "settings", "corpus_sha256")},
            code_sha256=timings["code_sha256"],
        )
        started = round(datetime.fromisoformat(timings["started"]).timestamp() * 1000)
        ended = started + round(timings["wall_s"] * 1000)
        tags = own.tags | {key: timings[key] for key in ("commit", "host")} | outcome_tags(config, reduced)
        tags |= {"mlflow.source.name": "components.train", "mlflow.source.type": "LOCAL"}
        tags |= {"mlflow.source.git.commit": timings["commit"]}
        if at_ceiling := measures_at_ceiling(metrics):
            tags["at_ceiling"] = " ".join(at_ceiling)
        record = Record(
            fingerprint=own.fingerprint,
            name=own.name,
            status=ENDED[config["status"]],
            tags=tags,
            params=own.params,
            # When an epoch ended is in no file: its points carry the time at which training did.
            curves=[point for row in read_curves(directory / "curves.jsonl") for point in epoch_points(row, ended)],
            metrics=metrics | differences_of(compared, metrics),
            artifacts={name: directory / name for name in RUN_ARTIFACTS if (directory / name).is_file()},
            started=started,
            ended=ended,
        )
        return replace(record, children=candidate_records(directory / "model/candidates.json", own, record))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{directory} is not a run directory as this version writes it ({error!r})") from None


def candidate_records(path: Path, of: RunIdentity, run: Record) -> list[Record]:
    """The trainings of a setting that was a list of values, one row each; none where it was not."""
    if not path.is_file():
        return []
    account = read_content("candidates", path)
    setting, rule = account["setting"], account["rule"]
    records = []
    for one in account["candidates"]:
        objective = {**of.settings["objective"], setting: one["value"]}
        settings = {**of.settings, "objective": objective}
        own = replace(of, settings=settings, candidate=f"{setting}={one['value']}")
        kept = (
            f"Kept, by {rule}."
            if one["value"] == account["chosen"]
            else f"Not kept: {account['chosen']} was, by {rule}."
        )
        note = kept if one["failure"] is None else f"Diverged: {one['failure']}"
        record = replace(
            run,
            fingerprint=own.fingerprint,
            name=own.name,
            status=ENDED[one["status"]],
            tags={**own.tags, "status": one["status"], "mlflow.note.content": note},
            params=own.params,
            curves=[point for row in one["curves"] for point in epoch_points(row, run.ended)],
            metrics=numbers({f"selected_{key}": value for key, value in one.items() if key != "value"}),
            artifacts={},
        )
        records.append(record)
    return records


def outcome_tags(config: Mapping[str, Any], reduced: bool) -> dict[str, str]:
    """How a run ended, in words; `mlflow.note.content` is what the UI shows as its description."""
    about = f"{system_name(config['system'])} on {dataset_name(config['dataset'])}, seed {config['seed']}"
    tags = {"status": config["status"], "reduced_settings": str(reduced).lower(), "mlflow.note.content": about}
    if chosen := config.get("chosen"):
        tags["chosen"] = ", ".join(f"{key}={value}" for key, value in chosen.items())
    if config["failure"] is None:
        return tags
    message = config["failure"]["message"]
    return tags | {"failure": message, "mlflow.note.content": f"{about}: diverged, {message}"}


def final_metrics(directory: Path, selected: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of results.csv under their names there, and the rest of evaluation/metrics.json."""
    metrics = {f"selected_{key}": value for key, value in numbers(selected).items()}
    evaluation, ngram = directory / "evaluation/metrics.json", directory / "ngram.json"
    if evaluation.is_file():
        metrics |= {key: value for key, value in numbers(read_content("metrics", evaluation)).items() if key != "seed"}
    if ngram.is_file():
        measured = read_content("ngram", ngram)
        metrics |= {key: value for key, value in numbers(measured).items() if key.startswith(("fppl", "rppl", "cut"))}
        metrics |= {f"real_text_{key}": value for key, value in numbers(measured["real_text"]).items()}
    return metrics


def differences_of(compared: Mapping[str, float], metrics: Mapping[str, float]) -> dict[str, float]:
    """A run's paired differences, where results.csv has them of the very numbers of `metrics`: it may be older."""
    if "nll" not in metrics or compared.get("nll") != metrics["nll"]:
        return {}
    return {key: value for key, value in compared.items() if key != "nll"}


def entry(directory: Path, record: Record) -> registry.Entry:
    """What the registry needs to know of a run's model: what the validation set said of the epoch that was kept."""
    model = directory / "model"
    config = read_content("config", model / "config.json")
    epoch, training = config["selected"]["epoch"], config["settings"]["training"]
    row = next((row for row in read_curves(directory / "curves.jsonl") if row["epoch"] == epoch), None)
    if row is None:
        raise DataError(f"{directory / 'curves.jsonl'} lacks the epoch that was kept, {epoch}; run train again")
    valid_on = f"{training.get('iw_sentences')} x {training.get('iw_samples')} of {config['corpus_sha256'][:12]}"
    tags = {key: record.tags[key] for key in ("dataset", "system", "seed")}
    valid = row.get("valid_nll_iw"), row.get("valid_mi"), valid_on
    return registry.Entry(record.name, record.fingerprint, model, tags, *valid)


def samples_text(directory: Path, file: Path) -> dict[str, Path]:
    """The first SHOWN_SAMPLES generated sentences in `file`, for MLflow's pages, which show text; as an artifact."""
    samples = directory / "samples.parquet"
    if not samples.is_file():
        return {}
    file.parent.mkdir()
    sentences = parquet.ParquetFile(samples).iter_batches(SHOWN_SAMPLES, columns=["sentence"])
    file.write_text("".join(f"{one}\n" for one in next(sentences, {"sentence": []})["sentence"]), encoding="utf-8")
    return {"samples.txt": file}


def report_record(reports: Path) -> Record:
    """One row for the report, always the latest one, so that a team's page is where its runs are."""
    files = sorted(path for path in reports.rglob("*") if path.is_file())
    newest = max((round(path.stat().st_mtime * 1000) for path in files), default=0)
    return Record(
        fingerprint=fingerprint({"kind": "report"}),
        name="report",
        status="FINISHED",
        tags={"kind": "report", "mlflow.note.content": "The report on all runs: see the artifacts."},
        params={},
        curves=[],
        metrics={},
        artifacts={path.relative_to(reports).as_posix(): path for path in files},
        started=newest,
        ended=newest,
    )


if __name__ == "__main__":
    publish.main()
