"""Measure a trained model on the test set."""

import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from components.step import Input, Output, step
from textvae import checkpoint, estimators
from textvae.config import EvaluationSettings, SplitName
from textvae.corpus import IntArray, Sentences, hashed_normals, hashed_order, hashed_subset, sentence_hash
from textvae.errors import BrokenResultError, SettingsError
from textvae.evaluation import (
    importance_weighted_nll,
    mutual_information_in_batches,
    posteriors,
    reconstruction,
    reconstruction_of_codes,
)
from textvae.files import write_json
from textvae.networks import Network, reparameterised
from textvae.progress import progress

MEASURES = (
    *("nll", "nll_se", "nll_iw", "nll_iw_se", "nll_subset", "nll_subset_se", "iw_sentences", "iw_samples"),
    *("kl", "kl_se", "ppl", "mi", "mi_se", "mi_upper", "mi_upper_se", "mi_batch", "kl_agg", "kl_agg_se"),
    *("gain", "gain_se", "gain_sentences", "au", "sentences", "tokens"),
)


@step
def evaluate(
    model: Annotated[Path, Input("Model", "The model directory that train wrote.")],
    corpus: Annotated[Path, Input("Dataset", "The corpus folder that preprocess wrote.")],
    settings: EvaluationSettings,
    evaluation: Annotated[Path, Output("Metrics", "The folder to write: metrics.json, posterior.parquet.")],
    split: Annotated[str, "The sentences: test, or valid to choose settings by."] = "test",
) -> dict[str, Any]:
    """Measure a model on the test set: NLL, NLL-IW, KL, PPL, MI, gain, AU, with standard errors.

    Also writes every sentence's posterior (posterior.parquet). A model whose NLL is not finite, or that of no
    model, is marked as diverged. Ends with exit code 70 when a number contradicts mathematics (MI above
    log N, say); the numbers are printed, nothing is written.

    \b
    Examples:
      python -m components.evaluate --model runs/sotu/vae_mine/1/model --corpus corpora/sotu/corpus \\
          --settings settings/sotu/vae_mine/evaluate.json --evaluation runs/sotu/vae_mine/1/evaluation
    """
    if split not in get_args(SplitName):
        raise SettingsError(f"--split {split}: choose one of {', '.join(get_args(SplitName))}")
    trained = checkpoint.load(model, device=settings.device)
    metrics: dict[str, Any] = {**trained.identity, "split": split, **dict.fromkeys(MEASURES)}
    evaluation.mkdir()
    words: list[str] = []
    mu_ND = log_var_ND = torch.zeros(0, 0)
    if trained.network is not None:
        sentences = Sentences.load(corpus / f"{split}.parquet", len(trained.vocabulary))
        seed = int(trained.config["seed"])
        if trained.network.kind == "lstm_lm":
            metrics |= measure_language_model(trained.network, sentences, settings)
        else:
            mu_ND, log_var_ND = posteriors(trained.network, sentences)
            metrics |= measure(trained.network, sentences, mu_ND, log_var_ND, settings, seed)
            words = [trained.vocabulary.decode(sentences[i]) for i in range(len(sentences))]
        if metrics["status"] == "diverged":
            print(f"DIVERGED: {metrics['failure']['message']}; the report will show it as such", file=sys.stderr)
            words, mu_ND, log_var_ND = [], mu_ND[:0], log_var_ND[:0]
    write_posterior(evaluation / "posterior.parquet", words, mu_ND, log_var_ND)
    write_json(evaluation / "metrics.json", metrics)
    return {key: value for key, value in metrics.items() if value is not None}


def measure_language_model(network: Network, sentences: Sentences, settings: EvaluationSettings) -> dict[str, Any]:
    """LSTM-LM's columns: its NLL is exact, so NLL-IW is the NLL of that subset."""
    nll_N = reconstruction(network, sentences, None)
    if diverged := outcome(sentences, nll_N):
        return diverged
    subset = hashed_subset(sentences, settings.iw_sentences, "nll_iw")
    on_subset = nll_columns(sentences, nll_N, subset, nll_N[torch.from_numpy(subset)])
    return {**on_subset, **size_columns(sentences, nll_N), "iw_sentences": len(subset), "iw_samples": None}


