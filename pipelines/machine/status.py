"""Where every run of the grid stands: done, diverged, running, interrupted, failed or pending."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from dvc.lock import LockError
from dvc.repo import Repo

from components.settings import of_corpus, of_run
from pipelines.machine.stages import RUN_STAGES, repository
from textvae.command_line import run
from textvae.config import CODE_FOLDER, GridPoint, Params, TrainSettings
from textvae.environment import state_root
from textvae.errors import DataError, exit_codes
from textvae.files import read_json
from textvae.locks import alive
from textvae.objectives import alternatives
from textvae.progress import duration
from textvae.provenance import imported_by
from textvae.records import CorpusFile, ModelConfig, TrainingProgress, read_record
from textvae.state import StateStore, training_fingerprint

FILLED_IN = {"sha256", "version"}
"""What the settings of fetch get from the text, where params.yaml does not give it."""


def stages_to_run(repo: Repo, points: Sequence[GridPoint]) -> dict[GridPoint, set[str] | None]:
    """The runs' stages that `dvc repro` would run; None for a run while another process runs one of its stages."""
    try:
        outdated = set(repo.status())
    except LockError:  # asked of each run: dvc reads all its files anew for each target
        return {point: stages_of_one(repo, point) for point in points}
    return {point: {stage for stage in RUN_STAGES if f"{stage}@{point.name}" in outdated} for point in points}


def stages_of_one(repo: Repo, point: GridPoint) -> set[str] | None:
    """`stages_to_run` of one run."""
    try:
        return {name.split("@")[0] for name in repo.status(targets=[f"{stage}@{point.name}" for stage in RUN_STAGES])}
    except LockError:
        return None


def outdated_stages(params: Params, point: GridPoint) -> set[str]:
    """The run's stages whose settings are not what params.yaml says by now: dvc learns that in its stage `settings`."""
    wanted = of_corpus(params, point.dataset)
    given = {key: value for key, value in wanted["fetch"].items() if key not in FILLED_IN or value is not None}
    wanted["fetch"] = given
    for name, content in of_run(params, point.dataset, point.system).items():
        wanted[f"{point.system}/{name}"] = content
    outdated = set()
    for name, content in wanted.items():
        file = Path("settings", point.dataset, f"{name}.json")
        written = read_json(file) if file.exists() else content
        if not isinstance(written, dict) or any(written.get(key) != value for key, value in content.items()):
            outdated.add(name.split("/")[-1])
    if outdated & {"fetch", "preprocess", "train"}:
        return outdated | set(RUN_STAGES)
    return outdated | ({"ngram"} if "sample" in outdated else set())


def stages_of_other_code() -> set[str]:
    """The stages of a run that have run code which is another by now: dvc learns that in its stage `settings`, too."""
    files = {stage: Path("settings", CODE_FOLDER, f"{stage}.json") for stage in RUN_STAGES}
    written = {stage: read_json(file) for stage, file in files.items() if file.exists()}
    return {stage for stage, hashes in written.items() if hashes != imported_by(f"components.{stage}")}


def text_has_changed(repo: Repo) -> bool:
    """Whether data/ is another than when params.yaml was last resolved; False while another process is at it."""
    try:
        changes = repo.status(targets=["settings"]).get("settings", [])
    except LockError:
        return False
    return any("data" in one.get("changed deps", {}) for one in changes if isinstance(one, dict))


def fingerprints(params: Params, point: GridPoint, text_changed: bool) -> set[str]:
    """Of the states that the run's training would go on from, as params.yaml and the corpus are now."""
    about = Path("corpora", point.dataset, "corpus", "corpus.json")
    source = params.fetch(point.dataset)
    new_text = text_changed and source.path is not None and source.sha256 is None
    if new_text or outdated_stages(params, point) & {"fetch", "preprocess"} or not about.exists():
        return set()
    train = TrainSettings.model_validate(of_run(params, point.dataset, point.system)["train"])
    sha256, (_, objectives) = read_record(about, CorpusFile)["sha256"], alternatives(train.objective)
    trainings = [train.model_copy(update={"objective": one}) for one in objectives]
    return {training_fingerprint(one, sha256, int(point.seed)) for one in trainings}


