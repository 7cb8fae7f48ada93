"""The paper's systems with the paper's settings on one of its corpora, side by side on one GPU; called by `make paper`.

Everything is in one folder, which can be carried to a machine with a GPU and back: the settings, the encoded corpus,
the states of the trainings, a directory for each run, the reports, and `results/`, what is worth keeping of them. A
call trains for so many minutes, then measures what there is: a training that is not over is measured by its best
weights so far, and marked. Neither DVC nor MLflow is needed, and KenLM only where perplexities are to be measured.
"""

import gc
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from components.preprocess import preprocess
from components.report import report
from components.settings import resolve
from pipelines.machine.paper_results import write_results
from pipelines.machine.paper_runs import FAILED, STEPS, Paper, environment, measure_all, train_a_slice, write_models
from pipelines.machine.stopping import stopped_with_this
from reporting.names import SYSTEM_NAMES
from textcorpus.sources import text_files
from textvae.command_line import run
from textvae.config import FetchSettings, Grid, Params, PreprocessSettings, ReportSettings, merge, validated
from textvae.errors import DataError, SettingsError, TimeLimitError, exit_codes
from textvae.files import read_json, remove, write_json
from textvae.records import CorpusFile, read_record

SEVEN = tuple(SYSTEM_NAMES)
CONTROLS = ("vae", "free_bits", "mine_alpha1")
LISTED = "vae_mine"
"""The system whose alpha is selected from a list, as the paper does."""


def planned(
    params: Params, dataset: str, systems: Sequence[str], seed: int, alpha: Sequence[float], text: Path | None
) -> Params:
    """params.yaml for this grid alone, with the text and alpha given. Raises SettingsError for an unknown name."""
    if dataset not in params.datasets:
        raise SettingsError(
            f"there is no data set {dataset!r} below `datasets:` (there are: {', '.join(params.datasets)})"
        )
    if unknown := [system for system in systems if system not in params.systems]:
        raise SettingsError(f"--systems: there is no {unknown[0]!r} (there are: {', '.join(params.systems)})")
    entries: dict[str, Any] = dict(params.systems)
    if alpha:
        value = list(alpha) if len(alpha) > 1 else alpha[0]
        entries[LISTED] = merge(entries[LISTED], {"objective": {"alpha": value}})
    entry = params.datasets[dataset]
    if text is not None:
        entry = entry.model_copy(update={"source": source_of(entry.source, text)})
    grid = validated(Grid, {"datasets": [dataset], "systems": list(systems), "seeds": [str(seed)]}, "the grid")
    return params.model_copy(update={"grid": grid, "systems": entries, "datasets": {dataset: entry}})


def source_of(source: dict[str, Any], text: Path) -> dict[str, Any]:
    """An entry's source, but for a folder or archive of one's own: its files are called as in the entry, or train.txt,
    valid.txt and test.txt. Raises DataError where one of them is not there."""
    names = [file.name for file in text_files(text)]
    splits = {}
    for split, published in (
        source.get("splits") or {name: f"{name}.txt" for name in ("train", "valid", "test")}
    ).items():
        wanted = (published, Path(published).name, f"{split}.txt")
        found = next((name for one in wanted for name in names if name == one or name.endswith(f"/{one}")), None)
        if found is None:
            raise DataError(
                f"{text} has no {wanted[1]} and no {wanted[2]}, the {split} split; it holds: {', '.join(names[:10])}"
            )
        splits[split] = found
    kept = {key: value for key, value in source.items() if key not in ("urls", "package", "grammar", "path")}
    return {**kept, "path": str(text), "splits": splits}


def begun(paper: Paper) -> None:
    """Write the settings. Raises SettingsError where the corpus, or a run's model, was made with others."""
    used: dict[str, Path | None] = {"report": None, f"{paper.dataset}/preprocess": paper.corpus}
    for system in paper.systems:
        used |= {f"{paper.dataset}/{system}/{step}": paper.run(system) for step in ("train", *STEPS)}
    for name, made_with in used.items():
        file, content = paper.folder / "settings" / f"{name}.json", paper.files[name]
        if made_with is not None and made_with.exists() and file.exists() and read_json(file) != content:
            raise SettingsError(
                f"{made_with} was made with {file}, which is another than params.yaml and this commit give: go on with "
                "those, or give another --folder"
            )
        write_json(file, content)