def measure(
    network: Network,
    sentences: Sentences,
    mu_ND: Tensor,
    log_var_ND: Tensor,
    settings: EvaluationSettings,
    seed: int,
) -> dict[str, Any]:
    """A VAE's columns. Raises BrokenResultError where they contradict mathematics."""
    kl_N = estimators.gaussian_kl(mu_ND, log_var_ND)
    reconstruction_N = torch.zeros(len(sentences), dtype=torch.float64)
    for sample in range(settings.elbo_samples):
        z_ND = reparameterised(mu_ND, log_var_ND, hashed_normals(sentences, seed, network.latent, f"elbo {sample}"))
        reconstruction_N += reconstruction(network, sentences, z_ND) / settings.elbo_samples
    nll_N = reconstruction_N + kl_N
    if diverged := outcome(sentences, nll_N):
        return diverged
    information = estimators.mutual_information(mu_ND, log_var_ND, z_ND, sentences.kinds)
    subset = hashed_subset(sentences, settings.iw_sentences, "nll_iw")
    with progress("evaluate: NLL-IW", len(subset), "sentences") as bar:
        iw_N = importance_weighted_nll(network, sentences.subset(subset), settings.iw_samples, seed, bar)
    gain_subset = hashed_subset(sentences, settings.gain_sentences, "gain")
    gain_N = decoder_gain(network, sentences, gain_subset, z_ND, settings.gain_codes, seed)
    gain, gain_se = estimators.mean_and_se(gain_N, sentences.kinds[torch.from_numpy(gain_subset)])
    metrics = {
        **nll_columns(sentences, nll_N, subset, iw_N),
        **size_columns(sentences, nll_N),
        "iw_sentences": len(subset),
        "iw_samples": settings.iw_samples,
        "gain": gain,
        "gain_se": gain_se,
        "gain_sentences": len(gain_N),
        "mi_batch": mutual_information_in_batches(sentences, mu_ND, log_var_ND, z_ND),
        "au": estimators.active_units(mu_ND),
        **{name: getattr(information, name) for name in ("kl", "mi", "mi_upper", "kl_agg")},
        **{f"{name}_se": getattr(information, f"{name}_se") for name in ("kl", "mi", "mi_upper", "kl_agg")},
    }
    problems = estimators.sanity_problems(information)
    if problems:
        print(metrics, file=sys.stderr)
        raise BrokenResultError("; ".join(problems) + ". Nothing was written: this is a bug, please report it")
    return metrics


def outcome(sentences: Sentences, nll_N: Tensor) -> dict[str, Any]:
    """What marks a model as diverged whose NLL is no model's; nothing for any other."""
    tokens = int(sentences.lengths.sum()) + len(sentences)
    reason = estimators.uselessness(float(nll_N.sum()), tokens)
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
    tokens = int(sentences.lengths.sum()) + len(sentences)
    return {"sentences": len(sentences), "tokens": tokens, "ppl": estimators.perplexity(float(nll_N.sum()), tokens)}


def decoder_gain(
    network: Network, sentences: Sentences, subset: IntArray, z_ND: Tensor, codes: int, seed: int
) -> Tensor:
    """`estimators.decoder_gain` (S): each sentence of the subset, its own code against those of others, drawn by its
    hash from all sentences."""
    codes = min(codes, len(sentences))
    order = hashed_order(sentences, "gain codes")
    log_p_SK = torch.empty(len(subset), codes, dtype=torch.float64)
    with progress("evaluate: gain", len(subset), "sentences") as bar:
        for row, n in enumerate(subset):
            key = sentence_hash(sentences[n], seed, "gain", sentences.copies[n])
            drawn = order[np.random.Generator(np.random.Philox(key=key)).choice(len(order), codes, replace=False)]
            others = [i for i in drawn if i != n][: codes - 1]
            log_p_SK[row] = -reconstruction_of_codes(network, sentences, n, z_ND[[n, *others]])
            bar.advance()
    return estimators.decoder_gain(log_p_SK)


def write_posterior(path: Path, words: list[str], mu_ND: Tensor, log_var_ND: Tensor) -> None:
    """One row per sentence: its words, mu and log sigma^2 (float32 lists of D); no rows for LSTM-LM."""
    columns = {"sentence": pa.array(words, pa.string())}
    for name, values_ND in (("mu", mu_ND), ("log_var", log_var_ND)):
        flat = pa.array(values_ND.float().numpy().ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, max(values_ND.shape[1], 1))
    pq.write_table(pa.table(columns), path)


if __name__ == "__main__":
    evaluate.main()
