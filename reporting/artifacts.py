"""Find what the runs left, by file name, and sort it by the identity inside each file, never by its path."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textvae import records
from textvae.config import ReportSettings
from textvae.errors import DataError
from textvae.files import fingerprint, parsed_json, sha256_of_file
from textvae.integrity import checked_file
from textvae.sealed_parquet import samples_metadata

Record = dict[str, Any]
Found = dict[tuple[str, ...], tuple[Path, Any]]
"""(kind, data set, system, seed[, step]) to the file and its content."""
KIND_OF_FILE = {
    "config.json": "config",
    "candidates.json": "candidates",
    "metrics.json": "metrics",
    "ngram.json": "ngram",
    "curves.jsonl": "curves",
    "examples.json": "examples",
    "samples.parquet": "samples",
}
RECORDS: dict[str, type[records.Record]] = {
    "config": records.ModelConfig,
    "candidates": records.Candidates,
    "metrics": records.Metrics,
    "ngram": records.Ngram,
    "examples": records.Examples,
    "timings": records.Timings,
}
"""What each kind of JSON file says."""


@dataclass(frozen=True)
class Run:
    """One grid point: what was found of it. A part that is missing is None or empty."""

    dataset: str
    system: str
    seed: str
    config: Record | None = None
    metrics: Record | None = None
    ngram: Record | None = None
    curves: tuple[Record, ...] = ()
    examples: Record | None = None
    samples: Path | None = None
    """samples.parquet: read where it is needed, since it is large."""
    sentences: Path | None = None
    """sentences.parquet, of which metrics.json says the hash, likewise."""
    posterior: Path | None = None
    """posterior.parquet, likewise."""
    timings: dict[str, Record] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As an error message names it."""
        return f"{self.dataset}, {self.system}, seed {self.seed}"

    @property
    def missing(self) -> list[str]:
        """The steps whose results are not there yet."""
        parts = {"train": self.config, "evaluate": self.metrics, "ngram": self.ngram}
        if self.metrics is not None and self.ngram is not None:
            return []
        return [step for step, part in parts.items() if part is None]

    @property
    def status(self) -> str:
        """`failed` (it diverged), `pending` (a step's results are missing) or `finished`.

        Raises DataError where the run's own files contradict each other.
        """
        of_training = {part["status"] for part in (self.config, self.ngram) if part is not None}
        measured = {self.metrics["status"]} if self.metrics is not None else set()
        # What train calls finished, evaluate may find to be of no use; not the other way round.
        if len(of_training) > 1 or (of_training == {"diverged"} and "finished" in measured):
            raise DataError(
                f"{self.name}: its files say diverged and finished: they are of different trainings; run the "
                "steps after train again"
            )
        if "diverged" in of_training | measured:
            return "failed"
        return "pending" if self.missing else "finished"

    @property
    def unfinished(self) -> str:
        """How far its training is, where the model was written before its end; empty for the others."""
        return str((self.config or {}).get("unfinished", ""))

    @property
    def failure(self) -> str:
        """Why a failed run failed; empty for the others."""
        if self.status != "failed":
            return ""
        failures = [part.get("failure") or {} for part in (self.config, self.metrics, self.ngram) if part is not None]
        return next((str(failure["message"]) for failure in failures if failure.get("message")), "diverged")


@dataclass(frozen=True)
class Experiment:
    """Every run of the grid, in its order, and what is known of the corpora."""

    settings: ReportSettings
    runs: list[Run]
    corpora: dict[str, Record]
    corpus_folders: dict[str, Path] = field(default_factory=dict)
    """Where each corpus's sentences lie."""

    def runs_of(self, dataset: str, system: str | None = None) -> list[Run]:
        """The runs on a data set, of one system or of all."""
        return [run for run in self.runs if run.dataset == dataset and system in (None, run.system)]

    def is_reduced(self, dataset: str) -> bool:
        """Whether the data set's own settings shrink the paper's."""
        return self.settings.reduced.get(dataset, False)


def collect(runs: Sequence[Path], corpora: Sequence[Path], settings: ReportSettings) -> Experiment:
    """Everything that the grid of `settings` asks for and that lies below the folders given.

    Raises DataError for a path that is a file, for a damaged file, and for two files of the same kind and run with
    different content.
    """
    found: Found = {}
    timings: list[Path] = []
    identities_below: dict[Path, set[tuple[str, ...]]] = defaultdict(set)
    for kind, path in candidates(runs):
        if kind == "timings":
            timings.append(path)
            continue
        content = read_content(kind, path)
        if not content:
            continue  # the curves of a run that failed in its first epoch
        run = identity(path, content)
        add(found, (kind, *run), path, content)
        for folder in path.parents:
            identities_below[folder].add(run)
    for path in timings:
        content = read_content("timings", path)
        # The times of a step that does not say whose they are (an older file) are of the run they lie beside.
        owners = {identity(path, content)} if "system" in content else identities_below[path.parent.parent]
        if len(owners) == 1:
            add(found, ("timings", *next(iter(owners)), require(path, content, "step")), path, content)
    statistics: Found = {}
    for path in files(corpora):
        if path.name == "corpus.json":
            content = records.read_record(path, records.CorpusFile)
            add(statistics, ("corpus", require(path, content, "dataset")), path, content)
    grid = [(d, s, seed) for d in settings.datasets for s in settings.systems for seed in settings.seeds]
    return Experiment(
        settings,
        [run_of(point, found) for point in grid],
        {d: statistics["corpus", d][1] for d in settings.datasets if ("corpus", d) in statistics},
        {dataset: path.parent for (_, dataset), (path, _) in statistics.items()},
    )


