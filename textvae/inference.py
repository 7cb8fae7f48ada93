"""What a network says about a split: posteriors and reconstruction losses, in batches, without gradients.

Shapes: N sentences, K codes a sentence, D latent. Results are float64 and do not depend on the batches (within float32
rounding of the network itself).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from textvae import estimators
from textvae.corpus import (
    Batch,
    Sentences,
    collate,
    evaluation_batches,
    hashed_batches,
    hashed_normal,
    hashed_normals,
    hashed_subset,
)
from textvae.networks import Network, reparameterised
from textvae.progress import Progress

HE_BATCH = 32
MAX_TOKENS = 16_384
"""Padded positions in one batch of an evaluation."""


@torch.inference_mode()
def posteriors(network: Network, sentences: Sentences) -> tuple[Tensor, Tensor]:
    """mu_ND and log sigma^2_ND of q(z|x) for every sentence, float64, on the CPU."""
    assert network.encoder is not None, "LSTM-LM has no posterior"
    network.eval()
    mu_ND = torch.empty(len(sentences), network.latent, dtype=torch.float64)
    log_var_ND = torch.empty_like(mu_ND)
    for batch in evaluation_batches(sentences, MAX_TOKENS, network.device):
        mu_BD, log_var_BD, _ = network.encoder(batch)
        mu_ND[batch.indices], log_var_ND[batch.indices] = mu_BD.double().cpu(), log_var_BD.double().cpu()
    return mu_ND, log_var_ND


@torch.inference_mode()
def reconstruction(network: Network, sentences: Sentences, z_ND: Tensor | None) -> Tensor:
    """-log p(x|z) (N) in nats for one code a sentence; `None` for LSTM-LM: -log p(x)."""
    network.eval()
    losses_N = torch.empty(len(sentences), dtype=torch.float64)
    for batch in evaluation_batches(sentences, MAX_TOKENS, network.device):
        z_BD = None if z_ND is None else z_ND[batch.indices].float().to(network.device)
        losses_N[batch.indices] = network.decoder(batch, z_BD)[1].double().cpu()
    return losses_N


@torch.inference_mode()
def word_log_probs(network: Network, sentences: Sentences, z_ND: Tensor | None) -> list[list[float]]:
    """log p(word | the words before, z) in nats of every word and of EOS; `None` for LSTM-LM."""
    found: list[list[float]] = [[]] * len(sentences)
    for batch in evaluation_batches(sentences, MAX_TOKENS, network.device):
        z_BD = None if z_ND is None else z_ND[batch.indices].float().to(network.device)
        _, losses_BT = network.decoder.word_losses(batch, z_BD)
        for n, length, losses_T in zip(batch.indices, batch.lengths_B, losses_BT.double().cpu(), strict=True):
            found[n] = (-losses_T[: length - 1]).tolist()
    return found


@torch.inference_mode()
def reconstruction_of_codes(network: Network, sentences: Sentences, index: int, z_KD: Tensor) -> Tensor:
    """-log p(x | z_k) (K) in nats of the sentence at `index` under each of K codes."""
    network.eval()
    one = collate(sentences, np.array([index]), network.device)
    step = max(1, MAX_TOKENS // one.tokens_BT.shape[1])
    parts = []
    for z_BD in torch.split(z_KD.float().to(network.device), step):
        batch = Batch(
            one.tokens_BT.expand(len(z_BD), -1), one.lengths_B.expand(len(z_BD)), one.indices, one.target_tokens
        )
        parts.append(network.decoder(batch, z_BD)[1].double().cpu())
    return torch.cat(parts)


def importance_weighted_nll(
    network: Network, sentences: Sentences, samples: int, seed: int, bar: Progress | None = None
) -> Tensor:
    """NLL-IW (N): -log (1/k) sum_k p(x, z_k) / q(z_k|x) with k = `samples`, noise keyed by sentence, copy and seed.

    One sentence at a time: its samples are a batch already. Several sentences in one took 0.98 to 1.1 times as long at
    the default corpus's size (k = 20 and 100, batches of 4,096 to 65,536 tokens), for three quarters of the time are
    the output layer's product, whose size is the same; and a number would depend on its neighbours, by 2e-7 of itself.
    """
    mu_ND, log_var_ND = posteriors(network, sentences)
    nll_N = torch.empty(len(sentences), dtype=torch.float64)
    for n, copy in enumerate(sentences.copies):
        noise_KD = hashed_normal(sentences[n], seed, (samples, network.latent), "nll_iw", copy)
        z_KD = reparameterised(mu_ND[n], log_var_ND[n], noise_KD)
        log_p_xz_K = estimators.standard_normal_log_prob(z_KD) - reconstruction_of_codes(network, sentences, n, z_KD)
        log_q_K = estimators.gaussian_log_prob(z_KD, mu_ND[n], log_var_ND[n])
        nll_N[n] = estimators.importance_weighted_nll(log_p_xz_K[None], log_q_K[None])[0]
        if bar is not None:
            bar.advance()
    return nll_N


def mutual_information_in_batches(sentences: Sentences, mu_ND: Tensor, log_var_ND: Tensor, z_ND: Tensor) -> float:
    """`mi_batch`: the MI in batches of 32 sentences, chosen by their hashes (He et al. 2019)."""
    return estimators.mutual_information_in_batches(mu_ND, log_var_ND, z_ND, hashed_batches(sentences, HE_BATCH))


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
    mu_ND, log_var_ND = posteriors(network, sentences)
    noise_ND = hashed_normals(sentences, seed, network.latent, "validation")
    z_ND = reparameterised(mu_ND, log_var_ND, noise_ND)
    reconstruction_N = reconstruction(network, sentences, z_ND)
    kl_N = estimators.gaussian_kl(mu_ND, log_var_ND)
    information = estimators.mutual_information(mu_ND, log_var_ND, z_ND, sentences.kinds)
    return {
        "valid_nll": float((reconstruction_N + kl_N).mean()),
        "valid_reconstruction": float(reconstruction_N.mean()),
        "valid_kl": float(kl_N.mean()),
        "valid_mi": float(information.mi),
        "valid_mi_batch": mutual_information_in_batches(sentences, mu_ND, log_var_ND, z_ND),
        "valid_au": float(estimators.active_units(mu_ND)),
        "valid_nll_iw": float(importance_weighted_nll(network, subset, iw_samples, seed).mean()),
    }
