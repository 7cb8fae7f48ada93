"""Batches, noise and the reading of splits."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import write_split

from textvae import corpus as module
from textvae.corpus import (
    Sentences,
    collate,
    evaluation_batches,
    hashed_batches,
    hashed_normal,
    hashed_normals,
    hashed_subset,
    training_batches,
)
from textvae.errors import DataError

LENGTHS = st.lists(st.integers(0, 30), min_size=1, max_size=150)


def distinct_sentences(count: int = 60) -> Sentences:
    """Sentences of 0 to 9 words, no two alike."""
    rng = np.random.default_rng(1)
    return Sentences.of([[*rng.integers(4, 9, n % 10).tolist(), 10 + n][: n % 10 + 1] for n in range(count)])


def content_of(sentences: Sentences) -> list[list[int]]:
    return [sentences[i].tolist() for i in range(len(sentences))]


# --- sentences ---------------------------------------------------------------------------------------------------


def test_sentences_are_what_was_put_in() -> None:
    content = [[4, 5], [], [6, 7, 8]]
    sentences = Sentences.of(content)
    assert content_of(sentences) == content
    assert sentences.lengths.tolist() == [2, 0, 3]
    assert content_of(sentences.subset(np.array([2, 0]))) == [[6, 7, 8], [4, 5]]
    assert len(Sentences.of([])) == 0


def test_a_batch_is_bos_words_eos_padding() -> None:
    batch = collate(Sentences.of([[9, 9], [4, 5, 6], []]), np.array([1, 2]))
    assert batch.tokens_BT.tolist() == [[1, 4, 5, 6, 2], [1, 2, 0, 0, 0]]
    assert batch.tokens_BT.dtype == torch.int64
    assert batch.lengths_B.tolist() == [5, 2]
    assert batch.indices.tolist() == [1, 2]
    assert batch.inputs_BT.tolist() == [[1, 4, 5, 6], [1, 2, 0, 0]]
    assert batch.targets_BT.tolist() == [[4, 5, 6, 2], [2, 0, 0, 0]]
    assert batch.target_mask_BT.tolist() == [[True] * 4, [True, False, False, False]]
    assert batch.target_tokens == 5
    assert len(batch) == 2


def test_a_split_is_read_as_it_was_written(tmp_path: Path) -> None:
    content = [[4, 5], [], [3, 7, 8]]
    write_split(tmp_path / "train.parquet", Sentences.of(content))
    sentences = Sentences.load(tmp_path / "train.parquet", 9)
    assert content_of(sentences) == content


def test_a_split_of_several_row_groups_is_read_whole(tmp_path: Path) -> None:
    rows = pa.array([[4], [5, 6], [], [7]], pa.list_(pa.int32()))
    pq.write_table(pa.table({"tokens": rows}), tmp_path / "train.parquet", row_group_size=2)
    sentences = Sentences.load(tmp_path / "train.parquet", 8)
    assert content_of(sentences) == [[4], [5, 6], [], [7]]


def tokens_table(rows: list[list[int | None] | None]) -> pa.Table:
    return pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"PAR1 and then nothing", "cannot be read"),
        (pa.table({"words": pa.array([[4]])}), "tokens"),
        (pa.table({"tokens": pa.array(["the cat"])}), "tokens"),
        (tokens_table([]), "no sentence"),
        (tokens_table([[4], [12]]), "vocabulary of 12"),
        (tokens_table([[4, -1]]), "vocabulary of 12"),
        (tokens_table([[4], None]), "null"),
        (tokens_table([[4, None]]), "null"),
        # PAD, BOS and EOS are added here; inside a sentence they would hide what is behind them.
        (tokens_table([[4, 0, 5]]), "PAD, BOS or EOS"),
        (tokens_table([[1, 4]]), "PAD, BOS or EOS"),
        (tokens_table([[4, 2]]), "PAD, BOS or EOS"),
    ],
    ids=["missing", "damaged", "column", "type", "empty", "id", "negative", "null", "null id", "PAD", "BOS", "EOS"],
)
def test_what_is_no_split_is_refused_with_file_and_remedy(
    content: bytes | pa.Table | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        pq.write_table(content, path)
    with pytest.raises(DataError, match=message) as caught:
        Sentences.load(path, 12)
    assert str(path) in str(caught.value)
    assert "preprocess" in str(caught.value)


# --- training batches --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, size=st.integers(1, 9), pool=st.integers(1, 4), seed=st.integers(0, 3), epoch=st.integers(0, 3))
def test_an_epoch_is_a_partition_into_batches_of_similar_length(
    lengths: list[int], size: int, pool: int, seed: int, epoch: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "POOL_BATCHES", pool)
        batches = training_batches(np.array(lengths), size, seed, epoch)
        again = training_batches(np.array(lengths), size, seed, epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= size for batch in batches)
    assert len(batches) == math.ceil(len(lengths) / size), "only the very last pool can have a short batch"
    assert [batch.tolist() for batch in batches] == [batch.tolist() for batch in again]
    if len(lengths) <= size * pool:  # one pool: sorted by length, then cut
        ranges = sorted((min(found), max(found)) for batch in batches for found in [[lengths[i] for i in batch]])
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(ranges))


def test_epochs_and_seeds_differ_in_the_order_and_in_who_shares_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(2, 30, 3000)
    orders = [training_batches(lengths, 8, seed, epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))]
    flat = {tuple(np.concatenate(batches).tolist()) for batches in orders}
    assert len(flat) == 4, "(0, 1) and (1, 0) do not share a stream either"
    groups = [{frozenset(batch.tolist()) for batch in batches} for batches in orders]
    shared = len(groups[0] & groups[1]) / len(groups[0])
    assert shared < 0.05


def test_batches_come_in_no_order_of_length() -> None:
    lengths = np.random.default_rng(0).integers(2, 30, 800)
    means = np.array([lengths[batch].mean() for batch in training_batches(lengths, 8, 0, 0)])
    assert len(means) == module.POOL_BATCHES, "one pool, which was sorted by length"
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 5 / math.sqrt(len(means))


def test_little_of_a_batch_is_padding() -> None:
    lengths = np.random.default_rng(0).integers(2, 60, 6000)
    padded = sum(len(batch) * lengths[batch].max() for batch in training_batches(lengths, 32, 0, 0))
    assert padded < 1.05 * lengths.sum()  # 1.6 times in random batches


# --- evaluation batches ------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, budget=st.integers(1, 200))
def test_an_evaluation_sees_every_sentence_once_within_its_budget(lengths: list[int], budget: int) -> None:
    sentences = Sentences.of([[4] * length for length in lengths])
    batches = list(evaluation_batches(sentences, budget))
    assert sorted(np.concatenate([batch.indices for batch in batches]).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert batch.tokens_BT.numel() <= budget or len(batch) == 1
        assert [len(sentences[i]) + 2 for i in batch.indices] == batch.lengths_B.tolist()


# --- what is keyed by a sentence's hash --------------------------------------------------------------------------


def test_noise_belongs_to_the_sentence_not_to_its_place() -> None:
    sentences = distinct_sentences()
    order = np.random.default_rng(3).permutation(len(sentences))
    noise = hashed_normals(sentences, 7, 5, "elbo")
    assert noise.dtype == torch.float64
    assert torch.equal(hashed_normals(sentences.subset(order), 7, 5, "elbo"), noise[torch.from_numpy(order)])
    assert torch.equal(hashed_normal(sentences[4], 7, (5,), "elbo"), noise[4])
    assert len(noise.unique(dim=0)) == len(sentences), "no two sentences share their noise"


def test_seeds_and_purposes_have_noise_of_their_own() -> None:
    words = np.array([4, 5], dtype=np.int32)
    keys = [(1, "a"), (2, "a"), (1, "b"), (11, "a"), (1, "1:a")]
    noise = torch.stack([hashed_normal(words, seed, (4,), purpose) for seed, purpose in keys])
    assert len(noise.unique(dim=0)) == len(keys)


def test_noise_is_standard_normal() -> None:
    noise = hashed_normals(distinct_sentences(400), 0, 64, "elbo")
    count = noise.numel()
    assert abs(float(noise.mean())) < 5 / math.sqrt(count)
    assert abs(float(noise.square().mean()) - 1) < 5 * math.sqrt(2 / count)
    assert abs(float(noise.pow(4).mean()) - 3) < 5 * math.sqrt(96 / count)
    # Columns are independent of each other.
    correlations = torch.corrcoef(noise.T) - torch.eye(64)
    assert correlations.abs().max() < 6 / math.sqrt(400)


def test_a_subset_is_the_same_sentences_in_whatever_order_they_come() -> None:
    sentences = distinct_sentences()
    order = np.random.default_rng(3).permutation(len(sentences))
    permuted = sentences.subset(order)

    def chosen(from_: Sentences, purpose: str = "nll_iw", size: int = 20) -> set[tuple[int, ...]]:
        positions = hashed_subset(from_, size, purpose)
        assert positions.tolist() == sorted(set(positions.tolist()))
        return {tuple(from_[i].tolist()) for i in positions}

    assert len(chosen(sentences)) == 20
    assert chosen(sentences) == chosen(permuted)
    assert chosen(sentences) != chosen(sentences, "gain")
    assert chosen(sentences) < chosen(sentences, size=30), "a larger subset holds the smaller one"
    assert len(chosen(sentences, size=1000)) == len(sentences)


def test_hashed_batches_are_the_same_groups_in_whatever_order_they_come() -> None:
    sentences = distinct_sentences()
    permuted = sentences.subset(np.random.default_rng(3).permutation(len(sentences)))

    def groups(of: Sentences) -> set[frozenset[tuple[int, ...]]]:
        batch_of_N = hashed_batches(of, 8).tolist()
        return {
            frozenset(tuple(of[i].tolist()) for i, batch in enumerate(batch_of_N) if batch == number)
            for number in set(batch_of_N)
        }

    assert groups(sentences) == groups(permuted)
    assert sorted(map(len, groups(sentences))) == [4, 8, 8, 8, 8, 8, 8, 8]
