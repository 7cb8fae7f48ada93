"""Resolve params.yaml into one small JSON file per step, holding exactly what that step reads: settings and code.

A stage of dvc.yaml depends on these files, so it reruns when, and only when, something that it reads has changed:
editing how samples are drawn retrains nothing, whatever layer of params.yaml the value stands in.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated, Any

from components.step import Input, Output, step
from textcorpus.readers import reader_of
from textcorpus.remote import is_uri, version
from textcorpus.sources import content_sha256
from textvae.config import CODE_FOLDER, FetchSettings, Params, ReportSettings, TrainSettings
from textvae.errors import DataError, SettingsError
from textvae.files import fingerprint, write_json
from textvae.objectives import checked, objective_class, objective_sha256
from textvae.provenance import imported_by
from textvae.strict import aliased_lines

STAGES = ("fetch", "preprocess", "train", "evaluate", "sample", "examples", "ngram", "report")
"""The steps that DVC runs. A view (publish) is none: how MLflow is talked to must not cost a training."""


@step
def settings(
    params: Annotated[Path, Input("Artifact", "params.yaml.")],
    out: Annotated[Path, Output("Artifact", "The folder to write.")],
) -> None:
    """Check params.yaml and write each step's settings, and the hashes of the code that it runs, below a folder.

    \b
    Examples:
      python -m components.settings --params params.yaml --out settings
    """
    resolved = resolve(Params.load(params))
    if lines := aliased_lines(params):
        print(
            f"warning: {params}, line {', '.join(map(str, lines))}: `dvc exp run -S` loses or spreads what it sets in "
            "a mapping or list that an alias (`*name`) shares: write it out, or use `like:` (docs/dvc.md)",
            file=sys.stderr,
        )
    for name, content in resolved.items():
        write_json(out / f"{name}.json", content)


def resolve(params: Params) -> dict[str, dict[str, Any]]:
    """Every step's settings, by the name of their file: `sotu/fetch`, `sotu/vae_mine/train`, ..., `report`; and the
    code that each step runs, as `code/fetch`, ...: the hash of each file.

    All entries of params.yaml are checked, also those outside the grid. Raises SettingsError naming what is wrong.
    """
    files: dict[str, dict[str, Any]] = {}
    for dataset in params.datasets:
        fetch = params.fetch(dataset)
        refuse_unknown_language(fetch)
        reader_of(fetch)
        of_dataset = of_corpus(params, dataset)
        for system in params.systems:
            of_steps = of_run(params, dataset, system)
            if in_grid(params, dataset, system):
                files |= {f"{dataset}/{system}/{name}": content for name, content in of_steps.items()}
        if dataset in params.grid.datasets:
            of_dataset["fetch"] |= identity(fetch)
            files |= {f"{dataset}/{name}": content for name, content in of_dataset.items()}
    reduced = {name: params.datasets[name].reduced for name in params.grid.datasets}
    files["report"] = ReportSettings(
        **params.grid.model_dump(), **params.report.model_dump(), reduced=reduced
    ).model_dump()
    return files | {f"{CODE_FOLDER}/{name}": imported_by(f"components.{name}") for name in STAGES}


def of_corpus(params: Params, dataset: str) -> dict[str, dict[str, Any]]:
    """The settings of fetch and preprocess, but for what the text itself tells (`identity`), by the step."""
    fetch = params.fetch(dataset)
    reader = fingerprint(imported_by(f"textcorpus.readers.{fetch.reader}"))
    preprocess = params.preprocess(dataset).model_dump()
    return {"fetch": fetch.model_dump() | {"reader_sha256": reader}, "preprocess": preprocess}


def of_run(params: Params, dataset: str, system: str) -> dict[str, dict[str, Any]]:
    """The settings of the steps of one (data set, system), by the step. Raises SettingsError naming what is wrong.

    Whether an objective can work with the settings of the training is asked of the grid only: a data set's epochs may
    be too few for a system that is not trained on it.
    """
    merged = params.settings(dataset, system)
    training = merged.training if in_grid(params, dataset, system) else None
    objective = checked(merged.objective, training, params.layers(dataset, system).key)
    chosen = objective_class(objective["name"])
    chosen.check_model(merged.model, params.layers(dataset, system).key)
    sentences, needed = params.preprocess(dataset).train_sentences, chosen.least_batch
    if training is not None and sentences is not None and sentences < needed:
        raise SettingsError(
            f"datasets.{dataset}.settings.preprocess.train_sentences is {sentences}: {system} compares the sentences "
            f"of a batch: set it to {needed} or more"
        )
    if training is not None:
        preprocess = params.preprocess(dataset)
        longest = min(preprocess.max_length, preprocess.longest or preprocess.max_length)
        merged.model.check_reach(longest, f"a sentence of {dataset}", params.layers(dataset, system).key)
    train = TrainSettings(
        dataset=dataset,
        system=system,
        model=merged.model,
        training=merged.training,
        objective=objective,
        objective_sha256=objective_sha256(objective["name"]),
    )
    steps = {"evaluate": merged.evaluation, "sample": merged.sampling, "examples": merged.examples}
    steps |= {"train": train, "ngram": merged.ngram}
    return {name: step.model_dump() for name, step in steps.items()}


def in_grid(params: Params, dataset: str, system: str) -> bool:
    """Whether there are runs of the system on the data set."""
    return dataset in params.grid.datasets and system in params.grid.systems


def identity(fetch: FetchSettings) -> dict[str, str]:
    """What tells the content of the corpus's path or URI from any other, where params.yaml does not say it itself.

    Raises DataError where there is nothing, UnavailableError for a store that does not answer.
    """
    if fetch.path is None or fetch.sha256 is not None:
        return {}
    if is_uri(fetch.path):
        return {"version": version(fetch.path)}
    try:
        return {"sha256": content_sha256(Path(fetch.path))}
    except PermissionError as error:
        raise DataError(
            f"datasets.{fetch.dataset}.source.path is {fetch.path}, and {error.filename} in it may not be read: name "
            "the file or the folder of the text alone, or let this user read it"
        ) from None


def refuse_unknown_language(fetch: FetchSettings) -> None:
    """Raise SettingsError for a language that the spaCy of this machine, if it has one, does not know."""
    spec = importlib.util.find_spec("spacy") if fetch.tokenizer == "words" else None
    if spec is not None and spec.origin and not Path(spec.origin).with_name("lang").joinpath(fetch.language).is_dir():
        raise SettingsError(
            f"datasets.{fetch.dataset}.source.language: spaCy knows no {fetch.language!r}: give one of its two-letter "
            "codes (`en`, `de`), `xx` for any other language, or split the words yourself and use `tokenizer: spaces`"
        )


if __name__ == "__main__":
    settings.main()
