"""Every measured number against a loop over sentences and words; none depends on batches or on the order."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import reference
import torch
from tiny import MODEL, Corpus, random_network, write_split
from tiny_model import written
from torch import Tensor
from torch.distributions import Normal

from components.evaluate import evaluate
from textvae import estimators, evaluation, inference
from textvae.config import EvaluationSettings
from textvae.corpus import (
    Batch,
    Sentences,
    collate,
    hashed_normal,
    hashed_normals,
    hashed_order,
    hashed_subset,
    sentence_hash,
)
from textvae.device import float32_precision
from textvae.evaluation import MEASURES, decoder_gain
from textvae.inference import (
    Batching,
    batching,
    importance_weighted_nll,
    posteriors,
    reconstruction,
    reconstruction_of_codes,
    validation,
    word_log_probs,
)
from textvae.networks import Kind, Network
from textvae.posteriors import Posterior
from textvae.records import Metrics, read_record

SEED = 5
SETTINGS = EvaluationSettings(
    elbo_samples=2, iw_sentences=6, iw_samples=4, gain_sentences=9, gain_codes=5, device="cpu"
)


def tf32() -> tuple[bool, bool]:
    """What holds for matrix products and for cuDNN's LSTM."""
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


def log_density(z: Tensor, mu: Tensor, log_var: Tensor) -> float:
    return float(Normal(mu, torch.exp(log_var / 2)).log_prob(z).sum())


def log_mean_exp(values: list[float]) -> float:
    return max(values) + math.log(math.fsum(math.exp(value - max(values)) for value in values) / len(values))


def copy_number(sentences: Sentences, n: int) -> int:
    """How many equal sentences stand before sentence n."""
    return sum(sentences[m].tolist() == sentences[n].tolist() for m in range(n))


def standard_error(values: list[float], texts: list[tuple[int, ...]]) -> float:
    """By loops: each sentence by itself, or equal ones as one cluster, whichever is larger."""
    plain, mean, groups = np.std(values, ddof=1) / math.sqrt(len(values)), np.mean(values), set(texts)
    squares = [sum(v - mean for v, own in zip(values, texts, strict=True) if own == text) ** 2 for text in groups]
    clustered = math.sqrt(len(groups) / (len(groups) - 1) * math.fsum(squares)) / len(values)
    return max(plain, clustered)


def texts_of(sentences: Sentences, indices: Iterable[int]) -> list[tuple[int, ...]]:
    return [tuple(sentences[n].tolist()) for n in indices]


def informative_vae(corpus: Corpus) -> Network:
    """Posteriors that differ from sentence to sentence, by a nat or so of MI, in all dimensions but the first."""
    network = random_network("vae", corpus.size).float()
    assert network.encoder is not None
    with torch.no_grad():
        for parameter in network.encoder.lstm.parameters():
            parameter.mul_(2)
        network.encoder.heads.weight.mul_(3)
        network.encoder.heads.weight[0] = 0
    return network


@pytest.fixture(scope="module")
def vae(corpus: Corpus) -> Network:
    return informative_vae(corpus)


@pytest.fixture(scope="module")
def language_model(corpus: Corpus) -> Network:
    return random_network("lstm_lm", corpus.size).float()


# --- what a network says about a split ---------------------------------------------------------------------------


