"""What each system costs: the time of its steps, of the CPU, and memory."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator

from reporting.artifacts import Experiment, Run
from reporting.context import STEPS
from reporting.names import styles, system_name
from reporting.plots import slug
from reporting.svg import panel
from textvae.progress import duration

OPACITIES = (1.0, 0.6, 0.38, 0.22, 0.12)
"""Of a bar's parts, in the order of the steps."""

TICKS = (1, 2, 5, 10, 20, 30, *(60 * m for m in (1, 2, 5, 10, 20, 30)), *(3600 * 2**n for n in range(20)))
"""Seconds between two marks of the axis."""


def mean_seconds(runs: Sequence[Run], step: str, key: str) -> float:
    """Of a step over the runs that tell it; 0 where none does."""
    return fmean([run.timings[step][key] for run in runs if step in run.timings] or [0.0])


def step_times(experiment: Experiment, dataset: str) -> str | None:
    """A bar per system, its steps side by side: mean wall times over the seeds; None without times."""
    runs_of = {s: [r for r in experiment.runs_of(dataset, s) if r.timings] for s in experiment.settings.systems}
    runs_of = {system: runs for system, runs in runs_of.items() if runs}
    if not runs_of:
        return None
    systems = experiment.settings.systems

    def draw(axes: Axes) -> None:
        for place, (system, runs) in enumerate(runs_of.items()):
            start = 0.0
            for step, opacity in zip(STEPS, OPACITIES, strict=True):
                seconds = mean_seconds(runs, step, "wall_s")
                axes.barh(
                    [place], [seconds], left=start, color=styles(systems)[system].light, alpha=opacity, height=0.6
                )
                start += seconds
            cpu = sum(mean_seconds(runs, step, "cpu_s") for step in STEPS)
            peak = max(record["peak_rss_mb"] for run in runs for record in run.timings.values())
            text = f"{duration(start)} ({duration(cpu)} of CPU, {peak:,.0f} MB)"
            axes.annotate(text, (start, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(runs_of)), [system_name(system) for system in runs_of])
        axes.set(ylim=(len(runs_of) - 0.4, -0.6), title="Time of a run")
        axes.set_xlim(0, 1.6 * axes.dataLim.x1)
        axes.grid(visible=False, axis="y")
        axes.xaxis.set_major_locator(MultipleLocator(next(s for s in TICKS if 5 * s >= axes.get_xlim()[1])))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: duration(seconds)))

    height = 0.95 + 0.3 * len(runs_of)
    return panel(draw, f"{slug(dataset)}-times", "Time per step and system", systems, size=(5.8, height), left=1.15)
