"""Model folders of untrained networks whose codes matter: what the tests of the latent space open."""

from __future__ import annotations

from pathlib import Path

import torch
from made_files import model_config, run_settings
from tiny import SHA256, Corpus, random_network

from components.train import write_model
from textvae import checkpoint
from textvae.networks import Kind, Network
from textvae.training import Outcome

SEED = 3


def informative(kind: Kind, corpus: Corpus) -> Network:
    """A float32 network; a VAE's posteriors differ from sentence to sentence."""
    network = random_network(kind, corpus.size).float()
    if network.encoder is not None:
        with torch.no_grad():
            for parameter in network.encoder.parameters():
                parameter.mul_(2)
    return network


def written(folder: Path, network: Network, corpus: Corpus, **changes: object) -> Path:
    """The folder as train writes it; `changes` replace values of config.json."""
    system = "vae_mine" if network.kind == "vae" else "lstm_lm"
    of_tiny = {"seed": SEED, "corpus_sha256": SHA256, "settings": run_settings(system, network.settings)}
    config = {**model_config(system, **of_tiny), **changes}
    weights = checkpoint.cloned(network)
    write_model(folder, Outcome(network, weights, weights, [], {}, config["failure"]), config, corpus.vocabulary)
    return folder
