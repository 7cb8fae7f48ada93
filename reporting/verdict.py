"""Which systems collapsed and which to take: sentences that follow from results.csv and differences.csv by the rules of
docs/report.md."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reporting.differences import LANGUAGE_MODEL, Difference, Differences
from reporting.names import listed, seeds_named, system_name
from reporting.results import Row, explanation
from reporting.summary import interval, number, signed, summarise

IN_USE, COLLAPSED, UNREAD, BORDER, UNJUDGED = "in use", "collapsed", "unread", "on the border", "not judged"
LEAST_INFORMATION = 0.1
"""In nats per sentence: what an MI and a gain must exceed, by two standard errors, to be called one."""
NOTHING = "nothing to say yet, no system with a code has been measured"
ONE_SEED = "The difference of two single runs may be chance: three seeds or more can tell (grid.seeds in params.yaml)."
RULES = (
    "A code is in use where MI and gain are both above 0.1 nats by two standard errors over the test sentences. It has "
    "collapsed where the MI is below 0.1 nats by two standard errors. It is unread where the MI is above and the gain "
    "below. Otherwise it is too close to call.",
    "Only systems whose code is in use with every seed, none of them diverged, can be taken.",
    "Of these the one with the lowest mean NLL-IW is taken, where its difference to each other one is clear. Where it "
    "is not, the one of those too close whose gain is clearly the largest is taken, unless another's gain is at its "
    "ceiling and may be larger. One seed decides nothing.",
    "A difference is paired: of the same sentences and the same seeds. Its 95% interval counts two chances, of other "
    "sentences and of other trainings: half its width is the root of the sum of squares of t times the standard error "
    "of the sentences' differences (each averaged over the seeds) and of t times that of the seeds' differences (each "
    "averaged over the sentences); t is Student's, for the number of sentences and of seeds. It is clear where the "
    "interval leaves out 0.",
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


def verdicts(rows: Sequence[Row], differences: Differences) -> list[Verdict]:
    """One per data set of results.csv, in its order."""
    datasets = dict.fromkeys(row["dataset"] for row in rows)
    return [verdict([row for row in rows if row["dataset"] == dataset], differences) for dataset in datasets]


def verdict(rows: Sequence[Row], differences: Differences) -> Verdict:
    """Of the rows of one data set."""
    rows_of = {s: [r for r in rows if r["system"] == s] for s in dict.fromkeys(row["system"] for row in rows)}
    judged = {s: own for s, own in rows_of.items() if any(row["mi"] is not None for row in own)}
    states = {system: tuple(state(row) for row in own) for system, own in judged.items()}
    candidates = {s: own for s, own in judged.items() if set(states[s]) == {IN_USE}}
    headline, reason, taken = choice(candidates, rows, differences) if states else (NOTHING, "", None)
    sentences = [reason, *of_states(judged, states), *of_troubles(rows_of)]
    if taken is not None:
        found = differences.between(rows[0]["dataset"], "nll_iw", taken, LANGUAGE_MODEL)
        sentences.insert(1, beside_language_model(taken, found))
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


def choice(
    candidates: Mapping[str, Sequence[Row]], rows: Sequence[Row], differences: Differences
) -> tuple[str, str, str | None]:
    """The headline, its reason and the system to take: by the lowest NLL-IW, then by the largest gain."""
    fits = {s: summary for s, own in candidates.items() if (summary := summarise(own, "nll_iw"))}
    if not fits:
        pending = any(row["status"] == "pending" for row in rows)
        return "take none" + (" so far" if pending else ""), "No system's code is in use with every seed.", None
    leader = min(fits, key=lambda system: fits[system].mean)
    of_fit = {s: differences.between(rows[0]["dataset"], "nll_iw", s, leader) for s in fits if s != leader}
    name = system_name(leader)
    if len({row["seed"] for row in rows}) == 1:
        said = f" Here {name} has the lowest NLL-IW ({beside(of_fit)})." if any(of_fit.values()) else ""
        return "one seed, no winner", ONE_SEED + said, None
    if len(fits) == 1:
        return f"take {name}", "No other system's code is in use with every seed.", leader
    close = [system for system, found in of_fit.items() if found is None or found.sign <= 0]
    if not close:
        fit = "Of the systems whose code is in use with every seed it has the lowest NLL-IW"
        return f"take {name}", f"{fit}, and the difference to each other one is clear ({beside(of_fit)}).", leader
    fit = f"{name} has the lowest NLL-IW, but not clearly ({beside({s: of_fit[s] for s in close})})"
    return by_gain({s: candidates[s] for s in (leader, *close)}, fit, differences)


def by_gain(close: Mapping[str, Sequence[Row]], fit: str, differences: Differences) -> tuple[str, str, str | None]:
    """As `choice`, of systems that NLL-IW does not tell apart; `fit` says so."""
    gains = {s: summary for s, rows in close.items() if (summary := summarise(rows, "gain"))}
    teller = max(gains, key=lambda system: gains[system].mean)
    dataset = close[teller][0]["dataset"]
    of_gain = {s: differences.between(dataset, "gain", s, teller) for s in gains if s != teller}
    full = [system_name(system) for system in close if gains[system].bound]
    # A gain at its ceiling may be larger than any other's.
    if any(found is None or found.sign >= 0 or gains[s].bound for s, found in of_gain.items()):
        names = listed([system_name(system) for system in close])
        said = f"; at its ceiling: {listed(full)}" if full else ""
        reason = f"{fit}, and the gain does not tell them apart either ({beside(of_gain)}{said})."
        return f"too close to call between {names}", f"{reason} More seeds, or more sentences, may.", None
    reason = f"{fit}, and of these {system_name(teller)}'s decoder gains clearly the most from the code"
    return f"take {system_name(teller)}", f"{reason} ({beside(of_gain)}).", teller


def beside(found: Mapping[str, Difference | None]) -> str:
    """`VAE-MINE +0.31 [-0.12, +0.74]`: what each has more, with its interval, or with one seed the sentences' error."""
    texts = []
    for system, one in found.items():
        if one is None:
            texts.append(f"{system_name(system)} not comparable")
        else:
            chance = f" (standard error over the sentences {number(one.sentence_se, 2)})"
            texts.append(f"{system_name(system)} {signed(one.difference)}{interval(one) or chance}")
    return ", ".join(texts)


def beside_language_model(system: str, found: Difference | None) -> str:
    """Whether the code pays for itself: the system taken against LSTM-LM, which has none, by their NLL-IW."""
    if found is None:
        return ""
    name, shown = system_name(system), f"NLL-IW {signed(found.difference)}{interval(found)}"
    if found.sign == 0:
        return f"As a model of the text {name} and LSTM-LM are too close to call ({shown})."
    if found.sign < 0:
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
    """`MI 0.99, gain 0.33`, means over the seeds; `MI > 6.70` at the ceiling."""
    pairs = (("MI", summarise(rows, "mi")), ("gain", summarise(rows, "gain")))
    return ", ".join(
        f"{label} {'> ' if summary.bound else ''}{number(summary.mean, 2)}" for label, summary in pairs if summary
    )


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
