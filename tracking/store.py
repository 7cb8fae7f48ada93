"""How one row of MLflow is made equal to a record.

A row is found by the tag `textvae.fingerprint`, never by a run id, and everything goes through a client with the
experiment's id spelt out: MLflow's global state (active run, current experiment) belongs to whoever imports this.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from textvae.addresses import shown
from textvae.errors import DataError, UnavailableError
from tracking.place import (
    REQUEST_LIMITS,
    check_database,
    explained,
    import_client,
    locked,
    make_database,
    remade,
    sqlite_path,
    tracking_uri,
)
from tracking.record import Point, Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

FINGERPRINT_TAG = "textvae.fingerprint"
PARENT_TAG = "mlflow.parentRunId"
NAME_TAG = "mlflow.runName"
CONTENT_TAG = "textvae.content"
"""Hash of everything a row was last made to say: written last, so a row that carries the current one is complete."""
OUTCOME_TAGS = ("chosen", "failure")
"""Tags that a run has or has not, depending on how it ended."""
MOST_PARAM_CHARACTERS, MOST_TAG_CHARACTERS = 6000, 8000
"""What MLflow keeps of a longer one."""
EXPERIMENT = "textvae"


class Store:
    """One experiment of one MLflow. Make it with `connect`."""

    def __init__(self, uri: str, client: MlflowClient, experiment_id: str) -> None:
        self.uri, self.client, self.experiment_id = uri, client, experiment_id

    def find(self, fingerprint: str) -> list[Run]:
        """The rows with this fingerprint, the oldest first; rows in MLflow's trash do not count."""
        query = f"tags.`{FINGERPRINT_TAG}` = '{fingerprint}'"
        runs = self.client.search_runs([self.experiment_id], query, order_by=["attributes.start_time ASC"])
        return list(runs)

    def run_id(self, fingerprint: str) -> str:
        """Of the row with this fingerprint. Raises UnavailableError where somebody has just removed it."""
        with explained(self.uri, "the row of the report"):
            if found := self.find(fingerprint):
                return str(found[0].info.run_id)
        raise UnavailableError(f"MLflow at {shown(self.uri)}: a row was removed while it was published; run this again")

    def create(self, fingerprint: str, name: str, tags: Mapping[str, str], started: int | None = None) -> Run:
        """A new row, RUNNING until something ends it."""
        tags = {FINGERPRINT_TAG: fingerprint, **tags}
        return self.client.create_run(self.experiment_id, start_time=started, tags=tags, run_name=name)

    def log(self, run_id: str, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Add points, parameters and tags to a row in as few requests as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        self.client.log_batch(
            run_id,
            metrics=[Metric(point.key, point.value, point.timestamp, point.step) for point in points],
            params=[Param(key, value) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
        )

    def history(self, run: Run, keys: Sequence[str]) -> dict[str, list[Point]]:
        """The points that a row has, per metric, in the order in which they were logged."""
        found: dict[str, list[Point]] = {}
        for key in keys:
            if key in run.data.metrics:
                logged = self.client.get_metric_history(run.info.run_id, key)
                points = [Point(key, metric.value, metric.step, metric.timestamp) for metric in logged]
                found[key] = sorted(points, key=lambda point: point.timestamp)
        return found

    def publish(self, record: Record, parent: str | None = None) -> str:
        """Make the row of `record` equal to it, and nest it under the row with the run id `parent`.

        Returns "created", "updated", "unchanged" or "replaced", of the row itself. MLflow's client cannot change a
        point or a parameter, nor remove one, nor a file. So a row that holds what the record does not (a training
        repeated on a GPU, a measure whose file is gone) is put into MLflow's trash and written anew. Where that is
        interrupted, the next time finds no row and creates it.
        """
        with explained(self.uri, f"the row {record.name}"), locked(self.uri):
            outcome, run_id = self._publish(record, {} if parent is None else {PARENT_TAG: parent})
        for child in record.children:
            self.publish(child, run_id)
        return outcome

    def _publish(self, record: Record, parent: Mapping[str, str]) -> tuple[str, str]:
        """`publish` of the row alone: what happened, and its run id."""
        params = {key: value[:MOST_PARAM_CHARACTERS] for key, value in record.params.items()}
        tags = {key: value[:MOST_TAG_CHARACTERS] for key, value in record.tags.items()}
        record = replace(record, params=params, tags=tags)
        content, tags = record.content(), {**record.tags, **parent, NAME_TAG: record.name}
        run, *copies = self.find(record.fingerprint) or [None]
        if run is not None and not copies and self._says(run, record, {**tags, CONTENT_TAG: content}):
            return "unchanged", run.info.run_id
        self._remove_children([one for one in (run, *copies) if one is not None], record)
        for copy in copies:
            self.client.delete_run(copy.info.run_id)
        outcome, missing = "updated", None if run is None else self._missing(run, record)
        if run is not None and (missing is None or self.artifacts(run) - set(record.artifacts)):
            self.client.delete_run(run.info.run_id)
            outcome, run = "replaced", None
        if run is None:
            run = self.create(record.fingerprint, record.name, tags, record.started)
            outcome = outcome if outcome == "replaced" else "created"
            missing = self._missing(run, record)
        assert missing is not None
        run_id = run.info.run_id
        for key in self._outdated_tags(run, tags):
            self.client.delete_tag(run_id, key)
        self.log(run_id, missing, record.params, tags)
        self.log_artifacts(run_id, record)
        self.client.set_terminated(run_id, record.status, record.ended)
        self.client.set_tag(run_id, CONTENT_TAG, content)
        return outcome, run_id

    def artifacts(self, run: Run) -> set[str]:
        """The paths of a row's files, at any depth."""
        found, folders = set[str](), list[str | None]([None])
        while folders:
            for file in self.client.list_artifacts(run.info.run_id, folders.pop()):
                if file.is_dir:
                    folders.append(file.path)
                else:
                    found.add(file.path)
        return found

    def log_artifacts(self, run_id: str, record: Record) -> None:
        """Copy the record's files to a row."""
        for name, path in record.artifacts.items():
            folder = str(Path(name).parent)
            self.client.log_artifact(run_id, str(path), None if folder == "." else folder)

    def adopt(self, run_id: str, record: Record) -> tuple[str, str]:
        """Add the tags and files of `record` to the row that somebody else has made and nested `run_id` under.

        Its name, its status and its times stay its maker's. Returns what happened, and the row's run id.
        """
        with explained(self.uri, f"the run {run_id} of $MLFLOW_RUN_ID"), locked(self.uri):
            run = self.client.get_run(run_id)
            while PARENT_TAG in run.data.tags:
                run = self.client.get_run(run.data.tags[PARENT_TAG])
            tags = {**record.tags, CONTENT_TAG: record.content()}
            if all(run.data.tags.get(key) == value for key, value in tags.items()):
                return "unchanged", run.info.run_id
            self.log_artifacts(run.info.run_id, record)
            self.log(run.info.run_id, [], {}, tags)
        return "updated", run.info.run_id

    def _says(self, run: Run, record: Record, tags: Mapping[str, str]) -> bool:
        """Whether the row is complete, and nobody has added to it, changed or removed anything since."""
        if run.info.status != record.status or any(run.data.tags.get(key) != value for key, value in tags.items()):
            return False
        ends = {point.key: point.value for point in sorted(record.curves, key=lambda point: point.step)}
        if self._outdated_tags(run, tags) or run.data.metrics != {**ends, **record.metrics}:
            return False
        return run.data.params == record.params and self.artifacts(run) == set(record.artifacts)

    @staticmethod
    def _outdated_tags(run: Run, tags: Mapping[str, str]) -> list[str]:
        """The tags of a run's outcome that it no longer has; those that people add are theirs."""
        return [key for key in OUTCOME_TAGS if key in run.data.tags and key not in tags]

    def _remove_children(self, runs: Sequence[Run], record: Record) -> None:
        """Put the rows of candidates under `runs`, which are one record's, into the trash where it no longer has them.

        Before the row says what the record says: where this is interrupted, the next time does it again.
        """
        wanted = {child.fingerprint for child in record.children}
        for run in runs:
            query = f"tags.`{PARENT_TAG}` = '{run.info.run_id}' and tags.kind = 'candidate'"
            for child in self.client.search_runs([self.experiment_id], query):
                if child.data.tags.get(FINGERPRINT_TAG) not in wanted:
                    self.client.delete_run(child.info.run_id)

    def _missing(self, run: Run, record: Record) -> list[Point] | None:
        """The points that the row lacks; None where it holds others, or other parameters, than the record."""
        if any(record.params.get(key) != value for key, value in run.data.params.items()):
            return None
        curves: dict[str, dict[int, Point]] = {}
        for point in record.curves:
            curves.setdefault(point.key, {})[point.step] = point
        if not set(run.data.metrics) <= {*curves, *record.metrics}:
            return None
        history = self.history(run, [*curves, *record.metrics])
        for key, wanted in curves.items():
            if any(p.step not in wanted or wanted[p.step].value != p.value for p in history.get(key, [])):
                return None
            for known in history.get(key, []):
                wanted.pop(known.step, None)
        missing = [point for wanted in curves.values() for point in wanted.values()]
        for key, value in record.metrics.items():
            earlier = history.get(key, [])
            if not earlier or earlier[-1].value != value:  # measured again: MLflow shows the latest
                timestamp = max([record.ended, *(point.timestamp + 1 for point in earlier)])
                missing.append(Point(key, value, 0, timestamp))
        return missing


def connect(limits: Mapping[str, str] = REQUEST_LIMITS) -> Store:
    """The experiment ($MLFLOW_EXPERIMENT_NAME, else `textvae`) in the store of `tracking_uri`; creates what is missing.

    Where somebody has made a run for this process, as Kubeflow does ($MLFLOW_RUN_ID), that run's experiment.
    Raises UnavailableError for a server or database that does not answer, DataError for a database that cannot be used
    and for what MLflow refuses.
    """
    uri, name = tracking_uri(), os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    client_class = import_client(limits)
    database = sqlite_path(uri)
    artifacts = None if database is None else (database.parent.absolute() / "mlartifacts").as_uri()
    with explained(uri, f"the experiment {name}"), locked(uri):
        if database is not None:
            make_database(database, client_class)
            check_database(database)
        client = client_class(tracking_uri=uri)
        if given := os.environ.get("MLFLOW_RUN_ID"):
            experiment = client.get_experiment(client.get_run(given).info.experiment_id)
        else:
            experiment = client.get_experiment_by_name(name)
        if experiment is None:
            experiment = client.get_experiment(client.create_experiment(name, artifact_location=artifacts))
        elif experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
    if database is not None and artifacts is not None and not experiment.artifact_location.startswith(artifacts):
        raise DataError(
            f"{database} keeps its artifacts in {experiment.artifact_location}, not in {artifacts}, as if it had been "
            f"moved or served with another artifact root; {remade(database)}"
        )
    return Store(uri, client, experiment.experiment_id)
