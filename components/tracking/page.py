"""How the experiment's page in MLflow looks as it opens: a saved view of the run table and of the curves.

MLflow opens an experiment on pages for language-model applications, and its run table without a single number. A view
that is saved as a tag of the experiment, and an address that names it, open the numbers. The format is that of the
page's own button "Views" (MLflow 3.17); another version at worst shows its default.
"""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

from components.tracking.place import explained, shown
from components.tracking.store import Store

KEY, NAME = "textvae", "Results"
COLUMNS = ("nll", "nll_iw", "kl", "mi", "au", "gain", "ppl", "fppl", "rppl")
"""Of the run table: measures of the test set, in the order of the report."""
CURVES = ("valid_nll", "valid_kl", "valid_mi", "valid_au", "valid_nll_iw", "train_loss", "beta", "mi_estimate")
COLUMN_WIDTH = 95
BARS = ("nll_iw", "kl", "mi", "gain", "fppl", "rppl")
LEFT_OUT = "tags.kind != 'report'"
"""The filter of the view: the report has no numbers."""


def address(server: str, experiment_id: str) -> str:
    """The page of an experiment with the view."""
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={KEY}"
    )


def look(store: Store) -> str:
    """Where a person sees the experiment."""
    if store.uri.startswith(("http://", "https://")):
        return address(shown(store.uri), store.experiment_id)
    return f"{shown(store.uri)} (`make ui` opens it)"


def arrange(store: Store, report: str | None = None) -> None:
    """Give the experiment its view, and a link to the report in the row `report`; does nothing where they are there."""
    wanted = {
        "mlflow.experimentKind": "custom_model_development",
        f"mlflow.sharedViewState.{KEY}": saved_view(),
    }
    if report is not None:
        link = f"#/experiments/{store.experiment_id}/runs/{report}/artifacts/report.html"
        wanted["mlflow.note.content"] = f"The report on these runs: [report.html]({link})"
    with explained(store.uri):
        tags = store.client.get_experiment(store.experiment_id).tags
        for key, value in wanted.items():
            if tags.get(key) != value:
                store.client.set_experiment_tag(store.experiment_id, key, value)


def saved_view() -> str:
    """The view as the page saves it: JSON, its state deflated and in base64."""
    sections = [section("curves", "Learning curves (validation set, by epoch)"), section("results", "Test set")]
    charts = [chart("LINE", key, "curves") for key in CURVES] + [chart("BAR", key, "results") for key in BARS]
    columns = [*(f"metrics.`{key}`" for key in COLUMNS), "tags.`chosen`"]
    state = {
        "searchFilter": LEFT_OUT,
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, COLUMN_WIDTH),
        "compareRunSections": sections,
        "compareRunCharts": charts,
    }
    deflated = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": NAME, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{deflated}"})


def section(uuid: str, name: str) -> dict[str, Any]:
    """A group of charts."""
    return {"uuid": uuid, "name": name, "display": True, "isReordered": False, "deleted": False, "isGenerated": False}


def chart(kind: str, metric: str, group: str) -> dict[str, Any]:
    """A line per run over the epochs, or a bar per run."""
    return {
        "uuid": f"{group}-{metric}",
        "type": kind,
        "runsCountToCompare": 20,
        "metricSectionId": group,
        "deleted": False,
        "isGenerated": False,
        "displayName": metric,
        "metricKey": metric,
        "lineSmoothness": 0,
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "range": {},
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }
