"""Everything measured -> MLflow, made equal to the run directories. It writes no file: no output has a run id."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from components.reporting.directories import run_folders
from components.step import Input, step
from components.tracking import Record, RunIdentity, connect, epoch_points, numbers
from textvae.config import ReportSettings
from textvae.errors import DataError
from textvae.files import fingerprint, read_json

RUN_ARTIFACTS = ("model/config.json", "curves.jsonl", "evaluation/metrics.json", "ngram.json")


@step
def publish(
    runs: Annotated[list[Path], Input("Artifact", "Folders of run directories at any depth, or single results.")],
    reports: Annotated[Path, Input("Artifact", "The folder that the report step wrote.")],
    settings: ReportSettings,
) -> None:
    """Make MLflow equal the run directories: create the rows that are missing, complete those that are not.

    Run it as often as you like, after `dvc pull` too: a row is found by the hash of its settings, data, seed and code,
    so nothing appears twice and a changed setting is a new row. The store is $MLFLOW_TRACKING_URI, else mlflow.db at
    the repository's root; the experiment is $MLFLOW_EXPERIMENT_NAME, else textvae.

    \b
    Examples:
      python -m components.publish --runs runs --reports reports --settings settings/report.json
    """
    grid = [(d, s, seed) for d in settings.datasets for s in settings.systems for seed in settings.seeds]
    with tempfile.TemporaryDirectory(prefix="textvae-runs-") as assembled:
        found = run_directories(run_folders(runs, Path(assembled)))
        records = [run_record(found[point], settings.reduced.get(point[0], False)) for point in grid if point in found]
        store = connect()
        for record in (*records, report_record(reports)):
            print(f"{record.name:<32} {store.publish(record)}", flush=True)
    for point in grid:
        if point not in found:
            print(f"{'-'.join(point):<32} not trained yet", flush=True)
    print(f"MLflow: {store.look()}", flush=True)


def run_directories(folders: Sequence[Path]) -> dict[tuple[str, str, str], Path]:
    """(data set, system, seed) -> run directory, for every finished training below `folders`."""
    found: dict[tuple[str, str, str], Path] = {}
    for config_path in sorted(path for folder in folders for path in folder.rglob("model/config.json")):
        config = read_json(config_path)
        try:
            identity = (config["dataset"], config["system"], str(config["seed"]))
        except (KeyError, TypeError):
            raise DataError(f"{config_path} names no data set, system and seed; run the train step again") from None
        directory = config_path.parent.parent
        if found.setdefault(identity, directory) != directory:
            raise DataError(f"{found[identity]} and {directory} are both {'-'.join(identity)}: remove one of them")
    return found


def run_record(directory: Path, reduced: bool) -> Record:
    """What MLflow should say of one run directory. What has not been measured yet is left out.

    Raises DataError for a file that is missing or is not what its step writes.
    """
    config, timings = read_json(directory / "model/config.json"), read_json(directory / "timings/train.json")
    try:
        identity = RunIdentity(
            **{key: config[key] for key in ("dataset", "system", "seed", "settings", "corpus_sha256")},
            code_sha256=timings["code_sha256"],
        )
        started = round(datetime.fromisoformat(timings["started"]).timestamp() * 1000)
        ended = started + round(timings["wall_s"] * 1000)
        tags = identity.tags | {key: timings[key] for key in ("commit", "host")} | outcome_tags(config, reduced)
        return Record(
            fingerprint=identity.fingerprint,
            name=identity.name,
            status="FAILED" if config["status"] == "diverged" else "FINISHED",
            tags=tags,
            params=identity.params,
            # When an epoch ended is in no file: its points carry the time at which training did.
            curves=[point for row in read_lines(directory / "curves.jsonl") for point in epoch_points(row, ended)],
            metrics=final_metrics(directory, config["selected"] or {}),
            artifacts={name: directory / name for name in RUN_ARTIFACTS if (directory / name).is_file()},
            started=started,
            ended=ended,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{directory} is not a run directory as this version writes it ({error!r})") from None


def outcome_tags(config: Mapping[str, Any], reduced: bool) -> dict[str, str]:
    """How a run ended, in words; `mlflow.note.content` is what the UI shows as its description."""
    tags = {"status": config["status"], "reduced_settings": str(reduced).lower()}
    if config["failure"] is None:
        return tags
    message = config["failure"]["message"]
    return tags | {"failure": message, "mlflow.note.content": f"Diverged: {message}"}


def final_metrics(directory: Path, selected: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of results.csv under their names there, and the rest of evaluation/metrics.json."""
    metrics = {f"selected_{key}": value for key, value in numbers(selected).items()}
    evaluation, ngram = directory / "evaluation/metrics.json", directory / "ngram.json"
    if evaluation.is_file():
        metrics |= {key: value for key, value in numbers(read_json(evaluation)).items() if key != "seed"}
    if ngram.is_file():
        measured = read_json(ngram)
        metrics |= {key: value for key, value in numbers(measured).items() if key.startswith(("fppl", "rppl"))}
        metrics |= {f"real_text_{key}": value for key, value in numbers(measured["real_text"]).items()}
    return metrics


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises DataError where it is missing or damaged."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run the train step again, or `dvc pull`") from None
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}); run the train step again") from None


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
