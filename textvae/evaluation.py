"""Every number that is reported of one model, measured on the sentences of a split (docs/metrics.md defines each).

Shapes: N sentences, S sentences of a subset, K codes a sentence, D latent.
"""

from __future__ import annotations

import math
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from textvae import estimators
from textvae.config import EvaluationSettings
from textvae.corpus import IntArray, Sentences, hashed_normals, hashed_order, hashed_subset, sentence_hash
from textvae.errors import BrokenResultError
from textvae.inference import (
    batches,
    importance_weighted_nll,
    mutual_information,
    mutual_information_in_batches,
    posteriors,
    reconstruction,
    reconstruction_of_codes,
)
from textvae.networks import Network
from textvae.progress import Progress, progress

MEASURES = (
    *("nll", "nll_se", "nll_iw", "nll_iw_se", "nll_subset", "nll_subset_se", "iw_sentences", "iw_samples"),
    *("kl", "kl_se", "ppl", "mi", "mi_se", "mi_upper", "mi_upper_se", "mi_batch", "kl_agg", "kl_agg_se"),
    *("gain", "gain_se", "gain_sentences", "gain_codes", "au", "sentences", "tokens"),
)


GAIN_PILOT = 64
"""Sentences that tell how many codes the gain takes."""
GAIN_SHARE = 0.8
"""Share of log K above which K codes are too few for a gain."""
OF_SENTENCES = ("nll", "reconstruction", "kl", "nll_iw", "gain")
"""What is known of single sentences, in nats; NLL-IW and gain of those of their subsets."""


class Measured(NamedTuple):
    """The columns, what they are means of, and the posteriors' mean and log variance: no rows for LSTM-LM and for
    numbers of no use."""

    columns: dict[str, Any]
    of_sentences: dict[str, Tensor]
    """`OF_SENTENCES` (N, float64), NaN where a sentence has no such number; no entry where no sentence has one."""
    mu_ND: Tensor
    log_var_ND: Tensor


def measure(network: Network, sentences: Sentences, settings: EvaluationSettings, seed: int) -> Measured:
    """All that is known of a model on these sentences. Raises BrokenResultError where it contradicts mathematics."""
    if network.kind == "lstm_lm":
        return of_language_model(network, sentences, settings)
    return of_vae(network, sentences, settings, seed)


def of_no_use(network: Network, diverged: dict[str, Any]) -> Measured:
    """Of a model that diverged."""
    nothing_ND = torch.zeros(0, network.latent)
    return Measured(diverged, {}, nothing_ND, nothing_ND)


def of_language_model(network: Network, sentences: Sentences, settings: EvaluationSettings) -> Measured:
    """LSTM-LM's numbers: its NLL is exact, so NLL-IW is the NLL of that subset."""
    nll_N = reconstruction(network, sentences, None)
    if diverged := divergence(sentences, nll_N):
        return of_no_use(network, diverged)
    subset = hashed_subset(sentences, settings.iw_sentences, "nll_iw")
    iw_S = nll_N[torch.from_numpy(subset)]
    columns = nll_columns(sentences, nll_N, subset, iw_S) | size_columns(sentences, nll_N)
    columns |= {"iw_sentences": len(subset), "iw_samples": None}
    of_sentences = {"nll": nll_N, "reconstruction": nll_N, "nll_iw": scattered(iw_S, subset, len(sentences))}
    return Measured(columns, of_sentences, torch.zeros(0, 0), torch.zeros(0, 0))


def of_vae(network: Network, sentences: Sentences, settings: EvaluationSettings, seed: int) -> Measured:
    """A VAE's numbers."""
    posterior = posteriors(network, sentences)
    kl_N = posterior.kl()
    reconstruction_N = torch.zeros(len(sentences), dtype=torch.float64)
    for sample in range(settings.elbo_samples):
        z_ND = posterior.sample(hashed_normals(sentences, seed, network.latent, f"elbo {sample}"))
        reconstruction_N += reconstruction(network, sentences, z_ND) / settings.elbo_samples
    nll_N = reconstruction_N + kl_N
    if diverged := divergence(sentences, nll_N):
        return of_no_use(network, diverged)
    information = mutual_information(network, sentences, posterior, z_ND)
    subset = hashed_subset(sentences, settings.iw_sentences, "nll_iw")
    with progress("evaluate: NLL-IW", len(subset), "sentences") as bar:
        iw_N = importance_weighted_nll(network, sentences.subset(subset), settings.iw_samples, seed, bar)
    gain_subset = hashed_subset(sentences, settings.gain_sentences, "gain")
    gain_N, codes = decoder_gain(network, sentences, gain_subset, z_ND, settings, seed)
    gain, gain_se = estimators.mean_and_se(gain_N, sentences.kinds[torch.from_numpy(gain_subset)])
    metrics = {
        **nll_columns(sentences, nll_N, subset, iw_N),
        **size_columns(sentences, nll_N),
        "iw_sentences": len(subset),
        "iw_samples": settings.iw_samples,
        "gain": gain,
        "gain_se": gain_se,
        "gain_sentences": len(gain_N),
        "gain_codes": codes,
        "mi_batch": mutual_information_in_batches(sentences, posterior, z_ND),
        "au": estimators.active_units(posterior.mean),
        **{name: getattr(information, name) for name in ("kl", "mi", "mi_upper", "kl_agg")},
        **{f"{name}_se": getattr(information, f"{name}_se") for name in ("kl", "mi", "mi_upper", "kl_agg")},
    }
    problems = estimators.sanity_problems(information)
    if problems:
        print(metrics, file=sys.stderr)
        raise BrokenResultError("; ".join(problems) + ". Nothing was written: this is a bug, please report it")
    of_sentences = {"nll": nll_N, "reconstruction": reconstruction_N, "kl": kl_N}
    of_sentences["nll_iw"] = scattered(iw_N, subset, len(sentences))
    of_sentences["gain"] = scattered(gain_N, gain_subset, len(sentences))
    return Measured(metrics, of_sentences, *posterior.moments())


