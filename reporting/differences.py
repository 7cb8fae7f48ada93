"""How two systems differ on the same sentences: paired, so that what a sentence costs everybody cancels.

Two chances are told apart: other sentences, and other trainings (seeds). Shapes: N sentences, S seeds.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reporting.artifacts import Experiment, Record, Run
from textvae.errors import DataError

Array = npt.NDArray[np.float64]
MEASURES = ("nll", "nll_iw", "gain")
"""Columns of sentences.parquet of which differences are taken."""
LANGUAGE_MODEL = "lstm_lm"
REFERENCES = ("lstm_lm", "baseline")
"""What results.csv has each run's differences to; `baseline` is the system that the settings name."""
OF_REFERENCE = ("nll", "nll_iw")
COLUMNS = [
    "baseline",
    *(f"{measure}_minus_{other}{end}" for other in REFERENCES for measure in OF_REFERENCE for end in ("", "_se")),
]
"""Of results.csv."""
T_975 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622)
"""97.5% quantiles of Student's t with 1 to 9 degrees of freedom."""
Z_975 = 1.959964


def t_975(degrees: int) -> float:
    """The 97.5% quantile of Student's t; from 10 degrees of freedom on by Cornish and Fisher's series, to 2e-4."""
    if degrees <= len(T_975):
        return T_975[degrees - 1]
    z = Z_975
    one, two = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    three = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + (one + (two + three / degrees) / degrees) / degrees


def mean_and_se(values_N: Array, kinds_N: npt.NDArray[np.int64]) -> tuple[float, float]:
    """As `textvae.estimators.mean_and_se`, for a report that is made without torch: the mean, and its standard error
    with equal sentences (of equal `kinds_N`) as one cluster where that is the larger."""
    count, mean = len(values_N), float(values_N.mean())
    error = float(values_N.std(ddof=1)) / math.sqrt(count)
    kinds, cluster_of_N = np.unique(kinds_N, return_inverse=True)
    if 1 < len(kinds) < count:
        totals_G = np.bincount(cluster_of_N, weights=values_N - mean)
        error = max(error, math.sqrt(len(kinds) / (len(kinds) - 1)) * float(np.linalg.norm(totals_G)) / count)
    return mean, error


@dataclass(frozen=True)
class Difference:
    """`system` minus `other` in one measure, over the sentences and the seeds that both have."""

    dataset: str
    system: str
    other: str
    measure: str
    seeds: int
    sentences: int
    different_sentences: int
    """Equal ones counted once."""
    difference: float
    """In nats, mean over seeds and sentences."""
    sentence_se: float
    """Its standard error by the sentences: that of the sentences' differences, each averaged over the seeds."""
    seed_sd: float | None
    """Standard deviation (S - 1) of the seeds' differences, each averaged over the sentences; None with one seed."""

    @property
    def seed_se(self) -> float | None:
        """Its standard error by the seeds."""
        return None if self.seed_sd is None else self.seed_sd / math.sqrt(self.seeds)

    @property
    def half_width(self) -> float:
        """Of the 95% interval, both chances together: infinite with one seed, which says nothing of other trainings.

        Each chance's own half width, in quadrature. What depends on sentence and seed together is in both, so this is a
        little too wide, never too narrow.
        """
        if self.seed_se is None or self.different_sentences < 2:
            return math.inf
        by_sentences = t_975(self.different_sentences - 1) * self.sentence_se
        return math.hypot(by_sentences, t_975(self.seeds - 1) * self.seed_se)

    @property
    def sign(self) -> int:
        """1 or -1 where the 95% interval leaves out 0, else 0: too close to call."""
        return 0 if abs(self.difference) <= self.half_width else int(math.copysign(1, self.difference))

    def turned(self) -> Difference:
        """`other` minus `system`."""
        return replace(self, system=self.other, other=self.system, difference=-self.difference)


class Differences:
    """Every difference of two systems of a report, whichever way round it is asked for."""

    def __init__(self, known: Iterable[Difference]) -> None:
        self.known = tuple(known)
        self._found = {(one.dataset, one.measure, one.system, one.other): one for one in self.known}

    def between(self, dataset: str, measure: str, system: str, other: str) -> Difference | None:
        """`system` minus `other`; None where they have no sentence or no seed in common."""
        if (found := self._found.get((dataset, measure, system, other))) is not None:
            return found
        found = self._found.get((dataset, measure, other, system))
        return None if found is None else found.turned()


@dataclass(frozen=True)
class SentenceNumbers:
    """sentences.parquet of one run."""

    run: str
    about: Record
    kinds_N: npt.NDArray[np.int64]
    """Numbers that equal sentences share."""
    values: Mapping[str, Array]
    """`MEASURES` (N), NaN where a sentence has no such number."""

    @classmethod
    def of(cls, run: Run) -> SentenceNumbers:
        """Raises DataError where the file is missing, damaged, or of another evaluation than metrics.json."""
        if run.sentences is None:
            raise DataError(f"{run.name} has metrics.json and no sentences.parquet: run evaluate again")
        try:
            table = pq.read_table(run.sentences, columns=["sentence", *MEASURES])
            about = json.loads(table.schema.metadata[b"textvae"])
            values = {name: table[name].cast(pa.float64()).to_numpy() for name in MEASURES}
            _, kinds_N = np.unique(np.array(table["sentence"].to_pylist(), dtype=object), return_inverse=True)
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise DataError(f"{run.sentences} cannot be read ({error}); run evaluate again") from None
        if run.metrics is not None and not math.isclose(float(values["nll"].mean()), run.metrics["nll"], rel_tol=1e-9):
            raise DataError(f"{run.sentences} and metrics.json are of different evaluations; run evaluate again")
        return cls(run.name, about, kinds_N, values)


