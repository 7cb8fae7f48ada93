"""What is valid YAML and can never work is refused when params.yaml is read, with its key and a reason.

The keys are those of params.yaml as it is shipped; the values are made up here.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from tiny import tiny_corpus, train_settings

from components.settings import identity, resolve, settings
from textvae.config import FetchSettings, Grid, NgramSettings, Params, SamplingSettings
from textvae.corpus import Sentences
from textvae.errors import DataError, SettingsError
from textvae.strict import LARGEST_SEED, validated
from textvae.training import Trainer

ROOT = Path(__file__).resolve().parents[2]
SHIPPED: dict[str, Any] = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
for _name in ("snli", "yahoo"):  # they repeat what the others have: a third of the time
    del SHIPPED["datasets"][_name]
USELESS: list[Any] = [float("inf"), float("-inf"), float("nan"), -1, 1e31, 10**31, 10**400, None, "", "x", "..", [], {}]
USELESS += [True, "a.b", [1, 1], {"x": 1}, "\0", [None]]
Path_ = tuple[Any, ...]


def leaves(content: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Where each value that is no mapping stands, and each mapping."""
    if at:
        yield at
    for key, value in content.items() if isinstance(content, dict) else ():
        yield from leaves(value, (*at, key))


def changed(content: dict[str, Any], at: Path_, value: Any) -> dict[str, Any]:
    """`content` with another value at one place."""
    made = copy.deepcopy(content)
    inner = made
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return made


