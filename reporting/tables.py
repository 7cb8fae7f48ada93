"""Tables 1 and 2 in the paper's layout, and what the paper has no column for: one form for Markdown and HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reporting import paper
from reporting.artifacts import Experiment
from reporting.ceilings import at_ceiling
from reporting.names import MEASURES, TABLE_1, dataset_name, system_name
from reporting.notes import (
    CUT_MARK,
    bound_notes,
    choice_notes,
    corpus_notes,
    is_the_papers,
    ranking_notes,
    subset_notes,
    text_notes,
)
from reporting.results import NGRAM_MEASURES, Row, explanation, many_cut
from reporting.summary import mean_and_spread, number, rankings, summarise

NONE = "–"
PAPER_ROW, DIFFERENCE_ROW, REAL_ROW = "the paper", "difference", "real text"
DIFFERENCE_NOTE = (
    "Difference: our mean minus the paper's number. The paper does not name the decoding behind its FPPL and RPPL, "
    "which alone may make the difference."
)
TABLE_2_COLUMNS = ("nll", "ppl", "mi", "au", "fppl", "rppl")
ON_A_SUBSET = ("nll_iw", "nll_subset", "gain")
BEYOND_COLUMNS = ("nll_iw", "nll_subset", "gain", "mi_upper", "mi_batch", "kl_agg", "rppl_pad", "cut")


@dataclass(frozen=True)
class Cell:
    """`text`, which `mark` makes bold (best) or underlined (second), its spread over the seeds, then the `rest` and
    the letters of its footnotes."""

    text: str
    spread: str = ""
    rest: str = ""
    mark: str = ""
    footnotes: str = ""
    title: str = ""
    """More about this one number, for whoever points at it."""
    value: float | None = None
    """What the column is sorted by."""


@dataclass(frozen=True)
class Line:
    """A line of a table. `kind`: ours, paper, difference, real, failed or pending; the last two have a `message` and
    no cells. Lines of one data set and system that follow each other stay together when the table is sorted."""

    kind: str
    dataset: str
    label: str
    system: str = ""
    cells: tuple[Cell, ...] = ()
    message: str = ""
    remark: str = ""
    """Smaller, behind the label."""


@dataclass(frozen=True)
class Column:
    """A heading and its definition."""

    label: str
    definition: str


@dataclass(frozen=True)
class Table:
    """A table with the remarks that belong below it."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    footnotes: dict[str, str] = field(default_factory=dict)
    """Letter to text."""


class Footnotes:
    """Gives the paper's remarks their letters in the order in which a table meets them."""

    def __init__(self, datasets: Sequence[str]) -> None:
        self.known = paper.footnotes(datasets)
        self.letters: dict[str, str] = {}

    def letter(self, dataset: str, system: str, column: str) -> str:
        """The letters for one of the paper's cells (`system` empty: Table 1)."""
        found = ""
        for note in self.known:
            fits = system in note.systems if system else not note.systems
            if note.dataset == dataset and note.column == column and fits:
                found += self.letters.setdefault(note.text, chr(ord("a") + len(self.letters)))
        return found

    def texts(self) -> dict[str, str]:
        """Letter to text, of those that were met."""
        return {letter: text for text, letter in self.letters.items()}


