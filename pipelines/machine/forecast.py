"""How long the runs of `make repro` would take by themselves on this machine, from a few steps of each system.

An estimate, and most often more than it will be: a training may stop early, and LaggingVAE leaves its slow phase when
the encoder has caught up. Called by repro in a process of its own: it takes memory, and what fails here must stop
nothing there.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from textvae import training_time
from textvae.command_line import run
from textvae.config import GridPoint, Params, Settings
from textvae.corpus_folder import CorpusFolder
from textvae.errors import exit_codes
from textvae.objectives import objective_class

SECONDS = 0.3
"""Of steps of each system: seven at the default corpus's sizes then take about ten seconds in all."""
START = 2.0
"""Of every step: Python, torch, and dvc's share."""
SMALL = {"examples": 2.0, "ngram": 3.0}
"""On the default corpus."""


def forecast(params: Params, stages: Iterable[str]) -> dict[str, float]:
    """Seconds of each run, by its name, of which one of `stages` (`train@sotu-vae_mine-1`) is to be made."""
    todo: dict[str, list[str]] = defaultdict(list)
    for stage in stages:
        name, _, whose = stage.partition("@")
        todo[whose].append(name)
    points = [point for point in params.grid.points() if point.name in todo]
    found: dict[str, float] = {}
    for dataset in params.grid.datasets:
        runs = [point for point in points if point.dataset == dataset]
        taken = seconds_of_steps(params, dataset, runs)
        found |= {point.name: sum(taken[point.system][name] + START for name in todo[point.name]) for point in runs}
    return found


def seconds_of_steps(params: Params, dataset: str, runs: Iterable[GridPoint]) -> dict[str, dict[str, float]]:
    """Seconds of each step of a data set's runs, by the system, each measured once."""
    systems = list(dict.fromkeys(point.system for point in runs))
    if not systems:
        return {}
    data = CorpusFolder.open(Path("corpora", dataset, "corpus"))
    found = {}
    for rates in training_time.estimates(params, dataset, data.path, len(data.vocabulary), systems, SECONDS):
        settings = params.settings(dataset, rates.system)
        words = settings.sampling.sentences * (data.about["mean_length"] + 1)
        found[rates.system] = SMALL | {
            "train": rates.seconds,
            "evaluate": rates.decoding_seconds * decoded(settings, data.about["sentences"]["test"]),
            "sample": words / rates.sampled_words_per_second,
        }
    return found


def decoded(settings: Settings, sentences: int) -> int:
    """How many sentences an evaluation decodes, each code of a sentence counted, where the gain takes no more codes
    than it begins with."""
    if objective_class(settings.objective["name"]).kind == "lstm_lm":
        return sentences
    wanted = settings.evaluation
    codes_of_others = min(wanted.gain_sentences, sentences) * min(wanted.gain_codes, sentences)
    return wanted.elbo_samples * sentences + min(wanted.iw_sentences, sentences) * wanted.iw_samples + codes_of_others


def main(stages: Annotated[list[str], typer.Argument(help="What is to be made, as dvc calls it.")]) -> None:
    """Print how many seconds each run would take by itself, as JSON, of the stages that are to be made.

    \b
    Examples:
      python -m pipelines.machine.forecast train@sotu-vae_mine-1 evaluate@sotu-vae_mine-1
    """
    with exit_codes():
        print(json.dumps(forecast(Params.load(Path("params.yaml")), stages)))


if __name__ == "__main__":
    run(main)