@pytest.fixture(autouse=True)
def unhashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting is refused for the code of a step, whose files would be read for each of thousands of values."""
    monkeypatch.setattr("components.settings.imported_by", lambda module: {})
    monkeypatch.setattr("components.settings.objective_sha256", lambda name: "")


def problem(content: Any) -> str | None:
    """What the settings step says against the content of a params.yaml; None where it has nothing to say."""
    try:
        resolve(validated_params(content))
    except SettingsError as error:
        return str(error)
    return None


def validated_params(content: Any) -> Params:
    """As `Params.load` reads them, without the file."""
    return Params.checked(content, "params.yaml")


def acceptable(at: Path_, value: Any) -> bool:
    """Whether a step can do something with the value, by what the docs say of the key."""
    name, parent = at[-1], at[-2] if len(at) > 1 else None
    if value is None:  # the settings that may be left open
        open_ones = ("top_k", "top_p", "longest", "train_sentences", "splits", "baseline")
        return name in open_ones or (parent == "source" and name in ("sha256", "first_year"))
    if value == {}:  # sections whose settings all have a default
        sections = {"preprocess", "model", "training", "evaluation", "sampling", "examples", "ngram", "settings"}
        own = at[0] == "datasets" and "systems" in at[2:] and (name == "objective" or len(at) < 5)
        with_like = name == "objective" and "like" in SHIPPED["systems"].get(at[1], {})
        return name in sections | {"defaults", "report"} or own or with_like
    if value == []:
        return name == "texts"
    if value == [1, 1]:
        return name == "dilations"
    if isinstance(value, bool):
        return name in ("lowercase", "reduced", "energy_trained", "skip_connections") or at == (
            "systems",
            "vae_mine_paper",
            "objective",
            "stale_xi",
        )
    if isinstance(value, int | float):
        return name == "mi_weight" and value == -1
    return parent == "splits" and value in ("x", "..", "a.b")  # only fetch sees which files there are


@pytest.mark.parametrize("section", list(SHIPPED))
def test_every_value_that_no_step_can_use_is_refused_by_its_key(section: str) -> None:
    """Every key of params.yaml with every useless value: nothing but a SettingsError that names the key."""
    wrong = []
    for at in leaves({section: SHIPPED[section]}):
        if at[1:3] in (("grammar", "settings"), ("grammar", "systems")):  # sotu has the same keys
            continue
        for value in USELESS:
            said = problem(changed(SHIPPED, at, value))
            if said is None:
                if not acceptable(at, value):
                    wrong.append(f"{'.'.join(at)}: {value!r} is taken")
            elif acceptable(at, value):
                wrong.append(f"{'.'.join(at)}: {value!r} is refused: {said}")
            elif ".".join(at) not in said and not (".".join(at[:-1]) in said and f"`{at[-1]}`" in said):
                wrong.append(f"{'.'.join(at)}: {value!r}: the key is not named: {said}")
    assert wrong == []


@pytest.mark.parametrize("name", ["..", ".", "mine.v2", "a-b", "a b", "a/b", "2nd", "_a", "", "ä", "a\n", "x" * 65])
def test_a_name_that_one_part_of_the_system_cannot_take_is_refused(name: str) -> None:
    for kind in ("datasets", "systems"):
        content = copy.deepcopy(SHIPPED)
        content[kind][name] = next(iter(content[kind].values()))
        content["grid"][kind] = [name]
        assert f"{kind}." in (problem(content) or "")


@pytest.mark.parametrize("name", ["code", "Code"])
def test_a_data_set_is_not_called_like_what_lies_beside_its_settings(name: str) -> None:
    """The hashes of the code in settings/code would take the place of its settings for fetch."""
    content = copy.deepcopy(SHIPPED)
    content["datasets"][name] = content["datasets"]["sotu"]
    assert f"datasets.{name}: settings/code is" in (problem(content) or "")
    content["datasets"]["source_code"] = content["datasets"].pop(name)
    assert problem(content) is None


def test_the_names_that_are_left_work() -> None:
    grid = {"datasets": ["mine_v2"], "systems": ["Vae2"], "seeds": ["0", str(LARGEST_SEED)]}
    assert [point.name for point in validated(Grid, grid).points()] == ["mine_v2-Vae2-0", "mine_v2-Vae2-4294967295"]


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("datasets", ["a", "a"], "'a' is there twice"),
        ("datasets", ["news", "News"], "'news' and 'News' are one folder on some file systems"),
        ("systems", ["vae_mine", "vae", "vae_mine"], "'vae_mine' is there twice"),
        ("seeds", ["1", "2", "1"], "'1' is there twice"),
        ("seeds", ["1", "01"], "without leading zeros"),
        ("seeds", ["-1"], "a whole number from 0"),
        ("seeds", [str(LARGEST_SEED + 1)], "a whole number from 0 to 4294967295"),
        ("seeds", ["9" * 5000], "a whole number from 0"),
        ("seeds", ["١"], "a whole number from 0"),  # a digit, elsewhere
        ("seeds", [""], "a whole number from 0"),
        ("seeds", [], "at least 1 item"),
    ],
)
def test_a_list_of_the_grid_that_makes_no_grid_is_refused(key: str, values: list[str], said: str) -> None:
    grid = {"datasets": ["d"], "systems": ["s"], "seeds": ["1"], key: values}
    with pytest.raises(SettingsError, match=key) as caught:
        validated(Grid, grid)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "memory", ["0", "0G", "1M", "24M", "25599", "0.5G", "1.5%", "0%", "101%", "5T", "1P", "1g", "G", "9" * 99]
)
def test_memory_that_lmplz_refuses_is_refused(memory: str) -> None:
    with pytest.raises(SettingsError, match="memory"):
        validated(NgramSettings, {"memory": memory})


@pytest.mark.parametrize("memory", ["25M", "25600", "26214400b", "1%", "100%", "64M", "1G", "4T"])
def test_memory_that_lmplz_takes_is_taken(memory: str) -> None:
    assert validated(NgramSettings, {"memory": memory}).memory == memory


def test_a_temperature_that_overflows_is_refused_and_greedy_is_not() -> None:
    assert validated(SamplingSettings, {"temperature": 0}).decoding == "greedy"
    with pytest.raises(SettingsError, match="0 is greedy decoding"):
        validated(SamplingSettings, {"temperature": 1e-30})


# --- one key against another -------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["vae_mine", "vae_mine_paper", "mine_alpha0", "infovae"])
def test_a_batch_of_one_is_refused_where_sentences_are_compared(system: str) -> None:
    content = changed(SHIPPED, ("datasets", "sotu", "systems", system), {"training": {"batch_size": 1}})
    content["grid"]["systems"] = [system]
    said = problem(content) or ""
    assert said.startswith(f"datasets.sotu.systems.{system}.training.batch_size is 1: ")
    assert said.endswith("set it to 2 or more")
    content["datasets"]["sotu"]["systems"][system] = {"training": {"batch_size": 2}}
    assert problem(content) is None


def test_what_a_system_outside_the_grid_cannot_do_is_not_asked_of_it() -> None:
    content = changed(SHIPPED, ("grid", "systems"), ["lstm_lm", "vae_05", "free_bits", "lagging"])
    content["datasets"]["sotu"]["settings"]["training"] |= {"batch_size": 1, "epochs": 1, "iw_sentences": 1}
    assert problem(content) is None
    content["grid"]["systems"].append("cyclical")
    assert "training.epochs" in (problem(content) or "")
    content["grid"]["systems"][-1] = "infovae"
    assert "training.batch_size" in (problem(content) or "")


@pytest.mark.parametrize(("system", "needed"), [("vae_mine", 2), ("infovae", 2), ("vae_05", 1)])
def test_the_trainer_refuses_too_few_sentences_for_a_batch(system: str, needed: int) -> None:
    corpus = tiny_corpus()
    few = Sentences.of([corpus.train[0]])
    for train, settings_ in ((few, train_settings(system)), (corpus.train, train_settings(system, batch_size=1))):
        if needed == 1:
            Trainer(settings_, train, corpus.valid, corpus.size, seed=1)
        else:
            with pytest.raises(SettingsError, match="2 or more"):
                Trainer(settings_, train, corpus.valid, corpus.size, seed=1)


@pytest.mark.parametrize(
    ("epochs", "schedule", "works"),
    [
        (5, {"cycles": 4, "cyclical_epochs": 40}, False),  # a cycle has 10 epochs, beta is 1 from the 6th on
        (6, {"cycles": 4, "cyclical_epochs": 40}, True),
        (
            6,
            {"cycles": 2, "cyclical_epochs": 6, "rising_share": 1.0},
            False,
        ),  # it is 1 after a cycle only
        (7, {"cycles": 2, "cyclical_epochs": 6, "rising_share": 1.0}, True),  # an epoch after the cycles
        (
            5,
            {"cycles": 5, "cyclical_epochs": 6, "rising_share": 0.9},
            True,
        ),  # if an epoch is one step
    ],
)
def test_cycles_in_which_no_epoch_can_be_selected_are_refused(
    epochs: int, schedule: dict[str, Any], works: bool
) -> None:
    content = changed(SHIPPED, ("datasets", "sotu", "systems", "cyclical"), {"objective": schedule})
    content["datasets"]["sotu"]["settings"]["training"]["epochs"] = epochs
    said = problem(content)
    assert (said is None) is works
    if said is not None:
        assert said.startswith(f"datasets.sotu.settings.training.epochs is {epochs}, and with datasets.sotu.systems")


def test_a_list_to_select_from_needs_two_sentences_to_select_by() -> None:
    content = changed(SHIPPED, ("datasets", "sotu", "systems", "vae_mine", "objective", "alpha"), [1.0, 2.0])
    content["datasets"]["sotu"]["settings"]["training"]["iw_sentences"] = 1
    assert (problem(content) or "").startswith("datasets.sotu.settings.training.iw_sentences: alpha is a list")


# --- where a value comes from ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at",
    [
        ("defaults", "training", "epochs"),
        ("systems", "mine_jsd", "training", "epochs"),
        ("datasets", "sotu", "settings", "training", "epochs"),
        ("datasets", "sotu", "systems", "mine_jsd", "training", "epochs"),
        ("datasets", "grammar", "systems", "vae_mine", "training", "epochs"),
    ],
)
def test_the_key_of_an_error_is_the_one_in_the_file(at: Path_) -> None:
    content = copy.deepcopy(SHIPPED)
    for section in ("defaults", "datasets.sotu.settings"):  # so that no later layer hides it
        inner = content
        for key in section.split("."):
            inner = inner[key]
        del inner["training"]["epochs"]
    inner = content
    for key in at[:-1]:
        inner = inner.setdefault(key, {})
    inner[at[-1]] = 0
    assert (problem(content) or "").startswith(f"{'.'.join(at)}: ")


def test_a_section_that_a_later_layer_fills_is_refused_all_the_same() -> None:
    """`training:` with every line below it commented out would take the defaults away."""
    content = changed(SHIPPED, ("datasets", "sotu", "settings", "training"), None)
    content["datasets"]["sotu"]["systems"] = {name: {"training": {"epochs": 3}} for name in content["systems"]}
    said = problem(content) or ""
    assert "datasets.sotu.settings.training: nothing is below it: write {}, or leave the key out" in said


@pytest.mark.parametrize(("key", "where"), [("source", "source"), ("settings", "settings.preprocess")])
def test_a_data_set_cannot_be_called_something_else_than_its_entry(key: str, where: str) -> None:
    inner = {"dataset": "../other"}
    content = copy.deepcopy(SHIPPED)
    entry = content["datasets"]["grammar"]
    entry[key] = {**entry["source"], **inner} if key == "source" else {"preprocess": inner}
    assert f"datasets.grammar.{where}.dataset: no such key" in (problem(content) or "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a {b: *a}", "nested without end"),
        ("grid:\n  seeds: [1", "line 2, column 12 cannot be read: expected ',' or ']', but got"),
        ("a: 1\na: 2", "cannot be read: found duplicate key"),
        ("a: b: c", "line 1, column 5 cannot be read: mapping values are not allowed here"),
        ("\0", "cannot be read: "),
        ("a: 2001-99-99", "cannot be read"),
        ("a: !!python/object:os.system {}", "cannot be read"),
        ("", "(top)"),
        ("- 1", "(top)"),
        ("grid: 0x" + "f" * 9000, "a number of thousands of digits"),
    ],
)
def test_a_file_that_is_no_settings_is_a_settings_error(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        Params.load(tmp_path / "params.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("language", "works"), [("de", True), ("xx", True), ("qq", False)])
def test_a_language_that_spacy_has_not_is_refused_before_fetch(language: str, works: bool) -> None:
    said = problem(changed(SHIPPED, ("datasets", "sotu", "source", "language"), language))
    assert (said is None) is works
    assert works or (said or "").startswith("datasets.sotu.source.language: spaCy knows no 'qq'")


def test_a_folder_that_may_not_be_read_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied", f"{path}/proc/1/cwd")

    monkeypatch.setattr("components.settings.content_sha256", refused)
    with pytest.raises(
        DataError, match=r"datasets\.d\.source\.path is \.\., and \.\./proc/1/cwd in it may not be read"
    ):
        identity(FetchSettings(dataset="d", path=".."))


def test_the_step_ends_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "params.yaml").write_text(json.dumps(changed(SHIPPED, ("grid", "seeds"), ["1", "1"])))
    with pytest.raises(SystemExit) as ended:
        settings.main(["--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "settings")])
    said = capsys.readouterr().err
    assert (ended.value.code, said.count("\n")) == (2, 1)
    assert "params.yaml: grid.seeds: '1' is there twice: leave one out" in said
    assert not (tmp_path / "settings").exists()
