"""Generation as in textvae/generation.py against nn.LSTM and torch.multinomial, small batches, a word at a time."""

import torch

from benchmarks.timing import compare
from textvae.config import ModelSettings, SamplingSettings
from textvae.generation import prior_samples
from textvae.networks import Network
from textvae.vocabulary import BOS, EOS, FIRST_TARGET

SENTENCES, LENGTH, PLAIN_BATCH = 256, 30, 32


def main() -> None:
    """Compare at the paper's sizes, 256 sentences of at most 30 words."""
    torch.manual_seed(0)
    network = Network("vae", 10_000, ModelSettings()).eval()
    settings = SamplingSettings(sentences=SENTENCES, max_length=LENGTH)

    @torch.inference_mode()
    def plain() -> None:
        for _ in range(SENTENCES // PLAIN_BATCH):
            z_BD = torch.randn(PLAIN_BATCH, network.latent)
            h, c = network.decoder.initial_state(z_BD)
            state, words = (h[None], c[None]), torch.full((PLAIN_BATCH,), BOS)
            for _ in range(LENGTH):
                inputs = torch.cat([network.decoder.embedding(words), z_BD], dim=-1)[:, None]
                states, state = network.decoder.lstm(inputs, state)
                probabilities = torch.softmax(network.decoder.output(states[:, 0]), dim=-1)
                words = torch.multinomial(probabilities, 1)[:, 0] + FIRST_TARGET
                if bool((words == EOS).all()):
                    break

    compare(f"{SENTENCES} sentences", lambda: list(prior_samples(network, settings, seed=0)), plain, rounds=3)


if __name__ == "__main__":
    main()
