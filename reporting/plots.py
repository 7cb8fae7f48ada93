"""The report's figures: learning curves, and where each system's NLL comes from."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reporting.artifacts import Experiment, Run
from reporting.ceilings import NEAR
from reporting.names import Style, styles
from reporting.svg import GRID, INK, dot, line, panel


@dataclass(frozen=True)
class Curve:
    """One panel of learning curves: a key of curves.jsonl, and a second one to draw beside it as a bound.

    `capped`: no value can be above the log of the number of validation sentences, which is drawn where one is near it.
    `late`: the frame fits the last three quarters of the epochs, so that the steep start does not flatten the rest.
    """

    key: str
    title: str
    bound: str | None = None
    late: bool = False
    capped: bool = False


CURVES = (
    Curve("valid_nll", "NLL (nats per sentence)", late=True),
    Curve("valid_kl", "KL (nats per sentence)"),
    Curve("valid_mi", "MI (nats)", capped=True),
    Curve("valid_au", "Active units"),
    Curve("beta", "KL weight β"),
    Curve("mi_estimate", "Î in training (nats); dotted: log batch size", bound="log_batch_size"),
)


def learning_curves(experiment: Experiment, dataset: str) -> list[str]:
    """One panel per measure, all systems and seeds in each; the marker sits at the epoch whose weights were kept."""
    drawn = styles(experiment.settings.systems)
    sentences = experiment.corpora.get(dataset, {}).get("sentences", {}).get("valid")
    panels = []
    for curve in CURVES:
        runs = [run for run in experiment.runs_of(dataset) if series(run, curve.key)[0]]
        if runs:
            panels.append(
                panel(
                    lambda axes, curve=curve, runs=runs: draw_curves(  # type: ignore[misc]
                        axes, curve, runs, drawn, sentences if curve.capped else None
                    ),
                    f"{slug(dataset)}-{curve.key}",
                    f"{curve.title} by epoch, for each system",
                    experiment.settings.systems,
                )
            )
    return panels


def series(run: Run, key: str) -> tuple[list[float], list[float]]:
    """Epochs and values of one curve, where it is a finite number."""
    points = [(r["epoch"], r[key]) for r in run.curves if r.get(key) is not None and math.isfinite(r[key])]
    return [float(x) for x, _ in points], [float(y) for _, y in points]


def draw_curves(
    axes: Axes, curve: Curve, runs: Sequence[Run], drawn: dict[str, Style], sentences: int | None = None
) -> None:
    """Every run's curve; the limits follow the runs that did not diverge, lest the others be flattened. Where one is
    near the log of the number of `sentences`, its ceiling, that is a dotted line."""
    calm = [run for run in runs if run.status != "failed"] or runs
    first = max(run.curves[-1]["epoch"] for run in calm) / 4 if curve.late else 0
    values = [
        value
        for run in calm
        for key in (curve.key, curve.bound)
        if key
        for epoch, value in zip(*series(run, key), strict=True)
        if epoch > first
    ]
    title = curve.title
    if sentences is not None and max(values) >= NEAR * math.log(sentences):
        values.append(math.log(sentences))
        axes.axhline(values[-1], color=INK, linewidth=1, linestyle=":")
        title += f"; dotted: at most log {sentences:,}"
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    for run in runs:
        draw_run(axes, run, drawn[run.system], curve.key)
        if curve.bound:
            axes.plot(*series(run, curve.bound), color=INK, linewidth=1, linestyle=":")
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_run(axes: Axes, run: Run, style: Style, key: str) -> None:
    """One run's curve; a marker at the epoch that was kept, a cross at the end of a run that diverged."""
    x, y = series(run, key)
    axes.plot(x, y, **line(style))
    selected = ((run.config or {}).get("selected") or {}).get("epoch")
    low, high = axes.get_ylim()
    if run.status == "failed":
        axes.plot(x[-1:], [min(max(y[-1], low), high)], **{**dot(style), "marker": "X", "markersize": 9})
    elif selected in x and low <= y[x.index(selected)] <= high:
        axes.plot([selected], [y[x.index(selected)]], **dot(style))


@dataclass(frozen=True)
class Point:
    """A run on the test sentences, in nats per sentence; `kl` is None for a model without a code."""

    system: str
    kl: float | None
    nll: float

    @property
    def reconstruction(self) -> float:
        """-E log p(x|z): the NLL without the KL."""
        return self.nll - (self.kl or 0.0)


def kl_against_reconstruction(experiment: Experiment, dataset: str) -> str | None:
    """What each run pays as KL and what it gains in reconstruction, with lines of equal NLL; None without numbers."""
    points = [
        Point(run.system, run.metrics.get("kl"), run.metrics["nll"])
        for run in experiment.runs_of(dataset)
        if run.metrics and run.metrics.get("nll") is not None
    ]
    if not points:
        return None
    systems = experiment.settings.systems
    description = "NLL minus KL against KL of every run on the test sentences"
    return panel(
        lambda axes: draw_scatter(axes, points, styles(systems)),
        f"{slug(dataset)}-scatter",
        description,
        systems,
        size=(5.8, 3.5),
    )


def draw_scatter(axes: Axes, points: Sequence[Point], drawn: dict[str, Style]) -> None:
    """The points over a family of lines on which NLL = KL + reconstruction is the same."""
    right = max(1.08 * max(point.kl or 0.0 for point in points), 1.0)
    low, high = min(p.reconstruction for p in points), max(p.reconstruction for p in points)
    margin = max(0.1 * (high - low), 0.25 * right - (high - low) / 2)  # no flatter than 1 to 2, or the lines crowd
    axes.set(xlim=(-0.02 * right, right), ylim=(low - margin, high + margin))
    step = axes.get_yticks()[1] - axes.get_yticks()[0]
    for level in np.arange(axes.get_yticks()[0], high + margin + right + step, step):
        axes.plot([0, right], [level, level - right], color=GRID, linewidth=0.8, zorder=1)
    for point in points:
        axes.plot([point.kl or 0.0], [point.reconstruction], **dot(drawn[point.system]))
        if point.kl is None:
            axes.plot([0, right], [point.nll, point.nll - right], **line(drawn[point.system]) | {"linewidth": 1})
    axes.grid(visible=False)
    axes.set_title("NLL − KL against KL (test, nats per sentence)")
    axes.set_xlabel("KL")


def slug(name: str) -> str:
    """`name` as part of an SVG id."""
    return re.sub(r"[^A-Za-z0-9]+", "-", name)
