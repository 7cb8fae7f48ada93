"""What a GPU keeps and what it is worth: `python -m benchmarks.gpu`."""

SEVEN = ("lstm_lm", "vae_05", "vae_bow", "infovae", "cyclical", "lagging", "vae_mine")
"""The paper's systems."""
