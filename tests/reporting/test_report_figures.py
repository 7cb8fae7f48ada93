"""What the report draws of samples and posteriors: the numbers against plain computations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_files import changed
from matplotlib.figure import Figure
from report_artifacts import (
    SAMPLES,
    TEST,
    TRAINING,
    VOCABULARY,
    codes,
    sentences,
    write_full_experiment,
    write_posterior,
)
from report_reading import make, markdown_rows

from reporting.artifacts import collect
from reporting.latent_plots import SIDE, TOP, plane
from reporting.names import styles
from reporting.posteriors import Posterior
from reporting.svg import panel
from reporting.text_plots import binned, draw_lengths, draw_shares, draw_words
from reporting.texts import Sentences, TextProfiles, profile, text_profiles
from textvae.errors import DataError
from textvae.files import read_json, write_json


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of three systems with two seeds, made once."""
    folder = tmp_path_factory.mktemp("full")
    settings = write_full_experiment(folder, seeds=(1, 2))
    return (make(folder, settings) / "report.html").read_text(encoding="utf-8")


def as_sentences(texts: list[str]) -> Sentences:
    """Without a file."""
    ids = sentences(texts)
    lengths = np.array([len(one) for one in ids.to_pylist()], np.int64)
    return Sentences(np.array(ids.flatten().to_pylist(), np.int64), lengths)


def distinct(texts: list[str], order: int) -> float:
    """distinct-n by sets."""
    grams = [tuple(w[i : i + order]) for w in map(str.split, texts) for i in range(len(w) - order + 1)]
    return len(set(grams)) / len(grams)


# --- text --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [*SAMPLES.values(), TEST])
def test_a_texts_profile_is_what_counting_gives(texts: list[str]) -> None:
    training = np.unique(as_sentences(TRAINING).fingerprints())
    found = profile(as_sentences(texts), len(TEST), len(VOCABULARY), training)
    words = [word for text in texts for word in text.split()]
    assert found.sentences == len(texts)
    assert found.mean_length == pytest.approx(len(words) / len(texts))
    assert found.words == len(set(words))
    assert found.unique == len(set(texts)) / len(texts)
    first = texts[: len(TEST)]
    assert found.unique_of_first == len(set(first)) / len(first)
    assert found.in_training == sum(text in TRAINING for text in texts) / len(texts)
    assert found.distinct == pytest.approx([distinct(first, order) for order in (1, 2, 3)])
    for length, share in enumerate(found.length_shares):
        assert share == pytest.approx(sum(len(text.split()) == length for text in texts) / len(texts))
    the = VOCABULARY.encode(["the"])[0]
    assert found.word_shares[the] == pytest.approx(words.count("the") / len(words))


def test_sentences_are_told_apart_by_their_words_and_order() -> None:
    rng = np.random.default_rng(0)
    texts = {" ".join(rng.choice(["the", "cat", "dog"], size=rng.integers(0, 6))) for _ in range(600)}
    assert len(texts) > 150
    prints = as_sentences(sorted(texts)).fingerprints()
    assert len(set(prints.tolist())) == len(texts)
    assert (
        as_sentences(["cat", "the dog", "cat"]).fingerprints()[[0, 0]].tolist()
        == as_sentences(["cat", "the dog", "cat"]).fingerprints()[[0, 2]].tolist()
    )


