"""What is done to the files that a step reads: each is flipped, torn, or in the place of another."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from faults import flips, truncate

from tests.fault_injection.forks import Fork
from tests.fault_injection.project import RUN, Case, Project, every_file
from tests.fault_injection.trials import Result, Trial, chance, one_result


def read_again(project: Project, one: Case, place: Path, about: str) -> str:
    """What is lost where a step, in this process, reads a spoilt file; "" where it refuses it in one line, or gives
    what it gives undisturbed."""
    said, code = io.StringIO(), 0
    try:
        with redirect_stderr(said), redirect_stdout(said):
            one.run(place)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except Exception as error:
        return f"{about}: a traceback: {error!r}"
    if code == 0:
        different = project.differences(place, one.outputs)
        return f"{about}: unnoticed: {'; '.join(different[:3])}" if different else ""
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    return "" if code == 65 and len(lines) == 1 else f"{about}: exit code {code}: {said.getvalue()[-300:]}"


def spoilt(
    project: Project, one: Case, spoil: Callable[[Path, Path], Iterator[str]], least: int = 1
) -> Iterator[Trial]:
    """For each file that the step reads, the faults that `spoil` makes, one after the other: it yields each one's name,
    and puts the file right when the next is asked for. All of a file are in one process."""

    def do(file: Path) -> Result:
        place, said = project.copy(without=one.outputs), project.folder / "said.json"
        said.unlink(missing_ok=True)

        def action() -> None:
            before = (place / file).read_bytes()
            tried, lost = 0, []
            for about in spoil(place / file, file):
                wrong = read_again(project, one, place, f"{file}, {about}")
                tried, lost = tried + 1, [*lost, *([wrong] if wrong else [])]
            (place / file).write_bytes(before)
            wrong = read_again(project, one, place, f"{file}, put right")
            said.write_text(json.dumps([tried, [*lost, wrong] if wrong else lost]))

        ended = Fork(action, project.folder / "log", project.variables(place)).wait()
        return Result(*json.loads(said.read_text())) if said.exists() else one_result(ended.said[-300:], str(file))

    for file in project.reads(one)[0]:
        yield Trial(str(file), lambda file=file: do(file), least)  # type: ignore[misc]


def flipped_files(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """One bit is another: `count` times for each file."""

    def spoil(path: Path, file: Path) -> Iterator[str]:
        for position, bit in flips(path, count, seed):
            yield f"bit {bit} of byte {position} flipped"

    return spoilt(project, one, spoil, count)


def torn_files(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """An end is missing, the file is empty or gone, a part is zeros, more stands behind it."""

    def spoil(path: Path, file: Path) -> Iterator[str]:
        draw, whole = chance(seed, file, "torn"), path.read_bytes()
        for trial in range(count):
            share = (0.0, 1 - 1 / len(whole), 0.5)[trial] if trial < 3 else draw.random()
            truncate(path, share)
            yield f"{share:.3f} of it left"
            start = draw.randrange(len(whole))
            path.write_bytes(whole[:start] + bytes(len(whole[start : start + 512])) + whole[start + 512 :])
            yield f"zeros from byte {start}"
        path.write_bytes(whole + whole[-100:])
        yield "more behind it"
        path.unlink()
        yield "missing"
        path.write_bytes(whole)

    return spoilt(project, one, spoil)


def foreign_files(project: Project, one: Case, count: int, seed: int) -> Iterator[Trial]:
    """In the place of a file, that of another system, seed or corpus, or one of another kind."""

    def spoil(path: Path, file: Path) -> Iterator[str]:
        whole = path.read_bytes()
        others = [other for other in project.path.rglob(path.name) if other.is_file() and other != project.path / file]
        others += chance(seed, file, "foreign").sample(every_file(project.path / RUN), 3)
        for other in others:
            if other != project.path / file and other.parent.name != "gathered":
                path.write_bytes(other.read_bytes())
                yield f"{other.relative_to(project.path)} in its place"
        path.write_bytes(whole)

    return spoilt(project, one, spoil)
