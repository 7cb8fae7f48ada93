"""Trained models in MLflow's registry: `textvae-DATASET`, a version per run, the alias `best` by a stated rule."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import textvae
from textvae.files import sha256_of_file
from textvae.integrity import checked_file
from textvae.records import ModelConfig, read_record
from tracking.place import explained, http_status, locked
from tracking.store import CONTENT_TAG, FINGERPRINT_TAG, Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

FILES = {"weights": "model.safetensors", "config": "config.json", "vocabulary": "vocabulary.json"}
"""What `textvae.load` opens: the weights with the best validation NLL."""
REQUIREMENTS = ("torch", "safetensors", "numpy", "pandas", "pyarrow", "pydantic", "ruamel.yaml", "rich")
"""Of what serves a model: `textvae` imports all but spaCy, which only texts that are no tokens need."""
CODE = Path(__file__).with_name("pyfunc_model.py")
ALIAS = "best"
LEAST_MI = 0.1
VALID = ("valid_nll_iw", "valid_mi", "valid_on")
"""Tags of a version: what the validation set said of it, and of which sentences and samples."""
RULE = (
    f"`{ALIAS}` is, of the versions whose code is used (validation MI above {LEAST_MI} nats), the one with the lowest "
    "validation NLL-IW, among all here that were measured on the text of the runs published last. No test sentence "
    "decides, and no model is `best` where all have collapsed."
)


@dataclass(frozen=True)
class Entry:
    """A finished run's model."""

    name: str
    fingerprint: str
    """Its run's."""
    folder: Path
    """Its model directory."""
    tags: Mapping[str, str]
    valid_nll_iw: float | None
    """Of the epoch that was kept, in nats."""
    valid_mi: float | None
    valid_on: str
    """What both were measured on: numbers are compared where this is equal."""

    @property
    def validation(self) -> dict[str, str]:
        """VALID as the tags of a version; without what was not measured."""
        found = {key: getattr(self, key) for key in VALID}
        return {key: str(value) for key, value in found.items() if value is not None}


def register(store: Store, dataset: str, entries: Sequence[Entry], without: Sequence[str] = ()) -> list[str]:
    """Make `textvae-DATASET` hold each entry once, and `best` name one version. Returns what was done, as lines.

    A version is its run's by the run's fingerprint. Several experiments of one store share the registered model: one
    version serves the equal runs of all, and what another experiment's run needs is left alone. `without`: the
    fingerprints of runs that have no model (any more).
    """
    name, client = f"textvae-{dataset}", store.client
    done = []
    with explained(store.uri, f"the model {name}"), locked(store.uri):
        if not client.search_registered_models(f"name = '{name}'"):
            if not entries:
                return []
            client.create_registered_model(name)
        description = f"Models of the text `{dataset}`, a version per run. {RULE}"
        model = client.get_registered_model(name)
        if model.description != description:
            client.update_registered_model(name, description)
        known = client.search_model_versions(f"name = '{name}'")
        for fingerprint in without:
            for one in removable(store, [one for one in known if is_of(one, fingerprint)]):
                remove(store, one)
                done.append(f"version {one.version} removed: {one.tags.get('run', '')} has no model")
        for entry in entries:
            [run, *_] = store.find(entry.fingerprint)
            said = {FINGERPRINT_TAG: entry.fingerprint, CONTENT_TAG: content_of(entry.folder)}
            own = [one for one in known if is_of(one, entry.fingerprint)]
            ours = removable(store, own)
            current = [
                one
                for one in own
                if said.items() <= one.tags.items()
                and one.status == "READY"
                and (one not in ours or one.run_id == run.info.run_id)
                and has_files(store, one)
            ][:1]
            for outdated in [one for one in ours if one not in current]:
                remove(store, outdated)
            if not current:
                added = add_version(store, name, entry, run.info.run_id, said)
                done.append(f"version {added.version}: {entry.name}")
            for one in current:
                tell_validation(store, one, entry)
        done += name_best(store, name, {entry.valid_on for entry in entries}, model.aliases.get(ALIAS))
    return done


def is_of(version: ModelVersion, fingerprint: str) -> bool:
    """Whether a version is of the run with this fingerprint."""
    return bool(version.tags.get(FINGERPRINT_TAG) == fingerprint)


def removable(store: Store, versions: Sequence[ModelVersion]) -> list[ModelVersion]:
    """Those of `versions` that no other experiment's row needs: theirs is in this one, or gone."""
    from mlflow.exceptions import MlflowException

    found = []
    for one in versions:
        try:
            info = store.client.get_run(one.run_id).info
        except MlflowException as error:
            if http_status(error) != 404:
                raise
            found.append(one)
        else:
            if info.lifecycle_stage == "deleted" or info.experiment_id == store.experiment_id:
                found.append(one)
    return found


def model_id(version: ModelVersion) -> str:
    """Of the logged model behind a version: MLflow's SQL registry keeps it in the source only."""
    return str(version.source).removeprefix("models:/")


