"""The report: what it shows are the runs' own numbers, told apart by what the files say, with nothing left out."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import FAILURE, REAL_TEXT, grid, learning_curve, timings, write_corpus, write_run

from components.report import report
from components.reporting import paper
from components.reporting.names import STYLES, styles
from components.reporting.terminal import main as terminal
from components.reporting.terminal import results_table
from textvae.config import ReportSettings
from textvae.errors import DataError, SettingsError
from textvae.files import read_json, write_json

HEADER = (
    "dataset,system,seed,nll,nll_iw,kl,ppl,mi,mi_se,mi_upper,mi_batch,kl_agg,au,gain,fppl,rppl,rppl_pad".split(",")  # noqa: SIM905
)
SETTINGS = grid(["sotu", "ptb"], ["lstm_lm", "vae_05", "vae_mine"], ["1", "2"], {"sotu": True, "ptb": False})
VAE = {"kl": 2.5, "mi": 2.25, "mi_se": 0.031, "mi_upper": 2.5, "mi_batch": 2.125, "kl_agg": 0.25, "gain": 1.5, "au": 7}


def measures(nll: float, **more: float) -> dict[str, Any]:
    """A language model's measures; `more` adds a VAE's."""
    return {
        "nll": nll,
        "nll_se": 0.5,
        "nll_iw": nll - 1,
        "nll_iw_se": 1.25,
        "nll_subset": nll + 1,
        "nll_subset_se": 1.5,
        "ppl": nll * 1.1,
        "gain_se": 0.0625,
        **more,
    }


def perplexities(fppl: float, rppl: float) -> dict[str, float]:
    """An n-gram result's numbers."""
    return {"fppl": fppl, "rppl": rppl, "rppl_pad": rppl + 50}


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """Two data sets, three systems, two seeds; on sotu a run diverged, one is missing and one waits for ngram."""
    for dataset in ("sotu", "ptb"):
        write_corpus(tmp_path / "corpora" / dataset, dataset, 42_068 if dataset == "ptb" else 10_000)
        for seed in (1, 2):
            folder = tmp_path / "runs" / dataset
            lost = dataset == "sotu" and seed == 2
            write_run(
                folder / "lstm_lm" / str(seed),
                dataset,
                "lstm_lm",
                seed,
                metrics=measures(60.125 + seed),
                ngram=perplexities(300.0625 + seed, 340.0),
                curves=learning_curve(4, 60.0),
            )
            if not lost:
                write_run(
                    folder / "vae_05" / str(seed),
                    dataset,
                    "vae_05",
                    seed,
                    metrics=measures(64.0, **{**VAE, "kl": 0.03, "mi": 0.02}),
                    ngram=perplexities(290.0, 345.0),
                    curves=learning_curve(4, 64.0, 0.03),
                    without=("ngram",) if dataset == "sotu" else (),
                )
            write_run(
                folder / "vae_mine" / str(seed),
                dataset,
                "vae_mine",
                seed,
                metrics=None if lost else measures(62.1, **VAE),
                ngram={"sentences": None} if lost else perplexities(280.0, 330.0),
                curves=learning_curve(2 if lost else 4, 62.0, 2.5, 3.2),
                failed=lost,
            )
    return tmp_path


def make(folder: Path, settings: ReportSettings = SETTINGS, name: str = "reports") -> Path:
    """The reports on `folder`'s runs and corpora."""
    report(runs=[folder / "runs"], corpora=[folder / "corpora"], settings=settings, reports=folder / name)
    return folder / name


def results(reports: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    """results.csv by grid point."""
    with (reports / "results.csv").open(encoding="utf-8", newline="") as stream:
        return {(row["dataset"], row["system"], row["seed"]): row for row in csv.DictReader(stream)}


def markdown_rows(reports: Path, title: str) -> list[list[str]]:
    """The cells of the table below a title of report.md, its head left out."""
    text = (reports / "report.md").read_text(encoding="utf-8")
    section = text[text.index(f"## {title}") :].split("\n\n")[1]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in section.splitlines()[2:]]


