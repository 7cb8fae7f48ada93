"""The experiment as one Kubeflow pipeline, made of the steps' own components.

Per data set: fetch -> preprocess -> for each (system, seed): train -> evaluate, examples, sample -> ngram, and gather,
which makes one folder of the run's results; then report -> publish over everything. Where the cluster's `runs_per_gpu`
is above 1, train_group trains so many runs on one GPU, and train writes each out. The steps and their edges are those
of dvc.yaml, with the settings resolved at submission instead of by its stage `settings`;
tests/pipelines/test_kubeflow.py holds the list of differences.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp import compiler, dsl

from components.evaluate import evaluate
from components.examples import examples
from components.fetch import fetch
from components.gather import gather
from components.ngram import ngram
from components.preprocess import preprocess
from components.publish import publish
from components.report import report
from components.sample import sample
from components.settings import resolve
from components.train import train
from components.train_group import train_group
from pipelines.cluster.resources import Cluster
from textvae.config import Grid, Params, TrainGroupSettings

STEPS = {
    step.name: step
    for step in (fetch, preprocess, train_group, train, evaluate, sample, examples, ngram, gather, report, publish)
}
RUN_STEPS = ("train", "evaluate", "sample", "examples", "ngram")
NAME = "textvae"


def compile_experiment(params: Params, cluster: Cluster, tag: str, file: Path) -> None:
    """Write the pipeline of the whole grid of `params` as the YAML that Kubeflow takes.

    Raises SettingsError or DataError for settings that are wrong, or a corpus that is not there.
    """
    compiler.Compiler().compile(experiment(params, cluster, tag), str(file))


def experiment(params: Params, cluster: Cluster, tag: str) -> Any:
    """The pipeline. `tag` is that of the steps' images, a commit."""
    settings = {name: json.dumps(content, sort_keys=True) for name, content in resolve(params).items()}
    grid = params.grid
    groups = {dataset: list(grouped(grid, dataset, settings, cluster.runs_per_gpu)) for dataset in grid.datasets}
    loops = sum(len(of_dataset) for of_dataset in groups.values())

    def numbered(name: str, kind: str, how_many: int) -> dict[str, str]:
        return {f"{name}_{number}": kind for number in range(1, how_many + 1)}

    runs = numbered("run", "inputs", loops)
    arrivals: dict[str, dict[str, dict[str, str]]] = {
        "train": {"finished": {"finished": "input"} if cluster.runs_per_gpu > 1 else {}},
        "report": {"runs": runs, "corpora": numbered("corpus", "input", len(grid.datasets))},
        "publish": {"runs": runs, "models": numbered("model", "inputs", loops)},
    }
    components = {
        name: step.container_component(cluster.image(name, tag), arrivals.get(name)) for name, step in STEPS.items()
    }

    def run(step: str, **inputs: Any) -> Any:
        return cluster.prepare(components[step](**inputs), step)

    def of_run(item: Any, corpus: Any, trained: Mapping[str, Any]) -> tuple[Any, Any]:
        """The tasks of one run, `trained` being what train is given of a group. Returns the run's folder, its model."""
        train = run("train", corpus=corpus, settings=item.train, seed=item.seed, **trained)
        model = train.outputs["model"]
        tasks = {
            "train": train,
            "evaluate": run("evaluate", model=model, corpus=corpus, settings=item.evaluate),
            "sample": run("sample", model=model, settings=item.sample),
            "examples": run("examples", model=model, corpus=corpus, settings=item.examples),
        }
        tasks["ngram"] = run("ngram", samples=tasks["sample"].outputs["samples"], corpus=corpus, settings=item.ngram)
        results = {name: tasks[step].outputs[output] for name, (step, output) in run_results().items()}
        return run("gather", **results).outputs["run"], model

    @dsl.pipeline(  # type: ignore[untyped-decorator]
        name=NAME, description=f"{len(grid.points())} runs: {', '.join(grid.systems)}"
    )
    def pipeline() -> None:
        gathered: dict[str, Any] = {}
        models: dict[str, Any] = {}
        corpora: dict[str, Any] = {}
        loop = 0
        for number, dataset in enumerate(grid.datasets, start=1):
            fetched = run("fetch", settings=settings[f"{dataset}/fetch"])
            fetched.set_display_name(f"fetch {dataset}")
            raw = fetched.outputs["raw"]
            preprocessed = run("preprocess", raw=raw, settings=settings[f"{dataset}/preprocess"])
            corpus = preprocessed.set_display_name(f"preprocess {dataset}").outputs["corpus"]
            corpora[f"corpus_{number}"] = corpus
            for group, (items, together) in enumerate(groups[dataset], start=1):
                name, trained = dataset, {}
                if together is not None:
                    name = f"{dataset} {group}"
                    trainings = run("train_group", corpus=corpus, settings=together)
                    trained["finished"] = trainings.set_display_name(f"train_group {name}").outputs["finished"]
                loop += 1
                with dsl.ParallelFor(items, name=f"runs {name}", parallelism=cluster.parallel_runs) as item:
                    # kfp takes all values of an item to be of the first one's type; at run time the JSON says it.
                    item.seed.channel_type = "int"
                    gathered[f"run_{loop}"], models[f"model_{loop}"] = of_run(item, corpus, trained)

        def collected(outputs: dict[str, Any]) -> dict[str, Any]:  # the compiler changes a Collected: never share one
            return {name: dsl.Collected(output) for name, output in outputs.items()}

        reported = run("report", **collected(gathered), **corpora, settings=settings["report"])
        run(
            "publish",
            **collected(gathered | models),
            reports=reported.outputs["reports"],
            settings=settings["report"],
            pipeline_run=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
            pipeline_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
        )

    return pipeline


def grouped(
    grid: Grid, dataset: str, settings: Mapping[str, str], runs_per_gpu: int
) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """The items of each loop of a data set, and where its runs are trained side by side the settings of that step."""
    items = loop_items(grid, dataset, settings)
    if runs_per_gpu == 1:
        yield items, None
        return
    for first in range(0, len(items), runs_per_gpu):
        group = items[first : first + runs_per_gpu]
        runs = [{"settings": json.loads(item["train"]), "seed": item["seed"]} for item in group]
        content = TrainGroupSettings.model_validate({"runs": runs, "at_once": runs_per_gpu}).model_dump()
        yield group, json.dumps(content, sort_keys=True)


def loop_items(grid: Grid, dataset: str, settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """One item per (system, seed): each step's settings as JSON text, the seed, and a name for who looks at the run."""
    return [
        {
            **{step: settings[f"{dataset}/{point.system}/{step}"] for step in RUN_STEPS},
            "run": point.name,
            "seed": int(point.seed),
        }
        for point in grid.points()
        if point.dataset == dataset
    ]


def run_results() -> dict[str, tuple[str, str]]:
    """What is gathered of a run: name -> (step, its output). The weights are not among it."""
    timings = {f"{step}_timings": (step, "timings") for step in RUN_STEPS}
    measured = {
        "evaluation": ("evaluate", "evaluation"),
        "examples": ("examples", "examples"),
        "ngram": ("ngram", "ngram"),
        "samples": ("sample", "samples"),
    }
    return {"config": ("train", "config"), "curves": ("train", "curves"), **measured, **timings}