def has_files(store: Store, version: ModelVersion) -> bool:
    """Whether the store still has the files of a version."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(store.client.list_logged_model_artifacts(model_id(version)))
    except MlflowException as error:
        if http_status(error) != 404:
            raise
        return False


def remove(store: Store, version: ModelVersion) -> None:
    """Remove a version, the aliases on it, and its model."""
    from mlflow.exceptions import MlflowException

    store.client.delete_model_version(version.name, version.version)
    try:
        store.client.delete_logged_model(model_id(version))
    except MlflowException as error:
        if http_status(error) != 404:  # somebody has removed it before
            raise


def tell_validation(store: Store, version: ModelVersion, entry: Entry) -> None:
    """Make a version's tags VALID those of `entry`."""
    for key in VALID:
        value = entry.validation.get(key)
        if value is None and key in version.tags:
            store.client.delete_model_version_tag(version.name, version.version, key)
        elif value is not None and version.tags.get(key) != value:
            store.client.set_model_version_tag(version.name, version.version, key, value)


def name_best(store: Store, name: str, texts: Collection[str], before: str | None) -> list[str]:
    """Make the alias `best` name the version that RULE says. Returns what was done, as lines.

    `texts`: on what the versions published last were measured; without any the alias stays. `before`: which version it
    named (it goes with its version).
    """
    if not texts:
        return []
    named = store.client.get_registered_model(name).aliases.get(ALIAS)
    best = chosen(store.client.search_model_versions(f"name = '{name}'"), texts)
    if best is None:
        if named is not None:
            store.client.delete_registered_model_alias(name, ALIAS)
        return [] if before is None else [f"{ALIAS}: none"]
    if str(named) != str(best.version):
        store.client.set_registered_model_alias(name, ALIAS, str(best.version))
        return [f"{ALIAS}: {best.tags.get('run', '')} (version {best.version})"]
    return []


def chosen(versions: Sequence[ModelVersion], texts: Collection[str]) -> ModelVersion | None:
    """The one that RULE names; of equals the first."""
    measured = [one for one in versions if one.tags.get("valid_on") in texts]
    used = [one for one in measured if number(one, "valid_mi", 0.0) > LEAST_MI]
    best = min(used, key=lambda one: (number(one, "valid_nll_iw", math.inf), int(one.version)), default=None)
    return None if best is None or number(best, "valid_nll_iw", math.inf) == math.inf else best


def number(version: ModelVersion, tag: str, otherwise: float) -> float:
    """A tag of a version as a number; `otherwise` where it is missing or somebody has made it something else."""
    try:
        value = float(version.tags[tag])
    except (KeyError, ValueError):
        return otherwise
    return value if math.isfinite(value) else otherwise


def content_of(folder: Path) -> str:
    """Hash of the files of a version. Raises DataError where one is missing, damaged, or another's."""
    about = folder / FILES["config"]
    stated = read_record(about, ModelConfig)["files"]
    for file in (FILES["weights"], FILES["vocabulary"]):
        checked_file(folder / file, about, stated, "train")
    hashes = [sha256_of_file(folder / file) for file in FILES.values()]
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def add_version(store: Store, name: str, entry: Entry, run_id: str, said: Mapping[str, str]) -> ModelVersion:
    """Log the model of a run and register it, with the tags `said` beside the entry's."""
    from mlflow.entities import LoggedModelOutput

    client = store.client
    for left in client.search_logged_models([store.experiment_id], f"source_run_id = '{run_id}'"):
        client.delete_logged_model(left.model_id)  # of an upload that was interrupted
    with tempfile.TemporaryDirectory(prefix="textvae-model-") as folder:
        files, saved = Path(folder) / "files", Path(folder) / "model"
        files.mkdir()
        for file in FILES.values():
            shutil.copyfile(entry.folder / file, files / file)  # they may be links, which mlflow refuses
        save(files, saved)
        model = client.create_logged_model(store.experiment_id, entry.name, run_id, dict(entry.tags))
        client.log_model_artifacts(model.model_id, str(saved))
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    tags = {**entry.tags, "run": entry.name, **said, **entry.validation}
    with default_store(store.uri):
        source = f"models:/{model.model_id}"
        return client.create_model_version(name, source, run_id, tags, description=entry.name, model_id=model.model_id)


@contextmanager
def default_store(uri: str) -> Iterator[None]:
    """Where MLflow's registry looks a logged model up: not where its client is told to, but in the default store."""
    earlier = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = uri
    try:
        yield
    finally:
        if earlier is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = earlier


def save(folder: Path, saved: Path) -> None:
    """Write a model directory as an MLflow model: code, library, weights, signature and an example of its input."""
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    params = [ParamSpec("call", "string", "encode"), ParamSpec("samples", "long", 0), ParamSpec("seed", "long", -1)]
    params.append(ParamSpec("tokens", "boolean", False))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Add type hints", UserWarning)
        pyfunc.save_model(
            saved,
            python_model=str(CODE),
            code_paths=[str(Path(textvae.__file__).parent)],
            artifacts={key: str(folder / file) for key, file in FILES.items()},
            signature=ModelSignature(Schema([ColSpec("string", "sentence")]), params=ParamSchema(params)),
            input_example=pd.DataFrame({"sentence": ["we must act now .", "i thank the congress ."]}),
            pip_requirements=[pinned(package) for package in REQUIREMENTS],
        )


def pinned(package: str) -> str:
    """The requirement of the version that is installed; of any, where an image that publishes has none."""
    try:
        return f"{package}=={version(package).partition('+')[0]}"  # without the `+cpu` that no index has
    except PackageNotFoundError:
        return package
