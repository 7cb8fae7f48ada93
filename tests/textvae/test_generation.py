"""Generated sentences against the enumerated distribution of a tiny model, and each decoding against its definition."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import reference
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from made_files import SHA256, model_config, run_settings
from scipy import stats
from tiny import MODEL, Corpus, random_network
from torch import Tensor

from components.sample import sample
from components.train import write_model
from textvae import checkpoint, generation
from textvae.config import ModelSettings, SamplingSettings
from textvae.corpus import Sentences
from textvae.generation import (
    PLACES,
    Chances,
    Pace,
    Sample,
    Samples,
    StepwiseDecoder,
    choose,
    drawn,
    generate,
    nucleus,
    pace,
    prior_samples,
)
from textvae.inference import reconstruction
from textvae.networks import Kind, Network
from textvae.training import Outcome
from textvae.vocabulary import EOS, FIRST_TARGET

VOCABULARY = 7
"""EOS, UNK and three words can be generated."""
ANCESTRAL = SamplingSettings(sentences=60, max_length=8, device="cpu")
LARGEST_UNIFORM = 1 - 2**-24
"""Of the float32 numbers that `random` returns."""


def network_of(kind: Kind, seed: int = 0) -> Network:
    return random_network(kind, VOCABULARY, seed=seed).float()


def some_codes(count: int, latent: int = MODEL.latent) -> Tensor:
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(2))


def uniforms(count: int, length: int, seed: int = 0) -> Tensor:
    return torch.rand(count, length, generator=torch.Generator().manual_seed(seed))


def generated(network: Network, z: Tensor | None, chances_NP: Tensor, how: SamplingSettings) -> list[Sample]:
    """Sentences for given codes and given chances, one for each place."""
    count, places = chances_NP.shape
    how = how.model_copy(update={"max_length": places - 1})

    def draw(rows_B: Tensor, place_B: Tensor) -> Tensor:
        columns_BP = place_B[:, None] + torch.arange(PLACES)
        return chances_NP[rows_B[:, None], columns_BP.clamp_max(places - 1)]

    return list(generate(network, count, z, how, draw))


# --- whole sentences ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_sentences_are_as_frequent_as_the_model_says(kind: Kind) -> None:
    """All sentences of up to 2 words and all beginnings of 3: 1 + 4 + 16 + 64 cells, chi-square."""
    network, count, length = network_of(kind), 20_000, 3
    z = some_codes(1) if kind == "vae" else None
    samples = generated(
        network,
        None if z is None else z.expand(count, -1),
        uniforms(count, length + 1),
        SamplingSettings(max_length=length),
    )
    observed = Counter(tuple(one.tokens) for one in samples)
    ids = range(EOS + 1, VOCABULARY)
    cells = [words for size in range(length + 1) for words in itertools.product(ids, repeat=size)]
    code = None if z is None else z[0]
    expected = {
        words: count * math.exp(reference.log_prob(network.decoder, list(words), code, ended=len(words) < length))
        for words in cells
    }
    assert set(observed) <= set(expected)
    assert sum(expected.values()) == pytest.approx(count)
    common = [words for words in cells if expected[words] >= 5]
    assert len(common) > 20
    rest = [count - sum(table[words] for words in common) for table in (observed, expected)]
    result = stats.chisquare([*(observed[w] for w in common), rest[0]], [*(expected[w] for w in common), rest[1]])
    assert result.pvalue > 1e-4


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
@pytest.mark.parametrize("changes", [{}, {"temperature": 0.5}, {"top_k": 2}, {"top_p": 0.5}, {"temperature": 0.0}])
def test_the_log_probability_is_the_decoders_own_whatever_the_decoding(kind: Kind, changes: dict[str, float]) -> None:
    """log p(x|z) of the model as it is: not of the sharpened or cut one that chose the words."""
    network, count, length = network_of(kind), 200, 6
    z = some_codes(count) if kind == "vae" else None
    samples = generated(network, z, uniforms(count, length + 1), SamplingSettings(max_length=length, **changes))  # type: ignore[arg-type]
    ended = [n for n, one in enumerate(samples) if not one.cut]
    if changes != {"temperature": 0.0}:
        assert 0 < len(ended) < count, "some end, some are cut off"
    scores = reconstruction(network, Sentences.of([samples[n].tokens for n in ended]), None if z is None else z[ended])
    for n, score in zip(ended, scores.tolist(), strict=True):
        assert samples[n].log_prob == pytest.approx(-score, abs=1e-4)
    for n, one in enumerate(samples):
        code = None if z is None else z[n]
        expected = reference.log_prob(network.decoder, one.tokens, code, ended=not one.cut)
        assert one.log_prob == pytest.approx(expected, abs=1e-4), "a sentence that was cut off has no EOS to count"


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_greedy_is_the_argmax_at_every_word(kind: Kind) -> None:
    network, count, length = network_of(kind, seed=4), 30, 7
    z = some_codes(count) if kind == "vae" else None
    greedy = SamplingSettings(temperature=0.0, max_length=length)
    samples = generated(network, z, uniforms(count, length + 1), greedy)
    for n, one in enumerate(samples):
        words: list[int] = []
        ended = False
        while True:
            *_, log_probs = reference.next_word_log_probs(network.decoder, words, None if z is None else z[n])
            best = int(log_probs.argmax())
            ended = best == EOS
            if ended or len(words) == length:
                break
            words.append(best)
        assert (one.tokens, one.cut) == (words, not ended)
    if kind == "vae":
        assert len({tuple(one.tokens) for one in samples}) > 3, "the code decides"
        assert len({len(one.tokens) for one in samples}) > 1, "finished sentences leave, the others stay what they are"


def check_stepwise_decoder(network: Network) -> None:
    """Word by word it says what the decoder says."""
    z, words = some_codes(2, network.latent), torch.tensor([[1, 4, 5, 6, 3], [1, 6, 6, 3, 4]])
    with torch.inference_mode():
        expected = network.decoder.states(words, z) @ network.decoder.output.weight.T
        stepwise = StepwiseDecoder(network, 64)
        state = stepwise.start(z, 2)
        for position in range(words.shape[1]):
            logits, *state = stepwise.step(words[:, position], *state)
            words_of = logits[:, : expected.shape[2]]
            torch.testing.assert_close(words_of, expected[:, position], atol=1e-5, rtol=1e-5)
            assert (logits[:, expected.shape[2] :] == -torch.inf).all(), "no word has these classes"


def test_the_stepwise_decoder_says_what_the_decoder_says() -> None:
    check_stepwise_decoder(network_of("vae"))


def test_no_sentence_is_longer_than_allowed_and_none_holds_a_special_word() -> None:
    for length in (1, 4):
        samples = generated(network_of("vae"), some_codes(300), uniforms(300, length + 1), ANCESTRAL)
        assert max(len(one.tokens) for one in samples) == length
        assert min(len(one.tokens) for one in samples) == 0, "an empty sentence is a sentence"
        assert {word for one in samples for word in one.tokens} <= set(range(EOS + 1, VOCABULARY))


def test_a_sentence_is_cut_where_it_has_no_end_behind_the_last_word_allowed() -> None:
    """With the same chances and a longer limit, what was cut goes on and what was not stays as it was."""
    network, count, length = network_of("vae"), 300, 4
    z, chances = some_codes(count), uniforms(count, 41)
    short = generated(network, z, chances[:, : length + 1], ANCESTRAL)
    for one, longer in zip(short, generated(network, z, chances, ANCESTRAL), strict=True):
        assert one.cut == (len(longer.tokens) > length)
        assert one.tokens == longer.tokens[:length]
        assert one.cut or one.log_prob == pytest.approx(longer.log_prob, abs=1e-4)
    assert {(one.cut, len(one.tokens)) for one in short} >= {(True, length), (False, length)}


# --- the prior's samples -----------------------------------------------------------------------------------------


def flat(network: Network, how: SamplingSettings, seed: int = 3, at_pace: Pace | None = None) -> list[Sample]:
    return [one for many in prior_samples(network, how, seed, at_pace) for one in many]


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_samples_depend_on_the_seed_and_their_number_only(kind: Kind) -> None:
    """Not on the batch, nor on when those that have ended leave it: on a GPU both are others than on a CPU."""
    network = network_of(kind)
    longer = ANCESTRAL.model_copy(update={"max_length": 40})
    paces = [Pace(1, 1, 1), Pace(7, 7, 1), Pace(7, 7, 3), Pace(60, 60, PLACES), Pace(60, 60, 100)]
    paces += [Pace(60, 1, PLACES), Pace(60, 11, PLACES), Pace(25, 11, 2 * PLACES), Pace(60, 20, 1)]
    for how in (ANCESTRAL, longer, longer.model_copy(update={"temperature": 0.0})):
        expected = flat(network, how)
        assert len(expected) == 60
        for at_pace in paces:
            samples = flat(network, how, at_pace=at_pace)
            assert [(one.tokens, one.cut) for one in samples] == [(one.tokens, one.cut) for one in expected]
            assert [one.log_prob for one in samples] == pytest.approx([one.log_prob for one in expected], abs=1e-4)
    expected = flat(network, ANCESTRAL)
    torch.manual_seed(5)
    first = flat(network, ANCESTRAL.model_copy(update={"sentences": 20}))
    assert [one.tokens for one in first] == [one.tokens for one in expected[:20]]
    others = [flat(network, ANCESTRAL, seed) for seed in (4, 3 + 2**32, 2**64 - 1)]
    assert all([one.tokens for one in other] != [one.tokens for one in expected] for other in others)


def test_codes_are_standard_normal_and_chances_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of each sentence, also where others have left the batch."""
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(network: Network, count: int, codes: Tensor, how: SamplingSettings, draw: Chances, at: Pace) -> Samples:
        rows = torch.arange(count)
        chances = torch.cat([draw(rows, 0 * rows + place) for place in (0, PLACES)], dim=1)
        at_places = PLACES * (rows[1::3] % 2)
        expected = chances.unflatten(1, (2, PLACES))[rows[1::3], rows[1::3] % 2]
        assert torch.equal(draw(rows[1::3], at_places), expected)
        seen.append((codes, chances))
        return Samples(Sentences.of([]), np.zeros(0), np.zeros(0, bool))

    monkeypatch.setattr(generation, "generate", spy)
    flat(network_of("vae"), SamplingSettings(sentences=3000, max_length=10), at_pace=Pace(500, 500, 1))
    codes, chances = (torch.cat(parts).double().numpy() for parts in zip(*seen, strict=True))
    assert codes.shape == (3000, MODEL.latent)
    assert chances.shape == (3000, 2 * PLACES)
    assert stats.kstest(codes.ravel(), "norm").pvalue > 1e-4
    assert stats.kstest(chances.ravel(), "uniform").pvalue > 1e-4
    # Dimensions, positions and the two kinds of numbers are independent of each other.
    numbers = np.concatenate([codes, chances], axis=1)
    correlations = np.corrcoef(numbers.T) - np.eye(numbers.shape[1])
    assert np.abs(correlations).max() < 6 / math.sqrt(3000)


