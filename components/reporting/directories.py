"""Run directories made of loose results: Kubeflow hands over files and folders without telling names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from components.reporting.artifacts import candidates, identity, read_content, require
from textvae.errors import DataError

PLACES = {
    "config": "model/config.json",
    "curves": "curves.jsonl",
    "metrics": "evaluation/metrics.json",
    "ngram": "ngram.json",
    "examples": "examples.json",
    "samples": "samples.parquet",
}


def run_folders(paths: Sequence[Path], assembled: Path) -> list[Path]:
    """Folders that hold run directories: those of `paths` that do, and `assembled`, made of links to all other results.

    Whose a loose result is says the identity inside it, never its path. Raises DataError for one that does not say it,
    and for two that are of the same run and step.
    """
    folders = [path for path in paths if path.is_dir() and any(path.rglob("model/config.json"))]
    diverged = []
    for kind, path in candidates([path for path in paths if path not in folders]):
        content = read_content(kind, path)
        if not content:
            continue  # the curves of a run that diverged in its first epoch: nothing says whose they are
        place = PLACES.get(kind) or f"timings/{require(path, content, 'step')}.json"
        link = assembled.joinpath(*identity(path, content), place)
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            raise DataError(f"{link.resolve()} and {path} are both {kind} of the same run: remove one of them")
        link.symlink_to(path.resolve())
        if kind == "config" and isinstance(content, dict) and content.get("status") == "diverged":
            diverged.append(link.parent.parent / PLACES["curves"])
    for curves in diverged:
        if not curves.exists():
            curves.touch()  # it diverged in its first epoch
    return [*folders, assembled]
