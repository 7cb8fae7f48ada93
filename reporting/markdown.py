"""report.md: the tables and their notes, for a terminal, a pull request or a README."""

from __future__ import annotations

from collections.abc import Sequence

from reporting.artifacts import Experiment
from reporting.context import overview, warnings
from reporting.differences import Differences
from reporting.names import dataset_name
from reporting.results import Row
from reporting.summary import BEST, SECOND
from reporting.tables import Cell, Line, Table
from reporting.verdict import verdicts
from textvae.control_characters import visible

MARKS = {BEST: ("**", "**"), SECOND: ("<u>", "</u>"), "": ("", "")}


def report(experiment: Experiment, rows: list[Row], differences: Differences, tables: Sequence[Table]) -> str:
    """The whole document."""
    parts = ["# Results", overview(experiment), *(f"> {warning}" for warning in warnings(experiment))]
    parts.append("## Verdict")
    for found in verdicts(rows, differences):
        parts.append(f"### {dataset_name(found.dataset)}: {found.headline}")
        parts += ["\n".join(f"- {sentence}" for sentence in found.sentences)] if found.sentences else []
    parts += [rendered(table) for table in tables]
    parts += ["## The columns", definitions(tables)]
    return visible("\n\n".join(parts) + "\n")


def rendered(table: Table) -> str:
    """A table under its title, with its notes and footnotes."""
    numbers = len(table.columns) - sum(column.label in ("Dataset", "Model") for column in table.columns)
    texts = len(table.columns) - numbers
    lines = [row([column.label for column in table.columns]), row(["---"] * texts + ["---:"] * numbers)]
    previous = ""
    for line in table.lines:
        lines.append(row(cells(line, texts, numbers, show_dataset=line.dataset != previous)))
        previous = line.dataset
    parts = [f"## {table.title}", "\n".join(lines)]
    parts += table.notes
    if table.footnotes:
        parts.append("On the paper's numbers:")
        parts += [f"<sup>{letter}</sup> {text}" for letter, text in table.footnotes.items()]
    return "\n\n".join(parts)


def cells(line: Line, texts: int, numbers: int, *, show_dataset: bool) -> list[str]:
    """The columns of one line; a failed or pending one says why in its first column of numbers."""
    label = f"*{line.label}*" if line.kind in ("paper", "difference", "real") else line.label + line.remark
    dataset = dataset_name(line.dataset) if show_dataset else ""
    first = [label] if texts == 1 else [dataset, label]
    if line.message:
        return [*first, f"*{line.kind}*: {line.message}", *[""] * (numbers - 1)]
    return [*first, *(cell_text(cell) for cell in line.cells)]


def cell_text(cell: Cell) -> str:
    """A number with its mark and footnotes."""
    before, after = MARKS[cell.mark]
    letters = f"<sup>{' '.join(cell.footnotes)}</sup>" if cell.footnotes else ""
    return f"{before}{cell.text}{after}{cell.spread}{cell.rest}{letters}"


def row(columns: list[str]) -> str:
    """One line of a Markdown table; a bar inside a text is escaped, a line break becomes a space."""
    return "| " + " | ".join(" ".join(column.replace("|", "\\|").split()) for column in columns) + " |"


def definitions(tables: Sequence[Table]) -> str:
    """Each column once."""
    known = {column.label: column.definition for table in tables for column in table.columns if column.definition}
    return "\n".join(f"- **{label}**: {definition}" for label, definition in known.items())
