"""The one table that a run of the benchmark ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Sections = Mapping[str, Mapping[str, Any]]
"""What was found by `now NAME` or `baseline NAME`: `result` or `error`."""
HEAD = ("row", "baseline", "eager", "now", "ratio", "target", "reached")
TARGETED = ("vae_05", "vae_mine")
CHECKS = {
    "nll_on_cpu_and_gpu": "NLL on CPU and GPU",
    "captured_against_eager": "captured against eager",
    "same_seed": "the same seed",
    "stop_and_resume": "SIGTERM and resume",
    "divergence": "divergence",
}
CHECK_TARGETS = {"nll_on_cpu_and_gpu": "1e-4 nats a sentence", "divergence": "step and term"}
SAME_BYTES = "the same bytes"


def rows(sections: Sections) -> list[dict[str, Any]]:
    """The checks, then the issue's targets, then what else was measured. Of what failed or did not run, None."""
    found = [check_row(sections, name) for name in CHECKS]
    found += [rate_row(sections, f"{system}, batch 32", f"steps {system}", 3.0) for system in TARGETED]
    found.append(rate_row(sections, "lagging, an aggressive step", "aggressive", 3.0))
    together, before = (value(sections, name, "tokens_s") for name in ("now side_by_side", "baseline in_processes"))
    found.append(row("seven systems side by side, tokens/s", before, None, together, 7.0))
    for section, label, seconds in (("samples", "100,000 samples, s", 4.0), ("evaluation", "evaluation, s", 6.0)):
        now, before = (value(sections, f"{which} {section}", "seconds") for which in ("now", "baseline"))
        found.append(least_row(label, before, now, seconds))
    before, now = largest_memory(sections, "baseline", "eager"), largest_memory(sections, "now", "captured")
    found.append(least_row("GPU memory a run, GB", before, now, 1.0))
    others = ("lstm_lm", "vae_bow", "infovae", "cyclical", "lagging")
    found += [rate_row(sections, f"{system}, batch 32", f"steps {system}") for system in others]
    found.append(row("many vae_05 side by side, tokens/s", None, None, value(sections, "now many", "tokens_s")))
    for system in TARGETED:
        exact, fast = (value(sections, f"now precision {system}", one, "tokens_s") for one in ("float32", "tf32"))
        found.append(row(f"{system}, tf32 against float32, tokens/s", exact, None, fast))
        for key, label in (("kernels_step", "kernels a step"), ("gpu_ms_step", "GPU busy, ms a step")):
            eager, now = (value(sections, f"now profile {system}", way, key) for way in ("eager", "captured"))
            found.append(row(f"{system}, {label}", None, eager, now))
    return found


def value(sections: Sections, section: str, *keys: str) -> Any:
    """A number of a section's result, None where there is none."""
    found: Any = sections.get(section, {}).get("result")
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def row(
    label: str, baseline: float | None, eager: float | None, now: float | None, times: float | None = None
) -> dict[str, Any]:
    """Rates: how many times the baseline's, or where there is none the eager path's; `times` is the target."""
    before = baseline if baseline is not None else eager
    ratio = None if before is None or now is None or not before else now / before
    # A target is set against the baseline, not against today's eager path.
    reached = None if times is None or ratio is None or baseline is None else ratio >= times
    target = None if times is None else f"{times:g}x"
    return dict(zip(HEAD, (label, baseline, eager, now, ratio, target, reached), strict=True))


def rate_row(sections: Sections, label: str, section: str, times: float | None = None) -> dict[str, Any]:
    """Target tokens a second; the baseline's is its eager path, the only one it has."""
    baseline = value(sections, f"baseline {section}", "eager", "tokens_s")
    before, now = (value(sections, f"now {section}", way, "tokens_s") for way in ("eager", "captured"))
    return row(f"{label}, tokens/s", baseline, before, now, times)


def least_row(label: str, baseline: float | None, now: float | None, most: float) -> dict[str, Any]:
    """What is to be at most `most`; the ratio says how many times less than the baseline."""
    ratio = None if baseline is None or not now else baseline / now
    reached = None if now is None else now <= most
    return dict(zip(HEAD, (label, baseline, None, now, ratio, f"at most {most:g}", reached), strict=True))


def largest_memory(sections: Sections, which: str, way: str) -> float | None:
    """What the allocator held at most for a run on its own."""
    names = [name for name in sections if name.startswith(f"{which} steps")]
    found = [value(sections, name, way, "reserved_gb") for name in names]
    return max((gigabytes for gigabytes in found if gigabytes is not None), default=None)


def check_row(sections: Sections, name: str) -> dict[str, Any]:
    """Whether a check has passed of every system, or of which not; None where it was not made."""
    made = {key: one for key, one in sections.items() if key.split()[:2] == ["now", name]}
    wrong = [key.split()[-1] for key, one in made.items() if not one.get("result", {}).get("passed")]
    shown: Any = ", ".join(wrong) or f"{len(made)} of {len(made)}" if made else None
    if differences := value(sections, f"now {name}", "largest_difference_nats"):
        shown = max(differences.values())
    target = CHECK_TARGETS.get(name, SAME_BYTES)
    return dict(zip(HEAD, (CHECKS[name], None, None, shown, None, target, not wrong if made else None), strict=True))


def text(found: Sequence[Mapping[str, Any]]) -> str:
    """The rows as an aligned table."""
    lines = [HEAD, *(tuple(map(cell, one.values())) for one in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    rule = "  ".join("-" * width for width in widths)
    aligned = [
        "  ".join(
            f"{part:<{width}}" if not number else f"{part:>{width}}"
            for number, (part, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join([aligned[0], rule, *aligned[1:]])


def cell(content: Any) -> str:
    """A value as the table shows it."""
    if content is None:
        return "-"
    if isinstance(content, bool):
        return "yes" if content else "NO"
    if isinstance(content, float | int):
        return f"{content:,.0f}" if abs(content) >= 100 else f"{content:.3g}"
    return str(content)