def row_of(reports: Path, title: str, dataset: str, model: str) -> list[str]:
    """The numbers of one line of a table of report.md."""
    here = ""
    for cells in markdown_rows(reports, title):
        here = cells[0] or here
        if (here, cells[1]) == (dataset, model):
            return cells[2:]
    raise AssertionError(f"no {model} on {dataset}")


def test_results_have_every_grid_point_in_order_with_the_numbers_of_the_runs(experiment: Path) -> None:
    reports = make(experiment)
    rows = results(reports)
    grid_points = [(d, s, seed) for d in SETTINGS.datasets for s in SETTINGS.systems for seed in SETTINGS.seeds]
    assert list(rows) == grid_points
    assert (reports / "results.csv").read_text().splitlines()[0].split(",")[: len(HEADER)] == HEADER
    metrics = read_json(experiment / "runs/ptb/vae_mine/1/evaluation/metrics.json")
    ngram = read_json(experiment / "runs/ptb/vae_mine/1/ngram.json")
    expected = {key: repr({**metrics, **ngram}[key]) for key in HEADER[3:]}
    assert {key: rows["ptb", "vae_mine", "1"][key] for key in HEADER[3:]} == expected


def test_a_measure_that_a_system_lacks_is_empty_and_not_zero(experiment: Path) -> None:
    row = results(make(experiment))["ptb", "lstm_lm", "1"]
    assert [row[key] for key in ("kl", "mi", "mi_se", "au", "gain")] == [""] * 5
    assert row["nll"] == "61.125"


def test_a_metrics_file_without_a_measure_is_refused_rather_than_shown_as_having_none(experiment: Path) -> None:
    path = experiment / "runs/ptb/vae_05/1/evaluation/metrics.json"
    write_json(path, {key: value for key, value in read_json(path).items() if key != "gain"})
    with pytest.raises(DataError, match="ptb, vae_05, seed 1 has no 'gain'"):
        make(experiment)


def test_table_2_shows_means_and_standard_deviations_over_the_seeds(experiment: Path) -> None:
    # 61.125 and 62.125: mean 61.625, standard deviation sqrt(2 * 0.5^2 / 1) = 0.7071; PPL is 1.1 times that
    numbers = row_of(make(experiment), "Table 2", "PTB", "LSTM-LM")
    assert numbers[:2] == ["**61.62** ± 0.71 (–)", "**67.79** ± 0.78"]
    assert numbers[2:4] == ["–", "–"]
    assert numbers[4] == "301.56 ± 0.71"


def test_added_columns_stand_beside_each_other_with_standard_errors(experiment: Path) -> None:
    numbers = row_of(make(experiment), "Beyond", "PTB", "VAE-MINE")
    assert numbers[0].endswith("61.10</u> ± 0.00 (1.25)")
    assert numbers[1] == "63.10 ± 0.00 (1.50)"
    assert numbers[2].endswith("± 0.00 (0.06)")


def test_identity_is_what_the_files_say_and_not_where_they_lie(experiment: Path) -> None:
    reports = make(experiment)
    honest = {name: (reports / name).read_bytes() for name in ("results.csv", "curves.csv", "report.md", "report.html")}
    moved = experiment / "runs" / "moved"
    moved.mkdir()
    shutil.move(experiment / "runs/ptb/vae_mine/1", moved / "seed_2_of_vae_05")
    shutil.move(experiment / "runs/ptb/vae_05/2", experiment / "runs/ptb/vae_mine/1")
    shutil.move(experiment / "corpora/ptb", experiment / "corpora/yahoo")
    again = make(experiment)
    assert {name: (again / name).read_bytes() for name in honest} == honest


def test_single_files_without_extensions_do_as_well_as_a_folder(experiment: Path) -> None:
    expected = (make(experiment) / "results.csv").read_bytes()
    artifacts = []
    for number, pattern in enumerate(("config.json", "metrics.json", "ngram.json", "curves.jsonl")):
        for count, path in enumerate(
            p for p in experiment.glob(f"runs/*/*/*/**/{pattern}") if p.parent.name != "timings"
        ):
            copied = experiment / "artifacts" / f"{number}-{count}"
            copied.parent.mkdir(exist_ok=True)
            artifacts.append(Path(shutil.copy(path, copied)))
    corpora = [experiment / "corpora/sotu/corpus", experiment / "corpora/ptb/corpus/corpus.json"]
    report(runs=artifacts, corpora=corpora, settings=SETTINGS, reports=experiment / "kubeflow")
    assert (experiment / "kubeflow/results.csv").read_bytes() == expected
    assert (experiment / "kubeflow/curves.csv").read_bytes() == (experiment / "reports/curves.csv").read_bytes()


