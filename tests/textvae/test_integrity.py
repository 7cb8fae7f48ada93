"""Flipped bits, other's files and JSON that says something else: each is one line before a number is made of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import flip, flips, take, truncate
from made_files import changed, write_with_hashes
from report_artifacts import write_full_experiment
from safetensors.torch import load_file, save_file
from tiny import SHA256, Corpus, train_settings, write_corpus
from tiny_model import informative, written

from components.evaluate import evaluate
from components.examples import examples
from components.ngram import ngram
from components.sample import sample
from components.step import Step
from components.train import train
from reporting.artifacts import KIND_OF_FILE, RECORDS, read_content
from textvae import load
from textvae.config import SamplingSettings
from textvae.corpus_folder import CorpusFolder
from textvae.errors import DataError, SettingsError
from textvae.files import read_json, write_json
from textvae.integrity import CHECKSUM, read_sealed, write_sealed
from textvae.records import CorpusFile, Source, VocabularyFile, read_record
from textvae.sealed_parquet import samples_metadata
from textvae.strict import read_yaml
from tracking.registry import content_of

MODEL_FILES = ("config.json", "model.safetensors", "vocabulary.json")
CORPUS_FILES = ("corpus.json", "train.parquet", "valid.parquet", "test.parquet", "vocabulary.json")


@pytest.fixture
def model(tmp_path: Path, corpus: Corpus) -> Path:
    """A model directory."""
    return written(tmp_path / "model", informative("vae", corpus), corpus)


@pytest.fixture
def folder(tmp_path: Path, corpus: Corpus) -> Path:
    """Its corpus."""
    return write_corpus(tmp_path / "corpus", corpus)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory, each JSON file of it as its step writes it."""
    place = tmp_path_factory.mktemp("results")
    write_full_experiment(place)
    run = place / "runs/sotu/vae_mine/1"
    for path in [*run.rglob("*.json")]:
        if path.name in ("config.json", "metrics.json"):
            write_with_hashes(path, read_json(path))
        else:
            write_sealed(path, read_json(path))
    return run


def refusal(read: Callable[[], Any]) -> str | None:
    """What a reader says that refuses a file."""
    try:
        read()
    except DataError as error:
        return str(error)
    return None


def refused(read: Callable[[], Any], path: Path, seed: int = 0, count: int = 200) -> int:
    """How many of so many flips are refused. What is read in spite of one must be what was written."""
    before, number = read(), 0
    for place in flips(path, count, seed):
        found: list[Any] = []
        said = refusal(lambda found=found: found.append(read()))  # type: ignore[misc]
        assert found in ([], [before]), f"(byte, bit) {place} changed what {path.name} says"
        assert said is None or (str(path.parent) in said and "\n" not in said)
        number += said is not None
    assert read() == before
    return number


# --- a flipped bit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODEL_FILES)
def test_no_flipped_bit_of_a_model_is_taken(name: str, model: Path) -> None:
    def read() -> Any:
        opened = load(model)
        return opened.config, opened.vocabulary.words

    number = refused(read, model / name)
    assert number == 200 or (name == "config.json" and number > 150)


@pytest.mark.parametrize("name", CORPUS_FILES)
def test_no_flipped_bit_of_a_corpus_is_taken(name: str, folder: Path) -> None:
    def read() -> Any:
        opened = CorpusFolder.open(folder)
        return (
            opened.about,
            opened.vocabulary.words,
            [opened.sentences(s).tokens.tobytes() for s in ("train", "valid", "test")],
        )

    number = refused(read, folder / name)
    assert number == 200 or (name == "corpus.json" and number > 150), "only spaces between words of JSON"


@pytest.mark.parametrize(
    "name", ["model/config.json", "evaluation/metrics.json", "ngram.json", "examples.json", "timings/train.json"]
)
def test_no_flipped_bit_of_a_result_is_taken(name: str, results: Path) -> None:
    path = results / name
    kind = KIND_OF_FILE.get(path.name, path.parent.name)
    assert refused(lambda: read_content(kind, path), path) > 150


