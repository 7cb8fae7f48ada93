"""The run directories that publish makes MLflow equal to: found, and nothing in them taken for what it is not."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from reporting.artifacts import KIND_OF_FILE, check_curves, check_model, files, identity, read_content
from textvae.errors import DataError
from textvae.files import check_links

Point = tuple[str, str, str]
"""(data set, system, seed)."""
PUBLISHED = (
    "model/candidates.json",
    "curves.jsonl",
    "evaluation/metrics.json",
    "ngram.json",
    "examples.json",
    "samples.parquet",
    "timings/train.json",
)
"""What is read of a run directory, beside model/config.json, which says whose it is."""


def run_directories(folders: Sequence[Path]) -> dict[Point, Path]:
    """(data set, system, seed) -> run directory, for every finished training below `folders`.

    Raises DataError for two directories of one run, and for one with a link that leaves it.
    """
    found: dict[Point, Path] = {}
    for config_path in (path for path in files(folders) if path.parts[-2:] == ("model", "config.json")):
        point = identity(config_path, read_content("config", config_path))
        directory = config_path.parent.parent
        if found.setdefault(point, directory).resolve() != directory.resolve():  # `latest`, a link to one, is no other
            raise DataError(f"{found[point]} and {directory} are both {'-'.join(point)}: remove one of them")
        check_links(directory)
    return found


def with_models(found: Mapping[Point, Path], models: Sequence[Path], linked: Path) -> dict[Point, Path]:
    """The run directories in `found` that `models` are of, made of links below `linked`, each with its model.

    Raises DataError for the model of a run that is not in `found`, for a second one of a run, and for one with a link
    that leaves it.
    """
    complete = {}
    for model in models:
        check_links(model)
        point = identity(model / "config.json", read_content("config", model / "config.json"))
        if point in complete:
            raise DataError(f"{model}: there is another model of {'-'.join(point)}: give one")
        if point not in found:
            raise DataError(f"{model} is the model of {'-'.join(point)}, of which there is no run directory")
        complete[point] = linked.joinpath(*point)
        complete[point].mkdir(parents=True)
        for path in found[point].iterdir():
            target = model if path.name == "model" else path
            (complete[point] / path.name).symlink_to(target.resolve())
    return complete


def check_identity(directory: Path) -> None:
    """Raises DataError for a file of another run in a run directory, or of another training of the run."""
    config = directory / "model/config.json"
    about = read_content("config", config)
    own, status = identity(config, about), about["status"]
    for path in (directory / name for name in PUBLISHED):
        content = read_content(KIND_OF_FILE.get(path.name, path.parent.name), path) if path.is_file() else None
        if path.name == "curves.jsonl" and path.is_file():
            check_curves(about, path)
        if not content or (path.parent.name == "timings" and "system" not in content):
            continue  # the curves of a run that diverged in its first epoch; times of an older version
        again = "remove it, and run the step that writes it again"
        if (other := identity(path, content)) != own:
            raise DataError(f"{path} is of {'-'.join(other)}, in the run directory of {'-'.join(own)}: {again}")
        if isinstance(content, dict):
            check_model(about, path, content)
        said = content.get("status", status) if isinstance(content, dict) else status
        found_useless = path.name == "metrics.json" and said == "diverged"  # of a finished model
        if said != status and not found_useless:
            raise DataError(f"{path} says {said}, {config} {status}: they are of different trainings; {again}")
