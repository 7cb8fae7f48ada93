"""Train one system on one corpus with one seed."""

import hashlib
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from components.step import Input, Output, after_writing, step, timings_by
from textvae import checkpoint
from textvae.config import TrainSettings
from textvae.files import write_json
from textvae.integrity import write_sealed
from textvae.progress import say
from textvae.records import MODEL_VERSION
from textvae.selection import Candidate, choose
from textvae.side_by_side import (
    Trained,
    Training,
    TrainingData,
    epoch_line,
    shown,
    timings_with,
    trained,
    trainings_of,
)
from textvae.state import curve_lines, stop_request
from textvae.training import Outcome
from textvae.turns import run_out
from textvae.vocabulary import Vocabulary


@step
def train(
    corpus: Annotated[Path, Input("Dataset", "The corpus folder that preprocess wrote.")],
    settings: TrainSettings,
    seed: int,
    model: Annotated[Path, Output("Model", "The model directory to write.")],
    curves: Annotated[Path, Output("Artifact", "The learning curves to write, one JSON object per epoch.")],
    config: Annotated[Path | None, Output("Artifact", "config.json once more, without the weights.")] = None,
    finished: Annotated[Path | None, Input("Artifact", "What train_group wrote: its trainings are over.")] = None,
) -> dict[str, Any]:
    """Train one system on a corpus and write its model directory and learning curves.

    A setting of the objective that is a list (alpha: [2.0, 2.5]) is selected: each value is trained, one is kept, the
    account is candidates.json in the model directory.

    An interrupted training goes on where it stopped: its state is kept in $TEXTVAE_STATE (default .state).
    $TEXTVAE_MAX_MINUTES ends it early with exit code 75, Ctrl-C with 130, SIGTERM with 143. Where another process
    is at the same training, this one ends with exit code 69. A run whose loss becomes NaN is a result, not a
    failure: the model directory says `diverged` and why.

    \b
    Examples:
      python -m components.train --corpus corpora/sotu/corpus --settings settings/sotu/vae_mine/train.json \\
          --seed 1 --model runs/sotu/vae_mine/1/model --curves runs/sotu/vae_mine/1/curves.jsonl
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    data = TrainingData(corpus)
    trainings = trainings_of(settings, seed, data)
    identity = {"dataset": settings.dataset, "system": settings.system, "seed": seed}
    candidates: list[Candidate] = []
    trainings_done: list[Trained] = []
    timings_by.append(partial(timings_with, trainings_done))
    with stop_request() as stop, ExitStack() as locks:
        for training in trainings:
            if training.which:
                say(training.which)
            store = training.store(data, finished)
            locks.enter_context(store.locked(training.name))
            done = run_out(trained(training, data, store, stop, print_epoch))
            after_writing.append(store.remove)  # not before: until the step has ended, the outcome stays
            candidates.append(Candidate(training.value, training.settings, done.outcome))
            trainings_done.append(done)
        after_writing.append(locks.pop_all().close)  # held until the states are gone
    about = write_run(model, curves, candidates, trainings[0], data)
    if config is not None:
        write_json(config, about)
    return {**identity, "status": about["status"], **about["selected"], **about["chosen"]}


def write_run(
    model: Path,
    curves: Path,
    candidates: Sequence[Candidate],
    first: Training,
    data: TrainingData,
    unfinished: str = "",
) -> dict[str, Any]:
    """Write the model directory and the learning curves of the candidate that is kept. Returns config.json.

    Args: first, of the run's trainings; unfinished, how far the training is if it is not over (`epoch 29 of 100`).
    """
    identity = {"dataset": first.settings.dataset, "system": first.settings.system, "seed": first.seed}
    chosen, account = candidates[0], None
    if first.setting is not None:
        chosen, account = choose(first.setting, candidates, data.valid, first.seed)
    outcome = chosen.outcome
    curve = curve_lines(identity, outcome.curves)
    about: dict[str, Any] = {
        "format_version": MODEL_VERSION,
        **identity,
        "status": "finished" if outcome.failure is None else "diverged",
        "failure": outcome.failure,
        "kind": outcome.network.kind,
        "selected": outcome.selected,
        "chosen": {} if first.setting is None else {first.setting: chosen.value},
        "settings": shown(chosen.settings),
        "corpus_sha256": data.sha256,
        "curves_sha256": hashlib.sha256(curve.encode()).hexdigest(),
    }
    about |= {"unfinished": unfinished} if unfinished else {}
    about = write_model(model, outcome, about, data.vocabulary, None if account is None else {**identity, **account})
    curves.write_text(curve, encoding="utf-8")
    if outcome.failure is not None:
        print(f"DIVERGED: {outcome.failure['message']}; the report will show it as such", file=sys.stderr)
    return about


def write_model(
    folder: Path,
    outcome: Outcome,
    config: dict[str, Any],
    vocabulary: Vocabulary,
    account: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a model directory; a diverged run's has no weights. Returns config.json, which has the others' hashes."""
    folder.mkdir()
    if outcome.failure is None:
        checkpoint.write_tensors(folder / checkpoint.WEIGHTS["best"], outcome.weights)
        checkpoint.write_tensors(folder / checkpoint.WEIGHTS["iw"], outcome.weights_iw)
    vocabulary.save(folder / "vocabulary.json")
    if account is not None:
        write_sealed(folder / "candidates.json", account)
    return write_sealed(folder / "config.json", config, whole_folder=True)


def print_epoch(row: dict[str, Any]) -> None:
    """One line per epoch for whoever watches."""
    say(epoch_line(row))


if __name__ == "__main__":
    train.main()
