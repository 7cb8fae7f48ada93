"""From single runs to a system's mean and spread over its seeds, and which systems may be called best."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reporting.ceilings import at_ceiling
from reporting.differences import Difference
from reporting.names import MEASURES, Measure
from reporting.results import NGRAM_MEASURES, Row, many_cut

BEST, SECOND = "best", "second"


@dataclass(frozen=True)
class Summary:
    """One measure of one system on one data set, over the seeds that have it."""

    values: tuple[float, ...]
    standard_errors: tuple[float, ...]
    """Of each value, over the test sentences; empty where the measure has none."""
    bound: bool = False
    """Whether one of them is at its ceiling, so that the mean says only "at least"."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds (n - 1); None for a single one."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def standard_error(self) -> float | None:
        """Over the test sentences, averaged over the seeds: they share the sentences, so more seeds do not lower it."""
        return statistics.fmean(self.standard_errors) if self.standard_errors else None


def summarise(rows: Sequence[Row], key: str) -> Summary | None:
    """The measure `key` over the rows of one system on one data set; None where no row has it."""
    having = [row for row in rows if row.get(key) is not None]
    if not having:
        return None
    errors = [float(row[f"{key}_se"]) for row in having if row.get(f"{key}_se") is not None]
    bound = any(at_ceiling(row, key) for row in having)
    return Summary(tuple(float(row[key]) for row in having), tuple(errors), bound)


def number(value: float, decimals: int) -> str:
    """`value` with so many decimals, never "-0.00"; very large ones in scientific notation."""
    return f"{value:.3g}" if abs(value) >= 1e7 else f"{round(value, decimals) + 0.0:.{decimals}f}"


def signed(value: float) -> str:
    """`+0.31`, `-0.31`, `0.00`."""
    text = number(value, 2)
    return text if text.startswith("-") or not float(text) else f"+{text}"


def interval(found: Difference) -> str:
    """A difference's 95% interval as ` [-0.76, +0.14]`; empty with one seed."""
    if found.seed_se is None:
        return ""
    ends = (found.difference - found.half_width, found.difference + found.half_width)
    return f" [{', '.join(map(signed, ends))}]"


def mean_and_spread(summary: Summary, measure: Measure) -> str:
    """`43.21`, or `43.21 ± 0.12` over several seeds; a count's mean over several seeds gets a decimal. A mean that says
    only "at least" has a `>` before it.
    """
    before = "> " if summary.bound else ""
    if summary.spread is None:
        return before + number(summary.mean, measure.decimals)
    decimals = measure.decimals or 1
    return f"{before}{number(summary.mean, decimals)} ± {number(summary.spread, decimals)}"


def ranking(rows_of: Mapping[str, Sequence[Row]], measure: Measure) -> dict[str, str]:
    """`best` and `second` among the systems of one data set, by the printed mean; equal prints share a mark, and a mean
    at its ceiling, which says only "at least", counts as equal to the largest.

    Nobody is ranked with one seed, or alone. A system of which a seed has no such number is left out: the mean of those
    that did not fail would flatter it. Sentences generated in different ways are not compared, nor are beginnings of
    sentences.
    """
    complete = {
        system: summary
        for system, rows in rows_of.items()
        if (summary := summarise(rows, measure.key))
        and len(summary.values) == len(rows) > 1
        and not (measure.key in NGRAM_MEASURES and any(map(many_cut, rows)))
    }
    decodings = {row["decoding"] for system in complete for row in rows_of[system]}
    if measure.better is None or len(complete) < 2 or (measure.key in NGRAM_MEASURES and len(decodings) > 1):
        return {}
    sign = 1 if measure.better == "lower" else -1
    printed = {s: sign * float(number(summary.mean, measure.decimals or 1)) for s, summary in complete.items()}
    printed |= {system: min(printed.values()) for system, summary in complete.items() if summary.bound}
    ordered = sorted(printed.values())
    marks = {system: BEST for system, value in printed.items() if value == ordered[0]}
    if len(marks) == len(printed):
        return {}
    if len(marks) == 1:
        marks |= {system: SECOND for system, value in printed.items() if value == ordered[1]}
    return marks


def rankings(rows_of: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, str]]:
    """`ranking` of every measure, by its key."""
    return {key: ranking(rows_of, measure) for key, measure in MEASURES.items()}
