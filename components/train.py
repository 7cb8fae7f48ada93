"""Train one system on one corpus with one seed."""

import json
import logging
import sys
from pathlib import Path
from typing import Annotated, Any

from components.provenance import code_sha256
from components.step import Input, Output, after_writing, step
from components.tracking import LiveRun, RunIdentity
from textvae import checkpoint
from textvae.config import TrainSettings
from textvae.corpus import Sentences
from textvae.files import fingerprint, read_json, write_json
from textvae.state import StateStore, stop_request
from textvae.training import Outcome, Trainer
from textvae.vocabulary import Vocabulary


@step
def train(
    corpus: Annotated[Path, Input("Dataset", "The corpus folder that preprocess wrote.")],
    settings: TrainSettings,
    seed: int,
    model: Annotated[Path, Output("Model", "The model directory to write.")],
    curves: Annotated[Path, Output("Artifact", "The learning curves to write, one JSON object per epoch.")],
    config: Annotated[Path | None, Output("Artifact", "config.json once more, without the weights.")] = None,
) -> dict[str, Any]:
    """Train one system on a corpus and write its model directory and learning curves.

    An interrupted training goes on where it stopped: its state is kept in $TEXTVAE_STATE (default .state).
    $TEXTVAE_MAX_MINUTES ends it early with exit code 75, Ctrl-C with 130, SIGTERM with 143. A run whose loss
    becomes NaN is a result, not a failure: the model directory says `diverged` and why.

    \b
    Examples:
      python -m components.train --corpus corpora/sotu/corpus --settings settings/sotu/vae_mine/train.json \\
          --seed 1 --model runs/sotu/vae_mine/1/model --curves runs/sotu/vae_mine/1/curves.jsonl
    """
    logging.basicConfig(format="%(levelname)s: %(message)s")
    vocabulary = Vocabulary.load(corpus / "vocabulary.json")
    splits = {name: Sentences.load(corpus / f"{name}.parquet", len(vocabulary)) for name in ("train", "valid")}
    corpus_sha256 = read_json(corpus / "corpus.json")["sha256"]
    identity = {"dataset": settings.dataset, "system": settings.system, "seed": seed}
    plan = {"settings": settings.model_dump(), "corpus_sha256": corpus_sha256, "seed": seed}
    store = StateStore(fingerprint(plan))
    shown_settings = {key: plan["settings"][key] for key in ("model", "training", "objective")}
    live: LiveRun | None = None

    def on_epoch(row: dict[str, Any]) -> None:
        print_epoch(row)
        if live is not None:
            live.log_epoch({**identity, **row})

    with stop_request() as stop:
        trainer = Trainer(settings, splits["train"], splits["valid"], len(vocabulary), seed, store, on_epoch, stop)
        run = RunIdentity(settings.dataset, settings.system, seed, shown_settings, corpus_sha256, code_sha256())
        with LiveRun(run) as live:
            outcome = trainer.run()
    about = {
        "format_version": checkpoint.FORMAT_VERSION,
        **identity,
        "status": "finished" if outcome.failure is None else "diverged",
        "failure": outcome.failure,
        "kind": outcome.network.kind,
        "selected": outcome.selected,
        "settings": shown_settings,
        "corpus_sha256": corpus_sha256,
    }
    write_model(model, outcome, about, vocabulary)
    if config is not None:
        write_json(config, about)
    curves.write_text("".join(json.dumps({**identity, **row}, sort_keys=True) + "\n" for row in outcome.curves))
    after_writing.append(store.remove)
    if outcome.failure is not None:
        print(f"DIVERGED: {outcome.failure['message']}; the report will show it as such", file=sys.stderr)
    return {**identity, "status": about["status"], **outcome.selected}


def write_model(folder: Path, outcome: Outcome, config: dict[str, Any], vocabulary: Vocabulary) -> None:
    """Write a model directory; a diverged run's has no weights."""
    folder.mkdir()
    if outcome.failure is None:
        checkpoint.write_tensors(folder / checkpoint.WEIGHTS["best"], outcome.weights)
        checkpoint.write_tensors(folder / checkpoint.WEIGHTS["iw"], outcome.weights_iw)
    vocabulary.save(folder / "vocabulary.json")
    write_json(folder / "config.json", config)


def print_epoch(row: dict[str, Any]) -> None:
    """One line per epoch for whoever watches."""
    names = {"train_loss": "loss", "valid_nll": "NLL", "valid_kl": "KL", "valid_mi": "MI", "valid_au": "AU"}
    shown = [f"{label} {row[name]:.2f}" for name, label in names.items() if name in row]
    print(f"epoch {row['epoch']}: {', '.join(shown)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    train.main()
