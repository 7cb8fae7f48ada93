"""The experiment as one Kubeflow pipeline, made of the steps' own components.

Per data set: fetch -> preprocess -> for each (system, seed): train -> evaluate, examples, sample -> ngram, and gather,
which makes one folder of the run's results; then report -> publish over everything. The steps and their edges are those
of dvc.yaml, with the settings resolved at submission instead of by its stage `settings`;
tests/pipelines/test_kubeflow.py holds the list of differences.
"""

import json
from collections.abc import Mapping
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
from pipelines.cluster.resources import Cluster
from textvae.config import Grid, Params

STEPS = {
    step.name: step for step in (fetch, preprocess, train, evaluate, sample, examples, ngram, gather, report, publish)
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

    def per_dataset(name: str, kind: str) -> dict[str, str]:
        return {f"{name}_{number}": kind for number, _ in enumerate(grid.datasets, start=1)}

    runs = per_dataset("run", "inputs")
    arrivals = {
        "report": {"runs": runs, "corpora": per_dataset("corpus", "input")},
        "publish": {"runs": runs, "models": per_dataset("model", "inputs")},
    }
    components = {
        name: step.container_component(cluster.image(name, tag), arrivals.get(name)) for name, step in STEPS.items()
    }

    def run(step: str, **inputs: Any) -> Any:
        return cluster.prepare(components[step](**inputs), step)

    @dsl.pipeline(  # type: ignore[untyped-decorator]
        name=NAME, description=f"{len(grid.points())} runs: {', '.join(grid.systems)}"
    )
    def pipeline() -> None:
        gathered: dict[str, Any] = {}
        models: dict[str, Any] = {}
        corpora: dict[str, Any] = {}
        for number, dataset in enumerate(grid.datasets, start=1):
            fetched = run("fetch", settings=settings[f"{dataset}/fetch"])
            fetched.set_display_name(f"fetch {dataset}")
            raw = fetched.outputs["raw"]
            preprocessed = run("preprocess", raw=raw, settings=settings[f"{dataset}/preprocess"])
            corpus = preprocessed.set_display_name(f"preprocess {dataset}").outputs["corpus"]
            corpora[f"corpus_{number}"] = corpus
            items = loop_items(grid, dataset, settings)
            with dsl.ParallelFor(items, name=f"runs {dataset}", parallelism=cluster.parallel_runs) as item:
                # kfp takes all values of an item to be of the first one's type; at run time the JSON says it.
                item.seed.channel_type = "int"
                trained = run("train", corpus=corpus, settings=item.train, seed=item.seed)
                model = trained.outputs["model"]
                tasks = {
                    "train": trained,
                    "evaluate": run("evaluate", model=model, corpus=corpus, settings=item.evaluate),
                    "sample": run("sample", model=model, settings=item.sample),
                    "examples": run("examples", model=model, corpus=corpus, settings=item.examples),
                }
                samples = tasks["sample"].outputs["samples"]
                tasks["ngram"] = run("ngram", samples=samples, corpus=corpus, settings=item.ngram)
                results = {name: tasks[step].outputs[output] for name, (step, output) in run_results().items()}
                gathered[f"run_{number}"] = run("gather", **results).outputs["run"]
            models[f"model_{number}"] = model

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
