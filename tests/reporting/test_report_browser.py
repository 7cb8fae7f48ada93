"""The report in Chromium: sorting, definitions by mouse and by keyboard, both themes, nothing fetched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from report_artifacts import write_full_experiment
from report_reading import make
from report_runs import measures, perplexities, write_corpus, write_run

from reporting.names import MEASURES, STYLES


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything on it: two data sets, one of them the paper's, a run that diverged, examples."""
    folder = tmp_path_factory.mktemp("page")
    settings = write_full_experiment(folder, seeds=(1, 2))
    write_corpus(folder / "corpora" / "ptb", "ptb", train=42_068)
    for system, nll in (("lstm_lm", 103.0), ("vae_05", 105.0), ("vae_mine", 101.0)):
        for seed in (1, 2):
            write_run(
                folder / "runs" / "ptb" / system / str(seed),
                "ptb",
                system,
                seed,
                metrics=None if (system, seed) == ("vae_05", 2) else measures(nll + seed),
                ngram=None if (system, seed) == ("vae_05", 2) else perplexities(300.0, 340.0),
                failed=(system, seed) == ("vae_05", 2),
            )
    settings = settings.model_copy(update={"datasets": ["ptb", "sotu"], "reduced": {"sotu": True, "ptb": False}})
    return make(folder, settings) / "report.html"


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """The report, opened from disk; a test fails that makes it fetch anything or report an error."""
    opened = browser.new_page(viewport={"width": 1300, "height": 900})
    problems: list[str] = []
    opened.on("request", lambda request: problems.append(request.url) if request.url != report.as_uri() else None)
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.goto(report.as_uri())
    yield opened
    assert problems == []
    opened.close()


def table(page: Any, title: str) -> Any:
    """A table by the beginning of its title."""
    return page.locator(f'.scroll[aria-label^="{title}"] table')


def labels(page: Any, title: str) -> list[str]:
    """The first column with names, as it stands."""
    return [text.strip() for text in table(page, title).locator("tbody .label").all_text_contents()]


GRID = [
    *("LSTM-LM", "the paper", "difference"),
    *("VAE-0.5 (1 of 2 seeds)", "VAE-0.5, seed 2", "the paper", "difference"),
    *("VAE-MINE", "the paper", "difference", "real text"),
]


def test_a_column_is_sorted_up_down_and_back_and_each_systems_lines_stay_together(page: Any) -> None:
    assert labels(page, "Table 2")[: len(GRID)] == GRID
    head = table(page, "Table 2").locator("th", has_text="NLL (KL)")
    lines = {"lm": GRID[0:3], "vae": GRID[3:7], "mine": GRID[7:10]}
    for expected, order in (
        ("ascending", ("mine", "lm", "vae")),
        ("descending", ("vae", "lm", "mine")),
        ("none", ("lm", "vae", "mine")),
    ):
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == expected
        assert labels(page, "Table 2")[: len(GRID)] == [*(line for name in order for line in lines[name]), "real text"]
    # the other data set is sorted within itself: its lines never mix with these
    assert labels(page, "Table 2")[len(GRID) :] == ["LSTM-LM", "VAE-0.5", "VAE-MINE", "real text"]


def test_sorting_another_column_starts_anew_and_what_has_no_number_comes_last(page: Any) -> None:
    heads = table(page, "Table 2").locator("th")
    heads.filter(has_text="NLL (KL)").locator("button").click()
    mi = heads.filter(has_text="MI")
    mi.locator("button").click()
    assert heads.filter(has_text="NLL (KL)").get_attribute("aria-sort") == "none"
    assert mi.get_attribute("aria-sort") == "ascending"
    assert labels(page, "Table 2")[-4:] == ["VAE-0.5", "VAE-MINE", "LSTM-LM", "real text"]
    mi.locator("button").click()
    assert labels(page, "Table 2")[-2:] == ["LSTM-LM", "real text"]


def test_the_keyboard_sorts_and_the_data_set_stays_named_once(page: Any) -> None:
    button = table(page, "Table 2").locator("th button", has_text="Model")
    button.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert [label for label in labels(page, "Table 2")[: len(GRID)] if label not in GRID[1:3]] == [
        *("VAE-MINE", "VAE-0.5 (1 of 2 seeds)", "VAE-0.5, seed 2", "LSTM-LM", "real text"),
    ]
    names = table(page, "Table 2").locator("td.dataset span")
    seen = [names.nth(i).bounding_box()["width"] > 2 for i in range(names.count())]
    assert seen == [True, *[False] * (len(GRID) - 1), True, *[False] * 3]


