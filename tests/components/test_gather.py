"""A run's results, handed over one by one, make the run directory that they came from."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from faults import flip
from made_files import changed
from report_artifacts import write_full_experiment
from report_reading import make

from components.gather import gather
from components.report import report
from pipelines.cluster.experiment import run_results
from textvae.errors import DataError
from textvae.files import fingerprint, read_json, sha256_of_file, write_json
from textvae.integrity import write_sealed
from textvae.provenance import Stopwatch

PLACES = {
    "config": "model/config.json",
    "curves": "curves.jsonl",
    "evaluation": "evaluation",
    "samples": "samples.parquet",
    "examples": "examples.json",
    "ngram": "ngram.json",
}
STEPS = ("train", "evaluate", "sample", "examples", "ngram")


def results_of(run: Path, folder: Path) -> dict[str, Path]:
    """Copies of a run's results under names that say nothing, as Kubeflow hands them over."""
    dataset, system, seed = run.parts[-3:]
    identity = {"dataset": dataset, "system": system, "seed": int(seed)}
    for step in STEPS:
        write_json(run / "timings" / f"{step}.json", {**identity, **Stopwatch(step).read()})
    given = {**PLACES, **{f"{step}_timings": f"timings/{step}.json" for step in STEPS}}
    found = {}
    for number, (name, place) in enumerate(given.items()):
        found[name] = folder / str(number) / "artifact"
        found[name].parent.mkdir(parents=True)
        copy: Any = shutil.copytree if (run / place).is_dir() else shutil.copyfile
        copy(run / place, found[name])
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_gathered_is_the_run_directory(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    for number, run in enumerate(sorted(tmp_path.glob("runs/sotu/*/1"))):
        given = results_of(run, tmp_path / "artifacts" / str(number))
        assert set(given) == set(run_results())
        assert gather(**given, run=tmp_path / "gathered" / str(number)) == {
            "dataset": "sotu", "system": run.parts[-2], "seed": "1",
        }  # fmt: skip
        assert content(tmp_path / "gathered" / str(number)) == content(run)
    reports, again, runs = make(tmp_path, settings), tmp_path / "again", list((tmp_path / "gathered").iterdir())
    report(runs=runs, corpora=[tmp_path / "corpora"], settings=settings, reports=again)
    for name in ("results.csv", "curves.csv", "report.md", "report.html"):
        assert (again / name).read_bytes() == (reports / name).read_bytes()


def test_a_run_that_diverged_in_its_first_epoch_has_no_curves(tmp_path: Path) -> None:
    write_full_experiment(tmp_path)
    run = tmp_path / "runs/sotu/vae_mine/1"
    (run / "curves.jsonl").write_text("")
    gather(**results_of(run, tmp_path / "artifacts"), run=tmp_path / "gathered")
    assert content(tmp_path / "gathered") == content(run)


@pytest.mark.parametrize("name", ["curves.jsonl", "evaluation/posterior.parquet", "evaluation/sentences.parquet"])
def test_a_flipped_bit_in_a_file_whose_hash_is_stated_is_told(tmp_path: Path, name: str) -> None:
    write_full_experiment(tmp_path)
    run = tmp_path / "runs/sotu/vae_mine/1"
    config, metrics = run / "model/config.json", run / "evaluation/metrics.json"
    write_sealed(config, {**read_json(config), "curves_sha256": sha256_of_file(run / "curves.jsonl")})
    write_sealed(metrics, read_json(metrics), whole_folder=True)
    given = results_of(run, tmp_path / "artifacts")
    gather(**given, run=tmp_path / "whole")
    place = given["curves"] if name == "curves.jsonl" else given["evaluation"] / Path(name).name
    flip(place, place.read_bytes().index(b"0") if name == "curves.jsonl" else 100)
    with pytest.raises(DataError, match="is damaged, or another"):
        gather(**given, run=tmp_path / "gathered")
    assert not (tmp_path / "gathered").exists()


@pytest.mark.parametrize("name", ["ngram", "curves", "samples", "evaluate_timings"])
def test_results_of_two_runs_are_refused_and_nothing_is_left(tmp_path: Path, name: str) -> None:
    write_full_experiment(tmp_path)
    one, other = (results_of(tmp_path / f"runs/sotu/{s}/1", tmp_path / s) for s in ("vae_mine", "vae_05"))
    with pytest.raises(DataError, match=r"results of several runs: .*sotu-vae_"):
        gather(**{**one, name: other[name]}, run=tmp_path / "gathered")
    assert not (tmp_path / "gathered").exists()


@pytest.mark.parametrize("name", ["evaluation/metrics.json", "ngram.json", "examples.json"])
def test_a_result_of_another_training_of_the_run_is_refused(tmp_path: Path, name: str) -> None:
    """Of the same data set, system and seed: trained with other settings, say. By report, too."""
    settings = write_full_experiment(tmp_path)
    [run] = tmp_path.glob("runs/sotu/vae_mine/1")
    own = fingerprint(read_json(run / "model/config.json"))
    changed(run / name, model_sha256=own)
    make(tmp_path, settings)
    gather(**results_of(run, tmp_path / "artifacts"), run=tmp_path / "gathered")
    changed(run / name, model_sha256="0" * 64)
    said = f"{Path(name).name} is of another training than config.json, of the same name: run the steps after train"
    with pytest.raises(DataError, match=said):
        make(tmp_path, settings)
    with pytest.raises(DataError, match=said):
        gather(**results_of(run, tmp_path / "more"), run=tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_a_result_that_does_not_say_whose_it_is_is_refused(tmp_path: Path) -> None:
    write_full_experiment(tmp_path)
    given = results_of(tmp_path / "runs/sotu/vae_mine/1", tmp_path / "artifacts")
    write_json(given["ngram"], {key: value for key, value in read_json(given["ngram"]).items() if key != "seed"})
    with pytest.raises(DataError, match=r"ngram\.json is not as ngram writes it: seed: Field required"):
        gather(**given, run=tmp_path / "gathered")


def test_a_link_that_leaves_a_result_is_not_followed(tmp_path: Path) -> None:
    write_full_experiment(tmp_path)
    given = results_of(tmp_path / "runs/sotu/vae_mine/1", tmp_path / "artifacts")
    (tmp_path / "secret").write_text("of this machine")
    (given["evaluation"] / "more.json").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match=r"more\.json is a link to .*secret, outside of"):
        gather(**given, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
