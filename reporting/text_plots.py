"""Figures of the generated text: fluency against diversity, lengths, frequent words, repetitions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reporting.artifacts import Experiment
from reporting.names import Style, styles
from reporting.plots import slug
from reporting.svg import SOFT, dot, line, panel
from reporting.texts import NGRAMS, TextProfile, TextProfiles

TOP_WORDS = 15
LENGTH_BINS = 40
SHARES = ("unique\nsentences", *(f"distinct-{order}" for order in NGRAMS))


def fppl_against_rppl(experiment: Experiment, dataset: str) -> str | None:
    """Every run's FPPL and RPPL, with real text as the corner to reach; None without numbers."""
    points = [
        (run.system, run.ngram["fppl"], run.ngram["rppl"], (run.ngram["real_text"] or {}).get("fppl"))
        for run in experiment.runs_of(dataset)
        if run.ngram and run.ngram.get("fppl") and run.ngram.get("rppl")
    ]
    if not points:
        return None
    systems = experiment.settings.systems

    def draw(axes: Axes) -> None:
        values = np.array([point[1:3] for point in points])
        real = next((point[3] for point in points if point[3]), None)
        everything = values.ravel().tolist() + ([real] if real else [])
        if max(everything) > 4 * min(everything):
            axes.set(xscale="log", yscale="log")
            axes.set(xlim=(min(everything) / 1.3, max(everything) * 1.3))
            axes.set(ylim=(min([*values[:, 1], real or np.inf]) / 1.3, max(values[:, 1]) * 1.3))
            plain_ticks(axes)
        else:
            margin = 0.08 * (max(everything) - min(everything)) or 1.0
            axes.set_xlim(min([*values[:, 0], real or np.inf]) - margin, max(*values[:, 0], real or 0) + margin)
            axes.set_ylim(min([*values[:, 1], real or np.inf]) - margin, max(*values[:, 1], real or 0) + margin)
        if real:
            axes.axvline(real, color=SOFT, linewidth=1.2, zorder=1.5)
            axes.axhline(real, color=SOFT, linewidth=1.2, zorder=1.5)
            axes.annotate("real text", (real, real), (6, 5), textcoords="offset points")
        for system, fppl, rppl, _ in points:
            axes.plot([fppl], [rppl], **dot(styles(systems)[system]))
        axes.set_title("RPPL against FPPL")
        axes.set_xlabel("FPPL")

    return panel(draw, f"{slug(dataset)}-perplexities", "RPPL against FPPL of every run", systems, size=(5.8, 3.5))


def plain_ticks(axes: Axes) -> None:
    """1, 2, 5, 10, ... on logarithmic axes, written out."""
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
        shown = [tick for tick in ticks if low <= tick <= high]
        axis.set_major_locator(MaxNLocator())  # drops the logarithmic one, whose minor ticks would stay
        axis.set_minor_locator(MaxNLocator(1))
        axis.set_ticks(shown, [f"{tick:g}" for tick in shown])
        axis.set_ticks([], minor=True)


def text_figures(experiment: Experiment, dataset: str, texts: TextProfiles) -> list[str]:
    """Lengths, frequent words and repetitions; means over the seeds."""
    systems = experiment.settings.systems
    panels: tuple[tuple[str, str, Callable[..., None]], ...] = (
        ("lengths", "Lengths of generated and of real sentences", draw_lengths),
        ("words", "Shares of the most frequent words of real text in generated text", draw_words),
        ("repetitions", "Shares of unique sentences and n-grams", draw_shares),
    )
    return [
        panel(
            lambda axes, draw=draw: draw(axes, texts, styles(systems)),  # type: ignore[misc]
            f"{slug(dataset)}-{name}",
            description,
            systems,
            size=(4.2, 3.4),
            left=0.75 if name == "words" else 0.5,
        )
        for name, description, draw in panels
    ]


def over_seeds(
    texts: TextProfiles, system: str, values: Callable[[TextProfile], Sequence[float] | npt.NDArray[np.float64]]
) -> npt.NDArray[np.float64] | None:
    """The mean over a system's seeds; shorter rows are filled up with zeros. None for a system without text."""
    rows = [np.asarray(values(text), dtype=float) for (name, _), text in texts.generated.items() if name == system]
    if not rows:
        return None
    length = max(map(len, rows))
    return np.asarray(np.mean([np.pad(row, (0, length - len(row))) for row in rows], axis=0))


def binned(shares: npt.NDArray[np.float64], width: int, bins: int) -> npt.NDArray[np.float64]:
    """`shares` added up in bins of `width` lengths; what is longer than all bins is in none."""
    cut = shares[: width * bins]
    table = np.pad(cut, (0, width * bins - len(cut))).reshape(bins, width)
    return np.asarray(table.sum(axis=1))


def draw_lengths(axes: Axes, texts: TextProfiles, drawn: dict[str, Style]) -> None:
    """The share of sentences by length: real text as an area, a line for each system."""
    shares = {system: over_seeds(texts, system, lambda text: text.length_shares) for system in drawn}
    known = [texts.real.length_shares, *(found for found in shares.values() if found is not None)]
    longest = max(int(np.searchsorted(np.cumsum(found), 0.995)) for found in known) + 1
    width = -(-longest // LENGTH_BINS)
    bins = -(-longest // width)
    middles = np.arange(bins) * width + (width - 1) / 2
    axes.fill_between(middles, binned(texts.real.length_shares, width, bins), color=SOFT, alpha=0.35, linewidth=0)
    for system, found in shares.items():
        if found is not None:
            axes.plot(middles, binned(found, width, bins), **line(drawn[system]))
    axes.set(xlim=(0, middles[-1]), title="Sentence lengths (area: real text)", xlabel="words")
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_words(axes: Axes, texts: TextProfiles, drawn: dict[str, Style]) -> None:
    """The real text's most frequent words, the most frequent on top: bars for real text, a marker for each system."""
    top = texts.top_words(TOP_WORDS)
    rows = np.arange(len(top))
    axes.barh(rows, texts.real.word_shares[top], color=SOFT, alpha=0.35, height=0.72)
    for system, style in drawn.items():
        found = over_seeds(texts, system, lambda text: text.word_shares[top])
        if found is not None:
            axes.plot(found, rows, **dot(style) | {"markersize": 0.75 * style.size})
    axes.set_yticks(rows, [texts.words[i] for i in top], parse_math=False)  # a word may be `$x_1$`
    axes.set(ylim=(len(top) - 0.4, -0.6), title="Most frequent words (bars: real text)", xlabel="share of the words")
    axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))


def shares_of(text: TextProfile) -> list[float]:
    """The unique-sentence rate and distinct-n; no n-grams at all count as none distinct."""
    return [text.unique_of_first, *(share or 0.0 for share in text.distinct)]


def draw_shares(axes: Axes, texts: TextProfiles, drawn: dict[str, Style]) -> None:
    """How much of the text does not repeat itself: bars for real text, a marker for each system, side by side."""
    columns = np.arange(len(SHARES))
    axes.bar(columns, shares_of(texts.real), color=SOFT, alpha=0.35, width=0.8)
    present = [system for system in drawn if over_seeds(texts, system, shares_of) is not None]
    for place, system in enumerate(present):
        offset = 0.6 * ((place + 0.5) / len(present) - 0.5)
        found = over_seeds(texts, system, shares_of)
        axes.plot(columns + offset, found, **dot(drawn[system]) | {"markersize": 0.75 * drawn[system].size})  # type: ignore[arg-type]
    axes.set_xticks(columns, SHARES)
    axes.set(ylim=(0, 1.03), title="Not repeated (bars: real text)")
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
