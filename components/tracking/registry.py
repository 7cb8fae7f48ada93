"""Trained models in MLflow's registry: `textvae-DATASET`, a version per run, the alias `best` by a stated rule."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import textvae
from components.tracking.place import explained, locked
from components.tracking.store import CONTENT_TAG, FINGERPRINT_TAG, Store
from textvae.errors import DataError
from textvae.files import sha256_of_file

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

FILES = {"weights": "model.safetensors", "config": "config.json", "vocabulary": "vocabulary.json"}
"""What `textvae.load` opens: the weights with the best validation NLL."""
REQUIREMENTS = ("torch", "safetensors", "numpy", "pandas", "pyarrow", "pydantic")
CODE = Path(__file__).with_name("pyfunc_model.py")
ALIAS = "best"
LEAST_MI = 0.1
RULE = (
    f"`{ALIAS}` is, of the models whose code is used (validation MI above {LEAST_MI} nats), the one with the lowest "
    "validation NLL-IW. No test sentence decides, and no model is `best` where all have collapsed."
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


def register(store: Store, dataset: str, entries: Sequence[Entry]) -> list[str]:
    """Make `textvae-DATASET` hold each entry once, and `best` name one of them. Returns what was done, as lines."""
    name, client, versions = f"textvae-{dataset}", store.client, dict[str, str]()
    done = []
    with explained(store.uri), locked(store.uri):
        if not client.search_registered_models(f"name = '{name}'"):
            client.create_registered_model(name)
        model = client.get_registered_model(name)
        description = f"Models of the text `{dataset}`, a version per run. {RULE}"
        if model.description != description:
            client.update_registered_model(name, description)
        known = client.search_model_versions(f"name = '{name}'")
        for entry in entries:
            [run, *_] = store.find(entry.fingerprint)
            said = {FINGERPRINT_TAG: entry.fingerprint, CONTENT_TAG: content_of(entry.folder)}
            own = [one for one in known if one.tags.get(FINGERPRINT_TAG) == entry.fingerprint]
            current = [
                one
                for one in own
                if one.run_id == run.info.run_id and said.items() <= one.tags.items() and one.status == "READY"
            ]
            for outdated in [one for one in own if one not in current[:1]]:
                client.delete_model_version(name, outdated.version)
                if outdated.model_id:
                    client.delete_logged_model(outdated.model_id)
            if not current:
                current = [add_version(store, name, entry, run.info.run_id, said)]
                done.append(f"version {current[0].version}: {entry.name}")
            versions[entry.name] = str(current[0].version)
        best = chosen(entries)
        named = model.aliases.get(ALIAS)
        if best is not None and str(named) != versions[best.name]:
            client.set_registered_model_alias(name, ALIAS, versions[best.name])
            done.append(f"{ALIAS}: {best.name}")
        elif best is None and named is not None:
            client.delete_registered_model_alias(name, ALIAS)
            done.append(f"{ALIAS}: none")
    return done


def chosen(entries: Sequence[Entry]) -> Entry | None:
    """The one that RULE names."""
    used = [c for c in entries if c.valid_nll_iw is not None and c.valid_mi is not None and c.valid_mi > LEAST_MI]
    return min(used, key=lambda c: c.valid_nll_iw or 0.0, default=None)


def content_of(folder: Path) -> str:
    """Hash of the files of a version. Raises DataError where one is missing."""
    try:
        hashes = [sha256_of_file(folder / file) for file in FILES.values()]
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing; run the train step again, or `dvc pull`") from None
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def add_version(store: Store, name: str, entry: Entry, run_id: str, said: Mapping[str, str]) -> ModelVersion:
    """Log the model of a run and register it, with the tags `said` beside the entry's."""
    from mlflow.entities import LoggedModelOutput

    client = store.client
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
    tags = {**entry.tags, "run": entry.name, **said}
    return client.create_model_version(
        name, f"models:/{model.model_id}", run_id, tags, description=entry.name, model_id=model.model_id
    )


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
