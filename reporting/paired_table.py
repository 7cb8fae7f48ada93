"""The table of paired differences: each system against LSTM-LM and against the baseline, sentence by sentence."""

from __future__ import annotations

from collections.abc import Sequence

from reporting.artifacts import Experiment
from reporting.differences import LANGUAGE_MODEL, OF_REFERENCE, REFERENCES, Difference, Differences
from reporting.names import MEASURES, system_name
from reporting.results import Row
from reporting.summary import interval, number, signed
from reporting.tables import NONE, Cell, Column, Line, Table

NOTES = (
    "A system minus the one named above the column, over the same sentences and seeds: below 0 it is the better model "
    "of the text. In brackets the two chances, as standard errors: other sentences, then other trainings (seeds). "
    "With several seeds, in square brackets, the 95% interval of both together: a difference is clear where it leaves "
    "out 0.",
    "With one seed nothing is known of the second chance, which may be the larger one.",
)


def paired_table(experiment: Experiment, rows: Sequence[Row], differences: Differences) -> Table | None:
    """A line per system that was measured; None where there is nobody to compare with."""
    references = dict(zip(REFERENCES, (LANGUAGE_MODEL, experiment.settings.baseline), strict=True))
    shown = [
        (f"{measure}_minus_{name}", measure, system)
        for name, system in references.items()
        if system in experiment.settings.systems and (name, system) != ("baseline", LANGUAGE_MODEL)
        for measure in OF_REFERENCE
    ]
    lines = []
    for dataset in experiment.settings.datasets:
        for system in experiment.settings.systems:
            own = [row for row in rows if (row["dataset"], row["system"]) == (dataset, system)]
            found = [differences.between(dataset, measure, system, other or "") for _, measure, other in shown]
            if any(found):
                cells = [cell(one, own, key) for one, (key, *_) in zip(found, shown, strict=True)]
                lines.append(Line("ours", dataset, system_name(system), system, tuple(cells)))
    if not lines:
        return None
    columns = [Column("Dataset", ""), Column("Model", "")]
    for _, measure, other in shown:
        label = f"{MEASURES[measure].label} − {system_name(other or '')}"
        columns.append(Column(label, f"{MEASURES[measure].label} minus {system_name(other or '')}'s, in nats, paired."))
    notes = NOTES if len(experiment.settings.seeds) == 1 else NOTES[:1]
    return Table("Paired differences", tuple(columns), tuple(lines), notes)


def cell(found: Difference | None, rows: Sequence[Row], key: str) -> Cell:
    """`-0.31`, its interval over several seeds, and its two standard errors."""
    if found is None:
        return Cell(NONE)
    seeds = "–" if found.seed_se is None else number(found.seed_se, 2)
    of_seeds = [
        f"seed {row['seed']}: {row[key]:.6g} (standard error {row[f'{key}_se']:.2g})"
        for row in rows
        if row[key] is not None
    ]
    return Cell(
        signed(found.difference),
        interval(found),
        f" ({number(found.sentence_se, 2)}; {seeds})",
        title=", ".join([*of_seeds, f"{found.sentences:,} sentences, {found.different_sentences:,} different ones"]),
        value=found.difference,
    )
