"""Models and training states on disk: safetensors and JSON, never pickle.

A model directory is self-contained and safe to open:
    model.safetensors      the weights with the best validation ELBO
    model_iw.safetensors   the weights of the epoch with the best validation NLL-IW
    config.json            format version, identity, outcome, settings, the hash of every other file and of the corpus
    vocabulary.json        words and the tokeniser's settings
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from textvae.config import ModelSettings
from textvae.device import resolve_device
from textvae.errors import DataError
from textvae.files import fingerprint, replaced
from textvae.integrity import checked_file
from textvae.networks import Network
from textvae.records import MODEL_VERSION, ModelConfig, read_record
from textvae.vocabulary import Vocabulary

WEIGHTS = {"best": "model.safetensors", "iw": "model_iw.safetensors"}


@dataclass(frozen=True)
class Model:
    """A trained model as it lies in its directory. `network` is None for a run that diverged."""

    config: dict[str, Any]
    vocabulary: Vocabulary
    network: Network | None

    @property
    def identity(self) -> dict[str, Any]:
        """Data set, system, seed, outcome and the hash of config.json: what every later artifact carries."""
        said = {key: self.config[key] for key in ("dataset", "system", "seed", "status", "failure")}
        return {**said, "model_sha256": fingerprint(self.config)}


def load(path: str | Path, weights: Literal["best", "iw"] = "best", device: str = "cpu") -> Model:
    """Open a model directory.

    Args: path, as written by the train step; weights, by validation ELBO (`best`) or by NLL-IW (`iw`);
        device, `cpu`, `cuda` or `auto`.
    Raises: DataError where a file is missing, damaged, another's, or of another format version.
    """
    path = Path(path)
    if not (path / "config.json").exists() and (path / "model/config.json").exists():
        raise DataError(f"{path} is a run, not a model directory: give {path / 'model'}")
    about = path / "config.json"
    config = read_record(about, ModelConfig)
    vocabulary = Vocabulary.load(checked_file(path / "vocabulary.json", about, config["files"], "train"))
    if config["status"] != "finished":
        return Model(config, vocabulary, None)
    network = Network(config["kind"], len(vocabulary), ModelSettings(**config["settings"]["model"]))
    file = checked_file(path / WEIGHTS[weights], about, config["files"], "train")
    tensors, _ = read_tensors(file)
    if kinds_of(tensors) != kinds_of(network.state_dict()):
        raise DataError(f"{file} does not fit {about}: the folder is a mixture of two models: train it again")
    for name, tensor in tensors.items():
        if not all(torch.isfinite(end) for end in tensor.aminmax()):  # which a NaN passes through
            raise DataError(f"{file}: {name} has weights that are not finite, of no use: train it again")
    network.load_state_dict(tensors)
    return Model(config, vocabulary, network.to(resolve_device(device)).eval())


def kinds_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape and type of each tensor."""
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


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
    with replaced(path) as temporary:
        try:
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, metadata)
        except SafetensorError as error:  # of the system's errors it passes on only the text
            if found := re.search(r"\(os error (\d+)\)", str(error)):
                raise OSError(number := int(found[1]), os.strerror(number), str(path)) from None
            raise
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())


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
    structure = json.dumps(flattened("state", state, tensors))
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    about = {"structure": structure, "format_version": str(MODEL_VERSION)}
    write_tensors(path, tensors, {**about, "checksum": checksum(structure, tensors)})


def load_state(path: Path) -> dict[str, Any]:
    """Read a state written by `save_state`. Raises DataError where it is damaged or of another version."""
    tensors, metadata = read_tensors(path)
    if metadata.get("format_version") != str(MODEL_VERSION):
        raise DataError(f"{path} is a state of another version")
    structure = metadata.get("structure", "")
    if metadata.get("checksum") != checksum(structure, tensors):
        raise DataError(f"{path} is damaged: it is not what was written, by the checksum in it")
    try:
        state = unflattened(json.loads(structure), tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not as a training writes it ({type(error).__name__}: {error})") from None
    if not isinstance(state, dict):
        raise DataError(f"{path} is not as a training writes it: it has no parts")
    return state


def checksum(structure: str, tensors: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 of a state: its structure, and its tensors' (on the CPU) names, types, shapes, values."""
    digest = hashlib.sha256(structure.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def cloned(network: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of a module's weights."""
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