def scattered(values_S: Tensor, subset: IntArray, count: int) -> Tensor:
    """The values of a subset at their places among all `count` sentences (N), NaN elsewhere."""
    values_N = torch.full((count,), math.nan, dtype=torch.float64)
    values_N[torch.from_numpy(subset)] = values_S
    return values_N


def divergence(sentences: Sentences, nll_N: Tensor) -> dict[str, Any]:
    """What marks a model as diverged whose NLL is no model's; nothing for any other."""
    reason = estimators.uselessness(float(nll_N.sum()), sentences.target_tokens)
    return (
        {} if reason is None else {"status": "diverged", "failure": {"message": f"diverged: evaluate found {reason}"}}
    )


def nll_columns(sentences: Sentences, nll_N: Tensor, subset: IntArray, iw_S: Tensor) -> dict[str, float]:
    """NLL on all sentences, and beside each other NLL and NLL-IW on the subset (S)."""
    of_subset = torch.from_numpy(subset)
    kinds_S = sentences.kinds[of_subset]
    columns = {}
    for name, values, kinds in (
        ("nll", nll_N, sentences.kinds),
        ("nll_subset", nll_N[of_subset], kinds_S),
        ("nll_iw", iw_S, kinds_S),
    ):
        columns[name], columns[f"{name}_se"] = estimators.mean_and_se(values, kinds)
    return columns


def size_columns(sentences: Sentences, nll_N: Tensor) -> dict[str, Any]:
    """Sentences, target tokens (EOS counted) and the perplexity per target token."""
    tokens = sentences.target_tokens
    return {"sentences": len(sentences), "tokens": tokens, "ppl": estimators.perplexity(float(nll_N.sum()), tokens)}


def decoder_gain(
    network: Network, sentences: Sentences, subset: IntArray, z_ND: Tensor, settings: EvaluationSettings, seed: int
) -> tuple[Tensor, int]:
    """`estimators.decoder_gain` (S) and the number of codes, K: each sentence of the subset, its own code against those
    of others, drawn by its hash from all sentences.

    A gain is at most log K. So K grows fourfold while the mean over a pilot (the sentences of the subset with the
    smallest hashes) is above 0.8 log K, up to `max_gain_codes` and the number of sentences.
    """
    order = hashed_order(sentences, "gain codes")
    most = min(max(settings.gain_codes, settings.max_gain_codes), len(sentences))
    codes = min(settings.gain_codes, most)

    z_ND = z_ND.to(network.device)

    def own_and_others(n: int) -> list[int]:
        """Whose codes sentence n is read with (K)."""
        key = sentence_hash(sentences[n], seed, "gain", sentences.copies[n])
        drawn = order[np.random.Generator(np.random.Philox(key=key)).choice(len(order), codes, replace=False)]
        return [n, *[i for i in drawn if i != n][: codes - 1]]

    def scores(indices: IntArray, bar: Progress | None = None) -> Tensor:
        """log p(x_n|z) (S, K) of the sentences at `indices`, its own code first."""
        log_p_SK = torch.empty(len(indices), codes, dtype=torch.float64, device=network.device)
        for batch in batches(network, sentences.subset(indices), codes):
            whose_SK = np.array([own_and_others(n) for n in indices[batch.indices].tolist()])
            log_p_SK[batch.indices] = -reconstruction_of_codes(network, batch, z_ND[whose_SK])
            if bar is not None:
                bar.advance(len(batch))
        return log_p_SK.cpu()

    pilot = hashed_subset(sentences, min(GAIN_PILOT, len(subset)), "gain")
    with progress("evaluate: gain", len(subset), "sentences") as bar:
        while True:
            of_pilot = scores(pilot)
            gains = estimators.decoder_gain(of_pilot).tolist()
            # Summed exactly: the order of the sentences must not decide.
            if codes == most or math.fsum(gains) / len(gains) <= GAIN_SHARE * math.log(codes):
                break
            codes = min(4 * codes, most)
        bar.advance(len(pilot))
        log_p_SK, in_pilot = torch.empty(len(subset), codes, dtype=torch.float64), np.isin(subset, pilot)
        log_p_SK[in_pilot], log_p_SK[~in_pilot] = of_pilot, scores(subset[~in_pilot], bar)
    return estimators.decoder_gain(log_p_SK), codes
