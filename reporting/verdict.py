"""Which systems collapsed and which to take: sentences that follow from results.csv by the rules of docs/report.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reporting.names import listed, seeds_named, system_name
from reporting.results import Row, explanation
from reporting.summary import Summary, number, summarise

IN_USE, COLLAPSED, UNREAD, BORDER, UNJUDGED = "in use", "collapsed", "unread", "on the border", "not judged"
LEAST_INFORMATION = 0.1
"""In nats per sentence: what an MI and a gain must exceed, by two standard errors, to be called one."""
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""97.5% quantiles of Student's t with 1, 2, ... degrees of freedom; the last one also for more (a little too wide)."""
NOTHING = "nothing to say yet, no system with a code has been measured"
ONE_SEED = "The difference of two single runs may be chance: three seeds or more can tell (grid.seeds in params.yaml)."
RULES = (
    "A code is in use where MI and gain are both above 0.1 nats by two standard errors over the test sentences. It has "
    "collapsed where the MI is below 0.1 nats by two standard errors. It is unread where the MI is above and the gain "
    "below. Otherwise it is too close to call.",
    "Only systems whose code is in use with every seed, none of them diverged, can be taken.",
    "Of these the lowest NLL-IW is taken. Two systems are too close to call where the 95% intervals of their means "
    "over the seeds (Student's t) overlap; then the largest gain decides, by the same rule. One seed decides nothing.",
)
SAID_OF = {
    COLLAPSED: "Collapsed",
    UNREAD: "With a code that the decoder does not read",
    BORDER: "Between collapsed and in use, too close to call",
    IN_USE: "With a code in use",
}


@dataclass(frozen=True)
class Verdict:
    """What the numbers say of one data set."""

    dataset: str
    headline: str
    """What to take, in a few words."""
    sentences: tuple[str, ...]
    states: dict[str, tuple[str, ...]]
    """System to the state of its code with each seed; only systems that have a code."""
    taken: str | None
    """The system to take, where the rules name one."""


def verdicts(rows: Sequence[Row]) -> list[Verdict]:
    """One per data set of results.csv, in its order."""
    return [verdict([row for row in rows if row["dataset"] == d]) for d in dict.fromkeys(r["dataset"] for r in rows)]


def verdict(rows: Sequence[Row]) -> Verdict:
    """Of the rows of one data set."""
    rows_of = {s: [r for r in rows if r["system"] == s] for s in dict.fromkeys(row["system"] for row in rows)}
    judged = {s: own for s, own in rows_of.items() if any(row["mi"] is not None for row in own)}
    states = {system: tuple(state(row) for row in own) for system, own in judged.items()}
    candidates = {s: own for s, own in judged.items() if set(states[s]) == {IN_USE}}
    headline, reason, taken = choice(candidates, rows) if states else (NOTHING, "", None)
    sentences = [reason, *of_states(judged, states), *of_troubles(rows_of)]
    if taken is not None and "lstm_lm" in rows_of:
        sentences.insert(1, beside_language_model(rows_of[taken], rows_of["lstm_lm"]))
    return Verdict(rows[0]["dataset"], headline, tuple(filter(None, sentences)), states, taken)


def state(row: Row) -> str:
    """What became of the code of one run."""
    if row["status"] != "finished" or row["mi"] is None or row["gain"] is None:
        return UNJUDGED
    mi, gain = against_least(row, "mi"), against_least(row, "gain")
    if mi < 0:
        return COLLAPSED
    if mi > 0 and gain != 0:
        return IN_USE if gain > 0 else UNREAD
    return BORDER


def against_least(row: Row, key: str) -> int:
    """1 or -1 where a measure is above or below the least information by two standard errors, 0 where it is neither."""
    distance = row[key] - LEAST_INFORMATION
    return 0 if abs(distance) <= 2 * (row[f"{key}_se"] or 0.0) else int(math.copysign(1, distance))


def interval(summary: Summary) -> tuple[float, float]:
    """The 95% confidence interval of the mean over the seeds (Student's t); without bounds for a single seed."""
    n = len(summary.values)
    if summary.spread is None:
        return -math.inf, math.inf
    half = T_975[min(n - 1, len(T_975)) - 1] * summary.spread / math.sqrt(n)
    return summary.mean - half, summary.mean + half


def overlap(one: Summary, other: Summary) -> bool:
    """Whether the difference of two systems is too close to call."""
    (low, high), (other_low, other_high) = interval(one), interval(other)
    return low <= other_high and other_low <= high