def make_corpus(paper: Paper) -> None:
    """fetch and preprocess, where the folder has no corpus yet."""
    if (paper.corpus / "corpus.json").exists():
        return
    from components.fetch import fetch  # late: a machine that gets the corpus in the folder need not have its packages

    raw = paper.corpus.with_name("raw")
    fetch(settings=FetchSettings(**paper.files[f"{paper.dataset}/fetch"]), raw=raw)
    settings = PreprocessSettings(**paper.files[f"{paper.dataset}/preprocess"])
    preprocess(raw=raw, settings=settings, corpus=paper.corpus)
    remove(raw)  # the text itself, which not everybody may pass on


def main(
    dataset: Annotated[str, typer.Option(help="Of params.yaml: ptb, snli or yahoo.")] = "ptb",
    text: Annotated[
        Path | None, typer.Option(help="A folder or an archive with the splits; downloaded without it.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="Where everything is; paper/DATASET by default.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Train for so many; to the end by default.")] = None,
    systems: Annotated[str, typer.Option(help="With commas between.")] = ",".join((*SEVEN, *CONTROLS)),
    alpha: Annotated[
        list[float] | None, typer.Option(help="Of VAE-MINE; repeat it to select one. As in params.yaml by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    jobs: Annotated[int, typer.Option(min=1, help="KenLM's language models at a time.")] = 2,
    measure: Annotated[bool, typer.Option(help="Measure what there is when the minutes are over.")] = True,
    params: Annotated[Path, typer.Option(help="The settings.")] = Path("params.yaml"),
) -> None:
    """Train the paper's systems and controls with the paper's settings, side by side on one GPU, for so many minutes;
    then evaluate, sample, measure the text with KenLM, and set the report's tables beside the paper's Table 2.

    Run it again to go on: the folder has all that is needed, and can be carried to another machine and back. A training
    that is not over is measured by its best weights so far, and marked. `--minutes 0` trains nothing: the first time it
    makes the settings and the corpus, later it measures what there is. Exit code 75: the trainings are not over. 1: a
    step failed, or the training of a run.

    \b
    Examples:
      python -m pipelines.machine.paper --dataset ptb --text ptb.zip --minutes 30
      python -m pipelines.machine.paper --dataset ptb --minutes 30 --no-measure
    """
    go_on = "run it again to go on where it stopped"
    with exit_codes(interrupted=f"interrupted: {go_on}"), stopped_with_this(f"terminated: {go_on}"):
        if minutes is not None and not minutes < math.inf:
            raise SettingsError(f"--minutes is {minutes}: leave it out to train to the end")
        folder = (folder or Path("paper", dataset)).absolute()
        chosen = tuple(name for name in systems.split(",") if name)
        plan = planned(Params.load(params), dataset, chosen, seed, alpha or [], text)
        paper = Paper(folder, dataset, chosen, seed, resolve(plan))
        with environment(TEXTVAE_STATE=folder / "state"):
            if text is not None and (paper.corpus / "corpus.json").exists():
                print(f"--text {text} is not read: {paper.corpus} is there already", file=sys.stderr)
            raise SystemExit(made(paper, minutes, jobs, measure))


def made(paper: Paper, minutes: float | None, jobs: int, measure: bool) -> int:
    """Everything in its order. Returns the exit code."""
    begun(paper)
    make_corpus(paper)
    read_record(paper.corpus / "corpus.json", CorpusFile)
    if minutes == 0:
        code = 0 if all(map(paper.is_over, paper.systems)) else TimeLimitError.exit_code
    else:
        code = train_a_slice(paper, minutes)
    failed: list[str] = []
    if measure:
        gc.collect()  # the trainings' graphs hold memory of the GPU
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        write_models(paper)
        failed = measure_all(paper, jobs)
        settings = ReportSettings(**paper.files["report"])
        where = {"runs": [paper.folder / "runs"], "corpora": [paper.folder / "corpora"], "settings": settings}
        (paper.folder / "runs").mkdir(exist_ok=True)
        report(**where, reports=paper.folder / "reports")
        write_results(paper.folder, settings)
        print(f"report: {paper.folder / 'reports' / 'report.html'}; what to keep: {paper.folder / 'results'}")
    return FAILED if failed else code


if __name__ == "__main__":
    run(main)
