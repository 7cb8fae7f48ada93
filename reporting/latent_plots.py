"""Figures of the codes: information per dimension, and the posterior means in the plane."""

from __future__ import annotations

import html

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reporting.artifacts import Experiment, Run
from reporting.names import styles, system_name
from reporting.plots import slug
from reporting.posteriors import Array, Posterior, posterior_of
from reporting.svg import INK, dot, line, panel

ACTIVE = 0.01
"""AU's threshold, on the variance of the posterior mean."""
LOWEST = 1e-5
"""The bottom of the logarithmic axes: what is smaller is drawn there."""
POINTS = 1000
"""Sentences drawn per system."""
SIDE, TOP = 200, 34
"""Of a picture of codes: its square, and the room for its title, in points."""


def dimensions(experiment: Experiment, dataset: str, codes: list[tuple[Run, Posterior]]) -> list[str]:
    """KL and variance of the mean of every dimension, sorted, a line per run."""
    if not codes:
        return []
    systems = experiment.settings.systems

    def draw(axes: Axes, values: list[tuple[str, Array]], title: str, threshold: float | None) -> None:
        axes.set_yscale("log")
        if threshold is not None:
            axes.axhline(threshold, color=INK, linewidth=1, linestyle=":")
            axes.annotate(
                "active above", (1, threshold), (-2, 3), textcoords="offset points", xycoords=("axes fraction", "data"),
                ha="right",
            )  # fmt: skip
        for system, values_D in values:
            ordered = np.maximum(np.sort(values_D)[::-1], LOWEST)
            axes.plot(np.arange(1, len(ordered) + 1), ordered, **line(styles(systems)[system]))
            axes.plot([1], ordered[:1], **dot(styles(systems)[system]))
        axes.set(title=title, xlabel="dimensions, sorted")
        axes.set_ylim(bottom=LOWEST)
        axes.minorticks_off()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))

    kl = [(run.system, code.kl_D()) for run, code in codes]
    variance = [(run.system, code.variance_D()) for run, code in codes]
    return [
        panel(
            lambda axes: draw(axes, kl, "KL per dimension (nats)", None),
            f"{slug(dataset)}-kl_per_dimension",
            "KL of each dimension of the code, sorted, for each system",
            systems,
            left=0.6,
        ),
        panel(
            lambda axes: draw(axes, variance, "Variance of the posterior mean", ACTIVE),
            f"{slug(dataset)}-active_units",
            "Variance of each dimension's posterior mean, sorted, for each system, with the threshold of active units",
            systems,
            left=0.6,
        ),
    ]


def planes(codes: list[tuple[Run, Posterior]]) -> list[str]:
    """Where each system's posterior means lie, all at one scale; the first seed of each system."""
    firsts: dict[str, tuple[Array, float]] = {}
    for run, code in codes:
        if run.system not in firsts:
            points, share = code.principal_components()
            firsts[run.system] = (points[:POINTS], share)
    reach = max([2.2, *(float(np.quantile(np.abs(points), 0.999)) for points, _ in firsts.values())])
    return [plane(system, points, share, 1.12 * reach) for system, (points, share) in firsts.items()]


def plane(system: str, points: Array, share: float, reach: float) -> str:
    """One picture as an SVG element: a dot per sentence, the prior as circles of one and two standard deviations."""
    unit, centre = SIDE / 2 / reach, (SIDE / 2, TOP + SIDE / 2)
    places = np.column_stack((centre[0] + unit * points[:, 0], centre[1] - unit * points[:, 1]))
    inside = np.abs(points).max(axis=1) <= reach
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in places[inside])
    circles = "".join(
        f'<circle cx="{centre[0]}" cy="{centre[1]}" r="{radius * unit:.2f}" fill="none" stroke="var(--ink)" '
        f'stroke-width="0.7" stroke-dasharray="2 2"/>'
        for radius in (1, 2)
    )
    name = html.escape(system_name(system))
    label = f"Posterior means of {name} on their first two principal components"
    return (
        f'<svg viewBox="0 0 {SIDE} {SIDE + TOP}" role="img" aria-label="{label}">'
        f'<text x="0" y="11" fill="var(--ink)" style="font-size: 11px; font-weight: bold">{name}</text>'
        f'<text x="0" y="25" fill="var(--ink)" style="font-size: 10px">{share:.0%} of the variance</text>'
        f'<rect x="1" y="{TOP + 1}" width="{SIDE - 2}" height="{SIDE - 2}" fill="none" stroke="var(--grid)"/>'
        f'<path d="{dots}" fill="none" stroke="var(--s-{html.escape(system)})" stroke-width="2.2" '
        f'stroke-linecap="round" stroke-opacity="0.55"/>{circles}</svg>'
    )


def codes_of(experiment: Experiment, dataset: str) -> list[tuple[Run, Posterior]]:
    """The codes of every run that has some."""
    found = ((run, posterior_of(run)) for run in experiment.runs_of(dataset))
    return [(run, code) for run, code in found if code is not None]