def test_a_batch_on_a_gpu_is_as_large_as_its_logits_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pace(network_of("vae")) == (2048, 2048, 1)
    monkeypatch.setattr(Network, "device", torch.device("cuda"))
    for vocabulary, width in ((VOCABULARY, 8192), (10_000, 3355), (2**26, 1)):
        network = network_of("vae")
        network.vocabulary_size = vocabulary
        assert pace(network) == (8 * width, width, PLACES)


# --- one word ----------------------------------------------------------------------------------------------------

LOGITS = [1.3, -0.4, 2.0, 0.1, 0.9, -2.5]


def softmax(logits: list[float]) -> np.ndarray:
    weights = np.exp(np.array(logits) - max(logits))
    return weights / weights.sum()


def shares(how: SamplingSettings, logits: list[float] = LOGITS) -> np.ndarray:
    """How often each class is chosen over an even grid of uniform numbers: its probability, to 1 / 20000."""
    grid = (torch.arange(20_000) + 0.5) / 20_000
    drawn, _ = choose(torch.tensor(logits).repeat(len(grid), 1), grid, how)
    return np.bincount(drawn.numpy(), minlength=len(logits)) / len(grid)


def cut(probabilities: np.ndarray, kept: list[int]) -> np.ndarray:
    cut_off = np.where(np.isin(np.arange(len(probabilities)), kept), probabilities, 0)
    return cut_off / cut_off.sum()


