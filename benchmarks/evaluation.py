"""NLL-IW as in textvae/inference.py beside the plain reference's (benchmarks/reference.py), a sentence at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks import products
from benchmarks.reference import PlainVAE, tokens_of
from benchmarks.sizes import Plan
from benchmarks.timing import Row, rates, table
from textvae.command_line import run
from textvae.corpus import Sentences
from textvae.inference import importance_weighted_nll
from textvae.vocabulary import UNK

TARGET = 1.8


def rows(plan: Plan) -> Iterator[Row]:
    """A sentence of each length; tokens are counted once for every code that they are read with."""
    vocabulary, codes = plan.work.corpus.vocabulary, plan.amounts.codes
    rng = np.random.default_rng(0)
    sentences = Sentences.of([rng.integers(UNK, vocabulary, n).tolist() for n in plan.amounts.lengths])
    torch.manual_seed(0)
    network = plan.trainer("lagging", 2).network
    plain = PlainVAE(vocabulary, network.settings)
    plain.load_state_dict(network.state_dict())
    tokens = sentences.target_tokens * codes
    alone = [
        products.prepared(products.of_reading(network.settings, plan.classes, codes, words))
        for words in plan.amounts.lengths
    ]

    def project() -> int:
        importance_weighted_nll(network, sentences, codes, seed=0)
        return tokens

    def reference() -> int:
        for n in range(len(sentences)):
            plain.nll_iw(tokens_of(sentences, np.array([n]))[0], codes)
        return tokens

    def limit() -> int:
        for compute in alone:
            compute()
        return tokens

    found = rates({"project": project, "reference": reference, "limit": limit}, plan.amounts.rounds)
    yield Row(f"NLL-IW, k = {codes}, tokens/s", found["project"], found["reference"], TARGET, limit=found["limit"])


def main() -> None:
    """Compare at the paper's sizes, 500 codes a sentence."""
    print(table(rows(Plan("full"))))


if __name__ == "__main__":
    run(main)
