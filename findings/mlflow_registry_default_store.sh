#!/usr/bin/env bash
# mlflow 3.17.2: MlflowClient(tracking_uri=A).create_model_version(name, "models:/MODEL-ID") looks the model up in the default
# store, not in A.
#
# Expected: a client that is told its store finds in it the logged model that it has just made there.
# Seen: "Logged model with ID ... not found", unless the environment variable MLFLOW_TRACKING_URI (or the current folder's
# mlflow.db) happens to name the same store: SQLAlchemy's registry asks `MlflowClient()` without a URI. And the argument
# `model_id` is taken and not kept: the version says model_id=None, its `source` alone says which model it is.
# Exit code 0: as seen. 1: something has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check mlflow==3.17.2
mkdir "$folder/elsewhere" "$folder/model"
cd "$folder/elsewhere"
env -u MLFLOW_TRACKING_URI MLFLOW_DISABLE_TELEMETRY=true "$folder/venv/bin/python" - "$folder" <<'PYTHON'
import logging
import os
import sys
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

logging.disable(logging.INFO)
folder = Path(sys.argv[1])
store = f"sqlite:///{folder}/mlflow.db"
client = MlflowClient(tracking_uri=store)
experiment = client.create_experiment("one", (folder / "files").as_uri())
run = client.create_run(experiment)
model = client.create_logged_model(experiment, "model", run.info.run_id)
(folder / "model/MLmodel").write_text(f"flavors: {{}}\nmodel_id: {model.model_id}\n")
client.log_model_artifacts(model.model_id, str(folder / "model"))
client.finalize_logged_model(model.model_id, "READY")
client.create_registered_model("name")
source = f"models:/{model.model_id}"
try:
    client.create_model_version("name", source, run.info.run_id, model_id=model.model_id)
    looked_up = "in the client's own store"
except MlflowException as error:
    looked_up = "in the default store" if "not found" in str(error) else f"otherwise: {error}"
os.environ["MLFLOW_TRACKING_URI"] = store
kept = client.create_model_version("name", source, run.info.run_id, model_id=model.model_id).model_id
print(f"mlflow {mlflow.__version__}: the model is looked up {looked_up}; model_id {model.model_id} is kept as {kept}")
sys.exit(not (looked_up == "in the default store" and kept is None))
PYTHON