# softmax(LOGITS), the likeliest first: class 2 0.481, 0 0.239, 4 0.160, 3 0.072, 1 0.044, 5 0.005.
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, softmax(LOGITS)),
        ({"temperature": 0.5}, softmax([2 * value for value in LOGITS])),
        ({"temperature": 2.0}, softmax([value / 2 for value in LOGITS])),
        ({"top_k": 1}, cut(softmax(LOGITS), [2])),
        ({"top_k": 3}, cut(softmax(LOGITS), [0, 2, 4])),
        ({"top_k": 6}, softmax(LOGITS)),
        ({"top_k": 100}, softmax(LOGITS)),
        ({"top_p": 0.4}, cut(softmax(LOGITS), [2])),
        ({"top_p": 0.6}, cut(softmax(LOGITS), [0, 2])),
        ({"top_p": 0.8}, cut(softmax(LOGITS), [0, 2, 4])),
        ({"top_p": 1.0}, softmax(LOGITS)),
        # Both: the nucleus of what top-k has left, 0.481 / 0.719 = 0.67 for class 2.
        ({"top_k": 2, "top_p": 0.6}, cut(softmax(LOGITS), [2])),
        # The temperature comes first: at 2 the nucleus of 0.6 needs three classes.
        ({"temperature": 2.0, "top_p": 0.6}, cut(softmax([value / 2 for value in LOGITS]), [0, 2, 4])),
        ({"temperature": 0.0}, np.eye(6)[2]),
        ({"temperature": 0.0, "top_k": 3}, np.eye(6)[2]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_each_decoding_draws_from_its_distribution(changes: dict[str, float], expected: np.ndarray) -> None:
    np.testing.assert_allclose(shares(SamplingSettings(**changes)), expected, atol=1e-4)  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(logits=st.lists(st.floats(-6, 6), min_size=1, max_size=12), top_p=st.floats(0.01, 1))
def test_a_nucleus_is_the_smallest_set_of_the_likeliest_that_reaches_its_mass(
    logits: list[float], top_p: float
) -> None:
    probabilities = softmax(logits)
    kept = nucleus(torch.from_numpy(probabilities)[None], top_p)[0].numpy()
    inside = kept > 0
    np.testing.assert_array_equal(kept[inside], probabilities[inside])
    assert inside.any()
    mass = probabilities[inside].sum()
    assert mass >= top_p - 1e-9
    assert mass - probabilities[inside].min() < top_p + 1e-9
    assert inside.all() or probabilities[~inside].max() <= probabilities[inside].min()


@example(logits=[0.0, 2**-26], uniform=0.0, changes={"top_p": 0.3})
@settings(max_examples=150, deadline=None)
@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=40),
    uniform=st.sampled_from([0.0, 2**-24, 0.5, LARGEST_UNIFORM]),
    changes=st.sampled_from([{}, {"top_k": 1}, {"top_k": 2}, {"top_p": 0.3}, {"top_p": 0.9}]),
)
def test_no_chance_however_extreme_draws_a_class_that_was_cut_off(
    logits: list[float], uniform: float, changes: dict[str, float]
) -> None:
    """The sum of float32 probabilities is not quite 1: at its end no draw may fall to the last class by default."""
    how = SamplingSettings(**changes)  # type: ignore[arg-type]
    drawn = int(choose(torch.tensor([logits]), torch.tensor([uniform]), how)[0][0])
    probabilities = softmax(logits)
    if "top_k" in changes:
        assert logits[drawn] >= sorted(logits, reverse=True)[int(changes["top_k"]) - 1]
    elif "top_p" in changes:
        # float32 cannot tell probabilities apart that differ by 1e-5 of themselves: either may come first.
        likelier = probabilities > (1 + 1e-5) * probabilities[drawn]
        assert probabilities[likelier].sum() < changes["top_p"] + 1e-6
    else:
        assert torch.softmax(torch.tensor(logits), 0)[drawn] > 0


