"""The training step beside the plain reference's (benchmarks/reference.py), and the systems' steps beside the VAE's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import torch

from benchmarks import products
from benchmarks.reference import PlainVAE, equal_length_batches
from benchmarks.sizes import Plan
from benchmarks.timing import Row, rates, table
from textvae.command_line import run
from textvae.corpus import Batch
from textvae.objectives.lagging import LaggingVAE, frozen
from textvae.training import Trainer, stream

PLAIN = {"aggressive": False}
"""What makes a plain, annealed VAE of LaggingVAE."""
TARGETS = {32: 1.1, 128: 1.25}
"""How many times as fast as the reference, by the batch's size."""
MINE_TARGET, INNER_TARGET = 1.15, 0.65


def stepping(trainer: Trainer, steps: int, act: Callable[[Batch, int], object]) -> Callable[[], int]:
    """So many steps on the next batches of the training's first epoch: how many target tokens they had."""
    numbers = count()
    trainer.network.train()

    def go_on() -> int:
        tokens = 0
        for _, number in zip(range(steps), numbers, strict=False):
            batch = trainer.batches[number % len(trainer.batches)]
            trainer.noise.seed(stream(trainer.seed, number))
            act(batch, number)
            tokens += batch.target_tokens
        return tokens

    return go_on


def of_reference(plain: PlainVAE, batches: list[torch.Tensor], like: Trainer, steps: int) -> Callable[[], int]:
    """So many of its steps, each on the batch whose length is nearest to the mean of the training's batch."""
    numbers = count()
    lengths = torch.tensor([batch.shape[1] for batch in batches])

    def go_on() -> int:
        tokens = 0
        for _, number in zip(range(steps), numbers, strict=False):
            batch = like.batches[number % len(like.batches)]
            far_by = (lengths - batch.lengths_B.double().mean()).abs()
            nearest = (far_by == far_by.min()).nonzero()[:, 0]
            tokens_BT = batches[int(nearest[number % len(nearest)])]
            plain.step(tokens_BT, beta=0.1)
            tokens += tokens_BT[:, 1:].numel()
        return tokens

    return go_on


def rows(plan: Plan) -> Iterator[Row]:
    """The step at each size of a batch; at the first one VAE-MINE's and LaggingVAE's inner one, too."""
    for number, (size, steps) in enumerate(plan.amounts.steps.items()):
        vae = plan.trainer("lagging", size, PLAIN)
        sizes, sentences = vae.settings.model, vae.train
        torch.manual_seed(0)
        plain = PlainVAE(plan.work.corpus.vocabulary, sizes)
        plain.load_state_dict(vae.network.state_dict())
        words = round(float(sentences.lengths.mean()))
        compute = products.prepared(products.of_step(sizes, plan.classes, size, words))

        def alone(compute: Callable[[], None] = compute, tokens: int = size * (words + 1)) -> int:
            compute()
            return tokens

        ways: dict[str, Callable[[], float]] = {
            "project": stepping(vae, steps, vae.objective.update),
            "reference": of_reference(plain, list(equal_length_batches(sentences, size, 0)), vae, steps),
            "limit": alone,
        }
        if not number:
            mine, lagging = plan.trainer("vae_mine", size), plan.trainer("lagging", size)
            ways["vae_mine"] = stepping(mine, steps, mine.objective.update)
            ways["inner"] = stepping(lagging, steps, inner_of(lagging))
        found = rates(ways, plan.amounts.rounds)
        label = f"training step, batch {size}, tokens/s"
        yield Row(label, found["project"], found["reference"], TARGETS.get(size), limit=found["limit"])
        if not number:
            yield Row(
                "VAE-MINE's step beside the VAE's, tokens/s", found["vae_mine"], found["project"], MINE_TARGET, True
            )
            label = "LaggingVAE's inner step beside a joint one, tokens/s"
            yield Row(label, found["inner"], found["project"], INNER_TARGET, True)


def inner_of(trainer: Trainer) -> Callable[[Batch, int], object]:
    """The encoder-only step of LaggingVAE's inner loop."""
    objective = trainer.objective
    assert isinstance(objective, LaggingVAE)

    def inner(batch: Batch, step: int) -> object:
        objective.begin(step)
        with frozen(trainer.network.decoder):
            return objective.perform("encoder", objective.optimise, batch)

    return inner


def main() -> None:
    """Compare at the paper's sizes, batches of 32 and 128."""
    print(table(rows(Plan("full"))))


if __name__ == "__main__":
    run(main)