def table_1(experiment: Experiment) -> Table:
    """The corpora (Table 1)."""
    footnotes, lines, notes = Footnotes(experiment.settings.datasets), [], []
    for dataset in experiment.settings.datasets:
        corpus = experiment.corpora.get(dataset)
        if corpus is None:
            lines.append(Line("pending", dataset, dataset_name(dataset), message="preprocess has not written it"))
        else:
            count = corpus["sentences"]
            sizes = [f"{count[split]:,}" for split in ("train", "valid", "test")]
            texts = (*sizes, number(corpus["mean_length"], 1), f"{corpus['vocabulary']:,}")
            values = (
                *(count[split] for split in ("train", "valid", "test")),
                corpus["mean_length"],
                corpus["vocabulary"],
            )
            cells = tuple(Cell(text, value=value) for text, value in zip(texts, values, strict=True))
            lines.append(Line("ours", dataset, dataset_name(dataset), cells=cells))
            notes += corpus_notes(dataset, corpus)
        if dataset in paper.TABLE_1:
            cells = tuple(
                Cell(text, footnotes=footnotes.letter(dataset, "", column))
                for column, text in zip(TABLE_1, paper.TABLE_1[dataset], strict=True)
            )
            lines.append(Line("paper", dataset, PAPER_ROW, cells=cells))
    columns = (Column("Dataset", ""), *(Column(label, text) for label, text in TABLE_1.items()))
    return Table("Table 1: The corpora", columns, tuple(lines), tuple(notes), footnotes.texts())