@pytest.mark.parametrize("classes", [1, 127, 128, 129, 1000])
def test_a_draw_in_two_levels_is_the_class_where_the_running_sum_passes_the_chance(classes: int) -> None:
    """Against float64, to the rounding of a float32 sum; whole blocks have no chance, the first and the last too."""
    generator = torch.Generator().manual_seed(classes)
    weights = torch.rand(400, classes, generator=generator).pow(4)
    if classes > 500:
        weights[:200, :130] = weights[:200, 300:600] = weights[:200, 800:] = 0
    chances = torch.rand(400, generator=generator)
    chances[::4], chances[1::4] = 0.0, LARGEST_UNIFORM
    classes_B = drawn(weights, chances)
    ends = weights.double().cumsum(1) / weights.double().sum(1, keepdim=True)
    own = ends.gather(1, classes_B[:, None])[:, 0]
    before = own - weights.double().gather(1, classes_B[:, None])[:, 0] / weights.double().sum(1)
    assert (weights.gather(1, classes_B[:, None]) > 0).all()
    assert (before - 1e-6 <= chances).all()
    assert (chances <= own + 1e-6).all()


def test_a_draw_at_the_very_end_stays_inside_the_nucleus() -> None:
    """Over many distributions whose last class is cut off, some have probabilities that sum to more than 1."""
    logits = torch.randn(20_000, 33, generator=torch.Generator().manual_seed(0))
    logits[:, -1] = -5.0
    for how in (SamplingSettings(top_k=20), SamplingSettings(top_p=0.9)):
        drawn, _ = choose(logits.clone(), torch.full((len(logits),), LARGEST_UNIFORM), how)
        assert not (drawn == 32).any()