def choice(candidates: Mapping[str, Sequence[Row]], rows: Sequence[Row]) -> tuple[str, str, str | None]:
    """The headline, its reason and the system to take: by the lowest NLL-IW, then by the largest gain."""
    fits = {s: summary for s, own in candidates.items() if (summary := summarise(own, "nll_iw"))}
    gains = {s: summary for s in fits if (summary := summarise(candidates[s], "gain"))}
    if not fits:
        pending = any(row["status"] == "pending" for row in rows)
        return "take none" + (" so far" if pending else ""), "No system's code is in use with every seed.", None
    if len({row["seed"] for row in rows}) == 1:
        return "one seed, no winner", ONE_SEED, None
    leader = min(fits, key=lambda system: fits[system].mean)
    if len(fits) == 1:
        return f"take {system_name(leader)}", "No other system's code is in use with every seed.", leader
    close = [system for system in fits if overlap(fits[leader], fits[system])]
    names = listed([system_name(system) for system in close])
    if len(close) == 1:
        shown = values(fits, [leader, *(system for system in fits if system != leader)])
        fit = "Of the systems whose code is in use with every seed it has the lowest NLL-IW"
        return f"take {system_name(leader)}", f"{fit}, and no 95% interval overlaps ({shown}).", leader
    teller = max(close, key=lambda system: gains[system].mean)
    fit = f"The 95% intervals of the NLL-IW of {names} overlap ({values(fits, close)})"
    if any(overlap(gains[teller], gains[system]) for system in close if system != teller):
        reason = f"{fit}, and those of their gain do not tell them apart either ({values(gains, close)})."
        return f"too close to call between {names}", f"{reason} More seeds may.", None
    reason = f"{fit}, and of these its decoder gains the most from the code ({values(gains, close)})."
    return f"take {system_name(teller)}", reason, teller


def values(summaries: Mapping[str, Summary], systems: Sequence[str]) -> str:
    """`VAE-BOW 66.13 ± 0.21, VAE-MINE 68.43 ± 0.30`: means and half the width of their intervals."""
    texts = []
    for system in systems:
        mean, high = summaries[system].mean, interval(summaries[system])[1]
        texts.append(f"{system_name(system)} {number(mean, 2)} ± {number(high - mean, 2)}")
    return ", ".join(texts)


def beside_language_model(rows: Sequence[Row], language_model: Sequence[Row]) -> str:
    """Whether the code pays for itself: the system taken against LSTM-LM, which has none."""
    own, other = summarise(rows, "nll_iw"), summarise(language_model, "nll_iw")
    if own is None or other is None:
        return ""
    name = system_name(rows[0]["system"])
    shown = f"NLL-IW {number(own.mean, 2)} against {number(other.mean, 2)}"
    if overlap(own, other):
        return f"As a model of the text {name} and LSTM-LM are too close to call ({shown})."
    if own.mean < other.mean:
        return f"{name} is also a better model of the text than LSTM-LM ({shown})."
    return f"The code has a price: {name} is a worse model of the text than LSTM-LM ({shown})."


def of_states(judged: Mapping[str, Sequence[Row]], states: Mapping[str, Sequence[str]]) -> list[str]:
    """One sentence per state that systems share over their seeds, then one per system whose seeds differ."""
    sentences = []
    for shared, said in SAID_OF.items():
        systems = [s for s in states if set(states[s]) - {UNJUDGED} == {shared}]
        if systems:
            sentences.append(f"{said}: {', '.join(f'{system_name(s)} ({numbers(judged[s])})' for s in systems)}.")
    for system, found in states.items():
        if len(set(found) - {UNJUDGED}) > 1:
            of = {one: [r["seed"] for r, s in zip(judged[system], found, strict=True) if s == one] for one in found}
            parts = [f"{one} with {seeds_named(of[one])}" for one in of]
            sentences.append(f"{system_name(system)} is not the same with every seed: {listed(parts)}.")
    return sentences


def numbers(rows: Sequence[Row]) -> str:
    """`MI 0.99, gain 0.33`, means over the seeds."""
    pairs = (("MI", summarise(rows, "mi")), ("gain", summarise(rows, "gain")))
    return ", ".join(f"{label} {number(summary.mean, 2)}" for label, summary in pairs if summary)


def of_troubles(rows_of: Mapping[str, Sequence[Row]]) -> list[str]:
    """What is left out, and why: runs that diverged or are not finished."""
    sentences = []
    for system, rows in rows_of.items():
        diverged = [row["seed"] for row in rows if row["status"] == "failed"]
        if diverged:
            with_seeds = f" with {seeds_named(diverged)}" if len(rows) > 1 else ""
            sentences.append(f"{system_name(system)} diverged{with_seeds}, and is not to be taken.")
    pending = [row for rows in rows_of.values() for row in rows if row["status"] == "pending"]
    if len(pending) > 3:
        sentences.append(f"{len(pending)} runs are not finished, and not judged.")
    else:
        sentences += [
            f"{system_name(r['system'])}, seed {r['seed']}, is not judged: it is {explanation(r)}." for r in pending
        ]
    return sentences
