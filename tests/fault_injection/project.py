"""The project in which faults are made: tiny, run once without any, each step as dvc.yaml calls it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from machine_faults import outputs_of, step_named
from tiny_project import PARAMS, ROOT, sentences, write_params

from components.step import Step
from tests.fault_injection.forks import Ended, Fork, counted_events
from textvae.files import fingerprint, sha256_of_file, write_json

SYSTEMS, SEEDS, DATASETS = ["lstm_lm", "vae_mine"], ["1", "2"], ["tiny", "other"]
RUN = Path("runs/tiny/vae_mine/1")
"""Whose steps are disturbed; the others' files are the foreign ones."""
OF_A_RUN = ("train", "evaluate", "sample", "examples", "ngram")
LEFT = re.compile(r"\..+\.\d+\.tmp$")
"""What a kill leaves of a JSON file that is being written: hidden, gone when that file is written an hour later."""
UNCOMPARED = ("timings", ".state", "tmp", "log")
"""Folders and files whose content tells of time, and what is no output of a step."""


@dataclass(frozen=True)
class Case:
    """A step with the command line by which it is tried, in a project's folder."""

    step: Step
    arguments: Sequence[str]

    @property
    def name(self) -> str:
        """The step's."""
        return self.step.name

    @property
    def outputs(self) -> list[Path]:
        """What it writes."""
        options = dict(zip(self.arguments[::2], self.arguments[1::2], strict=True))
        return [
            Path(options[f"--{name.replace('_', '-')}"]) for name in outputs_of(self.step) if f"--{name}" in options
        ]

    def run(self, project: Path) -> None:
        """The command, in this process."""
        os.chdir(project)
        self.step.main(list(self.arguments))


def case(stage: str, dataset: str = "tiny", system: str = "vae_mine", seed: str = "1") -> Case:
    """A stage of dvc.yaml for one run."""
    cmd = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["cmd"]
    for name, value in (("dataset", dataset), ("system", system), ("seed", seed)):
        cmd = cmd.replace(f"${{item.{name}}}", value)
    return Case(step_named(stage), shlex.split(cmd)[3:])


def gather_case() -> Case:
    """What only Kubeflow's pipeline calls."""
    step, places = step_named("gather"), {"config": "model/config.json", "curves": "curves.jsonl"}
    places |= {"samples": "samples.parquet", "examples": "examples.json", "ngram": "ngram.json"}
    arguments = []
    for parameter in step.parameters:
        place = places.get(parameter.name, parameter.name)
        if parameter.name.endswith("_timings"):
            place = f"timings/{parameter.name.removesuffix('_timings')}.json"
        value = "gathered" if parameter.name == "run" else str(RUN / place)
        arguments += [parameter.option, value]
    return Case(step, arguments)


def cases() -> dict[str, Case]:
    """Every step, by its name."""
    stages = ("settings", "fetch", "preprocess", *OF_A_RUN, "report")
    return {**{stage: case(stage) for stage in stages}, "gather": gather_case()}


