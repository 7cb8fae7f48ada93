"""docs/remedies.md's tables, of results/sotu-remedies.csv and results/sweep-remedies-sotu.csv (its settings' trials):
`python tools/remedies.py` writes them into the page.

`--project DIR` first takes the rows and the CPU times of a project's runs into the CSV, in place of what it had of the
same system and seed; give it for each project in which some of them were trained.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from reporting.names import SYSTEM_NAMES, system_name  # noqa: E402
from reporting.results import COLUMNS, Row, read_results, write_csv  # noqa: E402
from reporting.summary import number, signed, summarise  # noqa: E402
from reporting.verdict import UNJUDGED, state  # noqa: E402
from textvae.command_line import run  # noqa: E402
from textvae.errors import DataError, exit_codes  # noqa: E402
from textvae.files import replaced  # noqa: E402

CSV, SWEEP, PAGE = (
    ROOT / name for name in ("results/sotu-remedies.csv", "results/sweep-remedies-sotu.csv", "docs/remedies.md")
)
BEGIN, TRIALS, END = "<!-- by tools/remedies.py -->\n", "<!-- trials, by tools/remedies.py -->\n", "<!-- end -->\n"
DATASET = "sotu"
TIMES = {"train_cpu_s": "train", "evaluate_cpu_s": "evaluate"}
"""Columns beside those of results.csv: CPU seconds of these steps."""
MEASURES = {"nll": 2, "nll_iw": 2, "kl": 2, "mi": 2, "au": 1, "gain": 2, "fppl": 1, "rppl": 1}
"""And their decimals."""
CONTROLS = ("lstm_lm", "vae")
CLAIMS = {
    "skip_vae": "less collapse and a higher MI than VAEs without the connections, at similar predictive performance, "
    "on MNIST, Omniglot and Yahoo (abstract); numbers not found",
    "vmf_vae": "no collapse, and better likelihoods than Gaussian codes throughout, in recurrent language models and "
    "in bag-of-words document models (abstract); perplexity 98 on PTB and 54 on Yelp ([a list of results]"
    "(https://www.wizwand.com/paper/68fa64fb1e209131cea07904), which does not say of which setting)",
    "delta_vae": "a code with information in it under the strongest decoders, the objective still the ELBO, shown on "
    "LM1B; state-of-the-art likelihoods on CIFAR-10 and ImageNet 32×32 (abstract); numbers for text not found",
    "mdr_vae": "the rate that was asked for, where free bits have gradients with jumps; compared by Bayesian "
    "optimisation, many techniques do about equally well with enough resources, and a favourite is chosen for "
    "convenience (abstract and [a review](https://liner.com/review/effective-estimation-deep-generative-language-models"
    ")); numbers not found",
    "bn_vae": "better than strong autoregressive baselines in language modelling, text classification and dialogue, on "
    "a par with more complex remedies at almost the plain VAE's training time (abstract); numbers not found",
    "pretrained_vae": "held-out likelihood, reconstruction and representations substantially better than the state of "
    "the art's, with a worse ELBO (abstract); numbers not found",
    "z_forcing": "better than KL annealing, state of the art on TIMIT and Blizzard; on IMDB interpretable codes "
    "(abstract), but by [its reviewers]"
    "(https://papers.nips.cc/paper_files/paper/2017/file/900c563bfd2c48c16701acca83ad858a-Reviews.html) "
    '"no quantitative improvement to text modelling"; numbers for text not found',
    "sa_vae": "no collapse; better than strong autoregressive and variational baselines on text and images (abstract); "
    "numbers not found",
    "dilated_vae": "with the right receptive field the first VAE to beat LSTM language models on text, in perplexity "
    "on two data sets (abstract); on Yahoo NLL 332.1, KL 10.0, perplexity 63.9 ([a list of results]"
    "(https://paperswithcode.com/paper/improved-variational-autoencoders-for-text))",
}
"""What each paper says of itself, as far as it was found."""
SYSTEMS = (*SYSTEM_NAMES, "vae", *CLAIMS)
"""Of the table."""
ALLOWED = 0.3
"""Nats of NLL-IW above the plain VAE's: models whose codes are unused, all as good, differ by as much."""


class Trial(NamedTuple):
    """One of the settings that were tried, measured on the validation set."""

    system: str
    changes: str
    nll: float
    nll_iw: float
    kl: float
    mi: float
    gain: float
    au: float


def collected(rows: Sequence[Row], project: Path) -> list[Row]:
    """`rows` and those of a project's report, with their CPU times, by system and seed in the order of the table.

    Raises DataError where the report or a finished run's times are missing.
    """
    found = {(row["system"], row["seed"]): row for row in rows}
    for row in read_results(project / "reports/results.csv"):
        if row["dataset"] != DATASET or row["system"] not in SYSTEMS or row["status"] not in ("finished", "failed"):
            continue
        folder = project / "runs" / DATASET / row["system"] / row["seed"] / "timings"
        for column, step in TIMES.items():
            file = folder / f"{step}.json"
            if row["status"] == "finished" and not file.exists():
                raise DataError(f"{file} is missing; give a project that has the runs of its report")
            row[column] = json.loads(file.read_text(encoding="utf-8"))["cpu_s"] if file.exists() else None
        found[row["system"], row["seed"]] = row
    return sorted(found.values(), key=lambda row: (SYSTEMS.index(row["system"]), row["seed"]))