def test_a_file_that_is_no_result_is_refused(experiment: Path) -> None:
    write_json(experiment / "vocabulary.json", {"words": []})
    with pytest.raises(DataError, match=r"vocabulary\.json is none of a run's results"):
        report(runs=[experiment / "vocabulary.json"], corpora=[], settings=SETTINGS, reports=experiment / "reports")


def test_a_run_that_diverged_is_a_failed_row_that_says_why(experiment: Path) -> None:
    reports = make(experiment)
    row = results(reports)["sotu", "vae_mine", "2"]
    assert (row["status"], row["failure"]) == ("failed", FAILURE["message"])
    assert all(row[key] == "" for key in HEADER[3:])
    assert row_of(reports, "Table 2", "sotu", "VAE-MINE, seed 2")[0] == f"*failed*: {FAILURE['message']}"
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert f'<span class="badge">failed</span> {FAILURE["message"]}' in page
    # the seed that did not diverge is shown, as one of two, without a spread
    assert row_of(reports, "Table 2", "sotu", "VAE-MINE (1 of 2 seeds)")[0] == "62.10 (2.50)"


def test_a_run_without_results_is_pending_and_one_with_some_shows_them(experiment: Path) -> None:
    reports = make(experiment)
    rows = results(reports)
    absent, partial = rows["sotu", "vae_05", "2"], rows["sotu", "vae_05", "1"]
    assert (absent["status"], absent["missing"]) == ("pending", "train evaluate ngram")
    assert all(absent[key] == "" for key in HEADER[3:])
    assert (partial["status"], partial["missing"], partial["nll"], partial["fppl"]) == ("pending", "ngram", "64.0", "")
    assert row_of(reports, "Table 2", "sotu", "VAE-0.5, seed 2")[0] == "*pending*: waiting for train, evaluate, ngram"
    assert row_of(reports, "Table 2", "sotu", "VAE-0.5, seed 1")[0] == "*pending*: waiting for ngram"
    assert row_of(reports, "Table 2", "sotu", "VAE-0.5 (1 of 2 seeds)")[4] == "–"


def test_a_report_of_nothing_yet_shows_the_whole_grid_as_pending(tmp_path: Path) -> None:
    report(runs=[tmp_path], corpora=[tmp_path], settings=SETTINGS, reports=tmp_path / "reports")
    assert {row["status"] for row in results(tmp_path / "reports").values()} == {"pending"}
    assert len(markdown_rows(tmp_path / "reports", "Table 2")) == 12 + 3  # and the paper's three on PTB
    assert "waiting for train" in results_table(tmp_path / "reports/results.csv")


def test_two_different_results_of_one_run_are_an_error_that_names_both(experiment: Path) -> None:
    stale = experiment / "runs/old/metrics.json"
    write_json(stale, read_json(experiment / "runs/ptb/vae_05/1/evaluation/metrics.json"))
    make(experiment)  # an equal copy is no conflict
    write_json(stale, {**read_json(stale), "nll": 1.0})
    with pytest.raises(DataError) as error:
        make(experiment)
    assert str(stale) in str(error.value)
    assert str(experiment / "runs/ptb/vae_05/1/evaluation/metrics.json") in str(error.value)
    assert not (experiment / "reports/results.csv").exists() or results(
        experiment / "reports"
    )  # the old one stays whole


def test_results_of_different_trainings_are_an_error(experiment: Path) -> None:
    path = experiment / "runs/ptb/vae_mine/1/ngram.json"
    write_json(path, {**read_json(path), "status": "diverged", "failure": FAILURE})
    with pytest.raises(DataError, match="ptb, vae_mine, seed 1: its files say diverged and finished"):
        make(experiment)


