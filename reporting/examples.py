"""Tables 3 to 6: what the systems make of the same sentences, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from reporting.artifacts import Experiment, Record
from reporting.summary import number

Rows = Iterable[tuple[str, ...]]
"""(heading, label, text) of every sentence a system made, with what stands beside it and the title of that."""


@dataclass(frozen=True)
class Entry:
    """One sentence that a system made, a number beside it, and what the number is."""

    text: str
    beside: str = ""
    title: str = ""
    repeated: bool = False
    """Whether the entry above says the same."""


@dataclass
class Group:
    """What all systems make of one source: a row per label, an entry per system."""

    heading: str
    rows: dict[str, dict[str, Entry]] = field(default_factory=dict)

    def add(self, label: str, system: str, text: str, beside: str = "", title: str = "") -> None:
        """Append a system's next entry."""
        above = [row[system].text for row in self.rows.values() if system in row]
        entry = Entry(text, beside, title, repeated=bool(above) and above[-1] == text)
        self.rows.setdefault(label, {})[system] = entry


@dataclass(frozen=True)
class SideBySide:
    """One of the tables."""

    title: str
    note: str
    systems: tuple[str, ...]
    groups: tuple[Group, ...]


def example_tables(experiment: Experiment, dataset: str) -> list[SideBySide]:
    """Tables 3 to 6 of a data set, of the first seed of each system that has examples; empty ones are left out."""
    found: dict[str, Record] = {}
    for run in experiment.runs_of(dataset):
        if run.examples is not None and run.status != "failed":
            found.setdefault(run.system, run.examples)
    tables = [
        side_by_side(
            "Table 3: Reconstructions",
            "The sentence above, encoded and decoded greedily: from the mean of its posterior, then from samples.",
            found,
            reconstructions,
        ),
        side_by_side(
            "Table 4: Interpolations",
            "Greedy decodings on the straight line between the posterior means of two sentences; beside each its log "
            "probability given its code, in nats.",
            found,
            interpolations,
        ),
        side_by_side("Table 5: Samples from the prior", "Codes drawn from the prior, decoded.", found, prior_samples),
        side_by_side(
            "Table 6: Nearest neighbours",
            "The training sentences whose posterior means are nearest to that of the sentence above; beside each its "
            "cosine.",
            found,
            neighbours,
        ),
    ]
    return [table for table in tables if table.groups]


def side_by_side(title: str, note: str, found: dict[str, Record], entries: Callable[[Record], Rows]) -> SideBySide:
    """The table of what `entries` yields of each system's record."""
    groups: dict[str, Group] = {}
    systems = []
    for system, record in found.items():
        rows = list(entries(record))
        if rows:
            systems.append(system)
        for heading, *entry in rows:
            label, *rest = entry
            groups.setdefault(heading, Group(heading)).add(label, system, *rest)
    return SideBySide(title, note, tuple(systems), tuple(groups.values()))


def reconstructions(record: Record) -> Rows:
    """Table 3."""
    for one in record["reconstructions"]:
        yield one["source"], "mean", one["mean"]
        for place, text in enumerate(one["samples"], start=1):
            yield one["source"], f"sample {place}", text


def interpolations(record: Record) -> Rows:
    """Table 4."""
    for one in record["interpolations"]:
        for step in one["steps"]:
            heading = f"{one['from']} → {one['to']}"
            yield heading, f"{step['t']:.2g}", step["text"], number(step["log_prob"], 1), "log p(x|z) in nats"


def prior_samples(record: Record) -> Rows:
    """Table 5."""
    for decoding in ("greedy", "ancestral"):
        for place, text in enumerate(record["prior"][decoding], start=1):
            yield decoding, str(place), text


def neighbours(record: Record) -> Rows:
    """Table 6."""
    for one in record["neighbours"]:
        for place, near in enumerate(one["nearest"], start=1):
            yield one["source"], str(place), near["text"], number(near["cosine"], 2), "cosine of the posterior means"