def unfinished_trainings(current: Collection[str] | None = None) -> dict[str, dict[str, Any]]:
    """What each training with a kept state last said, by its run's name; `goes_on`: its fingerprint is in `current`.

    Where a run has several states, one that goes on is taken, else the latest.
    """
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(state_root().glob("*/progress.json"), key=changed):
        try:
            said = read_record(file, TrainingProgress)
        except DataError:
            if not file.exists():  # the training has ended meanwhile
                continue
            raise
        said["goes_on"] = current is None or file.parent.name in current
        name = f"{said['dataset']}-{said['system']}-{said['seed']}"
        if said["goes_on"] or not found.get(name, {}).get("goes_on"):
            found[name] = said
    return found


def changed(file: Path) -> float:
    """When a file was last written; 0 where a training that has ended meanwhile has taken it along."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def size(file: Path) -> int:
    """A file's bytes; 0 for what is none, or gone meanwhile."""
    try:
        return file.stat().st_size if file.is_file() else 0
    except FileNotFoundError:
        return 0


def state_of(
    point: GridPoint, todo: set[str] | None, unfinished: dict[str, dict[str, Any]], trained: bool = False
) -> str:
    """One run's state in words. `todo`: see `stages_to_run`. `trained`: all its trainings are over."""
    said = unfinished.get(point.name)
    where, left = "", "of training left"
    if said is not None:
        where = f"epoch {said['epoch']}/{said['epochs']}, {said['tokens_per_second']:,.0f} tokens/s"
        if said.get("value"):  # one of several: what the others take is not known before they are trained
            where, left = f"{said['value']}: {where}", "left of this one's training"
    if todo == set():
        status = read_record(point.folder / "model" / "config.json", ModelConfig)["status"]
        return "done" if status == "finished" else "failed (diverged: see the report)"
    goes_on = said is None or said.get("goes_on", True)
    if said is not None and alive(said["pid"]):
        changed = "" if goes_on else "; what params.yaml says by now is another training"
        seconds = said["seconds_left"]  # not known before the first step
        time_left = "" if seconds is None else f", {duration(seconds)} {left}"
        return f"running ({where}{time_left}{changed})"
    if todo is None:
        return "running"
    if said is not None and "train" in todo:
        then = "goes on" if goes_on else "starts afresh, as settings or text are others by now"
        return f"interrupted ({where}; `make repro` {then})"
    if trained and "train" in todo:
        return "trained (its model directory is still to be written)"
    log = state_root() / "logs" / f"{point.name}.log"
    if log.exists() and "ERROR" in log.read_text(encoding="utf-8", errors="replace"):
        return f"failed (see {log})"
    return "pending" if len(todo) == len(RUN_STAGES) else f"pending ({', '.join(sorted(todo))})"


def main() -> None:
    """Say of every run of params.yaml where it stands: done, diverged, running, interrupted, failed or pending.

    Nothing is changed. Exit code 2: params.yaml is wrong.

    \b
    Examples:
      python -m pipelines.machine.status
    """
    with exit_codes():
        show()


def show() -> None:
    """Print one line per run."""
    params = Params.load(Path("params.yaml"))
    points = params.grid.points()
    edited = stages_of_other_code()
    outdated = {point: edited | outdated_stages(params, point) & set(RUN_STAGES) for point in points}
    width = max(len(point.name) for point in points)
    with repository() as repo:
        new_text = text_has_changed(repo)
        current = {point: fingerprints(params, point, new_text) for point in points}
        unfinished = unfinished_trainings({one for states in current.values() for one in states})
        to_run = stages_to_run(repo, points)
        for point in points:
            todo = to_run[point]
            trained = {one for one in current[point] if StateStore(one).outcomes()}
            todo = todo if todo is None else todo | outdated[point]
            state = state_of(point, todo, unfinished, bool(trained) and trained == current[point])
            print(f"{point.name:<{width}}  {state}", flush=True)
    states = state_root()
    used = sum(size(file) for file in states.rglob("*"))
    print(f"training states: {used / 1e6:,.1f} MB in {states}")


if __name__ == "__main__":
    run(main)
