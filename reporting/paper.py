"""The paper's own numbers (Qian & Cheung, EMNLP 2019, Tables 1 and 2), and what a reader should know about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TABLE_1 = {
    "ptb": ("42K", "3.3K", "3.7K", "21", "10K"),
    "snli": ("1.1M", "13K", "13K", "20", "20K"),
    "yahoo": ("101K", "10K", "10K", "78", "20K"),
}
TRAINING_SENTENCES = {"ptb": 42_000, "snli": 1_100_000, "yahoo": 101_000}

COLUMNS = ("nll", "kl", "ppl", "mi", "au", "fppl", "rppl")
_ROWS: dict[str, dict[str, tuple[float | None, ...]]] = {
    "ptb": {
        "lstm_lm": (102.85, None, 95.63, None, None, 461.44, 472.86),
        "vae_05": (104.06, 0.03, 100.90, 0.07, 2, 339.32, 444.81),
        "vae_bow": (105.58, 4.35, 107.94, 1.65, 4, 385.77, 463.34),
        "infovae": (108.37, 0.02, 122.15, 0.06, 0, 483.71, 515.09),
        "cyclical": (104.36, 4.93, 102.25, 2.84, 10, 419.61, 464.78),
        "lagging": (100.93, 4.84, 87.82, 2.84, 13, 12.64, 842.02),
        "vae_mine": (100.91, 4.86, 87.75, 3.01, 13, 13.34, 400.21),
    },
    "snli": {
        "lstm_lm": (33.41, None, 18.97, None, None, 49.99, 289.30),
        "vae_05": (33.55, 0.01, 19.20, 0.01, 0, 45.04, 281.15),
        "vae_bow": (37.00, 13.57, 26.06, 2.07, 23, 44.72, 278.31),
        "infovae": (33.88, 0.02, 19.78, 0.09, 0, 45.34, 295.38),
        "cyclical": (34.84, 6.39, 21.52, 3.12, 28, 58.16, 291.53),
        "lagging": (33.10, 1.34, 18.03, 0.73, 3, 4.02, 173.47),
        "vae_mine": (33.13, 4.05, 18.09, 3.15, 30, 6.21, 152.63),
    },
    "yahoo": {
        "lstm_lm": (348.95, None, 78.99, None, None, 461.44, 472.85),
        "vae_05": (340.64, 0.63, 71.17, 0.44, 3, 178.97, 252.51),
        "vae_bow": (343.39, 10.13, 73.66, 1.99, 7, 182.95, 256.85),
        "infovae": (344.84, 0.03, 74.21, 0.01, 1, 161.93, 260.77),
        "cyclical": (335.40, 7.51, 75.56, 3.29, 12, 193.79, 256.28),
        "lagging": (328.69, 6.65, 61.29, 2.99, 17, 5.60, 843.56),
        "vae_mine": (328.70, 6.70, 61.31, 4.34, 18, 6.72, 185.33),
    },
}
TABLE_2 = {
    (dataset, system): dict(zip(COLUMNS, values, strict=True))
    for dataset, systems in _ROWS.items()
    for system, values in systems.items()
}


@dataclass(frozen=True)
class Footnote:
    """A remark on the paper's numbers in one column of a data set; no systems means Table 1."""

    dataset: str
    column: str
    systems: tuple[str, ...]
    text: str


ALL = tuple(_ROWS["ptb"])
_GREEDY = (
    "Far below what real test sentences score under the same kind of language model (the row 'real text'): the "
    "paper does not name its decoding, and these values look greedy, the other systems' ancestral."
)
FOOTNOTES = (
    Footnote(
        "ptb",
        "ppl",
        ALL,
        "NLL / ln PPL gives the tokens a sentence was taken to have: 22.55 in all of the paper's PTB rows, while "
        "its test set has 20.92, or 21.92 with the end of the sentence. Compare the NLL first, the PPL second.",
    ),
    Footnote(
        "ptb",
        "mi",
        ("vae_05", "infovae"),
        "An MI above the KL is impossible (KL = MI + KL of the aggregated posterior): noise of the estimate.",
    ),
    Footnote("ptb", "fppl", ("lagging", "vae_mine"), _GREEDY),
    Footnote(
        "snli",
        "#Train",
        (),
        "550,152 premises and as many hypotheses, repeated sentences included; the 13K of validation and test are "
        "the distinct hypotheses and about 3,300 distinct premises.",
    ),
    Footnote(
        "snli",
        "Length",
        (),
        "The paper's Table 2 implies another length, 11.35 tokens (NLL / ln PPL); premises have about 14, "
        "hypotheses 8.",
    ),
    Footnote(
        "snli",
        "ppl",
        ALL,
        "NLL / ln PPL gives 11.35 tokens a sentence, but 11.45 for LaggingVAE and 11.44 for VAE-MINE: their PPL is "
        "on another footing. Compare the NLL first.",
    ),
    Footnote(
        "snli",
        "mi",
        ("infovae",),
        "An MI above the KL is impossible (KL = MI + KL of the aggregated posterior): noise of the estimate.",
    ),
    Footnote("snli", "fppl", ("lagging", "vae_mine"), _GREEDY),
    Footnote(
        "yahoo",
        "ppl",
        ("infovae", "cyclical"),
        "NLL / ln PPL gives 77.55 tokens a sentence for CyclicalVAE and 80.07 for InfoVAE, about 79.86 for all "
        "others: the PPL of these two does not belong to their NLL.",
    ),
    Footnote(
        "yahoo",
        "fppl",
        ("lstm_lm",),
        "FPPL and RPPL of LSTM-LM (461.44, 472.85) are those of the paper's PTB row (461.44, 472.86): one of them "
        "is a slip.",
    ),
    Footnote("yahoo", "fppl", ("lagging", "vae_mine"), _GREEDY),
)


def footnotes(datasets: Sequence[str]) -> list[Footnote]:
    """The remarks on the data sets shown, in their order."""
    return [note for dataset in datasets for note in FOOTNOTES if note.dataset == dataset]