def test_every_number_says_what_it_is_on_hover_and_on_focus(page: Any) -> None:
    tip = page.locator("#tip")
    assert not tip.is_visible()
    table(page, "Table 2").locator("th button", has_text="FPPL").hover()
    assert tip.is_visible()
    assert tip.text_content() == MEASURES["fppl"].definition
    cell = table(page, "Table 2").locator("tr.ours td").nth(3)
    cell.hover()
    assert tip.text_content() == f"{MEASURES['ppl'].definition}\nseed 1: 114.4, seed 2: 115.5"
    page.mouse.move(640, 5)
    assert not tip.is_visible()
    table(page, "Beyond").locator("th button", has_text="Gain").focus()
    assert tip.text_content() == MEASURES["gain"].definition
    page.keyboard.press("Escape")
    assert not tip.is_visible()
    for one in table(page, "Table 2").locator("tr.ours td[data-value]").all():
        assert len(one.get_attribute("data-tip")) > 20


def test_the_arrow_keys_go_from_number_to_number(page: Any) -> None:
    first = table(page, "Table 2").locator("tbody td[tabindex='0']")
    assert first.count() == 1  # one stop for Tab; the arrows do the rest
    first.focus()
    tip = page.locator("#tip")
    assert tip.text_content().startswith(MEASURES["nll"].definition)
    for key, text in (("ArrowRight", "114.95"), ("ArrowDown", "95.63"), ("ArrowUp", "114.95")):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.textContent").startswith(text)
    assert tip.text_content().startswith(MEASURES["ppl"].definition)
    # down over the line that only says why a run failed
    for _ in range(4):
        page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.parentElement.className") == "paper"
    assert page.locator("tbody td[tabindex='0']").count() == page.locator("table.sortable").count()


def test_a_tip_stays_inside_the_window(page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 700})
    head = table(page, "Table 2").locator("th button", has_text="RPPL")
    head.scroll_into_view_if_needed()
    head.hover()
    box = page.locator("#tip").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 420
    assert box["y"] + box["height"] <= 700


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_figures_are_readable_in_both_themes(page: Any, theme: str) -> None:
    """Contrast of at least 4.5 (text) and 3 (the systems' colours) against the page."""
    page.emulate_media(color_scheme=theme)
    found = page.evaluate(
        """() => {
          const style = getComputedStyle(document.documentElement);
          const text = document.querySelector("section svg text");
          const names = ["--page", "--ink", "--soft", "--verdict", "--alert", "--alert-ink", "--real"];
          return {
            colours: Object.fromEntries(names.map((name) => [name, style.getPropertyValue(name).trim()])),
            body: getComputedStyle(document.body).backgroundColor,
            drawn: getComputedStyle(text).fill,
          };
        }"""
    )
    colours = found["colours"]
    assert rgb(colours["--page"]) == tuple(map(int, found["body"][4:-1].split(", ")))
    assert rgb(colours["--ink"]) == tuple(map(int, found["drawn"][4:-1].split(", ")))
    for text, behind in (("--ink", "--page"), ("--soft", "--page"), ("--ink", "--verdict"), ("--alert-ink", "--alert")):
        assert contrast(colours[text], colours[behind]) >= 4.5, (theme, text)
    for system, style in STYLES.items():
        assert contrast(getattr(style, theme), colours["--page"]) >= 3, (theme, system)
    assert contrast(colours["--real"], colours["--page"]) >= 3


def rgb(colour: str) -> tuple[int, ...]:
    """Of #rrggbb."""
    return tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))


def contrast(one: str, other: str) -> float:
    """WCAG's ratio."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    """WCAG's relative luminance."""
    linear = [c / 12.92 if (c := part / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for part in rgb(colour)]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_without_the_script_the_definitions_are_titles(browser: Any, report: Path) -> None:
    opened = browser.new_page(java_script_enabled=False)
    opened.goto(report.as_uri())
    assert opened.locator("th button[title]").count() > 20
    assert opened.locator("#tip").count() == 0
    opened.close()


def test_nothing_is_wider_than_a_narrow_window(page: Any) -> None:
    page.set_viewport_size({"width": 420, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
