"""What is done to `publish`, whose output is an MLflow store: it is killed, and what MLflow shows is looked at."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine_faults import step_named

from tests.fault_injection.forks import Ended, Fork
from tests.fault_injection.project import Case, Project
from tests.fault_injection.trials import Result, Trial, chance, one_result


def published(project: Project, store: Path) -> Fork:
    """Start `publish` in a copy of the project, into an SQLite store of its own."""

    def action() -> None:
        os.chdir(store)
        step_named("publish").main(["--runs", "runs", "--reports", "reports", "--settings", "settings/report.json"])

    variables = project.variables(store) | {"MLFLOW_TRACKING_URI": f"sqlite:///{store / 'mlflow.db'}"}
    return Fork(action, project.folder / "log", variables)


def shown(store: Path) -> dict[str, Any]:
    """What MLflow shows of a store: every row with its parameters, points and files, and every registered model.

    In a process of its own: MLflow keeps connections to the stores that it has seen.
    """
    said = store / "shown.json"
    ended = Fork(lambda: said.write_text(json.dumps(rows(store), default=dict)), store / "shown.log").wait()
    if not said.exists():
        raise RuntimeError(ended.said)
    found: dict[str, Any] = json.loads(said.read_text())
    return found


def rows(store: Path) -> dict[str, Any]:
    """See `shown`."""
    from mlflow.tracking import MlflowClient

    client, found = MlflowClient(f"sqlite:///{store / 'mlflow.db'}"), {}
    for experiment in client.search_experiments():
        for run in client.search_runs([experiment.experiment_id]):
            points = {key: len(client.get_metric_history(run.info.run_id, key)) for key in run.data.metrics}
            files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
            row = [run.info.status, run.data.params, run.data.metrics, points, files]
            found.setdefault(f"{experiment.name}: {run.info.run_name}", []).append(row)
    for model in client.search_registered_models():
        found[model.name] = [
            (version.version, version.status, version.tags)
            for version in client.search_model_versions(f"name = '{model.name}'")
        ]
    return found


def killed_publishes(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """`publish` is killed at any moment and run again: MLflow shows what it shows undisturbed. Tried once for all
    steps: where `one` is the report."""
    if one.name != "report":
        return
    expected: dict[str, Any] = {}
    seconds: list[float] = []

    def to_the_end(store: Path) -> Ended:
        return published(project, store).wait()

    def do(trial: int) -> Result:
        store = project.copy("store")
        if not seconds:
            started = time.monotonic()
            to_the_end(store)
            seconds.append(time.monotonic() - started)
            expected.update(shown(store))
            store = project.copy("store")
        moment = chance(seed, "store", trial).uniform(0, seconds[0])
        running = published(project, store)
        time.sleep(moment)
        running.kill(group=True)
        running.wait()
        again = to_the_end(store)
        lost = again.wrong or (f"run again it ends with {again.code}: {again.said[-300:]}" if again.code else "")
        if not lost:
            found = shown(store)
            lost = "; ".join(
                f"{name} is another" for name in expected.keys() | found if expected.get(name) != found.get(name)
            )
        return one_result(lost, f"at a moment, {moment:.1f} s")

    for trial in range(count):
        yield Trial(str(trial), lambda trial=trial: do(trial))  # type: ignore[misc]
