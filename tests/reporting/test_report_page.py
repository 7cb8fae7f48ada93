"""The page in a browser and the table in a terminal: complete, readable, safe to open."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import escape
from report_reading import make
from report_runs import (
    FAILURE,
    learning_curve,
    timings,
    write_experiment,
)

from reporting.names import STYLES, styles
from reporting.terminal import main as terminal
from reporting.terminal import results_table
from reporting.verdict import RULES
from textvae.errors import DataError
from textvae.files import read_json, write_json


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


def test_times_that_lie_beside_several_runs_are_nobodys(experiment: Path) -> None:
    write_json(experiment / "runs/timings/train.json", {**timings("train"), "wall_s": 3723.0})
    assert "1:02:03" not in (make(experiment) / "report.html").read_text(encoding="utf-8")


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
            if (tag, name) == ("button", "title"):
                self._title = value

    def handle_data(self, data: str) -> None:
        if self._title is not None and data.strip():
            self.titles[data], self._title = self._title, None


def test_times_are_in_the_page_and_nowhere_else(experiment: Path) -> None:
    reports = make(experiment)
    write_json(experiment / "runs/ptb/vae_mine/1/timings/train.json", {**timings("train"), "wall_s": 3723.0})
    page = (make(experiment, name="slower") / "report.html").read_text(encoding="utf-8")
    line = next(row for row in page.split("<tr") if "1:02:03" in row)
    assert "VAE-MINE" in line
    assert page.count("1:02:03") == 1
    for name in ("results.csv", "curves.csv", "report.md"):
        assert (reports / name).read_bytes() == (experiment / "slower" / name).read_bytes()


def test_the_page_fetches_nothing_and_follows_the_theme(reports: Path) -> None:
    text = (reports / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert not {"link", "iframe", "img"} & set(page.tags)
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    # the one script is the report's own, and the browser is told to run no other and to load nothing at all
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in text
    assert len(page.ids) == len(set(page.ids))
    assert "@media (prefers-color-scheme: dark)" in text
    # every colour of a plot is a variable that both themes define
    plots = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert not re.search(r"(?:stroke|fill): #", plots)
    light, dark = text.split("prefers-color-scheme: dark", 1)
    for variable in set(re.findall(r"var\((--[\w-]+)\)", text)):
        assert f"{variable}: " in light
        assert f"{variable}: " in dark


def test_every_column_of_numbers_is_defined_on_hover(reports: Path) -> None:
    titles = Page((reports / "report.html").read_text(encoding="utf-8")).titles
    columns = {"NLL (KL)", "PPL", "MI", "AU", "FPPL", "RPPL", "NLL-IW", "NLL subset", "Gain", "MI upper", "RPPL pad"}
    assert columns <= titles.keys()
    assert all(len(titles[column]) > 20 for column in columns)


def test_each_data_set_has_its_panels(reports: Path) -> None:
    text = (reports / "report.html").read_text(encoding="utf-8")
    for dataset in ("sotu", "ptb"):
        for name in ("valid_nll", "valid_kl", "valid_mi", "valid_au", "beta", "mi_estimate", "scatter"):
            assert f'id="{dataset}-{name}-figure_1"' in text


def test_the_verdict_comes_first_and_says_its_rules(reports: Path) -> None:
    for name in ("report.html", "report.md"):
        text = (reports / name).read_text(encoding="utf-8")
        assert "PTB: take VAE-MINE" in text
        assert "sotu: take none so far" in text
        assert text.index("PTB: take VAE-MINE") < text.index("Table 1")
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert all(str(escape(rule)) in page for rule in RULES)


def lines_of(page: str, panel: str, system: str) -> list[list[tuple[float, float]]]:
    """The points (x, y, in the picture's units, y downwards) of a system's lines in a panel."""
    svg = next(part for part in page.split("<svg")[1:] if f'id="{panel}-figure_1"' in part)
    paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke[^"]*var\(--s-{system}\)[^"]*"', svg)
    return [[(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)] for path in paths]


def test_a_panel_draws_every_runs_own_curve(reports: Path) -> None:
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert [len(lines_of(page, "ptb-valid_nll", system)) for system in ("lstm_lm", "vae_05", "vae_mine")] == [2, 2, 2]
    assert [len(lines_of(page, "ptb-mi_estimate", system)) for system in ("lstm_lm", "vae_05", "vae_mine")] == [0, 0, 2]
    # the run that diverged after two epochs is there, too
    assert [len(line) for line in lines_of(page, "sotu-valid_kl", "vae_mine")] == [4, 2]
    values = [record["valid_kl"] for record in learning_curve(4, 62.0, 2.5, 3.2)]
    drawn = lines_of(page, "ptb-valid_kl", "vae_mine")[0]
    falls = [(value - values[0]) / (values[-1] - values[0]) for value in values]
    assert [(y - drawn[0][1]) / (drawn[-1][1] - drawn[0][1]) for _, y in drawn] == pytest.approx(falls, abs=1e-4)
    assert drawn[-1][1] > drawn[0][1]  # less is further down


def test_the_scatter_has_a_marker_for_every_run_measured(reports: Path) -> None:
    page = (reports / "report.html").read_text(encoding="utf-8")
    for dataset, runs in (("sotu", 4), ("ptb", 6)):
        svg = next(part for part in page.split("<svg")[1:] if f'id="{dataset}-scatter-figure_1"' in part)
        assert len(re.findall(r"<use xlink:href[^>]*var\(--s-", svg)) == runs


def test_text_from_a_run_cannot_become_markup(experiment: Path) -> None:
    failure = {**FAILURE, "message": "<script>alert(1)</script> | broken"}
    for name in ("model/config.json", "evaluation/metrics.json", "ngram.json"):
        path = experiment / "runs/sotu/vae_mine/2" / name
        write_json(path, {**read_json(path), "failure": failure})
    reports = make(experiment)
    page = (reports / "report.html").read_text(encoding="utf-8")
    assert "alert(1)" in page
    assert "<script>alert" not in page
    assert page.count("<script") == 1
    assert r"</script> \| broken" in (reports / "report.md").read_text(encoding="utf-8")


def test_a_system_keeps_its_colour_whatever_the_others(experiment: Path) -> None:
    assert styles(["vae_mine", "new"])["vae_mine"] == styles(["lstm_lm", "vae_mine"])["vae_mine"] == STYLES["vae_mine"]
    drawn = styles([*STYLES, "new", "newer"])
    assert len({style.light for style in drawn.values()}) == len({style.dark for style in drawn.values()}) == len(drawn)


def test_the_terminals_table_fits_and_hides_nothing(reports: Path) -> None:
    text = results_table(reports / "results.csv")
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    model = next(line for line in lines if line.startswith("PTB"))
    assert model.split()[:5] == ["PTB", "LSTM-LM", "61.62", "-", "67.79"]
    assert lines[lines.index(model) + 1].split()[:3] == ["±", "0.71", "0.78"]
    assert "VAE-MINE, seed 2  failed: diverged in epoch 3" in text
    assert "VAE-0.5, seed 2  pending: waiting for train, evaluate, ngram" in text
    assert sum("real text" in line for line in lines) == 2
    assert any(line.startswith("Verdict on PTB: take VAE-MINE.") for line in lines)
    assert "Reduced settings: sotu." in lines[-1]


def test_the_terminals_table_fits_whatever_a_failure_says(reports: Path, tmp_path: Path) -> None:
    text = (reports / "results.csv").read_text(encoding="utf-8").replace(FAILURE["message"], "diverged: " + "z" * 300)
    (tmp_path / "results.csv").write_text(text, encoding="utf-8")
    shutil.copy(reports / "differences.csv", tmp_path)
    table = results_table(tmp_path / "results.csv")
    assert "failed: diverged: zzz" in table
    assert max(map(len, table.splitlines())) <= 120


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
