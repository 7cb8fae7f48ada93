"""Models and training states on disk: safetensors and JSON, never pickle.

A model directory is self-contained and safe to open:
    model.safetensors      the weights with the best validation ELBO
    model_iw.safetensors   the weights of the epoch with the best validation NLL-IW
    config.json            format version, identity, outcome, settings
    vocabulary.json        words and the tokeniser's settings
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from textvae.config import ModelSettings, validated
from textvae.device import resolve_device
from textvae.errors import DataError, SettingsError
from textvae.files import read_json
from textvae.networks import Network
from textvae.vocabulary import Vocabulary

FORMAT_VERSION = 1
WEIGHTS = {"best": "model.safetensors", "iw": "model_iw.safetensors"}


@dataclass(frozen=True)
class Model:
    """A trained model as it lies in its directory. `network` is None for a run that diverged."""

    config: dict[str, Any]
    vocabulary: Vocabulary
    network: Network | None

    @property
    def identity(self) -> dict[str, Any]:
        """Data set, system, seed and outcome: what every later artifact carries."""
        return {key: self.config[key] for key in ("dataset", "system", "seed", "status", "failure")}


def load(path: str | Path, weights: Literal["best", "iw"] = "best", device: str = "cpu") -> Model:
    """Open a model directory.

    Args: path, as written by the train step; weights, by validation ELBO (`best`) or by NLL-IW (`iw`);
        device, `cpu`, `cuda` or `auto`.
    Raises: DataError where a file is missing, damaged, or of another format version.
    """
    path = Path(path)
    if not (path / "config.json").exists() and (path / "model/config.json").exists():
        raise DataError(f"{path} is a run, not a model directory: give {path / 'model'}")
    config = read_json(path / "config.json")
    version = config.get("format_version") if isinstance(config, dict) else None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format version {version}; this textvae reads {FORMAT_VERSION}: train it again")
    vocabulary = Vocabulary.load(path / "vocabulary.json")
    try:
        if config["status"] != "finished":
            return Model(config, vocabulary, None)
        settings = validated(ModelSettings, config["settings"]["model"], "its settings")
        network = Network(config["kind"], len(vocabulary), settings)
    except (KeyError, TypeError, SettingsError) as error:
        raise DataError(f"{path / 'config.json'} is not as train writes it ({error!r}): train it again") from None
    file = path / WEIGHTS[weights]
    tensors, _ = read_tensors(file)
    expected = network.state_dict()
    if {name: t.shape for name, t in tensors.items()} != {name: t.shape for name, t in expected.items()}:
        raise DataError(f"{file} does not fit {path / 'config.json'}: the folder is a mixture of two models")
    network.load_state_dict(tensors)
    return Model(config, vocabulary, network.to(resolve_device(device)).eval())


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a safetensors file. Raises DataError where it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except FileNotFoundError:
        raise DataError(f"{path} is missing: train the model again") from None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged ({error}): remove it and run the step that writes it again") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file through a temporary name, on the disk before the name exists. Raises OSError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, metadata)
    except SafetensorError as error:  # of the system's errors it passes on only the text
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(number := int(found[1]), os.strerror(number), str(path)) from None
        raise
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def flattened(prefix: str, value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` (nested dicts, lists, scalars, tensors) as JSON, its tensors moved to `tensors` under their paths."""
    if isinstance(value, Tensor):
        tensors[prefix] = value
        return {"__tensor__": prefix}
    if isinstance(value, dict):
        # Optimisers number their parameters: the keys are integers, which JSON would turn into text.
        return {"__items__": [[key, flattened(f"{prefix}[{key!r}]", item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [flattened(f"{prefix}[{i}]", item, tensors) for i, item in enumerate(value)]
    return value


def unflattened(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `flattened`."""
    if isinstance(value, dict) and "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if isinstance(value, dict):
        return {key: unflattened(item, tensors) for key, item in value["__items__"]}
    if isinstance(value, list):
        return [unflattened(item, tensors) for item in value]
    return value


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write a nested state of tensors and JSON values as one file, whole or not at all."""
    tensors: dict[str, Tensor] = {}
    structure = flattened("state", state, tensors)
    write_tensors(path, tensors, {"structure": json.dumps(structure), "format_version": str(FORMAT_VERSION)})


def load_state(path: Path) -> dict[str, Any]:
    """Read a state written by `save_state`. Raises DataError where it is damaged or of another version."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise DataError(f"{path} is a state of another version: remove it, the training then starts afresh")
    state: dict[str, Any] = unflattened(json.loads(metadata["structure"]), tensors)
    return state


def cloned(network: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