# --- the sample step ---------------------------------------------------------------------------------------------


def write(folder: Path, network: Network, corpus: Corpus, **changes: object) -> Path:
    settings = run_settings("vae_05", network.settings)
    config = {**model_config("vae_05", seed=3, kind=network.kind, settings=settings), **changes}
    weights = checkpoint.cloned(network)
    write_model(folder, Outcome(network, weights, weights, [], {}, config["failure"]), config, corpus.vocabulary)
    return folder


def test_the_step_writes_sentences_tokens_and_what_they_are(tmp_path: Path, corpus: Corpus) -> None:
    network = random_network("vae", corpus.size).float()
    model, path = write(tmp_path / "model", network, corpus), tmp_path / "samples.parquet"
    how = ANCESTRAL.model_copy(update={"top_k": 5, "temperature": 0.7})
    sample(model=model, settings=how, samples=path)
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"textvae"])
    assert about == {
        "dataset": "tiny",
        "system": "vae_05",
        "seed": 3,
        "status": "finished",
        "failure": None,
        "decoding": "temperature 0.7, top-5",
        "max_length": 8,
        "corpus_sha256": SHA256,
        "model_sha256": checkpoint.load(model).identity["model_sha256"],
    }
    expected = flat(network, how, seed=3)
    assert table["tokens"].to_pylist() == [one.tokens for one in expected]
    assert table["log_prob"].to_pylist() == pytest.approx([one.log_prob for one in expected], abs=1e-4)
    assert table["cut"].to_pylist() == [one.cut for one in expected]
    words = ["PAD", "BOS", "EOS", "UNK", *corpus.vocabulary.words]
    assert table["sentence"].to_pylist() == [" ".join(words[i] for i in one.tokens) for one in expected]
    again = tmp_path / "again.parquet"
    sample(model=model, settings=how, samples=again)
    assert again.read_bytes() == path.read_bytes()


def test_the_step_says_how_many_sentences_it_cut(
    tmp_path: Path, corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write(tmp_path / "model", random_network("vae", corpus.size).float(), corpus)
    path = tmp_path / "samples.parquet"
    sample(model=model, settings=ANCESTRAL.model_copy(update={"max_length": 2}), samples=path)
    cut = sum(pq.read_table(path)["cut"].to_pylist())
    assert 0 < cut < 60
    warning = f"warning: {cut} of 60 sentences had not ended after sampling.max_length (in words: 2)"
    assert warning in capsys.readouterr().err
    sample(model=model, settings=ANCESTRAL.model_copy(update={"max_length": 500}), samples=path)
    assert not any(pq.read_table(path)["cut"].to_pylist())
    assert "warning" not in capsys.readouterr().err


def test_the_step_writes_no_sentences_for_a_run_that_diverged(tmp_path: Path, corpus: Corpus) -> None:
    network = random_network("vae", corpus.size, ModelSettings(embedding=2, hidden=2, latent=2))
    failure = {"message": "diverged in epoch 1"}
    model = write(tmp_path / "model", network, corpus, status="diverged", failure=failure)
    sample(model=model, settings=ANCESTRAL, samples=tmp_path / "samples.parquet")
    table = pq.read_table(tmp_path / "samples.parquet")
    assert table.num_rows == 0
    assert table.column_names == ["sentence", "tokens", "log_prob", "cut"]
    about = json.loads(table.schema.metadata[b"textvae"])
    assert (about["status"], about["failure"], about["decoding"]) == ("diverged", failure, "ancestral")


def test_decodings_have_the_names_that_the_report_prints() -> None:
    names = {
        "ancestral": {},
        "greedy": {"temperature": 0.0},
        "temperature 0.5": {"temperature": 0.5},
        "top-10": {"top_k": 10},
        "nucleus 0.9": {"top_p": 0.9},
        "temperature 0.5, top-10, nucleus 0.9": {"temperature": 0.5, "top_k": 10, "top_p": 0.9},
    }
    for name, changes in names.items():
        assert SamplingSettings(**changes).decoding == name  # type: ignore[arg-type]
    assert FIRST_TARGET == EOS