def tables(rows: Sequence[Row]) -> str:
    """Both tables, in Markdown."""
    head = ["system", "NLL", "NLL-IW", "KL", "MI", "AU", "Gain", "FPPL", "RPPL", "CPU s, train", "CPU s, evaluate"]
    lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
    for system in SYSTEMS:
        own = [row for row in rows if row["system"] == system]
        cells = [shown(own, key, decimals) for key, decimals in {**MEASURES, **dict.fromkeys(TIMES, 0)}.items()]
        lines.append(f"| {named(system)} | {' | '.join(cells)} |")
    lines += ["", "| system | claimed by its paper / came out here |", "| --- | --- |"]
    lines += [
        f"| {named(system)} | *claimed:* {claim}; *here:* {outcome(rows, system)} |" for system, claim in CLAIMS.items()
    ]
    return "\n".join(lines) + "\n"


def named(system: str) -> str:
    """The paper's name of a system, or its entry's."""
    return system_name(system) if system_name(system) != system else f"`{system}`"


def shown(rows: Sequence[Row], key: str, decimals: int) -> str:
    """Mean and standard deviation over the seeds."""
    summary = summarise(rows, key)
    if summary is None:
        return "–"
    spread = "" if summary.spread is None else f" ± {number(summary.spread, decimals)}"
    return f"{'≥ ' if summary.bound else ''}{number(summary.mean, decimals)}{spread}"


def outcome(rows: Sequence[Row], system: str) -> str:
    """What became of its code, and its mean NLL-IW beside those of the plain VAE and of LSTM-LM."""
    own = [row for row in rows if row["system"] == system]
    if not own:
        return "not run yet"
    states = [row["status"] if state(row) == UNJUDGED else state(row) for row in own]
    parts = [f"{one} with {states.count(one)} of {len(own)} seeds" for one in dict.fromkeys(states)]
    mine = summarise(own, "nll_iw")
    others = {
        other: summarise([row for row in rows if row["system"] == other], "nll_iw") for other in ("vae", "lstm_lm")
    }
    beside = [f"{signed(mine.mean - it.mean)} beside {named(name)}" for name, it in others.items() if mine and it]
    return "; ".join([", ".join(parts), *(["NLL-IW " + ", ".join(beside)] if beside else [])])


def read_trials(path: Path) -> list[Trial]:
    """The table that a sweep has written."""
    with path.open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    return [Trial(it["system"], it["changes"], *(float(it[name]) for name in Trial._fields[2:])) for it in lines]


def taken(trials: Sequence[Trial], limit: float) -> Trial:
    """The one with the largest gain of those whose NLL-IW is at most `limit`; without any, the smallest NLL-IW."""
    allowed = [trial for trial in trials if trial.nll_iw <= limit]
    return max(allowed, key=lambda trial: trial.gain) if allowed else min(trials, key=lambda trial: trial.nll_iw)


def trials_table(trials: Sequence[Trial]) -> str:
    """Every trial, in Markdown; what was taken in bold."""
    (plain,) = (trial for trial in trials if trial.system == "vae")
    lines = ["| system | trial | NLL | NLL-IW | KL | MI | Gain | AU |", "| --- | --- |" + " ---: |" * 6]
    for system in ("vae", *CLAIMS):
        own = [trial for trial in trials if trial.system == system]
        best = taken(own, plain.nll_iw + ALLOWED) if own else None
        for trial in own:
            mark = "**" if trial is best and trial is not plain else ""
            numbers = (number(value, 2) for value in trial[2:-1])
            lines.append(f"| `{system}` | {mark}{trial.changes}{mark} | {' | '.join(numbers)} | {trial.au:.0f} |")
    return "\n".join(lines) + "\n"


def filled(page: str, rows: Sequence[Row], trials: Sequence[Trial]) -> str:
    """The page with its tables made anew. Raises DataError where it has no place for them."""
    for begin, made in ((TRIALS, trials_table(trials)), (BEGIN, tables(rows))):
        before, found, rest = page.partition(begin)
        _, end, after = rest.partition(END)
        if not found or not end:
            raise DataError(
                f"{PAGE.name} has lost the line {begin.strip()} or {END.strip()}; put them round its tables"
            )
        page = f"{before}{begin}\n{made}\n{END}{after}"
    return page


def main(
    project: Annotated[list[Path] | None, typer.Option(help="Projects whose runs go into the CSV first.")] = None,
) -> None:
    """Make docs/remedies.md's tables from results/sotu-remedies.csv and results/sweep-remedies-sotu.csv."""
    with exit_codes():
        rows = read_results(CSV) if CSV.exists() else []
        for each in project or []:
            rows = collected(rows, each)
        if project:
            with replaced(CSV) as temporary:
                write_csv(temporary, [*COLUMNS, *TIMES], rows)
        text = filled(PAGE.read_text(encoding="utf-8"), rows, read_trials(SWEEP))
        with replaced(PAGE) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run(main)
