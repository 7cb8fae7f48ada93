"""results.csv and curves.csv: one row per grid point, one row per epoch, every number as it was measured."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from reporting.artifacts import Experiment, Record, Run
from reporting.ceilings import measures_at_ceiling
from reporting.differences import COLUMNS as DIFFERENCES
from reporting.differences import SentenceNumbers, of_run
from reporting.names import MEASURES as MEASURE_NAMES
from textvae.errors import DataError

Row = dict[str, Any]
"""One line of results.csv: a value per column, None where a system has no such measure."""

NGRAM_MEASURES = ("fppl", "rppl", "rppl_pad")
MEASURES = [
    "nll",
    "nll_iw",
    "kl",
    "ppl",
    "mi",
    "mi_se",
    "mi_upper",
    "mi_batch",
    "kl_agg",
    "au",
    "gain",
    "fppl",
    "rppl",
    "rppl_pad",
]  # the order that readers of results.csv rely on
DETAILS = [
    "nll_se",
    "nll_iw_se",
    "nll_subset",
    "nll_subset_se",
    "kl_se",
    "mi_upper_se",
    "kl_agg_se",
    "gain_se",
    "iw_sentences",
    "iw_samples",
    "gain_sentences",
    "gain_codes",
    "sentences",
    "tokens",
]
NGRAM_DETAILS = {
    "decoding": "decoding",
    "generated_sentences": "sentences",
    "ngram_order": "order",
    "fppl_oov": "fppl_oov",
    "rppl_oov": "rppl_oov",
    "fppl_order": "fppl_order",
    "rppl_order": "rppl_order",
    "cut": "cut",
    "max_length": "max_length",
}
MANY_CUT = 0.01
"""Share of generated sentences cut at sampling.max_length from which on FPPL and RPPL are not those of sentences."""
IDENTITY = ("dataset", "system", "seed")
TEXT_COLUMNS = {
    *IDENTITY,
    *("status", "failure", "missing", "at_ceiling", "decoding", "discount_fallback"),
    *("chosen", "unfinished", "baseline"),
}
COLUMNS = (
    *IDENTITY,
    *MEASURES,
    "status",
    "failure",
    "missing",
    "reduced",
    "at_ceiling",
    *DETAILS,
    *NGRAM_DETAILS,
    "discount_fallback",
    "real_text_fppl",
    "chosen",
    "unfinished",
    *DIFFERENCES,
)
CURVE_COLUMNS = [
    "epoch",
    "step",
    "beta",
    "lr",
    "train_reconstruction",
    "train_kl",
    "valid_nll",
    "valid_reconstruction",
    "valid_kl",
    "valid_mi",
    "valid_au",
    "valid_nll_iw",
    "mi_estimate",
    "log_batch_size",
    "grad_norm_encoder",
    "grad_norm_decoder",
    "grad_norm_energy",
]


def result_rows(experiment: Experiment, numbers: Mapping[str, Mapping[tuple[str, str], SentenceNumbers]]) -> list[Row]:
    """A row per grid point, in the grid's order, whatever became of it; `numbers` of the sentences, by data set."""
    settings = experiment.settings
    baseline = settings.baseline if settings.baseline in settings.systems else None
    return [
        result_row(run, experiment.is_reduced(run.dataset)) | of_run(run, numbers[run.dataset], baseline)
        for run in experiment.runs
    ]


def result_row(run: Run, reduced: bool) -> Row:
    """The row of one run. Raises DataError where a file lacks a measure that it should at least call null."""
    row: Row = dict.fromkeys(COLUMNS)
    row |= {"dataset": run.dataset, "system": run.system, "seed": run.seed, "reduced": int(reduced)}
    row |= {"status": run.status, "failure": run.failure, "missing": " ".join(run.missing)}
    chosen = (run.config or {}).get("chosen") or {}
    row["chosen"] = " ".join(f"{setting}={value}" for setting, value in sorted(chosen.items()))
    row["unfinished"] = run.unfinished
    if run.metrics is not None:
        row |= {key: measure(run, "metrics.json", run.metrics, key) for key in MEASURES if key not in NGRAM_MEASURES}
        row |= {key: run.metrics.get(key) for key in DETAILS}
    if run.ngram is not None:
        row |= {key: measure(run, "ngram.json", run.ngram, key) for key in NGRAM_MEASURES}
        row |= {column: run.ngram.get(key) for column, key in NGRAM_DETAILS.items()}
        row["discount_fallback"] = " ".join(run.ngram.get("discount_fallback") or [])
        row["real_text_fppl"] = (run.ngram["real_text"] or {}).get("fppl")
    return row | {"at_ceiling": " ".join(measures_at_ceiling(row))}


def measures_by_run(rows: list[Row]) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """The columns of the report's table by data set, system and seed, for `dvc metrics diff` and `dvc exp show`."""
    table: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for row in rows:
        found = {MEASURE_NAMES[key].label: row[key] for key in MEASURE_NAMES if row[key] is not None}
        table.setdefault(row["dataset"], {}).setdefault(row["system"], {})[row["seed"]] = found
    return table


def measure(run: Run, file: str, record: Record, key: str) -> Any:
    """`record[key]`. Raises DataError where the key is missing: an unknown number is not the same as none."""
    if key not in record:
        raise DataError(f"{file} of {run.name} has no {key!r}; run the step that writes it again")
    return record[key]


def many_cut(row: Row) -> bool:
    """Whether so many of a run's generated sentences were cut that the numbers of its text mean something else."""
    return (row.get("cut") or 0.0) > MANY_CUT


def explanation(row: Row) -> str:
    """Why a row is failed or pending."""
    return str(row["failure"] or f"waiting for {', '.join(row['missing'].split())}")


def curve_rows(experiment: Experiment) -> tuple[list[str], list[Row]]:
    """The columns and the rows of curves.csv: the known columns first, whatever else a system logs behind them."""
    rows = [
        {**{key: value for key, value in record.items() if not isinstance(value, (dict, list))}, "seed": run.seed}
        for run in experiment.runs
        for record in run.curves
    ]
    others = sorted({key for row in rows for key in row} - {*IDENTITY, *CURVE_COLUMNS})
    return [*IDENTITY, *CURVE_COLUMNS, *others], rows


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows with every float in full (`repr`), None and missing as empty."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if row.get(column) is None else row[column] for column in columns])


def read_results(path: Path) -> list[Row]:
    """The rows of results.csv, numbers as numbers again. Raises DataError for a file that is none."""
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames is None or not {*IDENTITY, *MEASURES, "status"} <= set(reader.fieldnames):
                raise DataError(f"{path} is not a table of results; run the report step again")
            return [
                {c: text if c in TEXT_COLUMNS else (float(text) if text else None) for c, text in row.items()}
                for row in reader
            ]
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run the report step (`make repro`)") from None
    except (UnicodeDecodeError, ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}); run the report step again") from None
