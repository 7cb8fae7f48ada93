"""Models in MLflow's registry: each run's once, `best` by validation numbers, and the same numbers when loaded back."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import changed
from tiny import tiny_corpus
from tiny_model import informative, written
from tracking_helpers import ROOT, rows, write_reports, write_run

from components.publish import publish
from textvae import load
from textvae.config import ReportSettings
from textvae.errors import UnavailableError
from textvae.files import read_json
from textvae.latent import TextVAE
from textvae.networks import Kind
from textvae.provenance import imported_by, imports
from tracking import connect
from tracking.registry import REQUIREMENTS

pytest_plugins = ["tracking_fixtures"]
SENTENCES = ["the small cat sees a dog", "a bird sings today", "the cat sleeps"]
SETTINGS = ReportSettings(datasets=["sotu"], systems=["vae_mine", "vae_05", "lstm_lm"], seeds=["0"], reduced={})


def with_model(root: Path, system: str, kind: Kind = "vae", valid: tuple[float, float | None] = (60.0, 1.0)) -> Path:
    """A run directory with weights. `valid`: NLL-IW and MI on the validation set, of the epoch that was kept (2)."""
    directory = write_run(root / "runs", system)
    corpus = tiny_corpus()
    config = read_json(directory / "model/config.json")
    shutil.rmtree(directory / "made", ignore_errors=True)
    made = written(directory / "made", informative(kind, corpus), corpus)
    for file in ("model.safetensors", "vocabulary.json"):
        (made / file).rename(directory / "model" / file)
    settings = {**config["settings"], "model": read_json(made / "config.json")["settings"]["model"]}
    changed(directory / "model/config.json", kind=kind, settings=settings)
    lines = [json.loads(line) for line in (directory / "curves.jsonl").read_text().splitlines()]
    for line in lines:  # epochs that were not kept look better
        kept = line["epoch"] == 2
        line |= {"valid_nll_iw": valid[0] if kept else 1.0}
        line |= {} if valid[1] is None else {"valid_mi": valid[1] if kept else 9.0}
    (directory / "curves.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def run_publish(root: Path) -> None:
    """The step on everything below `root`."""
    publish(runs=[root / "runs"], reports=write_reports(root / "reports"), settings=SETTINGS)


def registered() -> tuple[dict[str, str], str | None]:
    """Name of the run -> version; and the run that `best` names."""
    client = connect().client
    found = {str(one.version): one.tags["run"] for one in client.search_model_versions("name = 'textvae-sotu'")}
    best = client.get_registered_model("textvae-sotu").aliases.get("best")
    return {run: version for version, run in found.items()}, None if best is None else found[str(best)]


def test_what_is_loaded_from_the_registry_says_what_the_model_directory_says(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import pandas as pd

    directory = with_model(repository, "vae_mine")
    run_publish(repository)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{repository / 'mlflow.db'}")
    served, model = mlflow.pyfunc.load_model("models:/textvae-sotu@best"), load(directory / "model")
    table = pd.DataFrame({"sentence": SENTENCES})

    def asked(call: str, **params: Any) -> Any:
        return served.predict(table, params={"call": call, **params})

    mu_ND, log_var_ND = model.encode(SENTENCES)
    assert np.array_equal(np.array(served.predict(table)["mu"].tolist()), mu_ND)
    assert np.array_equal(np.array(asked("encode")["log_var"].tolist()), log_var_ND)
    assert np.abs(mu_ND).max() > 0.01
    assert asked("score", samples=7)["nll_iw"].tolist() == [one.nll_iw for one in model.score(SENTENCES, samples=7)]
    assert asked("score")["nll_iw"].tolist() == [one.nll_iw for one in model.score(SENTENCES)]
    made = asked("reconstruct", samples=2, seed=5)
    wanted = model.reconstruct(SENTENCES, samples=2, seed=5)
    assert made["samples"].tolist() == [one.samples for one in wanted]
    assert made["mean"].tolist() == [one.mean for one in wanted]
    for seed, own in ((-1, None), (8, 8)):
        assert asked("sample", seed=seed)["text"].tolist() == [one.text for one in model.sample(3, own)]
    read: list[bool] = []
    tokenised = TextVAE.tokenised

    def spy(model: TextVAE, sentences: Any, tokens: bool = False) -> Any:
        read.append(tokens)
        return tokenised(model, sentences, tokens)

    monkeypatch.setattr(TextVAE, "tokenised", spy)
    for call in ("encode", "reconstruct", "score"):
        for how in ({}, {"tokens": True}):
            asked(call, **how)
    assert read == 3 * [False, True]
    with pytest.raises(ValueError, match="'dance': there are encode, reconstruct, sample and score"):
        asked("dance")


def test_the_model_carries_its_library_a_signature_and_an_example_and_nothing_pickled(repository: Path) -> None:
    with_model(repository, "vae_mine")
    run_publish(repository)
    [stored] = {path.parent for path in (repository / "mlartifacts").rglob("MLmodel")}
    assert not [path for path in stored.rglob("*") if path.suffix in (".pkl", ".pickle", ".pt", ".pyc")]
    assert (stored / "artifacts/model.safetensors").is_file()
    assert "torch==" in (stored / "requirements.txt").read_text()
    assert "+" not in (stored / "requirements.txt").read_text()
    code = (
        "import sys, json, mlflow; model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "assert 'components' not in sys.modules; import textvae\n"
        "print(json.dumps([textvae.__file__, len(model.predict(model.input_example)), str(model.metadata.signature)]))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(stored)], env=environment, cwd="/", capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    library, answers, signature = json.loads(done.stdout.splitlines()[-1])
    assert Path(library).is_relative_to(stored) or Path(library).is_relative_to(ROOT)  # where it is also installed
    assert answers == 2
    for name in ("sentence", "call", "samples", "seed"):
        assert f"'{name}'" in signature or f"{name}:" in signature


def test_best_is_the_lowest_validation_nll_iw_among_those_that_use_their_code(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_model(repository, "vae_mine", valid=(61.0, 1.2))
    with_model(repository, "vae_05", valid=(60.0, 0.01))  # better, and collapsed
    with_model(repository, "lstm_lm", "lstm_lm", valid=(59.0, None))  # better still, and without a code
    run_publish(repository)
    versions, best = registered()
    assert set(versions) == {"sotu-vae_mine-0", "sotu-vae_05-0", "sotu-lstm_lm-0"}
    assert best == "sotu-vae_mine-0"
    with_model(repository, "vae_05", valid=(60.0, 0.2))
    run_publish(repository)
    assert registered()[1] == "sotu-vae_05-0"
    for system in ("vae_mine", "vae_05"):
        with_model(repository, system, valid=(60.0, 0.0))
    capsys.readouterr()
    run_publish(repository)
    assert "best: none" in capsys.readouterr().out
    assert registered()[1] is None


def test_publishing_again_registers_nothing_and_what_was_removed_comes_back(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_model(repository, "vae_mine")
    run_publish(repository)
    before = registered()
    capsys.readouterr()
    run_publish(repository)
    assert "version" not in capsys.readouterr().out
    assert registered() == before
    store = connect()
    store.client.delete_model_version("textvae-sotu", before[0]["sotu-vae_mine-0"])
    run_publish(repository)
    assert registered()[1] == "sotu-vae_mine-0"
    [run] = rows(store)
    assert [one.run_id for one in store.client.search_model_versions("name = 'textvae-sotu'")] == [run.info.run_id]


def test_a_diverged_run_and_one_without_weights_are_not_registered(repository: Path) -> None:
    write_run(repository / "runs", diverged=True)
    write_run(repository / "runs", "vae_05")
    run_publish(repository)
    assert connect().client.search_registered_models() == []


def versions() -> dict[str, str]:
    """Version -> the model behind it, of all there are."""
    found = connect().client.search_model_versions("name = 'textvae-sotu'")
    return {str(one.version): one.source for one in found}


def test_two_experiments_of_one_store_keep_each_others_versions(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same run in both is one version; a run of the other is not stale; another training of it has its own."""
    with_model(repository, "vae_mine")
    ours, theirs = "textvae", "of a team"
    run_publish(repository)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", theirs)
    run_publish(repository)
    assert len(versions()) == 1
    with_model(repository, "vae_05", valid=(61.0, 1.0))
    run_publish(repository)
    before = versions()
    assert len(before) == 2
    capsys.readouterr()
    for experiment in (ours, theirs):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        run_publish(repository)
    assert "version" not in capsys.readouterr().out
    assert versions() == before
    weights = repository / "runs/sotu/vae_mine/0/model/vocabulary.json"  # as from a GPU: other bytes, the same settings
    weights.write_text(weights.read_text() + "\n")
    changed(weights.with_name("config.json"))
    run_publish(repository)
    both = versions()
    assert before.items() <= both.items()
    assert len(both) == 3
    weights.write_text(weights.read_text()[:-1])
    changed(weights.with_name("config.json"))
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", ours)
    run_publish(repository)
    assert versions() == both


