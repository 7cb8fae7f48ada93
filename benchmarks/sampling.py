"""Ancestral sampling as in textvae/generation.py beside the plain reference's (benchmarks/reference.py).

The network's sentences end as PTB's do on average (21 words), more often early and more often late: their lengths are
geometric. What the reference computes for those that have ended is part of its design.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks import products
from benchmarks.reference import DRAWN, PlainVAE
from benchmarks.sizes import Plan
from benchmarks.timing import Row, rates, table
from textvae.command_line import run
from textvae.config import SamplingSettings
from textvae.generation import prior_samples

TARGET = 12.0


def rows(plan: Plan) -> Iterator[Row]:
    """Sentences from the prior; a token is a word that is kept, or EOS."""
    samples, longest = plan.amounts.samples, plan.amounts.longest
    network = plan.work.talking_network().cpu()
    plain = PlainVAE(network.vocabulary_size, network.settings)
    plain.load_state_dict(network.state_dict())
    compute = products.prepared(products.of_writing(network.settings, plan.classes, products.BLOCK))
    settings = SamplingSettings(sentences=samples, max_length=longest, device="cpu")
    torch.manual_seed(0)

    def project() -> int:
        drawn = list(prior_samples(network, settings, seed=0))
        return sum(batch.sentences.target_tokens for batch in drawn)

    def reference() -> int:
        return sum(len(sentence) + 1 for sentence in plain.samples(DRAWN, longest))

    def limit() -> int:
        compute()
        return products.BLOCK

    found = rates({"project": project, "reference": reference, "limit": limit}, plan.amounts.rounds)
    yield Row("ancestral sampling, tokens/s", found["project"], found["reference"], TARGET, limit=found["limit"])


def main() -> None:
    """Compare at the paper's sizes, 2,048 sentences of at most 100 words."""
    print(table(rows(Plan("full"))))


if __name__ == "__main__":
    run(main)
