"""Train one system on one corpus with one seed."""

import hashlib
import logging
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

from components.step import Input, Output, after_writing, step
from textvae import checkpoint
from textvae.config import TrainSettings
from textvae.corpus import Sentences
from textvae.corpus_folder import CorpusFolder
from textvae.errors import DataError, SettingsError
from textvae.files import write_json
from textvae.integrity import write_sealed
from textvae.live import shown_live
from textvae.objectives import alternatives
from textvae.records import MODEL_VERSION
from textvae.selection import Candidate, choose
from textvae.state import StateStore, StopRequest, curve_lines, stop_request, training_fingerprint
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
    data = CorpusFolder.open(corpus)
    if data.dataset != settings.dataset:
        raise DataError(
            f"{corpus} is the data set {data.dataset}, the settings are for {settings.dataset}: give its own"
        )
    vocabulary, corpus_sha256 = data.vocabulary, data.sha256
    splits = {name: data.sentences(name) for name in ("train", "valid")}
    identity = {"dataset": settings.dataset, "system": settings.system, "seed": seed}
    setting, objectives = alternatives(settings.objective)
    if setting is not None and min(settings.training.iw_sentences, len(splits["valid"])) < 2:
        raise SettingsError(
            f"{setting} is selected by NLL-IW with its standard error: set training.iw_sentences to 2 or more"
        )
    candidates: list[Candidate] = []
    with stop_request() as stop, ExitStack() as locks:
        for number, objective in enumerate(objectives, 1):
            one = settings.model_copy(update={"objective": objective})
            value = candidate = ""
            if setting is not None:
                value = f"{setting} {objective[setting]}, {number} of {len(objectives)}"
                candidate = f"{setting}={objective[setting]}"
                print(value, file=sys.stderr, flush=True)
            store = StateStore(training_fingerprint(one, corpus_sha256, seed), value)
            locks.enter_context(store.locked(f"{settings.dataset} {settings.system} seed {seed} {candidate}".rstrip()))
            outcome = train_one(one, splits, len(vocabulary), seed, corpus_sha256, stop, candidate, store)
            after_writing.append(store.remove)
            candidates.append(Candidate(setting and objective[setting], one, outcome))
        after_writing.append(locks.pop_all().close)  # held until the states are gone
    chosen, account = candidates[0], None
    if setting is not None:
        chosen, account = choose(setting, candidates, splits["valid"], seed)
    outcome = chosen.outcome
    curve = curve_lines(identity, outcome.curves)
    about: dict[str, Any] = {
        "format_version": MODEL_VERSION,
        **identity,
        "status": "finished" if outcome.failure is None else "diverged",
        "failure": outcome.failure,
        "kind": outcome.network.kind,
        "selected": outcome.selected,
        "chosen": {} if setting is None else {setting: chosen.value},
        "settings": shown(chosen.settings),
        "corpus_sha256": corpus_sha256,
        "curves_sha256": hashlib.sha256(curve.encode()).hexdigest(),
    }
    about = write_model(model, outcome, about, vocabulary, None if account is None else {**identity, **account})
    if config is not None:
        write_json(config, about)
    curves.write_text(curve, encoding="utf-8")
    if outcome.failure is not None:
        print(f"DIVERGED: {outcome.failure['message']}; the report will show it as such", file=sys.stderr)
    return {**identity, "status": about["status"], **outcome.selected, **about["chosen"]}


def train_one(
    settings: TrainSettings,
    splits: dict[str, Sentences],
    vocabulary_size: int,
    seed: int,
    corpus_sha256: str,
    stop: StopRequest,
    candidate: str,
    store: StateStore,
) -> Outcome:
    """Train to the end, each epoch shown on the terminal and in MLflow. The state stays until the step has ended."""
    trainer = Trainer(settings, splits["train"], splits["valid"], vocabulary_size, seed, store, print_epoch, stop)
    about = {"dataset": settings.dataset, "system": settings.system, "seed": seed, "settings": shown(settings)}
    about |= {"corpus_sha256": corpus_sha256, "candidate": candidate}
    with shown_live(about, store.curves):
        outcome = trainer.run()
    store.finish(trainer.at.step, trainer.state() if outcome.failure is None else None)
    return outcome


def shown(settings: TrainSettings) -> dict[str, Any]:
    """The settings that a model directory and MLflow name."""
    return {key: settings.model_dump()[key] for key in ("model", "training", "objective")}


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
    names = {"train_loss": "loss", "valid_nll": "NLL", "valid_kl": "KL", "valid_mi": "MI", "valid_au": "AU"}
    shown = [f"{label} {row[name]:.2f}" for name, label in names.items() if name in row]
    print(f"epoch {row['epoch']}: {', '.join(shown)}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    train.main()
