"""What stands below the tables: how the numbers were made, and what keeps them from being compared."""

from __future__ import annotations

from collections.abc import Sequence

from reporting import paper
from reporting.artifacts import Experiment, Record
from reporting.ceilings import at_ceiling, ceiling
from reporting.names import MEASURES, dataset_name, listed, seeds_named, system_name
from reporting.results import MANY_CUT, Row, many_cut

TEXTS_OF = {"train": "FPPL", "samples": "RPPL"}
"""What depends on a language model, by the text that the model was trained on (its name in ngram.json)."""
CUT_MARK = "†"
"""Behind FPPL and RPPL of a text of which more than MANY_CUT was cut."""


def corpus_notes(dataset: str, corpus: Record) -> list[str]:
    """What makes the test set harder or easier, and a warning where a corpus is not the paper's of the same name."""
    unknown = corpus["splits"]["test"]["out_of_vocabulary_rate"]
    seen = corpus["repetitions"]["across"]["test_in_train"]
    notes = [
        f"{dataset_name(dataset)}: {unknown:.1%} of the test tokens are words outside the vocabulary; of the test "
        f"sentences {f'{seen:,}' if seen else 'none'} {'is' if seen <= 1 else 'are'} in the training set, too."
    ]
    notes += truncation_notes(dataset, corpus)
    expected, sentences = paper.TRAINING_SENTENCES.get(dataset), corpus["sentences"]["train"]
    if expected is None or has_the_papers_size(dataset, corpus):
        return notes
    return [
        *notes,
        f"{dataset_name(dataset)} here has {sentences:,} training sentences, the paper's about {expected:,}: its "
        "numbers were measured on another corpus.",
    ]


def truncation_notes(dataset: str, corpus: Record) -> list[str]:
    """How much of the corpus preprocess cut, and what that makes of it."""
    shares = [
        f"{corpus['splits'][split]['truncated'] / corpus['sentences'][split]:.1%} of the {name} sentences"
        for split, name in (("train", "training"), ("test", "test"))
        if corpus["splits"][split]["truncated"]
    ]
    if not shares:
        return []
    return [
        f"{dataset_name(dataset)}: {listed(shares)} were cut at preprocess.max_length "
        f"({corpus['settings']['max_length']} words). What is left is a sentence like any other: the models learn that "
        "it ends there, and NLL, PPL, FPPL and RPPL count that end."
    ]


def has_the_papers_size(dataset: str, corpus: Record) -> bool:
    """Whether a corpus has as many training sentences as the paper's of the same name, within 5%."""
    expected = paper.TRAINING_SENTENCES.get(dataset)
    return expected is not None and abs(corpus["sentences"]["train"] - expected) <= 0.05 * expected


def is_the_papers(experiment: Experiment, dataset: str) -> bool:
    """Whether a difference to the paper's numbers means something: its corpus, and its settings."""
    corpus = experiment.corpora.get(dataset)
    return corpus is not None and has_the_papers_size(dataset, corpus) and not experiment.is_reduced(dataset)


def choice_notes(rows: Sequence[Row]) -> list[str]:
    """Settings that were chosen from a list on the validation set, by run."""
    chosen: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row["chosen"]:
            chosen.setdefault((row["dataset"], row["system"], row["chosen"]), []).append(row["seed"])
    return [
        f"{system_name(system)} on {dataset_name(dataset)}, {seeds_named(seeds)}: {setting} was chosen on the "
        "validation set."
        for (dataset, system, setting), seeds in chosen.items()
    ]


def ranking_notes(experiment: Experiment, rows: Sequence[Row]) -> list[str]:
    """Whether a best is named, and how."""
    if len(experiment.settings.seeds) == 1:
        return ["One seed only: no winner is named, for the difference of two single runs may be chance."]
    incomplete = any(row["status"] != "finished" for row in rows)
    rule = (
        "Mean ± standard deviation over the seeds. Bold is the best mean, underlined the second best; numbers that "
        "print equal share the mark. The marks order the means; whether a difference is more than chance, the spread "
        "beside them and the paired differences below tell. KL has no mark, since neither a large nor a small one is "
        "good by itself."
    )
    return [rule + (" Only systems with results for every seed are compared." if incomplete else "")]


def text_notes(experiment: Experiment, rows: Sequence[Row]) -> list[str]:
    """How the sentences behind FPPL and RPPL were generated and read."""
    notes = []
    for dataset in experiment.settings.datasets:
        here = [row for row in rows if row["dataset"] == dataset and row["fppl"] is not None]
        ways: dict[str, list[str]] = {}
        for row in here:
            count = f"{int(row['generated_sentences']):,} sentences, " if row["generated_sentences"] else ""
            ways.setdefault(f"{count}{row['decoding']} decoding, {int(row['ngram_order'])}-grams", []).append(
                row["system"]
            )
        texts = [
            way if len(ways) == 1 else f"{way} ({', '.join(dict.fromkeys(map(system_name, systems)))})"
            for way, systems in ways.items()
        ]
        if texts:
            notes.append(f"FPPL and RPPL on {dataset_name(dataset)}: {'; '.join(texts)}.")
        if len({row["decoding"] for row in here}) > 1:
            notes.append(f"{dataset_name(dataset)}: FPPL and RPPL of different decodings are not compared.")
        notes += cut_notes(dataset, here) + order_notes(dataset, here) + fallback_notes(experiment, dataset)
    return notes