def table_2(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """Language modelling and posterior collapse (Table 2)."""
    footnotes = Footnotes(experiment.settings.datasets)
    columns = [Column("Dataset", ""), Column("Model", "")]
    for key in TABLE_2_COLUMNS:
        measure = MEASURES[key]
        both = key == "nll"
        columns.append(
            Column(
                "NLL (KL)" if both else measure.label,
                f"{measure.definition} In brackets: {MEASURES['kl'].definition}" if both else measure.definition,
            )
        )
    lines: list[Line] = []
    for dataset in experiment.settings.datasets:
        here = [row for row in rows if row["dataset"] == dataset]
        rows_of = {s: [row for row in here if row["system"] == s] for s in experiment.settings.systems}
        marks = rankings(rows_of)
        for system, own in rows_of.items():
            cells = []
            for key in TABLE_2_COLUMNS:
                kl = summarise(own, "kl") if key == "nll" else None
                rest = (
                    f" ({mean_and_spread(kl, MEASURES['kl']) if kl else NONE})" if key == "nll" else cut_mark(own, key)
                )
                cells.append(cell(own, key, marks[key].get(system, ""), rest))
            lines += system_lines(dataset, system, own, cells)
            if (dataset, system) in paper.TABLE_2:
                lines.append(paper_line(dataset, system, footnotes))
                if is_the_papers(experiment, dataset):
                    lines += difference_line(dataset, system, own)
        lines += real_text_line(dataset, here)
    notes = [*ranking_notes(experiment, rows), *bound_notes(rows, TABLE_2_COLUMNS)]
    notes += [*text_notes(experiment, rows), *choice_notes(rows)]
    if any(line.kind == "difference" for line in lines):
        notes.append(DIFFERENCE_NOTE)
    return Table("Table 2: Language modelling", tuple(columns), tuple(lines), tuple(notes), footnotes.texts())


def beyond_table(experiment: Experiment, rows: Sequence[Row]) -> Table:
    """The columns that the paper does not have."""
    columns = [Column("Dataset", ""), Column("Model", "")]
    columns += [Column(MEASURES[key].label, MEASURES[key].definition) for key in BEYOND_COLUMNS]
    lines: list[Line] = []
    for dataset in experiment.settings.datasets:
        rows_of = {
            s: [row for row in rows if (row["dataset"], row["system"]) == (dataset, s)]
            for s in experiment.settings.systems
        }
        marks = rankings(rows_of)
        for system, own in rows_of.items():
            cells = []
            for key in BEYOND_COLUMNS:
                summary = summarise(own, key)
                error = summary.standard_error if summary and key in ON_A_SUBSET else None
                rest = cut_mark(own, key) if error is None else f" ({number(error, MEASURES[key].decimals)})"
                cells.append(cell(own, key, marks[key].get(system, ""), rest))
            lines += system_lines(dataset, system, own, cells)
    brackets = "In brackets, for what is measured on a subset of the test sentences: the standard error over them."
    notes = (brackets, *bound_notes(rows, BEYOND_COLUMNS), *subset_notes(rows))
    return Table("Beyond the paper: what the numbers above leave open", tuple(columns), tuple(lines), notes)


def cell(rows: Sequence[Row], key: str, mark: str, rest: str) -> Cell:
    """One measure of one system; the title tells the single values."""
    summary = summarise(rows, key)
    if summary is None:
        return Cell(NONE, rest=rest if rest != f" ({NONE})" else "")
    of_seeds = [
        f"seed {row['seed']}: {'> ' if at_ceiling(row, key) else ''}{row[key]:.6g}"
        for row in rows
        if row.get(key) is not None
    ]
    error = summary.standard_error
    title = ", ".join(of_seeds) + ("" if error is None else f"; standard error over the sentences {error:.2g}")
    mean, _, spread = mean_and_spread(summary, MEASURES[key]).partition(" ± ")
    return Cell(mean, f" ± {spread}" if spread else "", rest, mark, title=title, value=summary.mean)


def cut_mark(rows: Sequence[Row], key: str) -> str:
    """What stands behind a number of a text of which much was cut; text_notes says what it means."""
    having = [row for row in rows if row.get(key) is not None]
    return f" {CUT_MARK}" if key in NGRAM_MEASURES and any(map(many_cut, having)) else ""


def system_lines(dataset: str, system: str, rows: Sequence[Row], cells: Sequence[Cell]) -> list[Line]:
    """A system's numbers, if it has any, and a line for each of its runs that failed or is pending."""
    having = [row for row in rows if any(row[key] is not None for key in MEASURES)]
    name, lines = system_name(system), []
    if having:
        remark = "" if len(having) == len(rows) else f" ({len(having)} of {len(rows)} seeds)"
        remark += "".join(f" ({far})" for far in dict.fromkeys(row["unfinished"] for row in having) if far)
        lines.append(Line("ours", dataset, name, system, tuple(cells), remark=remark))
    for row in rows:
        if row["status"] != "finished":
            label = name if len(rows) == 1 else f"{name}, seed {row['seed']}"
            lines.append(Line(row["status"], dataset, label, system, message=explanation(row)))
    return lines


def paper_line(dataset: str, system: str, footnotes: Footnotes) -> Line:
    """The paper's numbers for one system, as printed there."""
    values = paper.TABLE_2[dataset, system]

    def text(key: str) -> str:
        value = values[key]
        return NONE if value is None else number(value, MEASURES[key].decimals)

    cells = tuple(
        Cell(
            text(key), rest=f" ({text('kl')})" if key == "nll" else "", footnotes=footnotes.letter(dataset, system, key)
        )
        for key in TABLE_2_COLUMNS
    )
    return Line("paper", dataset, PAPER_ROW, system, cells)


def difference_line(dataset: str, system: str, rows: Sequence[Row]) -> list[Line]:
    """Our means minus the paper's numbers; no line for a system without results."""
    differences = {}
    for key in ("kl", *TABLE_2_COLUMNS):
        summary, value = summarise(rows, key), paper.TABLE_2[dataset, system][key]
        if summary is not None and value is not None:
            text = number(summary.mean - value, MEASURES[key].decimals or (1 if len(summary.values) > 1 else 0))
            differences[key] = ("> " if summary.bound else "") + (text if text.startswith("-") else f"+{text}")
    if not differences:
        return []
    rest = {"nll": f" ({differences.get('kl', NONE)})"}
    cells = tuple(Cell(differences.get(key, NONE), rest=rest.get(key, "")) for key in TABLE_2_COLUMNS)
    return [Line("difference", dataset, DIFFERENCE_ROW, system, cells)]


def real_text_line(dataset: str, rows: Sequence[Row]) -> list[Line]:
    """What the real test sentences score: FPPL and RPPL are the same number by construction."""
    values = {(row["ngram_order"], row["real_text_fppl"]) for row in rows if row["real_text_fppl"] is not None}
    cells = [Cell(number(value, 2), title=f"{value:.6g}, {order:g}-grams") for order, value in sorted(values)]
    return [Line("real", dataset, REAL_ROW, cells=(*[Cell(NONE)] * 4, cell, cell)) for cell in cells]
