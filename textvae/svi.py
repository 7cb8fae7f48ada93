"""Steps of stochastic variational inference from the encoder's answer, end to end (Kim et al. 2018).

With `svi_steps` K the model's posterior of a sentence is the encoder's lambda = (mu, log sigma^2) after K steps

    lambda <- lambda - rate * d/dlambda [-log p(x|z) + beta KL],   z = mu + sigma * noise of the step,

each on the sentence's own loss: what comes out does not depend on its batch. The decoder drops nothing in them, in
training either, so that the steps are those of the evaluation. Shapes: K steps, B sentences, D latent.

A step's derivatives in lambda and in the decoder's weights are Hessians times a vector, each a difference of two
gradients (the paper's appendix), for the gradient of the output layer is formed by hand and has no derivative.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from textvae.corpus import Batch
from textvae.decoders import Decoder
from textvae.networks import Network
from textvae.posteriors import Gaussian, Posterior

DIFFERENCE = 0.01
"""How far a difference moves the sentence that it moves most. Theirs multiplies the vector by 1e-5, which float32 would
round away here: the gradient of a mean over a batch is short."""


def posterior(
    network: Network, batch: Batch, noise_KBD: Tensor | None = None, beta: Tensor | float = 1.0
) -> tuple[Posterior, Tensor]:
    """(q(z|x), hidden_BH) of a batch: the encoder's answer, after one SVI step for each noise.

    Args: noise_KBD, standard normal; None for a model without SVI steps; beta, the KL's weight in the steps' loss.
    """
    answer, hidden_BH = network.encode(batch)
    if noise_KBD is not None:
        assert isinstance(answer, Gaussian)  # the settings see to it
        answer = refined(network, batch, answer, noise_KBD, beta)
    return answer, hidden_BH


def refined(network: Network, batch: Batch, answer: Gaussian, noise_KBD: Tensor, beta: Tensor | float) -> Gaussian:
    """The posterior (B, D) after the steps; differentiable where gradients are on."""
    rate, mu_BD, log_var_BD = network.settings.svi_learning_rate, answer.mu, answer.log_var
    if torch.is_grad_enabled():
        decoder = without_dropout(network.decoder)
        for noise_BD in noise_KBD.to(mu_BD):
            loss = _Loss(decoder, batch, noise_BD, beta)
            mu_BD, log_var_BD = _Step.apply(loss, rate, mu_BD, log_var_BD, *loss.weights)  # type: ignore[no-untyped-call]
        return Gaussian(mu_BD, log_var_BD)
    with torch.inference_mode(False), torch.no_grad():
        # What inference mode made takes no part in a gradient: copies do.
        decoder = without_dropout(network.decoder, frozen=True)
        batch = replace(batch, tokens_BT=batch.tokens_BT.clone(), lengths_B=batch.lengths_B.clone())
        mu_BD, log_var_BD = mu_BD.clone(), log_var_BD.clone()
        for noise_BD in noise_KBD.clone().to(mu_BD):
            mu_grad_BD, log_var_grad_BD = _Loss(decoder, batch, noise_BD, beta).gradients(mu_BD, log_var_BD)
            mu_BD, log_var_BD = mu_BD - rate * mu_grad_BD, log_var_BD - rate * log_var_grad_BD
    return Gaussian(mu_BD, log_var_BD)


def without_dropout(decoder: Decoder, frozen: bool = False) -> Decoder:
    """A decoder of the same weights (no copies; `frozen`: without gradients) that drops nothing.

    It is in training mode: in evaluation cuDNN's LSTM has no backward pass.
    """
    shared: dict[int, Any] = {id(weight): weight.detach() if frozen else weight for weight in decoder.parameters()}
    shared[id(decoder.generator)] = None
    twin = copy.deepcopy(decoder, shared).train()
    twin.dropout = 0.0
    return twin


@dataclass(frozen=True)
class _Loss:
    """A step's loss, -log p(x|z) + beta KL, summed over the sentences: each has its own gradient."""

    decoder: Decoder
    batch: Batch
    noise_BD: Tensor
    beta: Tensor | float

    @property
    def weights(self) -> list[Tensor]:
        """The decoder's weights that are trained."""
        return [weight for weight in self.decoder.parameters() if weight.requires_grad]

    def gradients(self, mu_BD: Tensor, log_var_BD: Tensor) -> Sequence[Tensor]:
        """d loss / d mu, d log sigma^2 and each of `weights`."""
        with torch.enable_grad():
            mu_BD, log_var_BD = mu_BD.detach().requires_grad_(), log_var_BD.detach().requires_grad_()
            q = Gaussian(mu_BD, log_var_BD)
            loss = self.decoder(self.batch, q.sample(self.noise_BD))[0] + self.beta * q.kl().sum()
            return torch.autograd.grad(loss, [mu_BD, log_var_BD, *self.weights])


class _Step(torch.autograd.Function):
    """lambda - rate * d loss / d lambda, for (mu_BD, log_var_BD), with its derivatives in them and the weights."""

    @staticmethod
    def forward(
        ctx: Any, loss: _Loss, rate: float, mu_BD: Tensor, log_var_BD: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        gradients = loss.gradients(mu_BD, log_var_BD)
        ctx.loss, ctx.rate = loss, rate
        ctx.save_for_backward(mu_BD, log_var_BD, *gradients)
        return mu_BD - rate * gradients[0], log_var_BD - rate * gradients[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *vector: Tensor) -> tuple[Tensor | None, ...]:
        mu_BD, log_var_BD, *here = ctx.saved_tensors
        longest = torch.cat(vector, dim=1).norm(dim=1).max()
        size = DIFFERENCE / longest.clamp_min(torch.finfo(longest.dtype).tiny)
        there = ctx.loss.gradients(mu_BD + size * vector[0], log_var_BD + size * vector[1])
        products = [-ctx.rate * (after - before) / size for before, after in zip(here, there, strict=True)]
        return None, None, vector[0] + products[0], vector[1] + products[1], *products[2:]
