"""The notebook runs from its first cell to its last, on a tiny model in the place of the one that it opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from tiny import Corpus, write_corpus
from tiny_model import informative, written

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks/latent_space.ipynb"
CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


def test_every_cell_runs(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    matplotlib.use("Agg")
    for folder in ("notebooks", "corpora/sotu", "runs/sotu/vae_bow/1"):
        (tmp_path / folder).mkdir(parents=True)
    write_corpus(tmp_path / "corpora/sotu/corpus", corpus)
    written(tmp_path / "runs/sotu/vae_bow/1/model", informative("vae", corpus), corpus, system="vae_bow")
    monkeypatch.chdir(tmp_path / "notebooks")
    names: dict[str, Any] = {}
    for number, cell in enumerate(CELLS):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
            shown = capsys.readouterr().out
            assert bool(shown) == any(output["output_type"] == "stream" for output in cell["outputs"]), number
    assert names["model"].name == "tiny-vae_bow-3"
    assert names["mu"].shape == (len(corpus.test), 3)
    matplotlib.pyplot.close("all")


def test_its_outputs_are_those_of_one_run_without_an_error_and_small() -> None:
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert all(cell["outputs"] for cell in code)
    assert not [output for cell in code for output in cell["outputs"] if output["output_type"] == "error"]
    assert NOTEBOOK.stat().st_size < 150_000
    links = [part.split(")")[0] for cell in CELLS for part in "".join(cell["source"]).split("](")[1:]]
    assert links
    assert [link for link in links if not (NOTEBOOK.parent / link).exists()] == []
