"""The results table for a terminal: `python -m reporting.terminal reports/results.csv`."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from reporting.ceilings import at_ceiling
from reporting.differences import read_differences
from reporting.names import MEASURES, dataset_name, system_name
from reporting.results import Row, explanation, many_cut, read_results
from reporting.summary import mean_and_spread, number, summarise
from reporting.verdict import Verdict, verdicts
from textvae.control_characters import visible
from textvae.errors import exit_codes

WIDTH = 120
COLUMNS = ("nll", "kl", "ppl", "nll_iw", "mi", "au", "gain", "fppl", "rppl", "rppl_pad")
NONE = "-"
AT_CEILING = "A number behind > is within 5% of the largest that its estimate can have: the truth is at least as much."


def results_table(results_csv: Path) -> str:
    """The results as aligned plain text of at most 120 columns.

    A line per system: its means over the seeds, their standard deviations on the line below where there are several,
    and a line for each run that failed or is pending. The verdict follows from differences.csv beside it, too. Raises
    DataError where one of the two files is missing or no such table.
    """
    rows, differences = read_results(results_csv), read_differences(results_csv.with_name("differences.csv"))
    seeds = len(dict.fromkeys(row["seed"] for row in rows))
    lines = [("Dataset", "Model", [MEASURES[key].label for key in COLUMNS])]
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        here = [row for row in rows if row["dataset"] == dataset]
        for system in dict.fromkeys(row["system"] for row in here):
            lines += system_lines([row for row in here if row["system"] == system])
        for value in sorted({row["real_text_fppl"] for row in here if row["real_text_fppl"] is not None}):
            real = [number(value, 2) if key in ("fppl", "rppl") else NONE for key in COLUMNS]
            lines.append((dataset_name(dataset), "real text", real))
    notes = [f"{'Mean and standard deviation over ' if seeds > 1 else ''}{seeds} seed{'s' if seeds > 1 else ''}."]
    if reduced := [dataset_name(d) for d in dict.fromkeys(row["dataset"] for row in rows if row["reduced"])]:
        notes.append(f"Reduced settings: {', '.join(reduced)}.")
    if far := [f"{system_name(row['system'])} ({row['unfinished']})" for row in rows if row.get("unfinished")]:
        notes.append(f"Trainings that are not over: {', '.join(far)}.")
    if decodings := list(dict.fromkeys(row["decoding"] for row in rows if row["decoding"])):
        notes.append(f"Decoding: {'; '.join(decodings)}.")
    if cut := list(dict.fromkeys(f"{row['dataset']} {system_name(row['system'])}" for row in rows if many_cut(row))):
        notes.append(f"FPPL and RPPL of text cut at sampling.max_length (see the report): {', '.join(cut)}.")
    bounds = [AT_CEILING] if any(at_ceiling(row, key) for row in rows for key in COLUMNS) else []
    table = [aligned(lines), *bounds, *map(conclusion, verdicts(rows, differences)), " ".join(notes)]
    return visible("\n".join(table) + "\n")


def conclusion(verdict: Verdict) -> str:
    """A verdict as lines of at most 120 columns; the headline first."""
    sentences = [f"Verdict on {dataset_name(verdict.dataset)}: {verdict.headline}.", *verdict.sentences]
    return textwrap.fill(" ".join(sentences), WIDTH, subsequent_indent="  ")


def system_lines(rows: Sequence[Row]) -> list[tuple[str, str, list[str]]]:
    """(data set, model, cells) of one system; a single cell is a message."""
    dataset, system = dataset_name(rows[0]["dataset"]), system_name(rows[0]["system"])
    summaries = [(MEASURES[key], summarise(rows, key)) for key in COLUMNS]
    lines = []
    if any(summary for _, summary in summaries):
        texts = [mean_and_spread(summary, measure) if summary else NONE for measure, summary in summaries]
        lines.append((dataset, system, [text.split(" ± ")[0] for text in texts]))
        if any(" ± " in text for text in texts):
            lines.append((dataset, "  ±", [text.partition(" ± ")[2] for text in texts]))
    for row in rows:
        if row["status"] != "finished":
            name = system if len(rows) == 1 else f"{system}, seed {row['seed']}"
            lines.append((dataset, name, [f"{row['status']}: {explanation(row)}"]))
    return lines


def aligned(lines: Sequence[tuple[str, str, list[str]]]) -> str:
    """Columns as wide as they must be; the data set named once, a rule below the head and between data sets."""
    names = [max(len(line[part]) for line in lines if len(line[2]) > 1 or part == 0) for part in (0, 1)]
    widths = [max(len(line[2][i]) for line in lines if len(line[2]) > 1) for i in range(len(COLUMNS))]
    total = min(WIDTH, sum(names) + 2 + sum(width + 2 for width in widths))
    texts: list[str] = []
    for number_, (dataset, model, cells) in enumerate(lines):
        before = lines[number_ - 1][0] if number_ else None
        if number_ and before != dataset:
            texts.append("-" * total)
        start = f"{dataset if before != dataset else '':<{names[0]}}  {model:<{names[1]}}"
        if len(cells) == 1:
            text = f"{start}  {cells[0]}"
            texts.append(text if len(text) <= WIDTH else text[: WIDTH - 3] + "...")
        else:
            padded = [f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
            texts.append((start + "".join(padded)).rstrip())
    return "\n".join(texts)


def main(arguments: Sequence[str]) -> None:
    """Print the table of the one file named."""
    if len(arguments) != 1:
        raise SystemExit("usage: python -m reporting.terminal reports/results.csv")
    with exit_codes():
        print(results_table(Path(arguments[0])), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
