"""Resolve params.yaml into one small JSON file per step, holding exactly what that step reads.

A stage of dvc.yaml depends on its file, so it reruns when, and only when, something that it reads has changed:
editing how samples are drawn retrains nothing, whatever layer of params.yaml the value stands in.
"""

from pathlib import Path
from typing import Annotated, Any

from components.remote import is_uri, version
from components.sources import content_sha256
from components.step import Input, Output, step
from textvae.config import FetchSettings, Params, ReportSettings, TrainSettings
from textvae.files import write_json
from textvae.objectives import checked, objective_sha256


@step
def settings(
    params: Annotated[Path, Input("Artifact", "params.yaml.")],
    out: Annotated[Path, Output("Artifact", "The folder to write.")],
) -> None:
    """Check params.yaml and write each step's settings below a folder.

    \b
    Examples:
      python -m components.settings --params params.yaml --out settings
    """
    resolved = resolve(Params.load(params))
    for name, content in resolved.items():
        write_json(out / f"{name}.json", content)


def resolve(params: Params) -> dict[str, dict[str, Any]]:
    """Every step's settings, by the name of their file: `sotu/fetch`, `sotu/vae_mine/train`, ..., `report`.

    All entries of params.yaml are checked, also those outside the grid. Raises SettingsError naming what is wrong.
    """
    files: dict[str, dict[str, Any]] = {}
    for dataset in params.datasets:
        fetch = params.fetch(dataset)
        of_dataset = {"fetch": fetch.model_dump(), "preprocess": params.preprocess(dataset).model_dump()}
        for system in params.systems:
            merged = params.settings(dataset, system)
            objective = checked(merged.objective, f"{dataset}, {system}")
            train = TrainSettings(
                dataset=dataset,
                system=system,
                model=merged.model,
                training=merged.training,
                objective=objective,
                objective_sha256=objective_sha256(objective["name"]),
            )
            if dataset in params.grid.datasets and system in params.grid.systems:
                files[f"{dataset}/{system}/train"] = train.model_dump()
                files[f"{dataset}/{system}/evaluate"] = merged.evaluation.model_dump()
                files[f"{dataset}/{system}/sample"] = merged.sampling.model_dump()
                files[f"{dataset}/{system}/examples"] = merged.examples.model_dump()
                files[f"{dataset}/{system}/ngram"] = merged.ngram.model_dump()
        if dataset in params.grid.datasets:
            of_dataset["fetch"] |= identity(fetch)
            files |= {f"{dataset}/{name}": content for name, content in of_dataset.items()}
    reduced = {name: params.datasets[name].reduced for name in params.grid.datasets}
    files["report"] = ReportSettings(**params.grid.model_dump(), reduced=reduced).model_dump()
    return files


def identity(fetch: FetchSettings) -> dict[str, str]:
    """What tells the content of the corpus's path or URI from any other, where params.yaml does not say it itself.

    Raises DataError where there is nothing, UnavailableError for a store that does not answer.
    """
    if fetch.path is None or fetch.sha256 is not None:
        return {}
    if is_uri(fetch.path):
        return {"version": version(fetch.path)}
    return {"sha256": content_sha256(Path(fetch.path))}


if __name__ == "__main__":
    settings.main()
