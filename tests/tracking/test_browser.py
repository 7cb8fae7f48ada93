"""MLflow's pages in a real Chromium, as `make ui` opens them. Skipped, and it says so, without playwright or Chromium.

`.venv/bin/pip install playwright` and a Chromium on PATH are all it needs.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracking_helpers import rows, with_candidates, write_reports, write_run

from components.publish import publish
from reporting.names import STYLES
from textvae.config import ReportSettings
from tracking import connect, page
from tracking.store import Store

pytest_plugins = ["tracking_fixtures"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: MLflow's pages were NOT looked at")
if CHROMIUM is None:
    pytest.skip("no Chromium on PATH: MLflow's pages were NOT looked at", allow_module_level=True)
SYSTEMS = ["lstm_lm", "vae_05", "vae_mine"]
IN_ORDER = """wanted => {
    const x = one => one.getBoundingClientRect().x
    const shown = [...document.querySelectorAll(".ag-header-cell[col-id^=metrics]")].sort((a, b) => x(a) - x(b))
    const columns = shown.map(one => one.getAttribute("col-id"))
    return columns.length > 3 && columns.every((column, place) => column === wanted[place])
}"""
ASSISTANT_CLOSED = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    with playwright.sync_playwright() as started:
        yield started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A fresh visitor's tab."""
    opened = browser.new_page(viewport={"width": 1500, "height": 900})
    opened.set_default_timeout(60_000)
    opened.add_init_script(ASSISTANT_CLOSED)
    yield opened
    opened.close()


@pytest.fixture
def store(
    repository: Path, mlflow_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Store:
    """Three runs and a report, published to a real server, in an experiment of the test's own."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", request.node.name)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    for shift, system in enumerate(SYSTEMS):
        directory = write_run(repository / "runs", system, shift=float(shift), nll=90.0 + shift)
    with_candidates(directory)
    settings = ReportSettings(datasets=["sotu"], systems=SYSTEMS, seeds=["0"], reduced={"sotu": True})
    publish(runs=[repository / "runs"], reports=write_reports(repository / "reports"), settings=settings)
    return connect()


def cells(tab: Any, column: str) -> list[str]:
    """What the run table shows in a column."""
    shown = tab.locator(f'.ag-center-cols-container [col-id="{column}"]')
    shown.first.wait_for()
    return list(shown.all_inner_texts())


def test_the_run_table_opens_with_names_and_numbers(tab: Any, store: Store) -> None:
    tab.goto(page.look(store))
    tab.get_by_text("sotu-vae_mine-0").wait_for()
    assert set(cells(tab, "metrics.`nll`")) == {"90", "91", "92"}
    assert sorted(cells(tab, "tags.`chosen`")) == ["-", "-", "alpha=3.0"]
    measured = rows(store)[0].data.metrics
    tab.wait_for_function(IN_ORDER, arg=[f"metrics.`{key}`" for key in page.MEASURES if key in measured])
    names = tab.locator(".ag-pinned-left-cols-container .ag-row").all_inner_texts()
    assert len(names) == 3
    for system in SYSTEMS:
        assert any(f"sotu-{system}-0" in name and STYLES[system].light in name for name in names)
    with tab.expect_popup() as opened:
        tab.get_by_role("link", name="report.html").click()
    opened.value.frame_locator("iframe").get_by_text("report").first.wait_for()


def test_the_curves_of_all_systems_are_in_one_chart_in_the_reports_colours(tab: Any, store: Store) -> None:
    tab.goto(page.look(store).replace("runs?", "runs?compareRunsMode=CHART&"))
    tab.get_by_text("Learning curves by epoch").wait_for()
    tab.locator("path.js-line").first.wait_for()
    first = tab.locator(".js-plotly-plot").first
    drawn = first.locator("path.js-line").evaluate_all("all => all.map(line => getComputedStyle(line).stroke)")
    wanted = {f"rgb({', '.join(str(int(STYLES[s].light[i : i + 2], 16)) for i in (1, 3, 5))})" for s in SYSTEMS}
    assert set(drawn) == wanted


def test_a_runs_page_has_its_curves_its_files_and_its_candidates(tab: Any, store: Store) -> None:
    run = next(run for run in rows(store) if run.data.tags["system"] == "vae_mine")
    base = f"{page.look(store).partition('/#/')[0]}/#/experiments/{store.experiment_id}/runs/{run.info.run_id}"
    tab.goto(f"{base}/model-metrics")
    tab.get_by_placeholder("Search metric charts").fill("valid_nll")
    tab.get_by_text("valid_nll", exact=True).first.wait_for()
    tab.locator("path.js-line").first.wait_for()
    tab.goto(f"{base}/artifacts/curves.jsonl")
    tab.get_by_text(re.compile('"epoch": 3')).first.wait_for()
    tab.goto(page.look(store).replace("=results", "=candidates"))
    tab.locator(".ag-row").filter(has_text="sotu-vae_mine-0").first.get_by_role("button").first.click()
    tab.get_by_text("alpha=9.0").wait_for()
    assert cells(tab, "metrics.`selected_valid_nll_iw`").count("61.5") == 2


def test_two_systems_are_compared_number_by_number(tab: Any, store: Store) -> None:
    tab.goto(page.look(store))
    for system in ("vae_05", "vae_mine"):
        row = tab.locator(".ag-pinned-left-cols-container .ag-row").filter(has_text=f"sotu-{system}-0")
        row.locator("input.ag-checkbox-input").check(force=True)
    tab.get_by_role("button", name="Compare").click()
    tab.get_by_text("Comparing 2 Runs from 1 Experiment").wait_for()
    text = tab.locator("body").inner_text
    tab.get_by_text("real_text_fppl").first.wait_for()
    for shown in ("sotu-vae_05-0", "sotu-vae_mine-0", "objective.name", "valid_nll"):
        assert shown in text()
    assert "sotu-lstm_lm-0" not in text()
