"""Tables 3 to 6, what was chosen and what made it: what the report shows of examples, configurations and times."""

from __future__ import annotations

import html
import re
from pathlib import Path

import pytest
from made_files import changed
from report_artifacts import examples, write_full_experiment
from report_reading import make, results
from report_runs import FAILURE

from textvae.files import read_json, sha256_of_file, write_json


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of three systems with two seeds, made once."""
    folder = tmp_path_factory.mktemp("full")
    settings = write_full_experiment(folder, seeds=(1, 2))
    return (make(folder, settings) / "report.html").read_text(encoding="utf-8")


def test_the_examples_stand_side_by_side(page: str) -> None:
    tables = dict(re.findall(r"<summary>(Table \d)[^<]*</summary>(.*?)</details>", page, flags=re.DOTALL))
    assert list(tables) == ["Table 3", "Table 4", "Table 5", "Table 6"]
    text = {name: html.unescape(re.sub(r"<[^>]*>|\s+", " ", body)) for name, body in tables.items()}
    for system in ("vae_05", "vae_mine"):
        for name, said in (("Table 3", "mean"), ("Table 3", "once"), ("Table 4", "between"), ("Table 6", "near")):
            assert f"{system} {said}" in text[name]
        assert f"{system} greedily" in text["Table 5"]
    assert "lstm_lm ancestrally" in text["Table 5"]
    assert "LSTM-LM" not in text["Table 3"]
    assert "the cat <b>sat</b> ." in text["Table 3"]
    assert "<b>sat" not in tables["Table 3"]
    assert "the cat . → the dog ." in re.sub(" +", " ", text["Table 4"])
    assert "-12.3" in text["Table 4"]
    assert "0.99" in text["Table 6"]
    assert "(empty)" in text["Table 5"]
    # the second step of an interpolation that says the same is grey
    assert tables["Table 4"].count('class="repeated"') == 2


def test_only_the_first_seed_s_examples_are_shown(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path, seeds=(1, 2))
    path = tmp_path / "runs/sotu/vae_mine/2/examples.json"
    write_json(path, {**read_json(path), "prior": {"greedy": ["of seed two"], "ancestral": []}})
    text = (make(tmp_path, settings) / "report.html").read_text(encoding="utf-8")
    assert "of seed two" not in text
    assert "vae_mine greedily" in text


def test_a_report_without_examples_has_no_tables_of_them(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    for path in tmp_path.glob("runs/*/*/*/examples.json"):
        path.unlink()
    text = (make(tmp_path, settings) / "report.html").read_text(encoding="utf-8")
    assert "Table 3" not in text
    assert 'id="examples-sotu"' not in text


def test_a_run_that_diverged_shows_nothing_it_made(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    run = tmp_path / "runs/sotu/vae_mine/1"
    for name in ("model/config.json", "evaluation/metrics.json", "ngram.json"):
        write_json(run / name, {**read_json(run / name), "status": "diverged", "failure": FAILURE})
    text = (make(tmp_path, settings) / "report.html").read_text(encoding="utf-8")
    assert "vae_mine greedily" not in text
    assert text.count("of the variance</text>") == 1


# --- results.csv and what made it --------------------------------------------------------------------------------


def test_a_setting_that_was_chosen_is_in_results_csv_and_below_table_2(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    path = tmp_path / "runs/sotu/vae_mine/1/model/config.json"
    write_json(path, {**read_json(path), "chosen": {"alpha": 2.5}})
    reports = make(tmp_path, settings)
    rows = results(reports)
    assert rows["sotu", "vae_mine", "1"]["chosen"] == "alpha=2.5"
    assert rows["sotu", "vae_05", "1"]["chosen"] == ""
    text = (reports / "report.md").read_text(encoding="utf-8")
    assert "VAE-MINE on sotu, seed 1: alpha=2.5 was chosen on the validation set." in text


def test_the_page_names_the_commands_and_hashes_that_made_it(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    corpus = tmp_path / "corpora/sotu/corpus/corpus.json"
    changed(corpus, sha256="5" * 64)
    for path in tmp_path.glob("runs/*/*/*/timings/*.json"):
        write_json(path, {**read_json(path), "commit": "abc123-dirty", "code_sha256": "c" * 64})
    reports = make(tmp_path, settings)
    text = (reports / "report.html").read_text(encoding="utf-8")
    assert "git checkout abc123  # and changes that were not committed" in text
    assert "dvc repro train@sotu-lstm_lm-1 evaluate@sotu-lstm_lm-1" in text
    assert "5" * 64 in text
    assert text.count("c" * 64) == 4  # one per step


def test_the_page_stays_small(page: str) -> None:
    assert len(page.encode()) < 400_000


def test_the_examples_of_the_fixture_have_the_steps_form() -> None:
    """Their keys are those that the step writes (tests/components/test_examples.py tests the step)."""
    from components import examples as step

    source = Path(step.__file__).read_text(encoding="utf-8")
    for key in examples("sotu", "vae_mine", 1):
        assert f'"{key}"' in source or key in ("dataset", "system", "seed", "status", "failure")


def test_what_a_browser_or_a_terminal_would_obey_is_shown_instead(tmp_path: Path) -> None:
    """A corpus may hold it as a word: in tables, figures and their descriptions, report.html and report.md."""
    settings = write_full_experiment(tmp_path)
    odd, word = "\x1b]0;title\x07 \x9b31m \u202egnorw", "c\x1bat$\\bad$"
    vocabulary = tmp_path / "corpora/sotu/corpus/vocabulary.json"
    content, about = read_json(vocabulary), vocabulary.with_name("corpus.json")
    write_json(vocabulary, {**content, "words": [word if one == "cat" else one for one in content["words"]]})
    changed(about, files={**read_json(about)["files"], vocabulary.name: sha256_of_file(vocabulary)})
    changed(tmp_path / "runs/sotu/vae_mine/1/examples.json", prior={"greedy": [odd], "ancestral": []})
    reports = make(tmp_path, settings)
    for name in ("report.html", "report.md"):
        assert not re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", (reports / name).read_text(encoding="utf-8"))
    text = (reports / "report.html").read_text(encoding="utf-8")
    assert r"\u001b]0;title\u0007 \u009b31m \u202egnorw" in text
    assert r">c\u001bat$\bad$</text>" in text