def test_no_flipped_bit_of_samples_is_taken(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "samples.parquet"
    sample(model=model, settings=SamplingSettings(sentences=30, max_length=6), samples=path)
    assert samples_metadata(path)["corpus_sha256"] == SHA256
    assert refused(lambda: samples_metadata(path), path, count=400) == 400
    truncate(path)
    with pytest.raises(DataError, match="damaged"):
        samples_metadata(path)


# --- the steps ---------------------------------------------------------------------------------------------------


def line_of(step: Step, capsys: pytest.CaptureFixture[str], **options: object) -> str:
    """What a step says that ends with 65."""
    arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        step.main(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 65, said
    assert said.count("\n") == 1, said
    return said


def on_the_test_set(step: Step, model: Path, corpus: Path) -> dict[str, object]:
    """A step's options."""
    out = model.parent / step.name
    return {
        "model": model,
        "corpus": corpus,
        "settings": '{"device": "cpu"}',
        {"evaluate": "evaluation"}.get(step.name, step.name): out,
    }


@pytest.mark.parametrize("step", [evaluate, examples], ids=lambda step: step.name)
def test_a_damaged_or_another_corpus_is_refused_by_what_opens_it(
    step: Step, model: Path, folder: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    options = on_the_test_set(step, model, folder)
    flip(folder / "test.parquet", 100)
    assert "corpus/test.parquet is damaged, or another's: " in line_of(step, capsys, **options)
    flip(folder / "test.parquet", 100)
    changed(folder / "corpus.json", sha256="cd" * 32)
    assert f"{folder} is not the corpus that {model} was made with" in line_of(step, capsys, **options)
    changed(folder / "corpus.json", sha256=SHA256, format_version=1)
    assert "corpus.json has format version 1; this textvae reads 2: run preprocess again" in line_of(
        step, capsys, **options
    )
    assert not (model.parent / step.name).exists()


def test_ngram_refuses_samples_and_corpora_that_are_damaged(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples.parquet"
    sample(model=model, settings=SamplingSettings(sentences=5, max_length=6), samples=samples)
    options = {"samples": samples, "corpus": folder, "settings": "{}", "ngram": tmp_path / "ngram.json"}
    for path in (samples, folder / "train.parquet", folder / "vocabulary.json"):
        flip(path, -30)
        assert f"{path} is damaged" in line_of(ngram, capsys, **options)
        flip(path, -30)


def test_a_corpus_that_states_no_hashes_is_refused_by_its_first_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.json does not state the hash of train\.parquet"):
        CorpusFolder(tmp_path, {"dataset": "tiny"}).file("train.parquet")


def test_train_refuses_a_corpus_that_is_damaged_or_of_another_data_set(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = train_settings("lstm_lm").model_dump_json()
    options = {"corpus": folder, "settings": settings, "seed": 1, "model": tmp_path / "m", "curves": tmp_path / "c"}
    for name in ("train.parquet", "valid.parquet", "vocabulary.json"):
        flip(folder / name, -30)
        assert f"{folder / name} is damaged" in line_of(train, capsys, **options)
        flip(folder / name, -30)
    changed(folder / "corpus.json", dataset="other")
    assert "is the data set other, the settings are for tiny: give its own" in line_of(train, capsys, **options)


# --- weights -----------------------------------------------------------------------------------------------------


def half(weights: Path) -> None:
    """As float16."""
    save_file({name: tensor.half() for name, tensor in load_file(weights).items()}, weights)


def not_finite(weights: Path) -> None:
    """One weight is."""
    tensors = load_file(weights)
    tensors["decoder.output.weight"][0, 0] = torch.nan
    save_file(tensors, weights)


@pytest.mark.parametrize("harm", [half, not_finite])
def test_weights_are_refused_that_train_does_not_write(harm: Callable[[Path], None], model: Path) -> None:
    """By their hash; and by what they are, where somebody has made the hash fit."""
    harm(model / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors is damaged, or another's: .*run train again"):
        load(model)
    changed(model / "config.json")
    with pytest.raises(DataError, match=r"model\.safetensors.*(not finite|mixture of two models).*train it again"):
        load(model)


def test_another_system_s_weights_are_refused(model: Path, corpus: Corpus, tmp_path: Path) -> None:
    other = written(tmp_path / "other", informative("vae", corpus), corpus, system="vae_05")
    weights = load_file(other / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, other / "model.safetensors")
    take(model / "model.safetensors", other / "model.safetensors")
    with pytest.raises(DataError, match=r"model\.safetensors is damaged, or another's"):
        load(model)


def test_a_model_is_not_registered_with_weights_that_are_damaged(model: Path) -> None:
    before = content_of(model)
    for name in ("model.safetensors", "vocabulary.json"):
        flip(model / name, -30)
        with pytest.raises(DataError, match=f"{name} is damaged, or another's"):
            content_of(model)
        flip(model / name, -30)
    assert content_of(model) == before


def test_what_is_not_opened_need_not_be_there(model: Path) -> None:
    """A registry's copy has no weights by NLL-IW."""
    (model / "model_iw.safetensors").unlink()
    assert load(model).network is not None
    with pytest.raises(DataError, match=r"model_iw\.safetensors is missing: run train again"):
        load(model, "iw")


# --- JSON that says something else -------------------------------------------------------------------------------


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where each value stands; of a list the first one only."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    return [at, *(place for key, item in inner for place in places(item, (*at, key)))]


def with_value(content: Any, at: tuple[Any, ...], value: Any) -> Any:
    """A copy of `content` with another value at a place."""
    if not at:
        return value
    copy = json.loads(json.dumps(content))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return copy


@pytest.mark.parametrize(
    "name",
    [
        *("model/config.json", "evaluation/metrics.json", "ngram.json", "examples.json", "timings/train.json"),
        *("corpus.json", "vocabulary.json"),
    ],
)
def test_whatever_a_file_says_it_is_read_or_refused_in_a_line(
    name: str, results: Path, folder: Path, tmp_path: Path
) -> None:
    """Every value replaced by values of other kinds; each key left out."""
    source = (results if "corpus" not in name and "vocab" not in name else folder) / name
    path = tmp_path / source.name
    kinds = {"corpus.json": CorpusFile, "vocabulary.json": VocabularyFile}
    kind = kinds.get(name) or RECORDS[KIND_OF_FILE.get(source.name, source.parent.name)]
    content = {key: value for key, value in read_json(source).items() if key != CHECKSUM}
    write_json(path, content)
    assert read_record(path, kind) == content
    for at in places(content):
        for value in (None, "foo", -1, 1.5, True, [], [None], {}, {"x": {}}):
            write_json(path, with_value(content, at, value))
            said = refusal(lambda: read_record(path, kind))
            assert said is None or (said.startswith(str(path)) and "\n" not in said), said
    for key in content:
        write_json(path, {other: value for other, value in content.items() if other != key})
        said = refusal(lambda: read_record(path, kind))
        assert said is None or key.replace("_", " ") in said.replace("_", " "), said


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "1", "[" * 100_000, '{"a": NaN}', '{"a": 1' + "0" * 5000 + "}", "\xff"]
)
def test_what_is_no_json_object_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=str(path)):
        read_sealed(path, "train")


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("model/config.json", {"status": "foo"}, "status: Input should be 'finished' or 'diverged' (found 'foo')"),
        ("model/config.json", {"status": "diverged"}, "`status` is diverged, and `failure` does not fit that"),
        ("model/config.json", {"selected": {}}, "`selected` does not say the `epoch` that was kept"),
        ("model/config.json", {"kind": "lstm"}, "kind: "),
        ("model/config.json", {"dataset": "../up"}, "dataset: a name is made of"),
        ("evaluation/metrics.json", {"status": "foo"}, "status: "),
        ("evaluation/metrics.json", {"nll": "60"}, "nll: Input should be a valid number (found '60')"),
        ("ngram.json", {"real_text": None}, "real_text: "),
        ("examples.json", {"prior": {"greedy": []}}, "prior.ancestral: Field required"),
        ("timings/train.json", {"started": "yesterday"}, "started: "),
    ],
)
def test_a_wrong_value_is_named(name: str, values: dict[str, Any], said: str, results: Path, tmp_path: Path) -> None:
    shutil.copytree(results, tmp_path / "run")
    path = tmp_path / "run" / name
    changed(path, **values)
    with pytest.raises(DataError) as caught:
        read_content(KIND_OF_FILE.get(path.name, path.parent.name), path)
    assert str(caught.value).startswith(f"{path} is not as ")
    assert said in str(caught.value)


def test_a_source_that_names_files_elsewhere_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "source.json", {"format_version": 1, "sha256": {"../../etc/passwd": "ab" * 32}})
    with pytest.raises(DataError, match=r"source\.json is not as fetch writes it"):
        read_record(tmp_path / "source.json", Source)


def test_half_a_character_is_refused_in_json_and_in_yaml(tmp_path: Path) -> None:
    """JSON and YAML can escape a lone surrogate, which no file in UTF-8 can hold: not even a checksum can be made."""
    (tmp_path / "x").write_text('{"a": ["\\ud800"]}')
    with pytest.raises(DataError, match=r"x is not JSON \(half a character, '.ud800', in a text\)"):
        read_json(tmp_path / "x")
    with pytest.raises(SettingsError, match="half a character"):
        read_yaml(tmp_path / "x")
    (tmp_path / "x").write_text('{"a": ["\\ud83d\\ude00", 1]}')
    assert read_json(tmp_path / "x") == {"a": ["\N{GRINNING FACE}", 1]}
