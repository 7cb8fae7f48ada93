"""How the experiment's page in MLflow looks as it opens: saved views of the run table and of the curves.

MLflow opens an experiment on pages for language-model applications, and its run table without a single number. A view
that is saved as a tag of the experiment, and an address that names it, open the numbers. The format is that of the
page's own button "Views" (MLflow 3.17); another version at worst shows its default.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from textvae.addresses import shown
from tracking.place import explained
from tracking.store import Store

MEASURES = (
    *("nll", "nll_iw", "nll_iw_minus_lstm_lm", "nll_iw_minus_baseline"),
    *("kl", "mi", "au", "gain", "ppl", "fppl", "rppl", "cut"),
)
"""Of the test set, in the order of the report."""
SELECTION = ("selected_valid_nll_iw", "selected_difference", "selected_difference_se", "selected_valid_mi")
CURVES = ("valid_nll", "valid_kl", "valid_mi", "valid_au", "valid_nll_iw", "train_loss", "beta", "mi_estimate")
BARS = ("nll_iw", "kl", "mi", "gain", "fppl", "rppl")


def address(server: str, experiment_id: str) -> str:
    """The page of an experiment with the results."""
    query = "workflowType=machine_learning&viewStateShareKey=results"
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?{query}"


def look(store: Store) -> str:
    """Where a person sees the experiment."""
    if store.uri.startswith(("http://", "https://")):
        return address(shown(store.uri).partition("#")[0], store.experiment_id)
    return f"{shown(store.uri)} (`make ui` opens it)"


def arrange(store: Store, report: str | None = None) -> None:
    """Give the experiment its views, and a link to the report in the row `report`, where they are not there yet."""
    results, selection = [f"metrics.`{key}`" for key in MEASURES], [f"metrics.`{key}`" for key in SELECTION]
    of_runs = [*results, "tags.`at_ceiling`", "tags.`chosen`"]
    wanted = {
        "mlflow.experimentKind": "custom_model_development",
        "mlflow.sharedViewState.results": view("Results", "tags.kind = 'run'", of_runs, 95),
        "mlflow.sharedViewState.candidates": view("Candidates", "tags.kind = 'candidate'", selection, 200),
        "mlflow.sharedViewState.all": view("All rows, nested", "", results, 95),
    }
    if report is not None:
        link = f"#/experiments/{store.experiment_id}/runs/{report}/artifacts/report.html"
        wanted["mlflow.note.content"] = f"The report on these runs: [report.html]({link})"
    with explained(store.uri, "the views of its page"):
        tags = store.client.get_experiment(store.experiment_id).tags
        for key, value in wanted.items():
            if tags.get(key) != value:
                store.client.set_experiment_tag(store.experiment_id, key, value)


def view(name: str, rows: str, columns: Sequence[str], width: int) -> str:
    """A view as the page saves it: JSON, its state deflated and in base64.

    `rows` is the filter of the run table, to which MLflow adds the rows they are nested under; `width` is in pixels.
    """
    state = {
        "searchFilter": rows,
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": dict.fromkeys(columns, width),
        "runsHiddenMode": "SHOW_ALL",
        "compareRunSections": [section("curves", "Learning curves by epoch"), section("results", "Test set")],
        "compareRunCharts": [
            *(chart("LINE", key, "curves") for key in CURVES),
            *(chart("BAR", key, "results") for key in BARS),
        ],
    }
    deflated = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    return json.dumps({"name": name, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{deflated}"})


def section(uuid: str, name: str) -> dict[str, Any]:
    """A group of charts."""
    return {"uuid": uuid, "name": name, "display": True, "isReordered": False, "deleted": False, "isGenerated": False}


def chart(kind: str, metric: str, group: str) -> dict[str, Any]:
    """A line per run over the epochs, or a bar per run."""
    return {
        "uuid": f"{group}-{metric}",
        "type": kind,
        "runsCountToCompare": 100,
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
