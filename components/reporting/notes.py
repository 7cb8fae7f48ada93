"""What stands below the tables: how the numbers were made, and what keeps them from being compared."""

from __future__ import annotations

from collections.abc import Sequence

from components.reporting import paper
from components.reporting.artifacts import Experiment, Record
from components.reporting.names import dataset_name, seeds_named, system_name
from components.reporting.results import Row

MEASURES_OF = {"train": "FPPL", "samples": "RPPL"}
"""What depends on a language model, by the text that the model was trained on (its name in ngram.json)."""


def corpus_notes(dataset: str, corpus: Record) -> list[str]:
    """What makes the test set harder or easier, and a warning where a corpus is not the paper's of the same name."""
    unknown = corpus["splits"]["test"]["out_of_vocabulary_rate"]
    seen = corpus["repetitions"]["across"]["test_in_train"]
    notes = [
        f"{dataset_name(dataset)}: {unknown:.1%} of the test tokens are words outside the vocabulary; of the test "
        f"sentences {f'{seen:,}' if seen else 'none'} {'is' if seen <= 1 else 'are'} in the training set, too."
    ]
    expected, sentences = paper.TRAINING_SENTENCES.get(dataset), corpus["sentences"]["train"]
    if expected is None or has_the_papers_size(dataset, corpus):
        return notes
    return [
        *notes,
        f"{dataset_name(dataset)} here has {sentences:,} training sentences, the paper's about {expected:,}: its "
        "numbers were measured on another corpus.",
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
        "print equal share the mark. The marks order the means; whether a difference is more than chance, the "
        "spread beside them tells. KL has no mark, since neither a large nor a small one is good by itself."
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
        for text, name in MEASURES_OF.items():
            systems = dict.fromkeys(system_name(row["system"]) for row in here if text in row["discount_fallback"])
            if systems:
                notes.append(
                    f"{dataset_name(dataset)}: too little or too uniform text for Kneser-Ney's discounts, so fixed "
                    f"ones stand behind the {name} of {', '.join(systems)}: compare them with care."
                )
    return notes


def subset_notes(rows: Sequence[Row]) -> list[str]:
    """The sizes behind NLL-IW and gain."""
    sizes = {
        (row["iw_sentences"], row["iw_samples"]) for row in rows if row["nll_iw"] is not None and row["iw_samples"]
    }
    texts = [f"{int(n or 0):,} sentences with {int(k):,} samples each" for n, k in sorted(sizes)]
    gains = sorted({int(row["gain_sentences"]) for row in rows if row["gain"] is not None and row["gain_sentences"]})
    notes = [f"NLL-IW: {'; '.join(texts)}."] if texts else []
    return notes + ([f"Gain: {', '.join(f'{n:,}' for n in gains)} sentences."] if gains else [])
