"""A setting of the objective given as a list: every value is trained, and a stated rule keeps one.

The paper selects VAE-MINE's alpha among 2, 2.5, ..., 5 "on the validation set" (section 5.2) and does not say by what.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from textvae import estimators
from textvae.config import TrainSettings
from textvae.corpus import Sentences
from textvae.inference import importance_weighted_nll, validation_subset
from textvae.training import Outcome

RULE = (
    "the highest validation MI among the values whose validation NLL-IW is within one paired standard error of the best"
)


@dataclass(frozen=True)
class Candidate:
    """The training of one value."""

    value: Any
    settings: TrainSettings
    outcome: Outcome

    def nll_iw(self, valid: Sentences, seed: int) -> Tensor:
        """NLL-IW (S) of the selected weights, on the sentences and with the noise of the learning curve, in nats."""
        self.outcome.network.load_state_dict(self.outcome.weights)
        training = self.settings.training
        subset = validation_subset(valid, training.iw_sentences)
        return importance_weighted_nll(self.outcome.network, subset, training.iw_samples, seed)

    @property
    def mi(self) -> float:
        """The validation MI of the selected epoch."""
        row: dict[str, float] = self.outcome.curves[self.outcome.selected["epoch"] - 1]
        return row["valid_mi"]


def keep(nll_iw: Sequence[Tensor], mi: Sequence[float], kinds_S: Tensor) -> tuple[int, list[tuple[float, float]]]:
    """RULE itself, on the NLL-IW (S) of the same S sentences (`kinds_S`: equal ones share a number) and each MI.

    Returns: the index of the one kept, and for each the mean of its difference to the best and its standard error.
    """
    best_S = min(nll_iw, key=lambda nll_S: float(nll_S.mean()))
    differences = [estimators.mean_and_se(nll_S - best_S, kinds_S) for nll_S in nll_iw]
    eligible = [i for i, (difference, se) in enumerate(differences) if difference <= se]
    return max(eligible, key=lambda i: mi[i]), differences


def choose(
    setting: str, candidates: Sequence[Candidate], valid: Sentences, seed: int
) -> tuple[Candidate, dict[str, Any]]:
    """The candidate that RULE keeps (the first, where all diverged), and what candidates.json says of them all."""
    finished = [c for c in candidates if c.outcome.failure is None]
    nll_iw = [c.nll_iw(valid, seed) for c in finished]
    kinds_S = validation_subset(valid, candidates[0].settings.training.iw_sentences).kinds
    index, differences = keep(nll_iw, [c.mi for c in finished], kinds_S) if finished else (0, [])
    chosen = (finished or candidates)[index]
    measured = {
        c.value: {
            "valid_nll_iw": float(nll_S.mean()),
            "difference": difference,
            "difference_se": se,
            "valid_mi": c.mi,
        }
        for c, nll_S, (difference, se) in zip(finished, nll_iw, differences, strict=True)
    }
    nothing = dict.fromkeys(("valid_nll_iw", "difference", "difference_se", "valid_mi"))
    rows = [
        {
            "value": c.value,
            "status": "finished" if c.outcome.failure is None else "diverged",
            "failure": c.outcome.failure and c.outcome.failure["message"],
            **measured.get(c.value, nothing),
            "curves": c.outcome.curves,
        }
        for c in candidates
    ]
    return chosen, {"setting": setting, "chosen": chosen.value, "rule": RULE, "candidates": rows}
