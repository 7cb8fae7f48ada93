"""The table of the generated text: how long, how varied, how new."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from reporting.artifacts import Experiment
from reporting.differences import Differences
from reporting.names import Measure, dataset_name, system_name
from reporting.paired_table import paired_table
from reporting.results import Row
from reporting.summary import Summary, mean_and_spread, number
from reporting.tables import (
    NONE,
    REAL_ROW,
    Cell,
    Column,
    Line,
    Table,
    beyond_table,
    table_1,
    table_2,
)
from reporting.texts import NGRAMS, TextProfile, TextProfiles


def measure(key: str, label: str, decimals: int, definition: str) -> Measure:
    """One column; none is better than real text's, so none is marked."""
    return Measure(key, label, decimals, None, definition)


MEASURES: dict[Measure, Callable[[TextProfile], float | None]] = {
    measure("sentences", "Sentences", 0, "Sentences of the text."): lambda text: text.sentences,
    measure("length", "Length", 2, "Mean number of words of a sentence."): lambda text: text.mean_length,
    measure("words", "Words", 0, "Different words in the text."): lambda text: text.words,
    measure("unique", "Unique", 3, "Different sentences, as a share of all sentences."): lambda text: text.unique,
    measure(
        "in_training",
        "In training",
        4,
        "Share of the sentences that are in the training set, word for word.",
    ): lambda text: text.in_training,
    measure(
        "unique_first",
        "Unique of first",
        3,
        "Different sentences, as a share, of only as many sentences as the real text has: the fair one beside it.",
    ): lambda text: text.unique_of_first,
    **{
        measure(
            f"distinct_{order}",
            f"distinct-{order}",
            3,
            f"Different {order}-grams, as a share of all of them, of only as many sentences as the real text has: the "
            "share falls with the amount of text.",
        ): lambda text, order=order: text.distinct[order - 1]  # type: ignore[misc]
        for order in NGRAMS
    },
}


def generated_text(experiment: Experiment, texts: Mapping[str, TextProfiles | None]) -> Table | None:
    """A line per system and one for the test sentences; None where no text is known."""
    lines = []
    for dataset, known in texts.items():
        if known is None:
            continue
        for system in experiment.settings.systems:
            own = {seed: text for (name, seed), text in known.generated.items() if name == system}
            if own:
                cells = tuple(cell(one, value, own) for one, value in MEASURES.items())
                lines.append(Line("ours", dataset, system_name(system), system, cells))
        real = tuple(
            Cell(NONE if (found := value(known.real)) is None else shown(found, one)) for one, value in MEASURES.items()
        )
        lines.append(Line("real", dataset, REAL_ROW, cells=real))
    if not lines:
        return None
    columns = (Column("Dataset", ""), Column("Model", ""), *(Column(one.label, one.definition) for one in MEASURES))
    sizes = {known.real.sentences: dataset_name(dataset) for dataset, known in texts.items() if known is not None}
    first = ", ".join(f"{size:,} on {name}" for size, name in sizes.items())
    note = (
        f"Real text is the test sentences. Shares that fall with the amount of text are of as many sentences: {first}."
    )
    return Table("The generated text", columns, tuple(lines), (note,))


def all_tables(
    experiment: Experiment, rows: Sequence[Row], differences: Differences, texts: Mapping[str, TextProfiles | None]
) -> tuple[Table, ...]:
    """The tables of numbers that both reports show, in their order."""
    tables = (table_1(experiment), table_2(experiment, rows), beyond_table(experiment, rows))
    more = (paired_table(experiment, rows, differences), generated_text(experiment, texts))
    return (*tables, *(table for table in more if table is not None))


def shown(value: float, one: Measure) -> str:
    """As printed: counts with commas."""
    return number(value, one.decimals) if one.decimals else f"{value:,.0f}"


def cell(one: Measure, value: Callable[[TextProfile], float | None], own: Mapping[str, TextProfile]) -> Cell:
    """The mean over the seeds."""
    found = {seed: number for seed, text in own.items() if (number := value(text)) is not None}
    if not found:
        return Cell(NONE)
    summary = Summary(tuple(found.values()), ())
    text = shown(summary.mean, one) if summary.spread is None else mean_and_spread(summary, one)
    mean, _, spread = text.partition(" ± ")
    title = ", ".join(f"seed {seed}: {number:.6g}" for seed, number in found.items())
    return Cell(mean, f" ± {spread}" if spread else "", title=title, value=summary.mean)
