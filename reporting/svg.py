"""matplotlib figures as elements of a page: coloured by its CSS variables, equal to the byte, referring to nothing."""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reporting.names import Style, styles
from textvae.control_characters import visible

INK, GRID, SOFT = "#010203", "#040506", "#070809"
"""Stand-ins that become the page's colours of text, grid and real text."""
RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "textvae",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.6,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
}


def panel(
    draw: Callable[[Axes], None],
    name: str,
    description: str,
    systems: Sequence[str],
    size: tuple[float, float] = (4.2, 2.75),
    left: float = 0.5,
) -> str:
    """An SVG element with what `draw` put on its axes, which are in the same place in all panels of a `size` (inches).

    `left` is the room for the labels of the vertical axis.

    `name` keeps the element's ids apart from those of the page's other plots; `description` is for screen readers.
    """
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=size)
        width, height = size
        draw(figure.add_axes((left / width, 0.47 / height, 1 - (left + 0.1) / width, 1 - 0.75 / height)))
        return element(figure, name, description, styles(systems))


def legend(systems: Sequence[str]) -> dict[str, str]:
    """A sample of each system's line and marker."""
    drawn = styles(systems)
    samples = {}
    for system, style in drawn.items():
        with matplotlib.rc_context(RC):
            figure = Figure(figsize=(0.42, 0.18))
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            axes.set(xlim=(-1, 1), ylim=(-1, 1))
            axes.plot([-0.9, 0.9], [0, 0], **line(style))
            axes.plot([0], [0], **dot(style))
            samples[system] = element(figure, f"key-{system}", "", drawn)
    return samples


def line(style: Style) -> dict[str, Any]:
    """matplotlib's arguments for a system's line."""
    return {"color": style.light, "linestyle": "--" if style.dashed else "-"}


def dot(style: Style) -> dict[str, Any]:
    """matplotlib's arguments for a system's marker."""
    return {
        "color": style.light,
        "marker": style.marker,
        "markersize": style.size,
        "markeredgewidth": 1.4 if style.marker == "x" else 0.6,
        "linestyle": "none",
        "clip_on": False,
        "zorder": 3,
    }


def element(figure: Figure, name: str, description: str, drawn: Mapping[str, Style]) -> str:
    """The figure as an `<svg>` element: colours as variables, ids prefixed, neither prologue nor metadata nor fonts.

    What a browser or a terminal would obey in a word of the text is shown instead.
    """
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # Text stays text (svg.fonttype) and the browser draws it with its own fonts: matplotlib's need not have it.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from", UserWarning)
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for needless in (r"<metadata>.*?</metadata>", r"<style.*?</style>", r" font-family: [^;\"]*;"):
        text = re.sub(needless, "", text, flags=re.DOTALL)
    width, height = (72 * inches for inches in figure.get_size_inches())
    role = f'role="img" aria-label="{html.escape(description)}"' if description else 'aria-hidden="true"'
    text = f'<svg viewBox="0 0 {width:g} {height:g}" {role}>' + text[text.index(">") + 1 :]
    text = (
        text.replace(' id="', f' id="{name}-').replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    )
    variables = {INK: "var(--ink)", GRID: "var(--grid)", SOFT: "var(--real)"} | {
        s.light: f"var(--s-{key})" for key, s in drawn.items()
    }
    for colour, variable in variables.items():
        text = text.replace(colour, variable)
    return visible(text.rstrip())
