"""Names, colours and definitions: how a reader meets each system, data set and measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DATASET_NAMES = {"ptb": "PTB", "snli": "SNLI", "yahoo": "Yahoo"}
SYSTEM_NAMES = {
    "lstm_lm": "LSTM-LM",
    "vae_05": "VAE-0.5",
    "vae_bow": "VAE-BOW",
    "infovae": "InfoVAE",
    "cyclical": "CyclicalVAE",
    "lagging": "LaggingVAE",
    "vae_mine": "VAE-MINE",
}


def dataset_name(key: str) -> str:
    """The paper's name of a data set, or the key itself."""
    return DATASET_NAMES.get(key, key)


def system_name(key: str) -> str:
    """The paper's name of a system, or the key itself."""
    return SYSTEM_NAMES.get(key, key)


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)


def seeds_named(seeds: Sequence[str]) -> str:
    """`seed 1`, `seeds 1 and 2`."""
    return f"seed{'s' if len(seeds) > 1 else ''} {listed(seeds)}"


@dataclass(frozen=True)
class Style:
    """How a system is drawn; `light` and `dark` are the colours on a white and on a black page."""

    light: str
    dark: str
    marker: str
    dashed: bool = False
    size: float = 6
    """Of the marker, in points: so that all of them look equally large."""


# Chosen by a search for the largest least distance (OKLab) under simulated protanopia, deuteranopia and tritanopia,
# with a contrast of at least 3 to 1 against the page; the markers tell apart what a print in grey cannot.
STYLES = {
    "lstm_lm": Style("#26272b", "#ececea", "x", dashed=True),
    "vae_05": Style("#3a8ff0", "#6cb4ff", "o"),
    "vae_bow": Style("#006d68", "#1f9e93", "s"),
    "infovae": Style("#e836a6", "#ff86b8", "D"),
    "cyclical": Style("#968f20", "#c9b44a", "^"),
    "lagging": Style("#3f22a8", "#8f6ff0", "v"),
    "vae_mine": Style("#bd1f10", "#f0492c", "*", size=9),
    "vae_mine_paper": Style("#cf7b70", "#c98a80", "*", dashed=True, size=9),
    "vae": Style("#7a7a78", "#9a9a96", "o", dashed=True),
}
OTHER_COLOURS = (
    ("#8a5a2b", "#b98a5c"),
    ("#5f7f2a", "#9cc063"),
    ("#8b3a7d", "#c98bc0"),
    ("#4b6a88", "#8fb0cf"),
    ("#2e7d46", "#5dbb7b"),
)
OTHER_MARKERS = ("h", "<", ">", "p", "d", "8")


def styles(systems: Sequence[str]) -> dict[str, Style]:
    """A style for each system: always the same for those above, by position for the others."""
    others = [system for system in systems if system not in STYLES]
    return {
        system: STYLES.get(system)
        or Style(
            *OTHER_COLOURS[others.index(system) % len(OTHER_COLOURS)],
            OTHER_MARKERS[others.index(system) % len(OTHER_MARKERS)],
        )
        for system in systems
    }


@dataclass(frozen=True)
class Measure:
    """A column: its label, its printed decimals, which direction is better (None: neither) and what it is."""

    key: str
    label: str
    decimals: int
    better: str | None
    definition: str


MEASURES = {
    measure.key: measure
    for measure in (
        Measure(
            "nll",
            "NLL",
            2,
            "lower",
            "Negative log-likelihood of a test sentence in nats, summed over its tokens and the end of the "
            "sentence: minus the ELBO, an upper bound; exact for LSTM-LM. Lower is better.",
        ),
        Measure(
            "kl",
            "KL",
            2,
            None,
            "KL divergence of the posterior q(z|x) from the prior, mean over the test sentences, in nats; part of "
            "the NLL. Near 0 the posterior has collapsed; a large one is not good by itself, so none is marked as "
            "best.",
        ),
        Measure(
            "ppl",
            "PPL",
            2,
            "lower",
            "Perplexity: exp(total NLL / total target tokens), the end of each sentence counted. Lower is better.",
        ),
        Measure(
            "mi",
            "MI",
            2,
            "higher",
            "Mutual information of sentence and code under q, in nats, estimated from below with the aggregated "
            "posterior over the whole test set (at most the log of its size). Higher is better, as far as the "
            "decoder reads it (see gain).",
        ),
        Measure(
            "au",
            "AU",
            0,
            "higher",
            "Active units: dimensions of the code whose posterior mean varies over the test set with a variance of "
            "at least 0.01. Higher is better.",
        ),
        Measure(
            "fppl",
            "FPPL",
            2,
            "lower",
            "Forward perplexity: a Kneser-Ney language model of the training sentences reads the generated ones. "
            "Lower is better, down to the row 'real text'; far below it the sentences are plainer than real ones.",
        ),
        Measure(
            "rppl",
            "RPPL",
            2,
            "lower",
            "Reverse perplexity: a Kneser-Ney language model of the generated sentences reads the test sentences; "
            "it falls with fluency and diversity. Lower is better.",
        ),
        Measure(
            "nll_iw",
            "NLL-IW",
            2,
            "lower",
            "Importance-weighted NLL on a subset of the test set: a tighter upper bound of -log p(x) than the NLL, "
            "and the fair one to set beside LSTM-LM's. Lower is better.",
        ),
        Measure(
            "nll_subset",
            "NLL subset",
            2,
            None,
            "The NLL on the sentences of NLL-IW: the difference of the two is how loose the ELBO is.",
        ),
        Measure(
            "gain",
            "Gain",
            2,
            "higher",
            "The part of the MI that the decoder reads, in nats, estimated from below: how much better it predicts "
            "a sentence from its own code than from a mixture with the codes of other sentences (at most the log of "
            "their number). 0 where the code is ignored. Higher is better.",
        ),
        Measure(
            "mi_upper",
            "MI upper",
            2,
            None,
            "The estimate of MI from above: the same, each sentence's own component left out of the aggregated "
            "posterior.",
        ),
        Measure(
            "mi_batch",
            "MI batch",
            2,
            None,
            "MI estimated in batches of 32 sentences, as in the literature: at most log 32 = 3.47.",
        ),
        Measure(
            "kl_agg",
            "KL agg",
            2,
            None,
            "KL divergence of the aggregated posterior from the prior; MI and KL agg add up to KL.",
        ),
        Measure(
            "rppl_pad",
            "RPPL pad",
            2,
            "lower",
            "RPPL with the vocabulary of the language model padded to the corpus's: without it, a system that "
            "generates few words makes the others cheap. Lower is better.",
        ),
        Measure(
            "cut",
            "Cut",
            3,
            None,
            "Share of the generated sentences that had not ended after sampling.max_length words and were cut there. "
            "Above 0.01, FPPL, RPPL and RPPL pad are marked with † and not ranked: a beginning is not a sentence.",
        ),
    )
}
TABLE_1 = {
    "#Train": "Training sentences.",
    "#Valid": "Validation sentences.",
    "#Test": "Test sentences.",
    "Length": "Mean number of tokens of a sentence, its end not counted.",
    "Vocab": "Words of the vocabulary.",
}