def cut_notes(dataset: str, rows: Sequence[Row]) -> list[str]:
    """Whose generated sentences were cut, and that their FPPL and RPPL are not those of sentences."""
    found = [row for row in rows if many_cut(row)]
    if not found:
        return []
    most: dict[str, tuple[float, int]] = {}
    for row in found:
        name = f"{system_name(row['system'])}'s"
        most[name] = max(most.get(name, (0.0, 0)), (row["cut"], int(row["max_length"])))
    shares = [
        f"{share:.1%} of {name} after {limit:,} word{'s' if limit > 1 else ''}" for name, (share, limit) in most.items()
    ]
    several = "of the seed with most, " if len(found) > len(most) else ""
    return [
        f"{CUT_MARK} {dataset_name(dataset)}: more than {MANY_CUT:.0%} of the generated sentences had not ended at "
        f"sampling.max_length and were cut there ({several}{', '.join(shares)}). FPPL and RPPL count each as a "
        "sentence that ends there, so they are not those of the model's sentences, and are not ranked. Raise "
        "sampling.max_length; where that changes nothing, the model does not end its sentences."
    ]


def order_notes(dataset: str, rows: Sequence[Row]) -> list[str]:
    """Whose language models have no n-gram of the order asked for, since no sentence is long enough for one.

    Not where the order that they have needs a stopgap: fallback_notes says more.
    """
    notes = []
    for text, name in TEXTS_OF.items():
        systems: dict[tuple[int, int], list[str]] = {}
        for row in rows:
            asked, order = row["ngram_order"], row[f"{name.lower()}_order"]
            if order is not None and order < asked and text not in row["discount_fallback"]:
                systems.setdefault((int(asked), int(order)), []).append(system_name(row["system"]))
        for (asked, order), names in systems.items():
            notes.append(
                f"{dataset_name(dataset)}: the {name} of {', '.join(dict.fromkeys(names))} is of {order}-grams: no "
                f"sentence of the language model's text is long enough for a {asked}-gram. It is the number of "
                f"ngram.order: {order}, and as comparable as that."
            )
    return notes


def fallback_notes(experiment: Experiment, dataset: str) -> list[str]:
    """Whose language models have lmplz's stopgap in place of discounts, and the order that needs none."""
    notes = []
    for text, name in TEXTS_OF.items():
        systems: dict[int | None, list[str]] = {}
        for run in experiment.runs_of(dataset):
            if run.ngram is not None and run.ngram.get(name.lower()) and text in run.ngram["discount_fallback"]:
                estimable = (run.ngram.get("estimable_order") or {}).get(text)
                systems.setdefault(estimable, []).append(system_name(run.system))
        for estimable, names in systems.items():
            why, remedy = "too little or too uniform text", ""
            if estimable is not None:
                why, remedy = "too few n-grams of the highest order", f" ngram.order: {estimable} needs none."
            notes.append(
                f"{dataset_name(dataset)}: {why} for Kneser-Ney's discounts, so fixed ones stand behind the {name} of "
                f"{', '.join(dict.fromkeys(names))}: compare them with care.{remedy}"
            )
    return notes


def bound_notes(rows: Sequence[Row], keys: Sequence[str]) -> list[str]:
    """Which of these measures are at their ceilings, and what that means."""
    ceilings: dict[str, None] = {}
    for row in rows:
        for key in keys:
            if at_ceiling(row, key) and (most := ceiling(row, key)) is not None:
                ceilings[f"{MEASURES[key].label} on {dataset_name(row['dataset'])} at {most:.2f}"] = None
    if not ceilings:
        return []
    return [
        f"A number behind > is within 5% of the largest that its estimate can have ({'; '.join(ceilings)}): it says "
        "only that the truth is at least as much. No two of them are ranked against each other."
    ]


def subset_notes(rows: Sequence[Row]) -> list[str]:
    """The sizes behind NLL-IW and gain."""
    sizes = {(row["iw_sentences"], row["iw_samples"]) for row in rows if row["nll_iw"] is not None}
    known = sorted(pair for pair in sizes if all(pair))  # LSTM-LM has no samples
    texts = [f"{int(n):,} sentences with {int(k):,} samples each" for n, k in known]
    notes = [f"NLL-IW: {'; '.join(texts)}."] if texts else []
    gains: dict[tuple[int, int], list[str]] = {}
    for row in rows:
        if row["gain"] is not None and row["gain_sentences"] and row["gain_codes"]:
            sizes_of_gain = int(row["gain_sentences"]), int(row["gain_codes"])
            gains.setdefault(sizes_of_gain, []).append(system_name(row["system"]))
    texts = [
        f"{n:,} sentences with {k:,} codes each" + (f" ({', '.join(dict.fromkeys(names))})" if len(gains) > 1 else "")
        for (n, k), names in sorted(gains.items())
    ]
    return notes + ([f"Gain: {'; '.join(texts)}."] if texts else [])