class Project:
    """A folder with the undisturbed project in `undisturbed`, and where copies of it are disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder.resolve(), folder.resolve() / "undisturbed"
        self.log = self.folder / "log"
        self._reads: dict[str, tuple[list[Path], int]] = {}

    def variables(self, project: Path) -> dict[str, str]:
        """The environment of a step: states and temporary files are on the same disk, and a state every 0.06 s."""
        states = {"TEXTVAE_STATE": str(project / ".state"), "TEXTVAE_CHECKPOINT_MINUTES": "0.001"}
        (project / "tmp").mkdir(exist_ok=True)
        return {**states, "TMPDIR": str(project / "tmp"), "PYTHONTRACEMALLOC": "0"}

    def start(self, one: Case, project: Path, first: Callable[[], object] = lambda: None, log: str = "log") -> Fork:
        """Start a step in a copy; `first` is called in its process before."""

        def action() -> None:
            import tempfile

            tempfile.tempdir = None
            first()
            one.run(project)

        return Fork(action, self.folder / log, self.variables(project))

    def make(self) -> None:
        """Run everything once, and note who reads what. Raises RuntimeError where a step fails without any fault."""
        shutil.rmtree(self.path, ignore_errors=True)
        (self.path / "data").mkdir(parents=True)
        lines = sentences(120)
        for dataset, text in (("tiny", lines), ("other", lines[60:] + lines[:50])):
            (self.path / f"data/{dataset}.txt").write_text("\n".join(text) + "\n")
        source = PARAMS["datasets"]["tiny"]["source"]  # type: ignore[index]
        datasets = {name: {"source": {**source, "path": f"data/{name}.txt"}, "reduced": True} for name in DATASETS}
        defaults: dict[str, Any] = {**PARAMS["defaults"], "sampling": {"sentences": 60, "max_length": 12}}
        defaults["examples"] = {"sentences": 3}
        grid = {"datasets": DATASETS, "systems": SYSTEMS, "seeds": SEEDS}
        systems = {name: PARAMS["systems"][name] for name in SYSTEMS}  # type: ignore[index]
        write_params(self.path, {"grid": grid, "defaults": defaults, "systems": systems, "datasets": datasets})
        made = [case("settings"), *(case(s, d) for d in DATASETS for s in ("fetch", "preprocess"))]
        made += [case(stage, dataset, system, seed) for dataset, system, seed in self.points() for stage in OF_A_RUN]
        for one in [*made, case("report"), gather_case()]:
            ended = self.start(one, self.path).wait()
            if ended.code:
                raise RuntimeError(f"without any fault: {one.name} {one.arguments}: {ended.said}")

    def points(self) -> list[tuple[str, str, str]]:
        """The runs: of the other corpus only one."""
        return [("tiny", system, seed) for system in SYSTEMS for seed in SEEDS] + [("other", "vae_mine", "1")]

    def copy(self, name: str = "disturbed", without: Sequence[Path] = ()) -> Path:
        """A copy to disturb, without some of its files."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.path, place)
        for path in without:
            with suppress(FileNotFoundError):
                shutil.rmtree(place / path) if (place / path).is_dir() else (place / path).unlink()
        return place

    def differences(self, project: Path, only: Sequence[Path] | None = None) -> list[str]:
        """The files of a copy that are not, byte for byte, the undisturbed project's, those too many, those missing."""
        roots = [Path()] if only is None else only
        ours, theirs = (set(files_of(place, roots)) for place in (project, self.path))
        found = [f"{path} is too many" for path in sorted(ours - theirs)]
        found += [f"{path} is missing" for path in sorted(theirs - ours)]
        for path in sorted(ours & theirs):
            mine, other = project / path, self.path / path
            if path.parent.name != "timings" and mine.read_bytes() != other.read_bytes():
                found.append(f"{path} has another content")
        return found

    def reads(self, one: Case) -> tuple[list[Path], int]:
        """Which files a step reads that another step has written, and how many of its calls a kill can come at."""
        if one.name not in self._reads:
            project, notes = self.copy("noted", one.outputs), self.folder / "notes"
            ended = self.start(one, project, lambda: counted_events(project, notes)).wait()
            if ended.wrong or ended.code:
                raise RuntimeError(f"without any fault: {one.name}: {ended.said}")
            lines = [line.split("\t", 1) for line in notes.read_text().splitlines()]
            read = {Path(place).relative_to(project) for how, place in lines if how == "read"}
            written = [str(path) for path in one.outputs]
            read = {
                path
                for path in read
                if (self.path / path).is_file()
                and path.parts[0] not in ("settings", "data", "params.yaml", "tmp", ".state")
                and not any(str(path).startswith(out) for out in written)
            }
            if one.name == "report":  # of the others' files it is the same
                mine = (str(RUN), "corpora/tiny")
                read = {path for path in read if str(path).startswith(mine)}
            self._reads[one.name] = sorted(read), len(lines)
        return self._reads[one.name]


def files_of(project: Path, roots: Sequence[Path]) -> Iterator[Path]:
    """The files below some places of a project that are compared, by their relative paths."""
    for root in roots:
        top = project / root
        for path in [top] if top.is_file() else top.rglob("*"):
            relative = path.relative_to(project)
            if not path.is_dir() and relative.parts[0] not in UNCOMPARED and not LEFT.match(path.name):
                yield relative


def every_file(path: Path) -> list[Path]:
    """A file, or those of a folder."""
    return [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]


def judged(project: Project, one: Case, place: Path, first: Sequence[Ended]) -> str:
    """ "" where a step has survived what was done to it; else what was lost.

    That is: it ended as the house does, and run again it gives, byte for byte, what it gives undisturbed.
    """
    for ended in first:
        if ended.wrong and ended.code != -9:
            return ended.wrong
    again = project.start(one, place).wait()
    if again.wrong or again.code:
        return again.wrong or f"run again it ends with {again.code}: {again.said.strip()[-300:]}"
    left = [str(path.relative_to(place)) for path in (place / ".state").glob("*/*")]
    return "; ".join([*project.differences(place), *(f"{path} is left" for path in left)][:5])


def code_sha256() -> str:
    """Of the code that is tried: results of other code are not kept."""
    folders = ("components", "pipelines", "reporting", "textcorpus", "textvae", "tracking")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*")) if path.suffix in (".py", ".j2")]
    return fingerprint({str(path.relative_to(ROOT)): sha256_of_file(path) for path in files})


def opened(folder: Path) -> tuple[Project, bool]:
    """The project in `folder`, made where it is not there or is of other code; and whether it was there."""
    project, about = Project(folder), folder / "about.json"
    said = about.read_text() if about.is_file() else ""
    if re.search(code_sha256(), said):
        return project, True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    project.make()
    write_json(about, {"code_sha256": code_sha256()})
    return project, False
