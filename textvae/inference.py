"""What a network says about a split: posteriors and reconstruction losses, in batches, without gradients.

Shapes: N sentences, S of them in a batch, K codes a sentence, D latent. Results are float64, on the CPU unless said
otherwise, and do not depend on the batches (within float32 rounding of the network itself).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from textvae import estimators, svi
from textvae.corpus import (
    Batch,
    Sentences,
    evaluation_batches,
    hashed_batches,
    hashed_normal,
    hashed_normals,
    hashed_subset,
)
from textvae.device import float32_precision
from textvae.networks import Network
from textvae.posteriors import Posterior, joined
from textvae.progress import Progress

HE_BATCH = 32


class Batching(NamedTuple):
    """How much a network reads at a time."""

    tokens: int
    """Padded positions in a batch at most."""
    together: bool
    """Whether sentences that are read with many codes share a batch."""


def batching(device: torch.device) -> Batching:
    """On a CPU a sentence's codes are a batch already: several sentences in one took 0.98 to 1.1 times as long at the
    default corpus's size (k = 20 and 100, batches of 4,096 to 65,536 tokens), for three quarters of the time are the
    output layer's product, whose size is the same; and a number would depend on its neighbours, by 2e-7 of itself. A
    GPU wants larger products: with a hidden size of 512 these take half a gigabyte.
    """
    return Batching(16_384, together=False) if device.type == "cpu" else Batching(32_768, together=True)


@torch.inference_mode()
@float32_precision(tf32=False)
def posteriors(network: Network, sentences: Sentences) -> Posterior:
    """q(z|x) (N, D) of every sentence, after its SVI steps, float64, on the CPU."""
    network.eval()
    parts, places = [network.no_posteriors()], []
    for batch in batches(network, sentences):
        parts.append(svi.posterior(network, batch, svi_noise(network, sentences, batch))[0].double())
        places += batch.indices.tolist()
    return joined(parts).to(torch.device("cpu"))[np.argsort(places)]


def svi_noise(network: Network, sentences: Sentences, batch: Batch) -> Tensor | None:
    """Noise (K, B, D) for a batch's K SVI steps, if there are any, keyed by the sentence alone: its posterior is the
    model's, in every place and for every seed."""
    if not network.settings.svi_steps:
        return None
    shape = network.settings.svi_steps, network.latent
    return torch.stack([hashed_normal(sentences[n], 0, shape, "svi") for n in batch.indices], dim=1)


@torch.inference_mode()
@float32_precision(tf32=False)
def reconstruction(network: Network, sentences: Sentences, z_ND: Tensor | None) -> Tensor:
    """-log p(x|z) (N) in nats for one code a sentence; `None` for LSTM-LM: -log p(x)."""
    network.eval()
    losses_N = torch.empty(len(sentences), dtype=torch.float64, device=network.device)
    for batch in batches(network, sentences):
        z_BD = None if z_ND is None else z_ND[batch.indices].float().to(network.device)
        losses_N[batch.indices] = network.decoder(batch, z_BD)[1].double()
    return losses_N.cpu()


@torch.inference_mode()
@float32_precision(tf32=False)
def word_log_probs(network: Network, sentences: Sentences, z_ND: Tensor | None) -> list[list[float]]:
    """log p(word | the words before, z) in nats of every word and of EOS; `None` for LSTM-LM."""
    found: list[list[float]] = [[]] * len(sentences)
    for batch in batches(network, sentences):
        z_BD = None if z_ND is None else z_ND[batch.indices].float().to(network.device)
        _, losses_BT = network.decoder.word_losses(batch, z_BD)
        for n, length, losses_T in zip(batch.indices, batch.lengths_B.tolist(), losses_BT.double().cpu(), strict=True):
            found[n] = (-losses_T[: length - 1]).tolist()
    return found


def batches(network: Network, sentences: Sentences, codes: int | None = None) -> Iterator[Batch]:
    """All sentences, each in one batch; those for `reconstruction_of_codes` with so many codes a sentence."""
    tokens, together = batching(network.device)
    if codes is not None:
        tokens = tokens // codes if together else 0  # one sentence
    return evaluation_batches(sentences, tokens, network.device)


