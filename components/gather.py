"""The results of one run, which Kubeflow keeps one by one -> a run directory, laid out as `make repro` lays it out.

A Kubeflow backend tells a step of all its artifacts in one argument, of which Linux takes 131,072 bytes: report and
publish can be told of a folder for each run of a large grid, not of everything in them.
"""

import shutil
from pathlib import Path
from typing import Annotated

from components.step import IDENTITY, Input, Output, step
from reporting.artifacts import candidates, check_curves, check_model, identity, read_content
from textvae.errors import DataError
from textvae.files import check_links
from textvae.integrity import checked_file


@step
def gather(
    config: Annotated[Path, Input("Artifact", "The model's config.json.")],
    curves: Annotated[Path, Input("Artifact", "What train wrote with --curves.")],
    evaluation: Annotated[Path, Input("Artifact", "The folder that evaluate wrote.")],
    samples: Annotated[Path, Input("Artifact", "What sample wrote.")],
    examples: Annotated[Path, Input("Artifact", "What examples wrote.")],
    ngram: Annotated[Path, Input("Artifact", "What ngram wrote.")],
    train_timings: Annotated[Path, Input("Artifact", "What train wrote with --timings.")],
    evaluate_timings: Annotated[Path, Input("Artifact", "The same of evaluate.")],
    sample_timings: Annotated[Path, Input("Artifact", "The same of sample.")],
    examples_timings: Annotated[Path, Input("Artifact", "The same of examples.")],
    ngram_timings: Annotated[Path, Input("Artifact", "The same of ngram.")],
    run: Annotated[Path, Output("Artifact", "The run directory, without the weights of its model.")],
) -> dict[str, str]:
    """Copy the results of one run into one folder, which report and publish read. Only the pipeline needs it.

    Exit code 65: they are not all of one run, one is damaged or does not say whose it is, or a link leads out.

    \b
    Examples:
      python -m components.gather --config config --curves curves --evaluation evaluation --samples samples \\
          --examples examples --ngram ngram --train-timings t/1 --evaluate-timings t/2 --sample-timings t/3 \\
          --examples-timings t/4 --ngram-timings t/5 --run run
    """
    given = {
        "model/config.json": config,
        "curves.jsonl": curves,
        "evaluation": evaluation,
        "samples.parquet": samples,
        "examples.json": examples,
        "ngram.json": ngram,
        "timings/train.json": train_timings,
        "timings/evaluate.json": evaluate_timings,
        "timings/sample.json": sample_timings,
        "timings/examples.json": examples_timings,
        "timings/ngram.json": ngram_timings,
    }
    for place, path in given.items():
        (run / place).parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            check_links(path)
            shutil.copytree(path, run / place)
        else:
            shutil.copyfile(path, run / place)
    owners, contents = {}, {}
    for kind, file in candidates([run]):
        if content := read_content(kind, file):  # no curves: the run diverged in its first epoch
            owners[identity(file, content)] = file.relative_to(run)
            contents[file] = content
    if len(owners) != 1:
        raise DataError(
            "these are results of several runs: " + ", ".join(f"{file} of {'-'.join(o)}" for o, file in owners.items())
        )
    about = read_content("config", run / "model/config.json")
    for file, content in contents.items():
        if isinstance(content, dict):
            check_model(about, file, content)
    check_curves(about, run / "curves.jsonl")
    metrics = run / "evaluation/metrics.json"
    stated = read_content("metrics", metrics).get("files", {})
    for name in stated:
        checked_file(metrics.with_name(name), metrics, stated, "evaluate")
    return dict(zip(IDENTITY, next(iter(owners)), strict=True))


if __name__ == "__main__":
    gather.main()