def test_runs_outside_the_grid_and_unfinished_outputs_are_not_shown(experiment: Path) -> None:
    expected = (make(experiment) / "results.csv").read_bytes()
    write_run(
        experiment / "runs/ptb/vae_mine/3", "ptb", "vae_mine", 3, metrics=measures(1.0), ngram=perplexities(1.0, 1.0)
    )
    write_run(experiment / "runs/ptb/vae_mine/.1.tmp", "ptb", "vae_mine", 1, metrics=measures(1.0))
    assert (make(experiment) / "results.csv").read_bytes() == expected


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
    assert "fixed ones were used for those of VAE-MINE" in (tmp_path / "reports/report.md").read_text(encoding="utf-8")


def test_real_text_is_a_row_and_the_decoding_is_named(experiment: Path) -> None:
    reports = make(experiment)
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
    rows = markdown_rows(make(experiment), "Table 1")
    assert rows[0][:2] == ["sotu", "*pending*: preprocess has not written it"]
    assert rows[1] == ["PTB", "42,068", "1,900", "1,850", "14.3", "5,000"]
    assert rows[2] == ["*the paper*", "42K", "3.3K", "3.7K", "21", "10K"]


def test_curves_have_every_epoch_of_every_run(experiment: Path) -> None:
    with (make(experiment) / "curves.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 2 * 4 + 4 + (4 + 2) + 2 * 3 * 4  # sotu: lstm_lm, vae_05, vae_mine; ptb
    first = next(row for row in rows if (row["dataset"], row["system"]) == ("ptb", "vae_mine"))
    assert first["valid_nll"] == repr(62.0 * (1 + math.exp(-0.5)))
    assert next(row for row in rows if row["system"] == "lstm_lm")["valid_kl"] == ""


def test_damaged_curves_name_the_line(experiment: Path) -> None:
    path = experiment / "runs/ptb/vae_mine/1/curves.jsonl"
    path.write_text(path.read_text() + '{"epoch": ')
    with pytest.raises(DataError, match=r"curves\.jsonl, line 5: not JSON"):
        make(experiment)


def test_the_same_inputs_give_the_same_bytes_whatever_their_order(experiment: Path) -> None:
    first = make(experiment)
    entries = sorted((experiment / "runs").iterdir(), reverse=True)
    report(runs=entries, corpora=[experiment / "corpora"], settings=SETTINGS, reports=experiment / "again")
    for name in ("results.csv", "curves.csv", "report.md", "report.html"):
        assert (first / name).read_bytes() == (experiment / "again" / name).read_bytes()


def test_times_are_in_the_page_and_nowhere_else(experiment: Path) -> None:
    reports = make(experiment)
    write_json(experiment / "runs/ptb/vae_mine/1/timings/train.json", {**timings("train"), "wall_s": 3723.0})
    page = (make(experiment, name="slower") / "report.html").read_text(encoding="utf-8")
    line = next(row for row in page.split("<tr") if "1:02:03" in row)
    assert "VAE-MINE" in line
    assert page.count("1:02:03") == 1
    for name in ("results.csv", "curves.csv", "report.md"):
        assert (reports / name).read_bytes() == (experiment / "slower" / name).read_bytes()


class Page(HTMLParser):
    """What a browser would fetch, and the ids, of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.titles: dict[str, str] = {}
        self._title: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if (
                name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster")
                and value
                and value[0] != "#"
            ):
                self.fetched.append(value)
            if name == "id" and value:
                self.ids.append(value)
            if (tag, name) == ("abbr", "title"):
                self._title = value

    def handle_data(self, data: str) -> None:
        if self._title is not None:
            self.titles[data], self._title = self._title, None


def test_the_page_fetches_nothing_and_follows_the_theme(experiment: Path) -> None:
    text = (make(experiment) / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert "@media (prefers-color-scheme: dark)" in text
    # every colour of a plot is a variable that both themes define
    plots = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not re.search(r"(?:stroke|fill): #", plots)
    light, dark = text.split("prefers-color-scheme: dark", 1)
    for variable in set(re.findall(r"var\((--[\w-]+)\)", text)):
        assert f"{variable}: " in light
        assert f"{variable}: " in dark


def test_every_column_of_numbers_is_defined_on_hover(experiment: Path) -> None:
    titles = Page((make(experiment) / "report.html").read_text(encoding="utf-8")).titles
    columns = {"NLL (KL)", "PPL", "MI", "AU", "FPPL", "RPPL", "NLL-IW", "NLL subset", "Gain", "MI upper", "RPPL pad"}
    assert columns <= titles.keys()
    assert all(len(titles[column]) > 20 for column in columns)


def test_each_data_set_has_its_panels(experiment: Path) -> None:
    text = (make(experiment) / "report.html").read_text(encoding="utf-8")
    for dataset in ("sotu", "ptb"):
        for name in ("valid_nll", "valid_kl", "valid_mi", "valid_au", "beta", "mi_estimate", "scatter"):
            assert f'id="{dataset}-{name}-figure_1"' in text


def test_text_from_a_run_cannot_become_markup(experiment: Path) -> None:
    failure = {**FAILURE, "message": "<script>alert(1)</script> | broken"}
    for name in ("model/config.json", "evaluation/metrics.json", "ngram.json"):
        path = experiment / "runs/sotu/vae_mine/2" / name
        write_json(path, {**read_json(path), "failure": failure})
    reports = make(experiment)
    assert "<script" not in (reports / "report.html").read_text(encoding="utf-8")
    assert r"</script> \| broken" in (reports / "report.md").read_text(encoding="utf-8")


def test_a_system_keeps_its_colour_whatever_the_others(experiment: Path) -> None:
    assert styles(["vae_mine", "new"])["vae_mine"] == styles(["lstm_lm", "vae_mine"])["vae_mine"] == STYLES["vae_mine"]
    drawn = styles([*STYLES, "new", "newer"])
    assert len({style.light for style in drawn.values()}) == len({style.dark for style in drawn.values()}) == len(drawn)


def test_the_terminals_table_fits_and_hides_nothing(experiment: Path) -> None:
    text = results_table(make(experiment) / "results.csv")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    model = next(line for line in lines if line.startswith("PTB"))
    assert model.split()[:5] == ["PTB", "LSTM-LM", "61.62", "-", "67.79"]
    assert lines[lines.index(model) + 1].split()[:3] == ["±", "0.71", "0.78"]
    assert "VAE-MINE, seed 2  failed: diverged in epoch 3" in text
    assert "VAE-0.5, seed 2  pending: waiting for train, evaluate, ngram" in text
    assert sum("real text" in line for line in lines) == 2
    assert "Reduced settings: sotu." in lines[-1]


def test_the_terminals_command_prints_it_or_says_what_is_wrong(
    experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make(experiment) / "results.csv"
    terminal([str(path)])
    assert capsys.readouterr().out == results_table(path)
    for content in ("a,b\n1,2\n", path.read_text().replace("61.125", "many"), "\0"):
        path.write_text(content)
        with pytest.raises(SystemExit) as stopped:
            terminal([str(path)])
        assert stopped.value.code == DataError.exit_code
        assert capsys.readouterr().err.startswith("error: ")


def test_the_step_runs_from_the_command_line(experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(experiment / "report.json", SETTINGS.model_dump())
    where = ["--runs", str(experiment / "runs"), "--corpora", str(experiment / "corpora")]
    with pytest.raises(SystemExit) as ended:
        report.main([*where, "--settings", str(experiment / "report.json"), "--reports", str(experiment / "made")])
    assert ended.value.code == 0
    assert (experiment / "made/results.csv").read_bytes() == (make(experiment) / "results.csv").read_bytes()
    with pytest.raises(SystemExit) as ended:
        report.main([*where, "--settings", json.dumps({"datasets": []}), "--reports", str(experiment / "made")])
    assert ended.value.code == SettingsError.exit_code
    assert "datasets" in capsys.readouterr().err


def test_what_the_step_returns_counts_the_runs(experiment: Path) -> None:
    arguments = {"corpora": [experiment / "corpora"], "settings": SETTINGS, "reports": experiment / "reports"}
    assert report(runs=[experiment / "runs"], **arguments) == {"finished": 9, "failed": 1, "pending": 2}
