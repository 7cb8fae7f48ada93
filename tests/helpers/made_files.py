"""Files of a corpus and of a run with all that their readers ask for, for tests that are about something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from textvae.config import ModelSettings, PreprocessSettings, TrainingSettings
from textvae.files import read_json
from textvae.integrity import write_sealed
from textvae.records import CORPUS_VERSION, MODEL_VERSION
from textvae.sealed_parquet import sealed_writer

SHA256 = "ab" * 32
SPLITS = ("train", "valid", "test")


def model_config(system: str = "vae_mine", **changes: Any) -> dict[str, Any]:
    """config.json of a finished training, without the hashes of the files beside it."""
    return {
        "format_version": MODEL_VERSION,
        "dataset": "tiny",
        "system": system,
        "seed": 1,
        "status": "finished",
        "failure": None,
        "kind": "lstm_lm" if system == "lstm_lm" else "vae",
        "selected": {"epoch": 1},
        "chosen": {},
        "settings": run_settings(system),
        "corpus_sha256": SHA256,
        **changes,
    }


def run_settings(system: str, model: ModelSettings | None = None) -> dict[str, Any]:
    """The settings in config.json: the defaults."""
    of_model, training = (model or ModelSettings()).model_dump(), TrainingSettings().model_dump()
    return {"model": of_model, "training": training, "objective": {"name": system}}


def corpus_description(dataset: str = "tiny", sha256: str = SHA256, **changes: Any) -> dict[str, Any]:
    """corpus.json, without the hashes of the files beside it."""
    return {
        "format_version": CORPUS_VERSION,
        "dataset": dataset,
        "sha256": sha256,
        "sentences": dict.fromkeys(SPLITS, 10),
        "tokens": dict.fromkeys(SPLITS, 100),
        "mean_length": 10.0,
        "vocabulary": 12,
        "splits": {split: {"truncated": 0, "out_of_vocabulary_rate": 0.0} for split in SPLITS},
        "repetitions": {"within": {}, "across": {"test_in_train": 0}},
        "settings": PreprocessSettings(dataset=dataset).model_dump(),
        "source": {},
        **changes,
    }


def write_with_hashes(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """config.json, corpus.json or metrics.json: with the hashes of what lies beside it by now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_sealed(path, content, whole_folder=True)


def changed(path: Path, **values: Any) -> dict[str, Any]:
    """Write one of the JSON files again with these values, as if the step had written them."""
    content = {key: value for key, value in read_json(path).items() if key != "checksum"}
    return write_sealed(path, {**content, **values}, path.name in ("config.json", "corpus.json", "metrics.json"))


def write_sealed_table(path: Path, table: pa.Table) -> None:
    """samples.parquet."""
    with sealed_writer(path, table.schema) as writer:
        writer.write_table(table)