def run_of(point: tuple[str, str, str], found: Found) -> Run:
    """The run of one grid point out of all that was found."""
    kinds = ("config", "metrics", "ngram", "examples")
    parts = {kind: found[kind, *point][1] for kind in kinds if (kind, *point) in found}
    curves = tuple(found["curves", *point][1]) if ("curves", *point) in found else ()
    timings = {key[-1]: content for key, (_, content) in found.items() if key[:-1] == ("timings", *point)}
    samples = found["samples", *point][0] if ("samples", *point) in found else None
    if "config" in parts:
        if curves:
            check_curves(parts["config"], found["curves", *point][0])
        for kind in ("metrics", "ngram", "examples", "samples"):
            if (kind, *point) in found:
                check_model(parts["config"], *found[kind, *point])
    beside: dict[str, Path | None] = {}
    if "metrics" in parts:
        about, stated = found["metrics", *point]
        for name in ("posterior", "sentences"):
            path = about.with_name(f"{name}.parquet")
            if "files" in stated:
                checked_file(path, about, stated["files"], "evaluate")
            beside[name] = path if path.is_file() else None
    return Run(
        *point,
        curves=curves,
        samples=samples,
        sentences=beside.get("sentences"),
        posterior=beside.get("posterior"),
        timings=timings,
        **parts,
    )


def candidates(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """(kind, path) of each file of a run below `paths`, by its name."""
    for path in files(paths):
        if path.parent.name == "timings":
            yield "timings", path
        elif path.name in KIND_OF_FILE:
            yield KIND_OF_FILE[path.name], path


def files(paths: Sequence[Path]) -> Iterator[Path]:
    """Every file below the folders `paths`, sorted within its own; hidden ones (unfinished outputs) are passed over.

    Raises DataError for a path that is a file.
    """
    for path in paths:
        if path.is_file():
            raise DataError(f"{path} is a file: give a folder in which steps have written their results")
        for folder, folders, names in os.walk(path, followlinks=True):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def read_content(kind: str, path: Path) -> Any:
    """What a file says; of samples only whose they are. Raises DataError where it is damaged or says anything else."""
    if kind == "curves":
        return read_curves(path)
    return samples_metadata(path) if kind == "samples" else records.read_record(path, RECORDS[kind])


def read_curves(path: Path) -> list[Record]:
    """The rows of curves.jsonl. Raises DataError where it is missing, naming the line that is none."""
    rows = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing; run the train step again, or `dvc pull`") from None
    for number, line in enumerate(lines, start=1):
        try:
            row = parsed_json(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: not JSON ({error}); run train again") from None
        rows.append(records.checked_record(row, records.CurveRow, f"{path}, line {number},"))
    return rows


def check_curves(config: Record, path: Path) -> None:
    """Raise DataError where curves.jsonl is not the one that train wrote with config.json."""
    if config.get("curves_sha256") not in (None, sha256_of_file(path)):
        raise DataError(
            f"{path} is damaged, or another training's: config.json has another hash of it; run train again"
        )


def check_model(config: Record, path: Path, content: Record) -> None:
    """Raise DataError where a file says that it was made of another model than that of config.json."""
    if content.get("model_sha256") not in (None, fingerprint(config)):
        raise DataError(
            f"{path} is of another training than config.json, of the same name: run the steps after train again"
        )


def identity(path: Path, content: Any) -> tuple[str, str, str]:
    """(data set, system, seed) as written inside. Raises DataError where it is missing or, in curves, not one."""
    records = content if isinstance(content, list) else [content]
    found = {
        (require(path, record, "dataset"), require(path, record, "system"), require(path, record, "seed"))
        for record in records
    }
    if len(found) > 1:
        raise DataError(f"{path} mixes the curves of {len(found)} runs; run train again")
    return found.pop()


def require(path: Path, record: Any, key: str) -> str:
    """`record[key]` as text. Raises DataError where there is none."""
    if not isinstance(record, dict) or record.get(key) is None:
        raise DataError(f"{path} does not say its {key}; run the step that writes it again")
    return str(record[key])


def add(found: Found, key: tuple[str, ...], path: Path, content: Any) -> None:
    """Note a file. Raises DataError where another one claims to be the same and differs."""
    if key in found and json.dumps(found[key][1], sort_keys=True) != json.dumps(content, sort_keys=True):
        raise DataError(
            f"{found[key][0]} and {path} both are '{key[0]}' of {', '.join(key[1:])} and differ; remove the stale one"
        )
    found.setdefault(key, (path, content))
