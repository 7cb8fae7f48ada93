"""LaggingVAE: the encoder is trained more than the decoder while it lags (He et al. 2019, https://arxiv.org/abs/1901.05534)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from textvae.corpus import Batch
from textvae.objectives.base import Annealed, AnnealedConfig, Losses
from textvae.strict import Times
from textvae.turns import Turns, awaited


class LaggingVAE(Annealed):
    """Minimises reconstruction + beta KL; while aggressive, many encoder-only steps before each decoder-only one.

    The aggressive phase ends for good after the first epoch whose validation MI (in batches) is below the epoch's
    before.
    """

    class Config(AnnealedConfig):
        """Limits of the encoder's inner loop; `aggressive: false` leaves the annealed VAE."""

        aggressive: bool = True
        inner_steps: Times = 99
        """Encoder-only steps at most before a decoder-only one."""
        window: Times = 15
        """The inner loop ends with the first window whose mean loss per word exceeds the window's before it."""

    config: Config

    def build(self) -> None:
        """No heads; the phase's state."""
        self.aggressive = self.config.aggressive
        self.previous_mi = 0.0

    def loss(self, batch: Batch, beta: Tensor | float) -> Losses:
        """reconstruction + beta KL."""
        code = self.encode(batch)
        reconstruction = self.reconstruct(batch, code.z_BD)
        return Losses(reconstruction + beta * code.kl, reconstruction, code.kl)

    def turns(self, batch: Batch, step: int) -> Turns[Losses]:
        """A joint step; while aggressive the inner loop, then a decoder-only step on the current batch."""
        if not self.aggressive:
            return (yield from super().turns(batch, step))
        self.begin(step)
        yield from self.train_encoder(batch)
        assert self.network.encoder is not None
        with frozen(self.network.encoder):
            return self.perform("decoder", self.optimise, batch)

    def train_encoder(self, batch: Batch) -> Turns[None]:
        """Encoder-only steps: the first on the current batch, the others on random ones."""
        before, words = math.inf, 0
        loss = torch.zeros((), dtype=torch.float64, device=self.network.device)
        with frozen(self.network.decoder):
            for inner in range(1, self.config.inner_steps + 1):
                losses = self.perform("encoder", self.optimise, batch)
                loss += losses.total.double() * len(batch)
                words += batch.target_tokens
                if inner % self.config.window == 0:
                    mean = (yield from awaited(loss)) / words
                    if mean > before:
                        return
                    before, words = mean, 0
                    loss.zero_()
                else:
                    yield None
                batch = self.draw()

    def settled(self, step: int) -> bool:
        """Whether annealing and the aggressive phase are over."""
        return super().settled(step) and not self.aggressive

    def after_epoch(self, columns: dict[str, float]) -> None:
        """End the aggressive phase when the validation MI has fallen; the curve shows the phase."""
        columns["aggressive"] = float(self.aggressive)
        if self.aggressive and columns["valid_mi_batch"] < self.previous_mi:
            self.aggressive = False
        self.previous_mi = columns["valid_mi_batch"]

    def state(self) -> dict[str, Any]:
        """The phase."""
        return {"aggressive": self.aggressive, "previous_mi": self.previous_mi}

    def load_state(self, state: dict[str, Any]) -> None:
        """See `state`."""
        self.aggressive, self.previous_mi = state["aggressive"], state["previous_mi"]


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Within the block a module's weights ask for no gradient: theirs are not even computed."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


OBJECTIVE = LaggingVAE
