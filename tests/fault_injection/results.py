"""What has been tried, and what became of it: kept in a file, told as a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.fault_injection.trials import Result

COLUMNS = ("fault", "step", "tried", "survived", "lost", "command")
FAULTS = {
    "kill": "killed (SIGKILL)",
    "interrupt": "interrupted (Ctrl-C)",
    "full": "disk full",
    "read-only": "folder read-only",
    "flipped": "a bit of an input flipped",
    "torn": "an input torn, empty, gone",
    "foreign": "another's file as input",
    "pair": "two processes at once",
    "store": "publish killed, MLflow looked at",
    "whole": "`make repro` killed, up to its end",
}


class Key(NamedTuple):
    """What names a trial."""

    kind: str
    step: str
    what: str


class Results:
    """A file with a line for each trial that was done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[Key, Result] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            try:
                said = json.loads(line)
            except ValueError:  # the line in which this was killed
                continue
            self.done[Key(said["kind"], said["step"], said["what"])] = Result(said["tried"], said["lost"])

    def add(self, key: Key, result: Result) -> None:
        """Keep one."""
        self.done[key] = result
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**key._asdict(), **result._asdict()}) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """A row for each kind of fault and step."""
        together: dict[tuple[str, str], Result] = {}
        for key, result in self.done.items():
            before = together.get((key.kind, key.step), Result(0, []))
            together[key.kind, key.step] = Result(before.tried + result.tried, before.lost + result.lost)
        return [
            {
                "fault": FAULTS[kind],
                "step": step,
                "tried": result.tried,
                "survived": result.tried - len(result.lost),
                "lost": len(result.lost),
                "command": f"python -m tests.fault_injection --kinds {kind} --steps {step}",
            }
            for (kind, step), result in sorted(
                together.items(), key=lambda row: (list(FAULTS).index(row[0][0]), row[0])
            )
        ]

    def lost(self) -> list[str]:
        """What was lost, a line each."""
        return [f"{key.kind} {key.step} {key.what}: {one}" for key, result in self.done.items() for one in result.lost]


def markdown(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as a table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- | --- | ---: | ---: | ---: | --- |"]
    lines += [
        "| " + " | ".join(f"`{row[c]}`" if c == "command" else str(row[c]) for c in COLUMNS) + " |" for row in rows
    ]
    return "\n".join(lines) + "\n"


def write_tables(folder: Path, rows: list[dict[str, Any]]) -> None:
    """table.md and table.csv."""
    (folder / "table.md").write_text(markdown(rows), encoding="utf-8")
    with (folder / "table.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
