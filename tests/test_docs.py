"""docs/ keeps up with the code: every system, setting and column is there, and the numbers printed are recomputed."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import test_mutual_information as bias
from pydantic import BaseModel
from tiny import SHORT, tiny_corpus, train_settings

from reporting import context, names, paper, results
from tests.fault_injection.kinds import COUNTS, KINDS
from textcorpus.sources import text_files
from textvae import evaluation, perplexities, von_mises_fisher
from textvae.config import (
    EvaluationSettings,
    ExamplesSettings,
    ModelSettings,
    NgramSettings,
    Params,
    SamplingSettings,
    TrainingSettings,
)
from textvae.objectives import alternatives, objective_class, objective_names
from textvae.training import Trainer

ROOT = Path(__file__).resolve().parent.parent
METRICS, SYSTEMS, LATENT = (ROOT / "docs" / name for name in ("metrics.md", "systems.md", "latent-space.md"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PARAMS = Params.load(ROOT / "params.yaml")


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next one of its level or a higher one."""
    level = heading.split(" ")[0]
    text = page.read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(heading)}$(.*?)(?=^#{{1,{len(level)}}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page.name} has no heading {heading!r}"
    return found[1]


def table_rows(text: str) -> dict[str, list[str]]:
    """The cells of every table row, by the first cell."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1:] for cells in lines}


def defaults(model: type[BaseModel]) -> dict[str, str]:
    """Each setting as the docs print it."""
    fields = {f"`{name}`": field.default for name, field in model.model_fields.items() if name != "name"}
    return {name: "none" if value is None else str(value) for name, value in fields.items()}


# --- systems and settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", sorted({*PARAMS.systems, *objective_names()}))
def test_every_system_has_a_section_and_a_row_in_the_overview(system: str) -> None:
    assert f"`{system}`" in table_rows(section(SYSTEMS, "## Overview"))
    assert len(section(SYSTEMS, f"### `{system}`")) > 100


@pytest.mark.parametrize("system", objective_names())
def test_every_setting_of_an_objective_is_there_with_its_default(system: str) -> None:
    """In its own section, or in that of the system whose class it extends."""
    cls = objective_class(system)
    documented: dict[str, list[str]] = {}
    for other in sorted(objective_names(), key=lambda name: len(objective_class(name).__mro__)):
        if issubclass(cls, objective_class(other)):
            documented |= table_rows(section(SYSTEMS, f"### `{other}`"))
    for name, default in defaults(cls.Config).items():
        assert documented.get(name, [None])[0] == default, f"{system}: the row of {name} should give {default}"


@pytest.mark.parametrize("system", PARAMS.systems)
def test_what_params_yaml_sets_apart_from_the_defaults_is_there(system: str) -> None:
    objective = dict(PARAMS.system(system)["objective"])
    fields = objective_class(objective.pop("name")).Config.model_fields
    text = section(SYSTEMS, f"### `{system}`")
    repeated = PARAMS.systems["vae_mine"]["objective"] if text.strip().startswith("`vae_mine` with") else {}
    for name, value in objective.items():
        shown = f"{name}: {str(value).lower() if isinstance(value, bool) else value}"
        assert value in (fields[name].default, repeated.get(name)) or shown in text, f"{system}: {shown}"


@pytest.mark.parametrize(
    ("page", "heading", "model"),
    [
        (SYSTEMS, "### The architecture", ModelSettings),
        (SYSTEMS, "### Training", TrainingSettings),
        (METRICS, "### Settings", EvaluationSettings),
        (METRICS, "### Settings", SamplingSettings),
        (METRICS, "### Settings", NgramSettings),
        (LATENT, "## The report's examples", ExamplesSettings),
    ],
)
def test_every_setting_of_the_steps_is_there_with_its_default(page: Path, heading: str, model: type[BaseModel]) -> None:
    text = section(page, heading)
    for name, default in defaults(model).items():
        assert f"{name} | {default} |" in text, f"{name} should be given as {default}"


# --- columns -----------------------------------------------------------------------------------------------------


def assert_documented(text: str, columns: Any) -> None:
    missing = [column for column in columns if f"`{column}`" not in text]
    assert not missing


def test_every_column_of_results_csv_is_explained() -> None:
    first_cells = " ".join(table_rows(section(METRICS, "## Every column of results.csv")))
    assert_documented(first_cells, results.COLUMNS)
    assert_documented(METRICS.read_text(encoding="utf-8"), (*evaluation.MEASURES, *perplexities.MEASURES))


def test_every_column_of_the_report_is_named() -> None:
    text = section(METRICS, "## The report")
    labels = [*names.TABLE_1, *(measure.label for measure in names.MEASURES.values()), *context.STEPS]
    assert [label for label in labels if label not in text] == []


def test_every_column_of_the_learning_curves_is_explained() -> None:
    """Those that the report knows, and those that a short training of every system writes."""
    first_cells = " ".join(table_rows(section(METRICS, "## Learning curves")))
    assert_documented(first_cells, results.CURVE_COLUMNS)
    corpus = tiny_corpus()
    for system in PARAMS.systems:
        first = alternatives(PARAMS.system(system)["objective"])[1][0]
        objective = {name: value for name, value in first.items() if name not in SHORT}
        settings = train_settings(objective["name"], objective=objective, epochs=2)
        curves = Trainer(settings, corpus.train, corpus.valid, corpus.size, seed=1).run().curves
        assert_documented(first_cells, {column for row in curves for column in row})


# --- links and names ---------------------------------------------------------------------------------------------


def anchor(heading: str) -> str:
    """GitHub's: lower case, punctuation dropped, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if fragment:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert fragment in [anchor(heading) for heading in headings], f"{page.name}: {target}"


def test_the_reader_that_own_corpus_shows_reads(tmp_path: Path) -> None:
    [code] = re.findall(
        r"```python\n(\"\"\"CoNLL.*?)```", (ROOT / "docs/own-corpus.md").read_text(encoding="utf-8"), re.DOTALL
    )
    made: dict[str, Any] = {}
    exec(code, made)
    path = tmp_path / "mine.conll"
    path.write_text("The\tDT\ncat\tNN\n\n\nIt\tPRP\nsits\tVB")
    assert list(made["READER"].lines(text_files(path)[0])) == ["The cat", "It sits"]


@pytest.mark.parametrize("page", [METRICS, SYSTEMS, LATENT], ids=lambda page: page.name)
def test_every_test_and_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    sources = [file.read_text() for file in ROOT.glob("tests/**/test_*.py")]
    tests = {name for source in sources for name in re.findall(r"def (test_\w+)", source)}
    assert set(re.findall(r"`(test_\w+)`", text)) <= tests
    folders = "components|textvae|textcorpus|reporting|tracking|tests|pipelines"
    files = set(re.findall(rf"`((?:{folders})/[\w/]+\.py)`", text))
    assert files
    assert [file for file in files if not (ROOT / file).is_file()] == []
    for file, functions in re.findall(r"`([\w/]+\.py)`:? ?\(?((?:`\w+`(?:, )?)+)\)?", text):
        source = (ROOT / file).read_text(encoding="utf-8")
        for function in re.findall(r"`(\w+)`", functions):
            assert re.search(rf"(def|class) {function}\b", source), f"{file} has no {function}"


# --- faults ------------------------------------------------------------------------------------------------------


def test_the_page_on_reliability_begins_with_the_readme_s_sentence_and_knows_every_kind_of_fault() -> None:
    page = (ROOT / "docs/reliability.md").read_text(encoding="utf-8")
    sentence = page.split("\n\n")[1].removesuffix(".")
    assert sentence in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    rows = table_rows(section(ROOT / "docs/reliability.md", "## How it was checked"))
    assert {name for cell in rows for name in re.findall("`([a-z-]+)`", cell)} == set(KINDS)
    for kind in ("kill", "full", "flipped", "pair", "whole"):
        assert rows[next(cell for cell in rows if f"`{kind}`" in cell)][1].startswith(str(COUNTS[kind]))


# --- numbers -----------------------------------------------------------------------------------------------------


def test_the_lengths_that_the_papers_perplexities_imply() -> None:
    documented = table_rows(section(METRICS, "## What does not add up in the paper's tables"))
    for system in paper.ALL:
        rows = [paper.TABLE_2[dataset, system] for dataset in paper.TABLE_1]
        assert documented[names.system_name(system)] == [f"{row['nll'] / math.log(row['ppl']):.2f}" for row in rows]


def sizes_of_bias(size: int, marginal: Any, kind: Any, xi: str) -> str:
    """`0.026 ↓, 38% ↓`: norm and direction at the PMI, share of the true gradient and direction away from it."""
    texts = []
    for table in (bias.SMALL_PMI, bias.SMALL_TABLE):
        found, truth = bias.gradient_bias(table, size, marginal, kind, xi), bias.true_gradient(table, kind)
        if found.norm() < 1e-9:
            texts.append("0")
            continue
        share = table is bias.SMALL_TABLE
        number = f"{found.norm() / truth.norm():.0%}" if share else f"{found.norm():.3f}"
        texts.append(f"{number} {'↑' if (found * table).sum() > 0 else '↓'}")
    return ", ".join(texts)


@pytest.mark.parametrize("marginal", bias.MARGINALS)
@pytest.mark.parametrize("kind", bias.KINDS)
def test_the_gradient_s_bias_at_four_pairs(marginal: Any, kind: Any) -> None:
    cells = [sizes_of_bias(4, marginal, kind, xi) for xi in ("true", "previous", "batch")]
    assert f"| `{marginal}` | {kind} | {' | '.join(cells)} |" in section(SYSTEMS, "## The bias of a batch's gradient")


@pytest.mark.parametrize("size", [2, 4, 6, 8])
def test_the_gradient_s_bias_falls_with_the_batch(size: int) -> None:
    cells = [sizes_of_bias(size, marginal, "reciprocal", "batch") for marginal in bias.MARGINALS]
    assert f"| {size} | {' | '.join(cells)} |" in section(SYSTEMS, "## The bias of a batch's gradient")


@pytest.mark.parametrize("kappa", [5, 10, 15, 23, 30, 50, 100, 500])
def test_the_kl_that_a_kappa_gives(kappa: int) -> None:
    cells = [f"{von_mises_fisher.kl(dimensions, kappa):.2f}" for dimensions in (16, 32, 64, 128)]
    assert f"| {kappa} | {' | '.join(cells)} |" in section(SYSTEMS, "### `vmf_vae`")


def test_the_infovae_s_kernel_is_nearly_flat() -> None:
    text = section(SYSTEMS, "### `infovae`")
    wide, narrow = (1 + 4 / 64**2) ** -32, (1 + 2 / 64**2) ** -32
    mmd = 1 + wide - 2 * narrow
    for value in (f"{math.exp(-128 / 4096):.3f}", f"{mmd:.5f}", f"{9 * mmd:.3f} nats"):
        assert value in text
