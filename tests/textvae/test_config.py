"""params.yaml: merging, strictness, and that the shipped file holds the paper's values."""

from pathlib import Path

import pytest

from components.settings import resolve
from textvae.config import Params, merge
from textvae.errors import DataError, SettingsError

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = """
grid: {datasets: [d], systems: [vae_mine], seeds: ["1"]}
defaults: {training: {epochs: 7, batch_size: 8}}
systems:
  lstm_lm: {objective: {name: lstm_lm}}
  vae_mine: {objective: {name: vae_mine, alpha: 3.0}, training: {epochs: 6}}
datasets:
  d:
    source: {path: data/d.txt}
    settings: {training: {epochs: 5, clip_norm: 1.0}}
    systems: {vae_mine: {training: {epochs: 4}}}
"""


def load(tmp_path: Path, text: str) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return Params.load(path)


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    params = load(tmp_path, MINIMAL)
    training = params.settings("d", "vae_mine").training
    assert (training.epochs, training.batch_size, training.clip_norm) == (4, 8, 1.0)
    assert params.settings("d", "lstm_lm").training.epochs == 5
    assert params.settings("d", "vae_mine").objective == {"name": "vae_mine", "alpha": 3.0}


def test_merge_leaves_its_arguments_alone() -> None:
    base = {"a": {"b": 1}, "c": [1]}
    assert merge(base, {"a": {"d": 2}, "c": [2]}) == {"a": {"b": 1, "d": 2}, "c": [2]}
    assert base == {"a": {"b": 1}, "c": [1]}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs: 7", "epoch: 7", "training.epoch: no such key"),
        ("epochs: 4", 'epochs: "4"', "training.epochs: Input should be a valid integer (found '4')"),
        (
            "epochs: 4",
            "epochs: 0",
            "datasets.d.systems.vae_mine.training.epochs: Input should be greater than",
        ),
        ("alpha: 3.0", "alpah: 3.0", "alpah: no such key"),
        (
            "epochs: 5, clip_norm: 1.0}",
            "epochs: 5}, ngram: {memory: plenty}",
            "ngram.memory: String should match",
        ),
        ("alpha: 3.0", "alpha: -1.0", "alpha: Input should be greater than or equal to 0"),
        ("name: vae_mine", "name: vae_min", "no objective 'vae_min' (there are: "),
        ("systems: [vae_mine]", "systems: [vae_x]", "grid.systems names 'vae_x', which has no entry"),
        ('seeds: ["1"]', "seeds: [1]", "grid.seeds.0"),
        ('seeds: ["1"]', 'seeds: ["x"]', "grid.seeds.0"),
        ("systems: {vae_mine: {training", "systems: {vae_: {training", "datasets.d.systems.vae_: no such system"),
        (
            "alpha: 3.0}, ",
            "alpha: 3.0}, preprocess: {longest: 9}, ",
            "systems.vae_mine.preprocess: a corpus is made once, for all systems: write it below `defaults` or "
            "`datasets.d.settings`",
        ),
        (
            "{vae_mine: {training: {epochs: 4}}",
            "{vae_mine: {preprocess: {}}",
            "datasets.d.systems.vae_mine.preprocess: a corpus is made once",
        ),
        ("source: {path: data/d.txt}", "source: {}", "a source needs either `package` or `path`"),
        ("source: {path: data/d.txt}", "source: {path: x, colour: red}", "colour: no such key"),
        ("defaults:", "default:", "defaults: Field required"),
        ("  lstm_lm:", "  vae_mine:", "found duplicate key"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in MINIMAL
    with pytest.raises(SettingsError) as caught:
        resolve(load(tmp_path, MINIMAL.replace(old, new)))
    assert said in str(caught.value)


def test_a_corpus_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data/d\.txt: no such file"):
        resolve(load(tmp_path, MINIMAL))


def test_a_changed_corpus_changes_its_fetch_settings_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/d.txt").write_text("one\n")
    before = resolve(load(tmp_path, MINIMAL))
    (tmp_path / "data/d.txt").write_text("two\n")
    after = resolve(load(tmp_path, MINIMAL))
    assert {name for name in before if before[name] != after[name]} == {"d/fetch"}


def test_a_systems_settings_reach_its_own_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/d.txt").write_text("one\n")
    both = MINIMAL.replace("systems: [vae_mine]", "systems: [vae_mine, lstm_lm]")
    before, after = resolve(load(tmp_path, both)), resolve(load(tmp_path, both.replace("alpha: 3.0", "alpha: 4.0")))
    assert {name for name in before if before[name] != after[name]} == {"d/vae_mine/train"}


def test_the_shipped_defaults_are_the_papers() -> None:
    params = Params.load(ROOT / "params.yaml")
    full = params.model_copy(
        update={"datasets": {"d": params.datasets["sotu"].model_copy(update={"settings": {}, "systems": {}})}}
    )
    settings = full.settings("d", "vae_05")
    sizes = {"embedding": 128, "hidden": 512, "latent": 64, "dropout": 0.5}
    free = {"means_deviation": 0.0, "committed_rate": 0.0, "skip_connections": False}
    steps = {"svi_steps": 0, "svi_learning_rate": 0.06}
    free |= {"decoder": "lstm", "dilations": [1, 2, 4], "posterior": "gaussian", "kappa": 23.0}
    assert settings.model.model_dump() == {**sizes, "initialisation": "uniform", **free, **steps}
    assert settings.training.batch_size == 32
    assert settings.training.optimizer == "sgd"
    assert (settings.objective["beta_start"], settings.objective["annealing_epochs"]) == (0.1, 10)
    assert settings.sampling.sentences == 100_000
    assert settings.evaluation.iw_samples == 500
    assert (full.preprocess("d").max_length, full.preprocess("d").vocabulary_size) == (200, 20_000)


def test_every_entry_of_the_shipped_file_resolves() -> None:
    files = resolve(Params.load(ROOT / "params.yaml"))
    grid = files["report"]
    for dataset in grid["datasets"]:
        for system in grid["systems"]:
            steps = ("train", "evaluate", "sample", "examples", "ngram")
            assert {f"{dataset}/{system}/{step}" for step in steps} <= set(files)