def test_posteriors_are_each_sentences_own(vae: Network, corpus: Corpus) -> None:
    mu, log_var = posteriors(vae, corpus.test).moments()
    assert mu.dtype == log_var.dtype == torch.float64
    assert vae.encoder is not None
    for n in range(len(corpus.test)):
        expected = reference.posterior(vae.encoder, corpus.test[n].tolist())[:2]
        torch.testing.assert_close((mu[n], log_var[n]), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_reconstructions_are_each_sentences_own(kind: Kind, request: pytest.FixtureRequest, corpus: Corpus) -> None:
    network: Network = request.getfixturevalue("vae" if kind == "vae" else "language_model")
    z = hashed_normals(corpus.test, 0, MODEL.latent, "x") if kind == "vae" else None
    losses = reconstruction(network, corpus.test, z)
    assert losses.dtype == torch.float64
    for n in range(len(corpus.test)):
        code = None if z is None else z[n]
        expected = -reference.log_prob(network.decoder, corpus.test[n].tolist(), code)
        assert float(losses[n]) == pytest.approx(expected, abs=2e-5)


def read_in(monkeypatch: pytest.MonkeyPatch, tokens: int, *, together: bool) -> None:
    """Batches of so many tokens; `together`: the codes of several sentences in one, as on a GPU."""
    monkeypatch.setattr(inference, "batching", lambda device: Batching(tokens, together))


@pytest.mark.parametrize("max_tokens", [1, 50, 16_384])
def test_many_codes_for_each_of_several_sentences(
    max_tokens: int, vae: Network, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = hashed_normals(corpus.test, 0, MODEL.latent, "x")
    chosen = np.array([3, 0, 7])
    z_SKD = torch.stack([z, z.flip(0), 2 * z])
    expected = [
        reconstruction(vae, corpus.test.subset(np.full(len(z_KD), n)), z_KD)
        for n, z_KD in zip(chosen, z_SKD, strict=True)
    ]
    read_in(monkeypatch, max_tokens, together=True)
    found = reconstruction_of_codes(vae, collate(corpus.test, chosen), z_SKD)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("max_tokens", [1, 60, 500, 100_000])
def test_sentences_read_together_have_the_importance_weighted_nll_of_each_alone(
    max_tokens: int, vae: Network, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 1e-5 nats: a GPU reads the codes of several sentences at a time, a CPU those of one."""
    alone = importance_weighted_nll(vae, corpus.test, 6, SEED)
    sizes = []
    decode = vae.decoder.forward
    monkeypatch.setattr(vae.decoder, "forward", lambda batch, z: (sizes.append(len(batch)), decode(batch, z))[1])
    read_in(monkeypatch, max_tokens, together=True)
    torch.testing.assert_close(importance_weighted_nll(vae, corpus.test, 6, SEED), alone, atol=1e-5, rtol=0)
    assert sum(sizes) == 14 * 6
    assert max(sizes) == 1 if max_tokens == 1 else max(sizes) > 6


def test_a_gpu_multiplies_in_ieee_float32_whatever_the_training_does(
    vae: Network, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for part in (vae.encoder, vae.decoder):
        assert part is not None
        states = part.lstm.forward
        monkeypatch.setattr(part.lstm, "forward", lambda *given, own=states: (seen.append(tf32()), own(*given))[1])
    z_ND = hashed_normals(corpus.test, 0, MODEL.latent, "x")
    with float32_precision(tf32=True):
        importance_weighted_nll(vae, corpus.test, 2, SEED)
        reconstruction(vae, corpus.test, z_ND)
        word_log_probs(vae, corpus.test, z_ND)
        assert tf32() == (True, True)
        assert set(seen) == {(False, False)}


def test_a_cpu_reads_one_sentence_at_a_time_and_a_gpu_many() -> None:
    assert batching(torch.device("cpu")) == (16_384, False)
    assert batching(torch.device("cuda")) == (32_768, True)


def explicit_iw_nll(network: Network, sentences: Sentences, n: int, seed: int, samples: int) -> float:
    assert network.encoder is not None
    words, copy = sentences[n].tolist(), copy_number(sentences, n)
    mu, log_var, _ = reference.posterior(network.encoder, words)
    noise = hashed_normal(np.array(words, dtype=np.int32), seed, (samples, MODEL.latent), "nll_iw", copy)
    weights = []
    for k in range(samples):
        z = mu + torch.exp(log_var / 2) * noise[k]
        log_p_z = log_density(z, torch.zeros_like(z), torch.zeros_like(z))
        weights.append(reference.log_prob(network.decoder, words, z) + log_p_z - log_density(z, mu, log_var))
    return -log_mean_exp(weights)


def test_the_importance_weighted_nll_is_burdas(vae: Network, corpus: Corpus) -> None:
    nll = importance_weighted_nll(vae, corpus.test, 6, SEED)
    expected = [explicit_iw_nll(vae, corpus.test, n, SEED, 6) for n in range(len(corpus.test))]
    assert nll.tolist() == pytest.approx(expected, abs=1e-4)


def test_validation_is_the_elbo_at_beta_one(vae: Network, corpus: Corpus) -> None:
    columns = validation(vae, corpus.valid, SEED, 5, 4)
    assert vae.encoder is not None
    kl, losses = [], []
    for n in range(len(corpus.valid)):
        words = corpus.valid[n].tolist()
        mu, log_var, _ = reference.posterior(vae.encoder, words)
        z = mu + torch.exp(log_var / 2) * hashed_normal(
            corpus.valid[n], SEED, (MODEL.latent,), "validation", copy_number(corpus.valid, n)
        )
        losses.append(-reference.log_prob(vae.decoder, words, z))
        kl.append(float((mu**2 + log_var.exp() - 1 - log_var).sum() / 2))
    assert columns["valid_reconstruction"] == pytest.approx(np.mean(losses), abs=1e-4)
    assert columns["valid_kl"] == pytest.approx(np.mean(kl), abs=1e-4)
    assert columns["valid_nll"] == pytest.approx(np.mean(losses) + np.mean(kl), abs=1e-4)
    subset = hashed_subset(corpus.valid, 5, "validation nll_iw")
    chosen = corpus.valid.subset(subset)
    expected = np.mean([explicit_iw_nll(vae, chosen, n, SEED, 4) for n in range(5)])
    assert columns["valid_nll_iw"] == pytest.approx(expected, abs=1e-4)
    assert columns["valid_mi"] <= math.log(len(corpus.valid))
    assert columns["valid_mi_batch"] == pytest.approx(columns["valid_mi"]), "12 sentences are less than a batch of 32"


def test_validation_of_a_language_model_is_exact(language_model: Network, corpus: Corpus) -> None:
    columns = validation(language_model, corpus.valid, SEED, 5, 4)
    losses = [-reference.log_prob(language_model.decoder, corpus.valid[n].tolist(), None) for n in range(12)]
    assert columns["valid_nll"] == columns["valid_reconstruction"] == pytest.approx(np.mean(losses), abs=1e-4)
    subset = hashed_subset(corpus.valid, 5, "validation nll_iw")
    assert columns["valid_nll_iw"] == pytest.approx(np.mean([losses[n] for n in subset]), abs=1e-4)


# --- the evaluate step -------------------------------------------------------------------------------------------


def write(folder: Path, network: Network, corpus: Corpus, **changes: Any) -> Path:
    system = "lstm_lm" if network.kind == "lstm_lm" else "vae_05"
    return written(folder, network, corpus, **{"system": system, "seed": SEED, **changes})


def measured(model: Path, corpus_folder: Path, out: Path) -> dict[str, Any]:
    evaluate(model=model, corpus=corpus_folder, settings=SETTINGS, evaluation=out)
    metrics = read_record(out / "metrics.json", Metrics)
    assert set(metrics.pop("files")) == {"posterior.parquet", "sentences.parquet"}
    return metrics


def assert_same_numbers(ours: dict[str, Any], expected: dict[str, Any]) -> None:
    """Within 1e-5 nats; a perplexity within 1e-5 of itself, which is as much in nats a word."""
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        if name == "ppl":
            assert ours[name] == pytest.approx(value, rel=1e-5)
        elif isinstance(value, float):
            assert ours[name] == pytest.approx(value, abs=1e-5), name
        else:
            assert ours[name] == value, name


@pytest.fixture(scope="module")
def model(vae: Network, corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("vae") / "model", vae, corpus)


@pytest.fixture(scope="module")
def metrics(model: Path, corpus_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of the VAE, as its step writes them."""
    return measured(model, corpus_folder, tmp_path_factory.mktemp("vae") / "evaluation")


def test_all_measures_are_there_and_nothing_else(metrics: dict[str, Any]) -> None:
    identity = {"dataset": "tiny", "system": "vae_05", "seed": SEED, "status": "finished", "failure": None}
    identity["split"] = "test"
    assert metrics.keys() == {*identity, "model_sha256", *MEASURES}
    assert {name: metrics[name] for name in identity} == identity
    assert all(metrics[name] is not None for name in MEASURES)


def test_nll_kl_and_perplexity_are_those_of_a_loop(metrics: dict[str, Any], vae: Network, corpus: Corpus) -> None:
    assert vae.encoder is not None
    nll, kl, tokens = [], [], 0
    for n in range(len(corpus.test)):
        words = corpus.test[n].tolist()
        mu, log_var, _ = reference.posterior(vae.encoder, words)
        kl.append(float((mu**2 + log_var.exp() - 1 - log_var).sum() / 2))
        losses = []
        for sample in range(SETTINGS.elbo_samples):
            copy = copy_number(corpus.test, n)
            noise = hashed_normal(corpus.test[n], SEED, (MODEL.latent,), f"elbo {sample}", copy)
            losses.append(-reference.log_prob(vae.decoder, words, mu + torch.exp(log_var / 2) * noise))
        nll.append(np.mean(losses) + kl[-1])
        tokens += len(words) + 1
    count = len(nll)
    expected = {
        "nll": np.mean(nll),
        "nll_se": standard_error(nll, texts_of(corpus.test, range(count))),
        "kl": np.mean(kl),
        "kl_se": standard_error(kl, texts_of(corpus.test, range(count))),
        "ppl": math.exp(np.sum(nll) / tokens),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-5)
    assert (metrics["sentences"], metrics["tokens"]) == (count, tokens)

    subset = hashed_subset(corpus.test, SETTINGS.iw_sentences, "nll_iw")
    chosen = corpus.test.subset(subset)
    iw = [explicit_iw_nll(vae, chosen, n, SEED, SETTINGS.iw_samples) for n in range(6)]
    assert metrics["nll_iw"] == pytest.approx(np.mean(iw), rel=1e-5)
    assert metrics["nll_iw_se"] == pytest.approx(standard_error(iw, texts_of(chosen, range(6))), rel=1e-4)
    assert metrics["nll_subset"] == pytest.approx(np.mean([nll[n] for n in subset]), rel=1e-5)
    assert (metrics["iw_sentences"], metrics["iw_samples"], metrics["gain_sentences"]) == (6, 4, 9)


def test_the_information_is_that_of_the_last_samples(metrics: dict[str, Any], vae: Network, corpus: Corpus) -> None:
    """q(z) over all test sentences, each with its own component: two nested loops."""
    assert vae.encoder is not None
    count = len(corpus.test)
    found = [reference.posterior(vae.encoder, corpus.test[n].tolist())[:2] for n in range(count)]
    terms: dict[str, list[float]] = {"mi": [], "mi_upper": [], "kl_agg": []}
    for n, (mu, log_var) in enumerate(found):
        noise = hashed_normal(corpus.test[n], SEED, (MODEL.latent,), "elbo 1", copy_number(corpus.test, n))
        z = mu + torch.exp(log_var / 2) * noise
        densities = [log_density(z, *other) for other in found]
        own, others = densities[n], densities[:n] + densities[n + 1 :]
        terms["mi"].append(own - log_mean_exp(densities))
        terms["mi_upper"].append(own - log_mean_exp(others))
        terms["kl_agg"].append(log_mean_exp(densities) - log_density(z, torch.zeros_like(z), torch.zeros_like(z)))
    for name, values in terms.items():
        assert metrics[name] == pytest.approx(np.mean(values), abs=1e-4)
        expected = standard_error(values, texts_of(corpus.test, range(count)))
        assert metrics[f"{name}_se"] == pytest.approx(expected, abs=1e-4)
    assert metrics["mi_batch"] == pytest.approx(metrics["mi"]), "14 sentences are less than a batch of 32"
    assert metrics["mi"] > 0.5, "posteriors that are all alike would prove little"
    means = torch.stack([mu for mu, _ in found])
    assert metrics["au"] == int((means.var(0) >= 0.01).sum()) == MODEL.latent - 1


def test_the_gain_compares_a_sentences_code_with_those_of_others(
    metrics: dict[str, Any], model: Path, vae: Network, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    """With as many codes as there are sentences no choice is left: the own code and each other one, once."""
    assert vae.encoder is not None
    assert metrics["gain"] <= 0.8 * math.log(SETTINGS.gain_codes)
    assert metrics["gain_codes"] == SETTINGS.gain_codes
    count = len(corpus.test)
    codes = []
    for n in range(count):
        mu, log_var, _ = reference.posterior(vae.encoder, corpus.test[n].tolist())
        noise = hashed_normal(corpus.test[n], SEED, (MODEL.latent,), "elbo 1", copy_number(corpus.test, n))
        codes.append(mu + torch.exp(log_var / 2) * noise)
    gains = []
    subset = hashed_subset(corpus.test, SETTINGS.gain_sentences, "gain")
    for n in subset:
        scores = [reference.log_prob(vae.decoder, corpus.test[n].tolist(), code) for code in codes]
        gains.append(scores[n] - log_mean_exp(scores))
    for asked in (count, 1000):
        out = tmp_path / str(asked)
        all_codes = SETTINGS.model_copy(update={"gain_codes": asked})
        ours = evaluate(model=model, corpus=corpus_folder, settings=all_codes, evaluation=out)
        assert ours["gain"] == pytest.approx(np.mean(gains), abs=1e-4)
        assert ours["gain_se"] == pytest.approx(standard_error(gains, texts_of(corpus.test, subset)), abs=1e-4)


def owners(sentences: Sentences, z_ND: Tensor, batch: Batch, z_SKD: Tensor) -> list[int]:
    """Which sentences a batch holds, by their words and by the codes that come first (equal ones differ in these)."""
    own_S = [int((z_ND == z_KD[0]).all(dim=1).nonzero()) for z_KD in z_SKD]
    for n, tokens_T, length in zip(own_S, batch.tokens_BT, batch.lengths_B, strict=True):
        assert tokens_T[1 : int(length) - 1].tolist() == sentences[n].tolist()
    return own_S


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("begun", "most", "sharpness", "expected"),
    [(2, 1024, 50.0, 14), (2, 7, 50.0, 7), (2, 2, 50.0, 2), (3, 1, 50.0, 3), (14, 1024, 50.0, 14), (2, 1024, 1.2, 8)],
)
def test_the_codes_of_the_gain_grow_while_it_is_near_their_log(
    begun: int,
    most: int,
    sharpness: float,
    expected: int,
    together: bool,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against loops, with a decoder that tells codes apart by their distance: fourfold while above 0.8 log K.

    The nine sentences are fewer than a pilot's 64, so it is all of them.
    """
    read_in(monkeypatch, 100, together=together)
    z_ND = hashed_normals(corpus.test, SEED, MODEL.latent, "elbo 0")

    def told(network: Network, batch: Batch, z_SKD: Tensor) -> Tensor:
        own_S = owners(corpus.test, z_ND, batch, z_SKD)
        return sharpness * (z_SKD - z_ND[own_S][:, None]).square().sum(2)

    monkeypatch.setattr(evaluation, "reconstruction_of_codes", told)
    settings = SETTINGS.model_copy(update={"gain_codes": begun, "max_gain_codes": most})
    subset, order = hashed_subset(corpus.test, 9, "gain"), hashed_order(corpus.test, "gain codes")

    def looped(codes: int) -> list[float]:
        gains = []
        for n in subset:
            key = sentence_hash(corpus.test[n], SEED, "gain", copy_number(corpus.test, n))
            drawn = np.random.Generator(np.random.Philox(key=key)).choice(14, codes, replace=False)
            others = [order[i] for i in drawn if order[i] != n][: codes - 1]
            own, *scores = [-sharpness * float((z_ND[i] - z_ND[n]).square().sum()) for i in (n, *others)]
            gains.append(own - log_mean_exp([own, *scores]))
        return gains

    codes = begun
    while np.mean(looped(codes)) > 0.8 * math.log(codes) and codes < min(most, 14):
        codes = min(4 * codes, most, 14)
    gain_S, used = decoder_gain(random_network("vae", corpus.size), corpus.test, subset, z_ND, settings, SEED)
    assert used == codes == expected
    assert gain_S.tolist() == pytest.approx(looped(codes), rel=1e-12)


def test_a_pilot_of_a_few_sentences_decides_for_all(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ones with the smallest hashes, here 3 of 9, whose codes alone the decoder hears."""
    monkeypatch.setattr(evaluation, "GAIN_PILOT", 3)
    z_ND = hashed_normals(corpus.test, SEED, MODEL.latent, "elbo 0")
    subset, pilot = (hashed_subset(corpus.test, count, "gain") for count in (9, 3))
    heard: list[int] = []

    def told(network: Network, batch: Batch, z_SKD: Tensor) -> Tensor:
        own_S = owners(corpus.test, z_ND, batch, z_SKD)
        heard.extend(own_S)
        hears_S11 = torch.from_numpy(np.isin(own_S, pilot)).double()[:, None]
        return 50.0 * hears_S11 * (z_SKD - z_ND[own_S][:, None]).square().sum(2)

    monkeypatch.setattr(evaluation, "reconstruction_of_codes", told)
    settings = SETTINGS.model_copy(update={"gain_codes": 2})
    gain_S, codes = decoder_gain(random_network("vae", corpus.size), corpus.test, subset, z_ND, settings, SEED)
    assert codes == 14
    assert [n for n in subset if n not in pilot] == [n for n, gain in zip(subset, gain_S, strict=True) if gain == 0]
    assert sorted(heard) == sorted([*pilot, *pilot, *subset]), "2, 8 and 14 codes; nothing measured twice"


def test_as_many_codes_as_suffice_give_the_numbers_of_those_codes(corpus: Corpus) -> None:
    """The pilot costs nothing and changes no bit where it finds the codes enough."""
    network = informative_vae(corpus)
    z_ND = hashed_normals(corpus.test, SEED, MODEL.latent, "elbo 0")
    subset = hashed_subset(corpus.test, 9, "gain")
    with_pilot, without = (
        decoder_gain(network, corpus.test, subset, z_ND, SETTINGS.model_copy(update={"max_gain_codes": most}), SEED)
        for most in (1024, 5)
    )
    assert with_pilot[1] == without[1] == 5
    assert with_pilot[0].tolist() == without[0].tolist()


def test_the_gain_is_zero_where_the_decoder_ignores_the_code(
    corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    deaf = informative_vae(corpus)
    with torch.no_grad():
        assert deaf.decoder.initial is not None
        deaf.decoder.initial.weight.zero_()
        deaf.decoder.lstm.weight_ih_l0[:, MODEL.embedding :] = 0
    metrics = measured(write(tmp_path / "model", deaf, corpus), corpus_folder, tmp_path / "evaluation")
    assert abs(metrics["gain"]) < 1e-5
    assert metrics["mi"] > 0.5, "which MI does not see"


def test_the_posteriors_are_written_for_every_sentence(
    model: Path, vae: Network, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    measured(model, corpus_folder, tmp_path / "evaluation")
    table = pq.read_table(tmp_path / "evaluation" / "posterior.parquet")
    mu, log_var = posteriors(vae, corpus.test).moments()
    assert table["sentence"].to_pylist() == [
        " ".join(corpus.vocabulary.words[i - 4] for i in corpus.test[n]) for n in range(len(corpus.test))
    ]
    np.testing.assert_allclose(np.array(table["mu"].to_pylist()), mu.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.array(table["log_var"].to_pylist()), log_var.numpy(), atol=1e-6)
    assert str(table.schema.field("mu").type).startswith("fixed_size_list")


def table_of_sentences(folder: Path) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """sentences.parquet: whose it is, and its columns."""
    table = pq.read_table(folder / "sentences.parquet")
    assert [str(field.type) for field in table.schema] == ["string"] + ["double"] * 5
    return json.loads(table.schema.metadata[b"textvae"]), table.to_pydict()


def test_the_numbers_of_every_sentence_are_written_and_their_means_are_the_columns(
    model: Path, vae: Network, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    """NLL-IW and gain of the sentences of their subsets alone, the others null; NLL-IW and KL by loops."""
    metrics = measured(model, corpus_folder, tmp_path)
    about, columns = table_of_sentences(tmp_path)
    assert columns["sentence"] == pq.read_table(tmp_path / "posterior.parquet")["sentence"].to_pylist()
    assert {key: about[key] for key in ("dataset", "system", "seed", "split")} == {
        key: metrics[key] for key in ("dataset", "system", "seed", "split")
    }
    assert vae.encoder is not None
    for n in range(len(corpus.test)):
        mu, log_var, _ = reference.posterior(vae.encoder, corpus.test[n].tolist())
        assert columns["kl"][n] == pytest.approx(float((mu**2 + log_var.exp() - 1 - log_var).sum() / 2), abs=1e-4)
        assert columns["nll"][n] == columns["reconstruction"][n] + columns["kl"][n]
    subset = hashed_subset(corpus.test, SETTINGS.iw_sentences, "nll_iw")
    chosen = corpus.test.subset(subset)
    for row, n in enumerate(subset):
        expected = explicit_iw_nll(vae, chosen, row, SEED, SETTINGS.iw_samples)
        assert columns["nll_iw"][n] == pytest.approx(expected, abs=1e-4)
    others = {"nll_iw": subset, "gain": hashed_subset(corpus.test, SETTINGS.gain_sentences, "gain")}
    for name in ("nll", "kl", "nll_iw", "gain"):
        values = [value for value in columns[name] if value is not None]
        assert metrics[name] == pytest.approx(np.mean(values), rel=1e-12)
        measured_ones = [n for n, value in enumerate(columns[name]) if value is not None]
        assert measured_ones == list(others.get(name, range(len(corpus.test))))


def test_files_say_by_a_hash_whether_their_sentences_are_the_same(
    model: Path, language_model: Network, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    measured(model, corpus_folder, tmp_path / "vae")
    measured(write(tmp_path / "model", language_model, corpus), corpus_folder, tmp_path / "lm")
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    write_split(tmp_path / "corpus" / "test.parquet", corpus.test.subset(np.arange(13)))
    measured(model, tmp_path / "corpus", tmp_path / "fewer")
    write_split(tmp_path / "corpus" / "test.parquet", corpus.test.subset(np.arange(14)[::-1]))
    measured(model, tmp_path / "corpus", tmp_path / "turned")
    hashes = {name: table_of_sentences(tmp_path / name)[0]["sentences_sha256"] for name in ("vae", "fewer", "turned")}
    assert len(set(hashes.values())) == 3
    assert table_of_sentences(tmp_path / "lm")[0]["sentences_sha256"] == hashes["vae"]


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("max_tokens", [1, 40, 100, 100_000])
def test_no_number_depends_on_the_batches(
    max_tokens: int,
    together: bool,
    metrics: dict[str, Any],
    model: Path,
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read_in(monkeypatch, max_tokens, together=together)
    assert_same_numbers(measured(model, corpus_folder, tmp_path / "evaluation"), metrics)


def test_no_number_depends_on_the_order_of_the_sentences(
    metrics: dict[str, Any], model: Path, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    texts = texts_of(corpus.test, range(len(corpus.test)))
    assert len(set(texts)) < len(texts), "some sentence is there twice, the harder case"
    for attempt in range(3):
        order = np.random.default_rng(attempt).permutation(len(corpus.test))
        shutil.copytree(corpus_folder, tmp_path / str(attempt))
        write_split(tmp_path / str(attempt) / "test.parquet", corpus.test.subset(order))
        ours = measured(model, tmp_path / str(attempt), tmp_path / f"evaluation {attempt}")
        assert_same_numbers(ours, metrics)


def test_an_evaluation_is_the_same_bytes_again(model: Path, corpus_folder: Path, tmp_path: Path) -> None:
    for attempt in ("a", "b"):
        torch.manual_seed(ord(attempt))
        measured(model, corpus_folder, tmp_path / attempt)
    for name in ("metrics.json", "sentences.parquet", "posterior.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_language_models_numbers_are_exact_and_those_of_codes_null(
    language_model: Network, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    model = write(tmp_path / "model", language_model, corpus)
    metrics = measured(model, corpus_folder, tmp_path / "evaluation")
    losses = [-reference.log_prob(language_model.decoder, corpus.test[n].tolist(), None) for n in range(14)]
    tokens = int(corpus.test.lengths.sum()) + 14
    subset = hashed_subset(corpus.test, SETTINGS.iw_sentences, "nll_iw")
    assert metrics["nll"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["ppl"] == pytest.approx(math.exp(sum(losses) / tokens), rel=1e-5)
    expected = pytest.approx(np.mean([losses[n] for n in subset]), rel=1e-5)
    assert metrics["nll_iw"] == metrics["nll_subset"] == expected
    of_codes = {"kl", "mi", "mi_upper", "mi_batch", "kl_agg", "gain", "au", "iw_samples"}
    of_codes |= {"gain_sentences", "gain_codes"}
    assert {name for name in MEASURES if metrics[name] is None} == {
        *of_codes,
        *(f"{name}_se" for name in ("kl", "mi", "mi_upper", "kl_agg", "gain")),
    }
    _, columns = table_of_sentences(tmp_path / "evaluation")
    assert columns["nll"] == columns["reconstruction"] == pytest.approx(losses, rel=1e-5)
    assert columns["kl"] == columns["gain"] == [None] * 14
    assert columns["nll_iw"] == [columns["nll"][n] if n in subset else None for n in range(14)]
    assert pq.read_table(tmp_path / "evaluation" / "posterior.parquet").num_rows == 0


def test_a_diverged_run_has_its_failure_and_no_numbers(
    vae: Network, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    failure = {"message": "diverged in epoch 1", "epoch": 1}
    model = write(tmp_path / "model", vae, corpus, status="diverged", failure=failure)
    metrics = measured(model, corpus_folder, tmp_path / "evaluation")
    assert (metrics["status"], metrics["failure"], metrics["seed"]) == ("diverged", failure, SEED)
    assert all(metrics[name] is None for name in MEASURES)
    about, columns = table_of_sentences(tmp_path / "evaluation")
    assert (about["status"], columns["sentence"]) == ("diverged", [])
    assert pq.read_table(tmp_path / "evaluation" / "posterior.parquet").num_rows == 0


def scaled(network: Network, name: str, factor: float) -> Network:
    with torch.no_grad():
        network.get_parameter(name).mul_(factor)
    return network


@pytest.mark.parametrize(
    ("kind", "name", "factor"),
    [
        ("vae", "encoder.heads.weight", 1e3),  # a KL of thousands of nats
        ("vae", "encoder.heads.weight", 1e30),
        ("vae", "decoder.output.weight", 1e4),  # a perplexity past the largest float
        ("lstm_lm", "decoder.output.weight", 1e4),
    ],
)
def test_numbers_of_no_use_are_a_diverged_run_not_a_crash(
    kind: Kind, name: str, factor: float, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    network = scaled(random_network(kind, corpus.size).float(), name, factor)
    metrics = measured(write(tmp_path / "model", network, corpus), corpus_folder, tmp_path / "evaluation")
    assert metrics["status"] == "diverged"
    assert "nats a token" in metrics["failure"]["message"]
    assert all(metrics[measure] is None for measure in MEASURES)
    about, columns = table_of_sentences(tmp_path / "evaluation")
    assert (about["status"], columns["sentence"]) == ("diverged", [])
    assert pq.read_table(tmp_path / "evaluation" / "posterior.parquet").num_rows == 0


def test_a_bad_model_is_still_measured(corpus: Corpus, corpus_folder: Path, tmp_path: Path) -> None:
    network = scaled(random_network("lstm_lm", corpus.size).float(), "decoder.output.weight", 30)
    metrics = measured(write(tmp_path / "model", network, corpus), corpus_folder, tmp_path / "evaluation")
    assert metrics["status"] == "finished"
    assert metrics["ppl"] > 1e6, "far worse than a uniform distribution over 14 classes"


def test_a_number_that_contradicts_mathematics_ends_with_70_and_writes_nothing(
    model: Path,
    corpus_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A q(z) that lacks the sentence's own component: MI above log N."""

    def without_own(z: Tensor, posterior: Posterior, own: Tensor) -> estimators.AggregatePosterior:
        return estimators.AggregatePosterior(torch.full((len(z),), -99.0), torch.full((len(z),), -99.0))

    monkeypatch.setattr(estimators, "log_aggregate_posterior", without_own)
    arguments = ["--model", str(model), "--corpus", str(corpus_folder), "--evaluation", str(tmp_path / "evaluation")]
    with pytest.raises(SystemExit) as ended:
        evaluate.main([*arguments, "--settings", SETTINGS.model_dump_json()])
    assert ended.value.code == 70
    errors = capsys.readouterr().err
    assert "error: MI" in errors
    assert f"log N = {math.log(14):.6g}" in errors
    assert "'nll'" in errors, "the numbers are shown"
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_of_another_vocabulary_is_refused(model: Path, corpus_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus_folder, tmp_path / "corpus")
    write_split(tmp_path / "corpus" / "test.parquet", Sentences.of([[4, 400], [5]]))
    arguments = ["--model", str(model), "--corpus", str(tmp_path / "corpus")]
    arguments += ["--evaluation", str(tmp_path / "evaluation"), "--settings", "{}"]
    with pytest.raises(SystemExit) as ended:
        evaluate.main(arguments)
    assert ended.value.code == 65
