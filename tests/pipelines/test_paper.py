"""`make paper` at a tiny size: a slice, what it has come to, and on to the end as if there had been no stop."""

import csv
import json
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_project import sentences

from pipelines.machine import paper, paper_runs
from textvae.errors import DataError, SettingsError, StoppedError, TimeLimitError
from textvae.files import read_json
from textvae.provenance import Stopwatch
from textvae.state import StopRequest

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = "lstm_lm,vae_05,vae_mine"
EPOCHS = 3
SMALL = {
    "preprocess": {"vocabulary_size": 100},
    "model": {"embedding": 6, "hidden": 8, "latent": 3},
    "training": {"optimizer": "adam", "learning_rate": 0.01, "batch_size": 8, "epochs": EPOCHS},
    "evaluation": {"iw_sentences": 6, "iw_samples": 4, "gain_sentences": 6, "gain_codes": 4},
    "sampling": {"sentences": 60, "max_length": 12},
    "ngram": {"order": 2, "memory": "64M"},
}
SHORT = {
    "vae_05": {"annealing_epochs": 1},
    "vae_mine": {"annealing_epochs": 1, "hold_steps": 3, "energy_hidden": 8, "alpha": [0.5, 2.0]},
}


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """The project's own params.yaml, made small."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, values in SMALL.items():
        content["defaults"][name] |= values
    content["defaults"]["training"] |= {"iw_sentences": 6, "iw_samples": 3}
    for system, values in SHORT.items():
        content["systems"][system]["objective"] |= values
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "params.yaml"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """An archive with the files of Mikolov's PTB."""
    made = sentences(180)
    with zipfile.ZipFile(tmp_path / "ptb.zip", "w") as archive:
        for name, part in (("train", made[:120]), ("valid", made[120:150]), ("test", made[150:])):
            archive.writestr(f"simple-examples/data/ptb.{name}.txt", "\n".join(part) + "\n")
    return tmp_path / "ptb.zip"