def test_a_version_whose_row_is_gone_from_the_other_experiment_is_made_again(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_model(repository, "vae_mine")
    run_publish(repository)
    store = connect()
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of a team")
    run_publish(repository)
    store.client.delete_experiment(store.experiment_id)
    run_publish(repository)
    [run] = rows(connect())
    assert [one.run_id for one in store.client.search_model_versions("name = 'textvae-sotu'")] == [run.info.run_id]
    assert registered()[1] == "sotu-vae_mine-0"


def test_best_is_chosen_among_all_versions_that_exist(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What left the grid, or is another experiment's, counts; what was measured on another text does not."""
    with_model(repository, "vae_mine", valid=(60.0, 1.0))
    run_publish(repository)
    (repository / "runs/sotu/vae_mine").rename(repository / "left the grid")
    with_model(repository, "vae_05", valid=(61.0, 1.0))
    run_publish(repository)
    assert registered()[1] == "sotu-vae_mine-0"
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of a team")
    run_publish(repository)
    assert registered()[1] == "sotu-vae_mine-0"
    config = repository / "runs/sotu/vae_05/0/model/config.json"
    changed(config, corpus_sha256="cd" * 32)
    run_publish(repository)
    assert registered()[1] == "sotu-vae_05-0"


def test_best_falls_to_the_next_when_its_version_is_removed(repository: Path) -> None:
    with_model(repository, "vae_mine", valid=(60.0, 1.0))
    with_model(repository, "vae_05", valid=(61.0, 1.0))
    run_publish(repository)
    (repository / "runs/sotu/vae_mine").rename(repository / "left the grid")
    connect().client.delete_model_version("textvae-sotu", registered()[0]["sotu-vae_mine-0"])
    run_publish(repository)
    assert registered()[1] == "sotu-vae_05-0"


def test_versions_without_the_numbers_of_the_validation_set_get_them(repository: Path) -> None:
    """As those that an older version of this project has registered."""
    with_model(repository, "vae_mine", valid=(60.0, 1.0))
    run_publish(repository)
    client, [version] = connect().client, versions()
    for key in ("valid_nll_iw", "valid_mi", "valid_on"):
        client.delete_model_version_tag("textvae-sotu", version, key)
    client.delete_registered_model_alias("textvae-sotu", "best")
    run_publish(repository)
    [found] = client.search_model_versions("name = 'textvae-sotu'")
    assert (found.version, found.tags["valid_nll_iw"], found.tags["valid_mi"]) == (int(version), "60.0", "1.0")
    assert registered()[1] == "sotu-vae_mine-0"


def test_a_run_without_its_weights_has_no_version(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = with_model(repository, "vae_mine")
    with_model(repository, "vae_05", valid=(61.0, 1.0))
    run_publish(repository)
    (directory / "model/model.safetensors").unlink()
    capsys.readouterr()
    run_publish(repository)
    assert "sotu-vae_mine-0 has no model" in capsys.readouterr().out
    assert registered()[0].keys() == {"sotu-vae_05-0"}
    assert registered()[1] == "sotu-vae_05-0"


def test_a_version_whose_files_are_gone_is_made_again(repository: Path) -> None:
    with_model(repository, "vae_mine")
    run_publish(repository)
    before = versions()
    shutil.rmtree(repository / "mlartifacts")
    run_publish(repository)
    assert len(versions()) == 1
    assert versions() != before
    assert list((repository / "mlartifacts").rglob("model.safetensors"))


def test_a_model_that_is_replaced_leaves_no_other_behind(repository: Path) -> None:
    directory = with_model(repository, "vae_mine")
    run_publish(repository)
    vocabulary = directory / "model/vocabulary.json"
    vocabulary.write_text(vocabulary.read_text() + "\n")
    changed(vocabulary.with_name("config.json"))
    run_publish(repository)
    store = connect()
    models = store.client.search_logged_models([store.experiment_id])
    assert [f"models:/{one.model_id}" for one in models] == list(versions().values())


def test_models_are_registered_from_any_folder_of_the_repository(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_model(repository, "vae_mine")
    (repository / "docs").mkdir()
    monkeypatch.chdir(repository / "docs")
    run_publish(repository)
    assert registered()[1] == "sotu-vae_mine-0"
    assert not list((repository / "docs").iterdir())


def test_an_upload_that_was_cut_off_leaves_no_model_behind(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    with_model(repository, "vae_mine")
    store = connect()
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "create_model_version", lambda *_, **__: (_ for _ in ()).throw(OSError("cut off")))
        with pytest.raises(UnavailableError, match="cut off"):
            run_publish(repository)
    run_publish(repository)
    models = store.client.search_logged_models([store.experiment_id])
    assert [f"models:/{one.model_id}" for one in models] == list(versions().values())


def test_a_version_that_somebody_made_or_changed_by_hand_is_left_alone(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_model(repository, "vae_mine")
    run_publish(repository)
    client = connect().client
    [own] = client.search_model_versions("name = 'textvae-sotu'")
    said = {"valid_on": own.tags["valid_on"], "valid_nll_iw": "very good", "valid_mi": "5", "run": "by hand"}
    client.create_model_version("textvae-sotu", "file:///elsewhere", None, said)
    capsys.readouterr()
    run_publish(repository)
    assert "textvae-sotu" not in capsys.readouterr().out
    assert registered() == ({"sotu-vae_mine-0": "1", "by hand": "2"}, "sotu-vae_mine-0")


def test_what_somebody_did_to_the_registered_model_is_set_right(repository: Path) -> None:
    with_model(repository, "vae_mine", valid=(60.0, 1.0))
    with_model(repository, "vae_05", valid=(61.0, 1.0))
    run_publish(repository)
    client = connect().client
    client.set_registered_model_alias("textvae-sotu", "best", registered()[0]["sotu-vae_05-0"])
    run_publish(repository)
    assert registered()[1] == "sotu-vae_mine-0"
    client.delete_registered_model("textvae-sotu")
    run_publish(repository)
    assert registered() == ({"sotu-vae_mine-0": "1", "sotu-vae_05-0": "2"}, "sotu-vae_mine-0")
    assert len(client.search_logged_models([connect().experiment_id])) == 2


def test_a_row_restored_from_the_trash_beside_its_successor_is_one_row_with_its_version(repository: Path) -> None:
    with_model(repository, "vae_mine")
    run_publish(repository)
    store = connect()
    [old] = rows(store)
    store.client.delete_run(old.info.run_id)
    run_publish(repository)
    store.client.restore_run(old.info.run_id)
    run_publish(repository)
    [run] = rows(store)
    [version] = store.client.search_model_versions("name = 'textvae-sotu'")
    assert version.run_id == run.info.run_id


def test_a_served_model_needs_what_its_requirements_name_and_nothing_else(tmp_path: Path) -> None:
    """With every other package that the library imports missing, as where only the requirements are installed."""
    folder = written(tmp_path / "model", informative("vae", tiny_corpus()), tiny_corpus())
    named = {"ruamel" if name == "ruamel.yaml" else name for name in REQUIREMENTS} | {"typing_extensions"}  # pydantic's
    used = {name.partition(".")[0] for file in imported_by("textvae.latent") for name in imports(ROOT / file)}
    missing = sorted(used - named - {"textvae"} - sys.stdlib_module_names)
    assert "spacy" in missing
    code = "import sys; sys.modules.update(dict.fromkeys(sys.argv[2:])); import textvae; "
    code += "print(textvae.load(sys.argv[1]).encode(['a dog sleeps'], tokens=True)[0].shape)"
    command = [sys.executable, "-c", code, str(folder), *missing]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "(1, 3)\n"), done.stderr
    assert {"ruamel", "rich"} <= used
