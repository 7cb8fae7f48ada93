"""Tables 1 and 2: which numbers stand where, which of them may be called best, and what is said below them."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from report_reading import make, markdown_rows, results, row_of
from report_runs import (
    REAL_TEXT,
    SETTINGS,
    VAE,
    grid,
    measures,
    perplexities,
    write_corpus,
    write_experiment,
    write_run,
)

from reporting import paper
from reporting.notes import subset_notes
from reporting.terminal import results_table


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two data sets, three systems, two seeds, with a run that diverged, one missing and one that waits for ngram."""
    write_experiment(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports on these, made once."""
    folder = tmp_path_factory.mktemp("experiment")
    write_experiment(folder)
    return make(folder)


def test_table_2_shows_means_and_standard_deviations_over_the_seeds(reports: Path) -> None:
    # 61.125 and 62.125: mean 61.625, standard deviation sqrt(2 * 0.5^2 / 1) = 0.7071; PPL is 1.1 times that
    numbers = row_of(reports, "Table 2", "PTB", "LSTM-LM")
    assert numbers[:2] == ["**61.62** ± 0.71 (–)", "**67.79** ± 0.78"]
    assert numbers[2:4] == ["–", "–"]
    assert numbers[4] == "301.56 ± 0.71"


def test_added_columns_stand_beside_each_other_with_standard_errors(reports: Path) -> None:
    numbers = row_of(reports, "Beyond", "PTB", "VAE-MINE")
    assert numbers[0].endswith("61.10</u> ± 0.00 (1.25)")
    assert numbers[1] == "63.10 ± 0.00 (1.50)"
    assert numbers[2].endswith("± 0.00 (0.06)")


def test_one_seed_names_no_winner(experiment: Path) -> None:
    settings = grid(["ptb"], SETTINGS.systems, ["1"])
    reports = make(experiment, settings)
    tables = (reports / "report.md").read_text(encoding="utf-8").split("## The columns")[0]
    assert "One seed only: no winner is named" in tables
    assert "**" not in tables
    assert "<u>" not in tables
    assert row_of(reports, "Table 2", "PTB", "VAE-MINE")[:2] == ["62.10 (2.50)", "68.31"]
    body = (reports / "report.html").read_text(encoding="utf-8").split("<tbody>", 1)[1]
    assert "<b>" not in body
    assert "<u>" not in body


def test_the_best_is_the_lowest_or_the_highest_as_the_measure_has_it(tmp_path: Path) -> None:
    rising = {"lstm_lm": 1, "vae_05": 2, "vae_mine": 3}
    for system, level in rising.items():
        for seed in (1, 2):
            own = dict.fromkeys(VAE, level + seed / 8)
            write_run(
                tmp_path / "runs" / f"{system}{seed}",
                "sotu",
                system,
                seed,
                metrics=measures(50.0 + level, **own),
                ngram=perplexities(100.0 + level, 200.0 + level),
            )
    write_corpus(tmp_path / "corpora", "sotu")
    reports = make(tmp_path, grid(["sotu"], list(rising), ["1", "2"]))
    low, middle, high = (row_of(reports, "Table 2", "sotu", m) for m in ("LSTM-LM", "VAE-0.5", "VAE-MINE"))
    for column in (0, 1, 4, 5):  # NLL, PPL, FPPL, RPPL: the lower the better
        assert low[column].startswith("**")
        assert middle[column].startswith("<u>")
        assert high[column][0].isdigit()
    for column in (2, 3):  # MI, AU: the higher the better
        assert high[column].startswith("**")
        assert middle[column].startswith("<u>")
        assert low[column][0].isdigit()
    assert re.fullmatch(r"\*\*51\.00\*\* ± 0\.00 \(1\.19 ± 0\.09\)", low[0])  # KL, in brackets, is not marked
    low, middle, high = (row_of(reports, "Beyond", "sotu", m) for m in ("LSTM-LM", "VAE-0.5", "VAE-MINE"))
    assert [column for column, text in enumerate(low) if "**" in text] == [0, 6]  # NLL-IW, RPPL pad
    assert [column for column, text in enumerate(high) if "**" in text] == [2]  # gain
    # and the page says the same
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert "<b>51.00</b>" in page
    assert "<u>52.00</u>" in page


def marks(folder: Path, values: dict[str, list[float]], **ngram: dict[str, Any]) -> dict[str, str]:
    """The mark of FPPL for systems with these values, one a seed; NaN is a run that diverged."""
    seeds = [str(seed) for seed in range(len(next(iter(values.values()))))]
    for system, numbers in values.items():
        for seed, value in zip(seeds, numbers, strict=True):
            failed = math.isnan(value)
            more = {} if failed else {**perplexities(value, 1.0), **ngram.get(system, {})}
            write_run(
                folder / "runs" / f"{system}{seed}", "sotu", system, int(seed), metrics={}, ngram=more, failed=failed
            )
    (folder / "corpora").mkdir()
    make(folder, grid(["sotu"], list(values), seeds))
    found = {}
    for cells in markdown_rows(folder / "reports", "Table 2"):
        if len(cells) > 6 and cells[1].split(" (")[0] in values and cells[6]:
            found[cells[1].split(" (")[0]] = re.sub(r"[^*u]", "", cells[6])
    return found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # equal as printed (5.001, 5.004): both best, nobody second, as the paper does it
        ({"a": [5.001, 5.001], "b": [5.004, 5.004], "c": [6.0, 6.0]}, {"a": "****", "b": "****", "c": ""}),
        # two seconds
        ({"a": [5.0, 5.0], "b": [6.0, 6.0], "c": [6.0, 6.0]}, {"a": "****", "b": "uu", "c": "uu"}),
        # all equal: no best
        ({"a": [5.0, 5.0], "b": [5.0, 5.0]}, {"a": "", "b": ""}),
        # the best mean is that of a system whose other run diverged: it is not compared
        ({"a": [1.0, math.nan], "b": [5.0, 5.0], "c": [6.0, 6.0]}, {"a": "", "b": "****", "c": "uu"}),
        # nobody to compare with
        ({"a": [1.0, 2.0], "b": [5.0, math.nan]}, {"a": "", "b": ""}),
    ],
)
def test_marks_of_ties_and_of_systems_with_failed_runs(
    tmp_path: Path, values: dict[str, list[float]], expected: dict[str, str]
) -> None:
    assert marks(tmp_path, values) == expected


def test_different_decodings_are_named_and_not_compared(tmp_path: Path) -> None:
    found = marks(tmp_path, {"a": [5.0, 5.0], "b": [6.0, 6.0]}, b={"decoding": "greedy"})
    assert found == {"a": "", "b": ""}
    text = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    assert "10,000 sentences, ancestral decoding, 5-grams (a); 10,000 sentences, greedy decoding, 5-grams (b)" in text


def test_discounts_that_fell_back_are_flagged(tmp_path: Path) -> None:
    marks(tmp_path, {"a": [5.0, 5.0], "vae_mine": [6.0, 6.0]}, vae_mine={"discount_fallback": ["samples"]})
    text = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    assert "fixed ones stand behind the RPPL of VAE-MINE:" in text
    assert "the FPPL of" not in text


def note_of(folder: Path, start: str) -> str:
    """The line of report.md that starts so, if there is one."""
    lines = (folder / "reports/report.md").read_text(encoding="utf-8").splitlines()
    return next((line for line in lines if line.startswith(start)), "")


def test_fixed_discounts_name_the_order_that_needs_none(tmp_path: Path) -> None:
    fell_back = {"discount_fallback": ["train"], "estimable_order": {"train": 3}}
    marks(tmp_path, {"a": [5.0, 5.0], "b": [6.0, 6.0]}, a=fell_back, b=fell_back)
    note = note_of(tmp_path, "sotu: too few n-grams of the highest order for Kneser-Ney's discounts")
    assert "stand behind the FPPL of a, b:" in note
    assert note.endswith("ngram.order: 3 needs none.")


def test_text_too_short_for_the_order_is_told_apart_from_text_that_is_too_uniform(tmp_path: Path) -> None:
    short = {"fppl_order": 4, "rppl_order": 5}
    marks(tmp_path, {"a": [5.0, 5.0], "b": [6.0, 6.0]}, a=short, b={**short, "rppl_order": 3})
    note = note_of(tmp_path, "sotu: the FPPL of a, b is of 4-grams")
    assert "no sentence of the language model's text is long enough for a 5-gram" in note
    assert "the number of ngram.order: 4, and as comparable" in note
    assert "the RPPL of b is of 3-grams" in note_of(tmp_path, "sotu: the RPPL of")
    text = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    assert "uniform" not in text
    assert "with care" not in text


def test_text_too_short_for_the_order_that_needs_a_stopgap_too_is_not_called_comparable(tmp_path: Path) -> None:
    both = {"fppl_order": 3, "discount_fallback": ["train"], "estimable_order": {"train": None}}
    marks(tmp_path, {"a": [5.0, 5.0]}, a=both)
    text = (tmp_path / "reports/report.md").read_text(encoding="utf-8")
    assert "too little or too uniform text for Kneser-Ney's discounts" in text
    assert "as comparable as that" not in text


def test_numbers_of_text_that_was_cut_are_marked_said_and_not_ranked(tmp_path: Path) -> None:
    """A hundredth is tolerated: `b` has that, and the best FPPL of `a` is that of beginnings of sentences."""
    found = marks(
        tmp_path,
        {"a": [4.0, 4.0], "b": [5.0, 5.0], "c": [6.0, 6.0]},
        a={"cut": 0.5, "max_length": 7},
        b={"cut": 0.01},
        c={"cut": 0.0},
    )
    assert found == {"a": "", "b": "****", "c": "uu"}
    reports = tmp_path / "reports"
    assert row_of(reports, "Table 2", "sotu", "a")[-2:] == ["4.00 ± 0.00 †", "1.00 ± 0.00 †"]
    assert row_of(reports, "Beyond", "sotu", "a")[-2:] == ["51.00 ± 0.00 †", "0.500 ± 0.000"]
    assert row_of(reports, "Beyond", "sotu", "b")[-1] == "0.010 ± 0.000"
    assert "†" not in "".join(row_of(reports, "Table 2", "sotu", "b") + row_of(reports, "Beyond", "sotu", "b"))
    note = note_of(tmp_path, "† sotu: more than 1% of the generated sentences had not ended at sampling.max_length")
    assert "(of the seed with most, 50.0% of a's after 7 words)" in note
    assert " †" in (reports / "report.html").read_text(encoding="utf-8").split("<tbody>", 2)[2].split("</tbody>")[0]
    assert "FPPL and RPPL of text cut at sampling.max_length (see the report): sotu a." in results_table(
        reports / "results.csv"
    )
    assert [results(reports)["sotu", system, "0"]["cut"] for system in "abc"] == ["0.5", "0.01", "0.0"]


def test_what_preprocess_cut_is_said_where_it_did(tmp_path: Path) -> None:
    settings = grid(["sotu"], ["a"], ["1"])
    write_corpus(tmp_path / "corpora/sotu", "sotu", truncated=(250, 37))
    make(tmp_path, settings)
    note = note_of(tmp_path, "sotu: 2.5% of the training sentences and 2.0% of the test sentences were cut at")
    assert "preprocess.max_length (40 words)" in note
    assert "the models learn that it ends there" in note
    write_corpus(tmp_path / "corpora/sotu", "sotu")
    make(tmp_path, settings)
    assert "were cut at" not in (tmp_path / "reports/report.md").read_text(encoding="utf-8")


def test_real_text_is_a_row_and_the_decoding_is_named(reports: Path) -> None:
    assert row_of(reports, "Table 2", "sotu", "*real text*") == ["–"] * 4 + [f"{REAL_TEXT['fppl']:.2f}"] * 2
    assert (
        "FPPL and RPPL on sotu: 10,000 sentences, ancestral decoding, 5-grams." in (reports / "report.md").read_text()
    )


def test_reduced_settings_are_said_where_they_are(experiment: Path) -> None:
    for name in ("report.md", "report.html"):
        assert "Reduced settings on sotu:" in (make(experiment) / name).read_text(encoding="utf-8")
        settings = grid(["ptb"], SETTINGS.systems, SETTINGS.seeds, {"ptb": False})
        assert "educed settings" not in (make(experiment, settings) / name).read_text(encoding="utf-8")


def test_the_papers_numbers_stand_beside_its_own_corpora_only(experiment: Path) -> None:
    reports = make(experiment)
    table = markdown_rows(reports, "Table 2")
    sotu = table[: next(i for i, cells in enumerate(table) if cells[0] == "PTB")]
    assert not any("the paper" in cells[1] for cells in sotu)
    lines = [cells for cells in table if cells[1] == "*the paper*"]
    assert [cells[2] for cells in lines] == ["102.85 (–)", "104.06 (0.03)", "100.91 (4.86)"]
    assert "The paper's" not in (make(experiment, grid(["sotu"], ["vae_05"], ["1"])) / "report.md").read_text()


def differences(reports: Path) -> list[list[str]]:
    """The lines of Table 2 that say how far our numbers are from the paper's."""
    return [cells[2:] for cells in markdown_rows(reports, "Table 2") if cells[1] == "*difference*"]


def test_the_difference_to_the_paper_is_said_where_the_corpus_and_the_settings_are_its_own(experiment: Path) -> None:
    found = differences(make(experiment))
    # VAE-0.5 on PTB: NLL 64 - 104.06, KL 0.03 - 0.03, PPL 70.4 - 100.90, MI 0.02 - 0.07, AU 7 - 2, 290 - 339.32, ...
    assert found[1] == ["-40.06 (+0.00)", "-30.50", "-0.05", "+5.0", "-49.32", "-99.81"]
    assert len(found) == 3  # the three systems on PTB, and none on sotu
    assert found[0][2:4] == ["–", "–"]
    assert "alone may make the difference" in (experiment / "reports/report.md").read_text(encoding="utf-8")
    settings = grid(["ptb"], SETTINGS.systems, SETTINGS.seeds, {"ptb": True})
    assert differences(make(experiment, settings, "reduced")) == []
    write_corpus(experiment / "corpora/ptb", "ptb", train=5000)
    assert differences(make(experiment, name="another")) == []


def test_a_corpus_of_the_papers_name_but_not_its_size_is_said_to_be_another(experiment: Path) -> None:
    assert "was measured on another" not in (make(experiment) / "report.md").read_text(encoding="utf-8")
    write_corpus(experiment / "corpora/ptb", "ptb", train=5000)
    text = (make(experiment) / "report.md").read_text(encoding="utf-8")
    assert "PTB here has 5,000 training sentences, the paper's about 42,000" in text


def test_footnotes_say_what_the_papers_own_numbers_say() -> None:
    """Each number of a footnote follows from the paper's table: NLL / ln PPL tokens a sentence, MI above KL."""
    lengths = {point: values["nll"] / math.log(values["ppl"]) for point, values in paper.TABLE_2.items()}  # type: ignore[operator,arg-type]
    named = {
        ("ptb", "vae_mine"): "22.55",
        ("snli", "vae_mine"): "11.44",
        ("snli", "lagging"): "11.45",
        ("snli", "vae_05"): "11.35",
        ("yahoo", "cyclical"): "77.55",
        ("yahoo", "infovae"): "80.07",
        ("yahoo", "vae_mine"): "79.86",
    }
    texts = {dataset: " ".join(n.text for n in paper.footnotes([dataset]) if n.column == "ppl") for dataset, _ in named}
    for (dataset, system), length in named.items():
        assert f"{lengths[dataset, system]:.2f}" == length
        assert length in texts[dataset]
    impossible = {(n.dataset, system) for n in paper.FOOTNOTES if n.column == "mi" for system in n.systems}
    above = {p for p, v in paper.TABLE_2.items() if v["mi"] is not None and v["kl"] is not None and v["mi"] > v["kl"]}
    assert impossible == above


def test_table_1_has_the_corpora_and_says_what_is_missing(experiment: Path) -> None:
    shutil.rmtree(experiment / "corpora/sotu")
    reports = make(experiment)
    text = (reports / "report.md").read_text(encoding="utf-8")
    assert "PTB: 3.1% of the test tokens are words outside the vocabulary; of the test sentences 12 are in" in text
    rows = markdown_rows(reports, "Table 1")
    assert rows[0][:2] == ["sotu", "*pending*: preprocess has not written it"]
    assert rows[1] == ["PTB", "42,068", "1,900", "1,850", "14.3", "5,000"]
    assert rows[2] == ["*the paper*", "42K", "3.3K", "3.7K", "21", "10K"]


def test_a_subset_whose_size_is_not_known_has_no_note() -> None:
    rows: list[Any] = [
        {"nll_iw": 66.0, "iw_sentences": n, "iw_samples": k, "gain": None, "system": "vae_bow"}
        for n, k in ((400, 100), (None, 100), (400, None), (None, 50))
    ]
    assert subset_notes(rows) == ["NLL-IW: 400 sentences with 100 samples each."]