def numbers_of(experiment: Experiment, dataset: str) -> dict[tuple[str, str], SentenceNumbers]:
    """What is known of every sentence, by system and seed, of the runs that were measured.

    Raises DataError where two runs were measured on different sentences, or trained on different corpora: their
    numbers cannot be paired, and are no rows of one table.
    """
    found = {
        (run.system, run.seed): SentenceNumbers.of(run)
        for run in experiment.runs_of(dataset)
        if run.status != "failed" and run.metrics is not None and run.metrics.get("nll") is not None
    }
    first = next(iter(found.values()), None)
    for numbers in found.values():
        for key, what in (("sentences_sha256", "measured on"), ("corpus_sha256", "trained on the corpus of")):
            if first is not None and numbers.about.get(key) != first.about.get(key):
                raise DataError(
                    f"{first.run} and {numbers.run} were not {what} the same sentences: their numbers cannot be "
                    "compared; run the steps again for the older one, or take it out of the grid"
                )
    return found


def of_seed(one: SentenceNumbers, other: SentenceNumbers, measure: str) -> tuple[float, float] | None:
    """Mean and standard error over the sentences that both have; None below two of them."""
    difference_N = one.values[measure] - other.values[measure]
    known_N = ~np.isnan(difference_N)
    return None if known_N.sum() < 2 else mean_and_se(difference_N[known_N], one.kinds_N[known_N])


def over_seeds(
    dataset: str, system: str, other: str, measure: str, pairs: Sequence[tuple[SentenceNumbers, SentenceNumbers]]
) -> Difference | None:
    """The difference of two systems; `pairs` are their numbers, one pair a seed. None below two sentences."""
    if not pairs:
        return None
    difference_SN = np.stack([one.values[measure] - two.values[measure] for one, two in pairs])
    known_N = ~np.isnan(difference_SN).any(axis=0)
    if known_N.sum() < 2:
        return None
    difference_SN, kinds_N = difference_SN[:, known_N], pairs[0][0].kinds_N[known_N]
    difference, sentence_se = mean_and_se(difference_SN.mean(axis=0), kinds_N)
    of_seeds = [float(value) for value in difference_SN.mean(axis=1)]
    seed_sd = stdev(of_seeds) if len(of_seeds) > 1 else None
    sizes = len(pairs), len(kinds_N), len(np.unique(kinds_N))
    return Difference(dataset, system, other, measure, *sizes, difference, sentence_se, seed_sd)


def differences(
    experiment: Experiment, numbers: Mapping[str, Mapping[tuple[str, str], SentenceNumbers]]
) -> Differences:
    """Of all pairs of systems, in the grid's order; `numbers` by data set."""
    systems, found = experiment.settings.systems, []
    for dataset, of_runs in numbers.items():
        for measure in MEASURES:
            for place, system in enumerate(systems):
                for other in systems[:place]:
                    seeds = [s for s in experiment.settings.seeds if (system, s) in of_runs and (other, s) in of_runs]
                    pairs = [(of_runs[system, seed], of_runs[other, seed]) for seed in seeds]
                    found.append(over_seeds(dataset, system, other, measure, pairs))
    return Differences(one for one in found if one is not None)


def of_run(run: Run, of_runs: Mapping[tuple[str, str], SentenceNumbers], baseline: str | None) -> dict[str, Any]:
    """The columns of results.csv: one run against LSTM-LM and the baseline, each with the same seed."""
    row: dict[str, Any] = {"baseline": baseline}
    for reference, system in zip(REFERENCES, (LANGUAGE_MODEL, baseline), strict=True):
        own, other = of_runs.get((run.system, run.seed)), of_runs.get((system or "", run.seed))
        if own is None or other is None or own is other:
            continue
        for measure in OF_REFERENCE:
            if (found := of_seed(own, other, measure)) is not None:
                key = f"{measure}_minus_{reference}"
                row[key], row[f"{key}_se"] = found
    return row


def write_differences(path: Path, found: Differences) -> None:
    """differences.csv: a line per data set, measure and pair, every number in full."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        names = [field.name for field in fields(Difference)]
        writer.writerow(names)
        for one in found.known:
            values = [getattr(one, name) for name in names]
            writer.writerow(["" if value is None else value for value in values])


def read_differences(path: Path) -> Differences:
    """What `write_differences` wrote. Raises DataError for a file that is missing or no such table."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames != [field.name for field in fields(Difference)]:
                raise DataError(f"{path} is not a table of differences; run the report step again")
            return Differences(read_difference(row) for row in reader)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run the report step (`make repro`)") from None
    except (UnicodeDecodeError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); run the report step again") from None


def read_difference(row: Mapping[str, str]) -> Difference:
    """One line. Raises ValueError or TypeError where a number is none."""
    return Difference(
        dataset=row["dataset"],
        system=row["system"],
        other=row["other"],
        measure=row["measure"],
        seeds=int(row["seeds"]),
        sentences=int(row["sentences"]),
        different_sentences=int(row["different_sentences"]),
        difference=float(row["difference"]),
        sentence_se=float(row["sentence_se"]),
        seed_sd=float(row["seed_sd"]) if row["seed_sd"] else None,
    )
