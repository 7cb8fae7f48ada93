"""What `make repro` says of the time: that of the runs side by side, and after each of them what is left."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_corpus, write_corpus
from tiny_project import PARAMS, write_params

from pipelines.machine import forecast, outlook, repro
from pipelines.machine.outlook import Outlook, together
from pipelines.machine.stages import RUN_STAGES
from textvae import training_time
from textvae.config import Params
from textvae.corpus_folder import CorpusFolder
from textvae.training_time import Estimate

NAMES = [f"{stage}@tiny-{system}-1" for system in ("lstm_lm", "vae_mine") for stage in RUN_STAGES]


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlook.os, "cpu_count", lambda: 4)


def test_runs_side_by_side_begin_in_their_order_as_soon_as_there_is_room() -> None:
    assert together([10, 1, 2, 3], 2) == 10  # 1, 2 and 3 beside the first
    assert together([1, 2, 3, 10], 2) == 12  # 10 begins when 2 ends
    assert together([5, 5, 5], 1) == 15
    assert together([5] * 8, 8) == 10  # on four cores


def test_what_is_left_follows_the_pace_of_what_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(outlook.time, "monotonic", lambda: now[0])
    said = Outlook({"a": 60.0, "b": 120.0, "c": 60.0}, jobs=2)
    assert str(said).startswith("3 runs to make, 2 at a time: about 2:00 at most")
    for name in ("up to date", "a", "b"):
        said.begin(name)
    assert said.end("up to date") is None
    now[0] = 120.0  # twice as long as expected: b has 120 s left of 240, c takes 120 beside it
    assert said.end("a") == "1 of 3 made, about 2:00 left"
    said.begin("c")
    now[0] = 240.0
    assert said.end("c") == "2 of 3 made, about 0:00 left"
    assert said.end("b") == "3 of 3 made"
    assert str(Outlook({}, jobs=2)) == ""


def test_a_run_takes_what_its_outdated_steps_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both systems at 10 seconds an epoch of two and 2 a validation, 1/4 a sentence decoded, 50 words a second."""
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path, PARAMS)
    about = CorpusFolder.open(write_corpus(tmp_path / "corpora/tiny/corpus", tiny_corpus())).about
    asked: list[Any] = []

    def estimates(*arguments: Any) -> Any:
        asked.append(arguments[-2:])
        return [Estimate(system, 4, 1.0, 2, 10.0, 2.0, 0.25, 50.0, trainings=1) for system in arguments[4]]

    monkeypatch.setattr(training_time, "estimates", estimates)
    params = Params.load(tmp_path / "params.yaml")
    found = forecast.forecast(params, [*NAMES, "sample@tiny-vae_05-1"])
    # 200 sentences of a mean length and one end
    sample = 200 * (about["mean_length"] + 1) / 50
    test = about["sentences"]["test"]
    evaluate = 0.25 * (test + 8 * 8 + 8 * 4)  # the ELBO, NLL-IW, the gain
    rest = sum(forecast.SMALL.values()) + 5 * forecast.START
    assert found == pytest.approx(
        {
            "tiny-lstm_lm-1": 24 + 0.25 * test + sample + rest,
            "tiny-vae_mine-1": 24 + evaluate + sample + rest,
            "tiny-vae_05-1": sample + forecast.START,
        }
    )
    assert asked == [(["lstm_lm", "vae_05", "vae_mine"], forecast.SECONDS)]


def test_nothing_is_measured_of_what_is_up_to_date_or_in_dvcs_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)  # called, it would be a TypeError
    assert repro.expected({}) == {}
    assert repro.expected({"train@a": True, "evaluate@a": False, "report@b": True}) == {}


def test_where_nothing_can_be_measured_the_runs_begin_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # there is no params.yaml
    assert repro.expected({"train@tiny-vae_mine-1": False}) == {}
    assert capsys.readouterr().out == "how long this will take could not be measured\n"