@torch.inference_mode()
@float32_precision(tf32=False)
def reconstruction_of_codes(network: Network, batch: Batch, z_SKD: Tensor) -> Tensor:
    """-log p(x_s | z_sk) (S, K) in nats of a batch's sentences, each under K codes, on the network's device."""
    network.eval()
    count, codes = z_SKD.shape[:2]
    tokens_RT = batch.tokens_BT[:, None].expand(-1, codes, -1).flatten(0, 1)  # R = S K
    lengths_R = batch.lengths_B[:, None].expand(-1, codes).flatten()
    z_RD = z_SKD.flatten(0, 1).float().to(network.device)
    step = max(1, batching(network.device).tokens // tokens_RT.shape[1])
    losses_R = []
    for some in (slice(start, start + step) for start in range(0, len(z_RD), step)):
        part = replace(batch, tokens_BT=tokens_RT[some], lengths_B=lengths_R[some])
        losses_R.append(network.decoder(part, z_RD[some])[1].double())
    return torch.cat(losses_R).view(count, codes)


def importance_weighted_nll(
    network: Network, sentences: Sentences, samples: int, seed: int, bar: Progress | None = None
) -> Tensor:
    """NLL-IW (N): -log (1/k) sum_k p(x, z_k) / q(z_k|x) with k = `samples`, noise keyed by sentence, copy and seed."""
    posterior = posteriors(network, sentences).to(network.device)
    nll_N = torch.empty(len(sentences), dtype=torch.float64, device=network.device)
    copies = sentences.copies
    for batch in batches(network, sentences, samples):
        noise_SKD = torch.stack(
            [hashed_normal(sentences[n], seed, (samples, network.latent), "nll_iw", copies[n]) for n in batch.indices]
        ).to(network.device)
        own = posterior[batch.indices, None]
        z_SKD = own.sample(noise_SKD)
        log_p_xz_SK = own.log_prior(z_SKD) - reconstruction_of_codes(network, batch, z_SKD)
        nll_N[batch.indices] = estimators.importance_weighted_nll(log_p_xz_SK, own.log_prob(z_SKD))
        if bar is not None:
            bar.advance(len(batch))
    return nll_N.cpu()


def mutual_information(
    network: Network, sentences: Sentences, posterior: Posterior, z_ND: Tensor
) -> estimators.LatentInformation:
    """`mi` and its like, computed where the network is: they take N^2 densities in float64."""
    return estimators.mutual_information(posterior.to(network.device), z_ND.to(network.device), sentences.kinds)


def mutual_information_in_batches(sentences: Sentences, posterior: Posterior, z_ND: Tensor) -> float:
    """`mi_batch`: the MI in batches of 32 sentences, chosen by their hashes (He et al. 2019)."""
    return estimators.mutual_information_in_batches(posterior, z_ND, hashed_batches(sentences, HE_BATCH))


def validation_subset(sentences: Sentences, count: int) -> Sentences:
    """The validation sentences whose NLL-IW is measured, chosen by their hashes."""
    return sentences.subset(hashed_subset(sentences, count, "validation nll_iw"))


def validation(
    network: Network, sentences: Sentences, seed: int, iw_sentences: int, iw_samples: int
) -> dict[str, float]:
    """The validation columns of a learning curve, at beta = 1 for every system (method of model selection)."""
    subset = validation_subset(sentences, iw_sentences)
    if network.kind == "lstm_lm":
        nll_N = reconstruction(network, sentences, None)
        iw_nll = float(reconstruction(network, subset, None).mean())
        return {"valid_nll": float(nll_N.mean()), "valid_reconstruction": float(nll_N.mean()), "valid_nll_iw": iw_nll}
    posterior = posteriors(network, sentences)
    z_ND = posterior.sample(hashed_normals(sentences, seed, network.latent, "validation"))
    reconstruction_N = reconstruction(network, sentences, z_ND)
    kl_N = posterior.kl()
    information = mutual_information(network, sentences, posterior, z_ND)
    return {
        "valid_nll": float((reconstruction_N + kl_N).mean()),
        "valid_reconstruction": float(reconstruction_N.mean()),
        "valid_kl": float(kl_N.mean()),
        "valid_mi": float(information.mi),
        "valid_mi_batch": mutual_information_in_batches(sentences, posterior, z_ND),
        "valid_au": float(estimators.active_units(posterior.mean)),
        "valid_nll_iw": float(importance_weighted_nll(network, subset, iw_samples, seed).mean()),
    }