@pytest.fixture
def call(params: Path, text: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command, which gives its exit code."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def called(folder: Path, **options: Any) -> int:
        given: dict[str, Any] = {"minutes": None, "systems": SYSTEMS, "alpha": None, "jobs": 2, "measure": True}
        given |= {"dataset": "ptb", "text": text, "seed": 1, "params": params, **options}
        with pytest.raises(SystemExit) as ended:
            paper.main(folder=folder, **given)
        return int(ended.value.code or 0)

    return called


def rows(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "results/results.csv").open() as file:
        return {row["system"]: row for row in csv.DictReader(file)}


def test_a_slice_is_measured_and_marked_and_the_next_goes_on_to_the_same_numbers(
    tmp_path: Path, call: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = tmp_path / "grid", [0]
    steps = -(-120 // 8) + 2

    def reason(self: StopRequest) -> StoppedError | None:
        asked[0] += 1
        return TimeLimitError("over") if asked[0] > 4 * (steps + 1) else None

    with monkeypatch.context() as stopped:
        stopped.setattr(StopRequest, "reason", reason)
        stopped.setattr(paper_runs, "kenlm_is_lacking", lambda: "not on this machine")
        assert call(folder, minutes=5) == 75
    first = rows(folder)
    assert {row["unfinished"] for row in first.values()} == {f"epoch 1 of {EPOCHS}"}
    assert {(row["status"], row["missing"]) for row in first.values()} == {("pending", "ngram")}
    readme, table = ((folder / "results" / name).read_text() for name in ("README.md", "table.md"))
    assert "3 of 3 trainings are not over" in readme
    assert f"VAE-0.5 (epoch 1 of {EPOCHS})" in table
    assert "| *the paper* | 104.06 (0.03) | 100.90" in table, "the paper's numbers stand beside ours"
    assert "22.55 in all of the paper's PTB rows" in table, "with their footnotes"
    kept = sorted(file.name for file in (folder / "results").glob("vae_mine.*"))
    assert kept == ["vae_mine.curves.jsonl", "vae_mine.settings.json"]

    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    assert call(moved, text=None) == 0, "all that is needed is in the folder"
    second = rows(moved)
    assert {(row["status"], row["unfinished"]) for row in second.values()} == {("finished", "")}
    assert all(float(row["fppl"]) > 1 for row in second.values())
    assert all(second[system]["nll"] != first[system]["nll"] for system in first), "measured again"
    assert second["vae_mine"]["chosen"].startswith("alpha=")
    readme = (moved / "results/README.md").read_text()
    assert "not over" not in readme
    assert f"over after {EPOCHS} of {EPOCHS}" in readme
    slices = [json.loads(line) for line in (moved / "slices.jsonl").read_text().splitlines()]
    assert [said["trainings"] for said in slices] == [4, 4]
    assert not list((moved / "state").iterdir()), "nothing is left of trainings that are over"

    whole = tmp_path / "whole"
    assert call(whole, systems="vae_05") == 0
    weights = "runs/ptb/vae_05/1/model/model.safetensors"
    assert (whole / weights).read_bytes() == (moved / weights).read_bytes(), "as if nobody had stopped it"


def test_the_first_call_may_only_make_the_settings_and_the_corpus(tmp_path: Path, call: Callable[..., int]) -> None:
    folder = tmp_path / "grid"
    assert call(folder, minutes=0, alpha=[2.0]) == 75
    assert read_json(folder / "settings/ptb/vae_mine/train.json")["objective"]["alpha"] == 2.0
    assert read_json(folder / "corpora/ptb/corpus/corpus.json")["sentences"]["train"] == 120
    assert not (folder / "corpora/ptb/raw").exists(), "the text itself does not travel"
    assert "Nothing was trained" in (folder / "results/README.md").read_text()


def test_other_settings_want_another_folder(
    tmp_path: Path, call: Callable[..., int], params: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "grid"
    call(folder, minutes=0, measure=False)
    params.write_text(params.read_text().replace("vocabulary_size: 100", "vocabulary_size: 90"))
    assert call(folder, minutes=0, measure=False) == SettingsError.exit_code
    assert "give another --folder" in capsys.readouterr().err


def test_the_files_of_a_text_are_found_by_either_name(tmp_path: Path, text: Path) -> None:
    source = yaml.safe_load((ROOT / "params.yaml").read_text())["datasets"]["ptb"]["source"]
    found = paper.source_of(source, text)
    assert found["splits"]["valid"] == "simple-examples/data/ptb.valid.txt"
    assert (found["tokenizer"], found["path"], "urls" in found) == ("spaces", str(text), False)
    for name in ("train", "valid", "test"):
        (tmp_path / "plain").mkdir(exist_ok=True)
        (tmp_path / "plain" / f"{name}.txt").write_text("a b\n")
    assert paper.source_of(source, tmp_path / "plain")["splits"] == {n: f"{n}.txt" for n in ("train", "valid", "test")}
    (tmp_path / "plain/test.txt").unlink()
    with pytest.raises(DataError, match=r"has no ptb.test.txt and no test.txt, the test split"):
        paper.source_of(source, tmp_path / "plain")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"systems": ""}, "the grid: systems: List should have at least 1 item"),
        ({"systems": "vae_05,vae_05"}, "the grid: systems: 'vae_05' is there twice"),
        ({"seed": 2**32}, "the grid: seeds.0: a seed is a whole number from 0 to 4294967295"),
        ({"minutes": math.inf}, "--minutes is inf: leave it out"),
    ],
)
def test_what_cannot_be_a_grid_is_told_in_a_line(
    options: dict[str, Any], said: str, tmp_path: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path / "grid", **options) == SettingsError.exit_code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "grid").exists()


@pytest.mark.parametrize("torn", ['{"started": "20', "[1]", '{"trainings": 2}'])
def test_the_slices_are_written_whole_and_one_that_is_none_is_told(tmp_path: Path, torn: str) -> None:
    """A kill while a line was appended made each later call end in a traceback."""
    said = {**Stopwatch("train").read(), "trainings": 2}
    paper_runs.add_slice(tmp_path, said)
    paper_runs.add_slice(tmp_path, {**said, "cuda": "12.8", "cudnn": 91002, "driver": "570"})
    assert [one["trainings"] for one in paper_runs.slices(tmp_path)] == [2, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["slices.jsonl"]
    with (tmp_path / "slices.jsonl").open("a") as file:
        file.write(torn)
    with pytest.raises(DataError, match=r"slices\.jsonl, line 3"):
        paper_runs.slices(tmp_path)