def test_the_generated_text_has_a_table_with_real_text_below(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    reports = make(tmp_path, settings)
    rows = markdown_rows(reports, "The generated text")
    assert [cells[1] for cells in rows] == ["LSTM-LM", "VAE-0.5", "VAE-MINE", "*real text*"]
    assert rows[1][2:6] == ["5", "2.80", "4", "0.400"]  # "the cat ." four times and "dog .": 14 words, 4 different
    assert rows[3][2:5] == ["4", "4.00", "6"]


def test_samples_of_another_vocabulary_are_refused(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    path = tmp_path / "corpora/sotu/corpus/vocabulary.json"
    write_json(path, {**read_json(path), "words": ["the", "cat"]})
    changed(path.with_name("corpus.json"))
    with pytest.raises(DataError, match=r"has words that .* does not have: run sotu, lstm_lm, seed 1 again"):
        make(tmp_path, settings)


def test_a_run_without_samples_is_left_out_of_the_texts_and_nothing_else(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    before = (make(tmp_path, settings) / "results.csv").read_bytes()
    (tmp_path / "runs/sotu/vae_05/1/samples.parquet").unlink()
    reports = make(tmp_path, settings, "again")
    assert [cells[1] for cells in markdown_rows(reports, "The generated text")][:2] == ["LSTM-LM", "VAE-MINE"]
    assert (reports / "results.csv").read_bytes() == before


def test_damaged_samples_are_named(tmp_path: Path) -> None:
    settings = write_full_experiment(tmp_path)
    path = tmp_path / "runs/sotu/vae_05/1/samples.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match=r"samples\.parquet is damaged: .*run sample again"):
        make(tmp_path, settings)


# --- codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("column", "value"), [("mu", np.nan), ("mu", np.inf), ("log_var", np.inf), ("log_var", 1e30)])
def test_codes_that_are_not_finite_are_refused(tmp_path: Path, column: str, value: float) -> None:
    columns = dict(zip(("mu", "log_var"), codes(0), strict=True))
    columns[column][3, 1] = value
    write_posterior(tmp_path / "posterior.parquet", columns["mu"], columns["log_var"])
    with pytest.raises(DataError, match="codes that are not finite"):
        Posterior.read(tmp_path / "posterior.parquet")


def test_a_posteriors_numbers_are_those_of_the_formulas(tmp_path: Path) -> None:
    mu_ND, log_var_ND = codes(3)
    write_posterior(tmp_path / "posterior.parquet", mu_ND, log_var_ND)
    mu_ND, log_var_ND = mu_ND.astype(float), log_var_ND.astype(float)
    found = Posterior.read(tmp_path / "posterior.parquet")
    kl = [
        np.mean([0.5 * (m * m + np.exp(v) - 1 - v) for m, v in zip(mu_ND[:, d], log_var_ND[:, d], strict=True)])
        for d in range(4)
    ]
    assert found.kl_D() == pytest.approx(kl)
    assert found.variance_D() == pytest.approx(np.cov(mu_ND.T).diagonal())
    points, share = found.principal_components()
    # against the eigenvectors of the covariance
    values, vectors = np.linalg.eigh(np.cov(mu_ND.T))
    assert share == pytest.approx(values[-2:].sum() / values.sum())
    for column, vector in enumerate((vectors[:, -1], vectors[:, -2])):
        projected = mu_ND @ vector
        projected *= np.sign(vector[np.abs(vector).argmax()])
        assert points[:, column] == pytest.approx(projected, abs=1e-5)


def test_a_posterior_that_is_no_gaussian_is_named_where_kls_are_shown_by_dimension(tmp_path: Path, page: str) -> None:
    assert "add up to its KL; AU" in page
    settings = write_full_experiment(tmp_path)
    config = tmp_path / "runs/sotu/vae_05/1/model/config.json"
    run = read_json(config)["settings"]
    changed(config, settings={**run, "model": {**run["model"], "posterior": "vmf", "kappa": 9.0}})
    found = (make(tmp_path, settings) / "report.html").read_text(encoding="utf-8")
    assert "add up to its KL (but for VAE-0.5, whose posteriors are no Gaussians: theirs are" in found


def test_the_plane_has_a_dot_for_every_sentence_around_the_priors_mean() -> None:
    svg = plane("vae_mine", np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), 0.75, 4.0)
    dots = [(float(x), float(y)) for x, y in re.findall(r"M(\S+) (\S+?)h0", svg)]
    middle, unit = (SIDE / 2, TOP + SIDE / 2), SIDE / 2 / 4.0
    assert dots == [middle, (middle[0] + unit, middle[1]), (middle[0], middle[1] - 2 * unit)]
    assert f'r="{unit:.2f}"' in svg
    assert f'r="{2 * unit:.2f}"' in svg
    assert "75% of the variance" in svg


def test_every_system_with_a_code_has_its_plane_and_its_lines(page: str) -> None:
    assert page.count("of the variance</text>") == 2  # the first seed of the two VAEs
    for name in ("kl_per_dimension", "active_units"):
        svg = next(part for part in page.split("<svg")[1:] if f'id="sotu-{name}-figure_1"' in part)
        for system, lines in (("vae_05", 2), ("vae_mine", 2), ("lstm_lm", 0)):
            paths = re.findall(rf'<path d="([^"]*)"[^>]*style="fill: none; stroke[^"]*var\(--s-{system}\)', svg)
            assert len(paths) == lines, (name, system)
            assert all(path.count("L") == 3 for path in paths)  # four dimensions


# --- the other figures -------------------------------------------------------------------------------------------


def test_the_samples_perplexities_are_drawn_around_real_text(page: str) -> None:
    svg = next(part for part in page.split("<svg")[1:] if 'id="sotu-perplexities-figure_1"' in part)
    markers = re.findall(r'<use xlink:href[^>]* x="(\S+)" y="(\S+)"[^>]*var\(--s-(\w+)\)', svg)
    assert len(markers) == 6
    # FPPL 300, 290, 280 from left to right, RPPL 340, 341, 342 from top to bottom (y goes down in an SVG)
    places = {system: (float(x), float(y)) for x, y, system in markers}
    (lm_x, lm_y), (vae_x, vae_y), (mine_x, mine_y) = (places[system] for system in SAMPLES)
    assert mine_x < vae_x < lm_x
    assert mine_y < vae_y < lm_y
    assert vae_x - mine_x == pytest.approx(lm_x - vae_x, rel=1e-3)
    assert "real text" in svg
    assert len(re.findall(r"var\(--real\)", svg)) == 2


@pytest.fixture
def texts(tmp_path: Path) -> TextProfiles:
    """Of the three systems."""
    settings = write_full_experiment(tmp_path)
    found = text_profiles(collect([tmp_path / "runs"], [tmp_path / "corpora"], settings), "sotu")
    assert found is not None
    return found


def drawn(draw: Any, texts: TextProfiles) -> dict[str, tuple[Any, Any]]:
    """x and y of each system's line or markers."""
    axes = Figure().add_subplot()
    draw(axes, texts, styles(list(SAMPLES)))
    return {system: (shown.get_xdata(), shown.get_ydata()) for system, shown in zip(SAMPLES, axes.lines, strict=True)}


def test_lengths_words_and_repetitions_are_drawn_where_they_are(texts: TextProfiles) -> None:
    x, y = drawn(draw_lengths, texts)["vae_05"]
    assert dict(zip(x.tolist(), y.tolist(), strict=True)) == pytest.approx({0: 0, 1: 0, 2: 0.2, 3: 0.8, 4: 0, 5: 0})
    x, y = drawn(draw_words, texts)["vae_05"]
    shares = {texts.words[i]: share for i, share in zip(texts.top_words(15), x, strict=True)}
    assert [texts.words[i] for i in texts.top_words(2)] == ["the", "."]
    assert (shares["the"], shares["cat"], shares["."]) == pytest.approx((4 / 14, 4 / 14, 5 / 14))
    _, y = drawn(draw_shares, texts)["vae_05"]
    assert y.tolist() == pytest.approx([1 / 4, 3 / 12, 2 / 8, 1 / 4])  # of the first four: "the cat ." each


@pytest.mark.filterwarnings("error")
def test_words_of_any_script_are_drawn_without_a_word_on_fonts() -> None:
    """The browser draws them: whether matplotlib's font has a character is nobody's concern."""
    words = ["我们", "学校で", "ฉันชอบ", "مرحبا", "हिन्दी", "😀"]
    drawn = panel(lambda axes: axes.set_yticks(range(len(words)), words) and None, "x", "words", [])
    assert all(f">{word}</text>" in drawn for word in words)


def test_long_texts_are_drawn_in_bins() -> None:
    shares = np.arange(1, 8) / 28
    assert binned(shares, 3, 3) == pytest.approx([6 / 28, 15 / 28, 7 / 28])
    assert binned(shares, 3, 2) == pytest.approx([6 / 28, 15 / 28])


def test_texts_and_times_are_drawn(page: str) -> None:
    for name in ("lengths", "words", "repetitions", "times"):
        assert f'id="sotu-{name}-figure_1"' in page
    svg = next(part for part in page.split("<svg")[1:] if 'id="sotu-words-figure_1"' in part)
    shown = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert all(word in shown for word in ("the", "cat", "dog", "sat"))
    times = next(part for part in page.split("<svg")[1:] if 'id="sotu-times-figure_1"' in part)
    assert "5:33" in times  # four steps of 83.25 seconds each
