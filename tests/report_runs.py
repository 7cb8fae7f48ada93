"""Run directories as the other steps write them, with made-up numbers, for the tests of the report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from textvae.config import ReportSettings
from textvae.files import write_json

FAILURE = {
    "message": "diverged in epoch 3, step 120: mutual information is nan (largest energy 131.5)",
    "epoch": 3,
    "step": 120,
    "term": "mutual information",
    "largest_energy": 131.5,
}
MEASURES = (
    *("nll", "nll_se", "nll_iw", "nll_iw_se", "nll_subset", "nll_subset_se", "iw_sentences", "iw_samples"),
    *("kl", "kl_se", "ppl", "mi", "mi_se", "mi_upper", "mi_upper_se", "mi_batch", "kl_agg", "kl_agg_se"),
    *("gain", "gain_se", "gain_sentences", "au", "sentences", "tokens"),
)
NGRAM_MEASURES = ("fppl", "fppl_tokens", "fppl_oov", "rppl", "rppl_tokens", "rppl_oov", "rppl_pad", "sentences")
SIZES = {"iw_sentences": 100, "iw_samples": 100, "gain_sentences": 500, "sentences": 1850, "tokens": 40000}
REAL_TEXT = {"fppl": 210.123456789, "tokens": 40000, "oov": 900}


def grid(
    datasets: list[str], systems: list[str], seeds: list[str], reduced: dict[str, bool] | None = None
) -> ReportSettings:
    """The settings of a report."""
    return ReportSettings(datasets=datasets, systems=systems, seeds=seeds, reduced=reduced or {})


def write_corpus(folder: Path, dataset: str, train: int = 10_000) -> None:
    """What preprocess leaves of a corpus's statistics."""
    write_json(
        folder / "corpus" / "corpus.json",
        {
            "dataset": dataset,
            "sentences": {"train": train, "valid": 1900, "test": 1850},
            "mean_length": 14.26,
            "vocabulary": 5000,
        },
    )


def write_run(
    folder: Path,
    dataset: str,
    system: str,
    seed: int,
    *,
    metrics: dict[str, Any] | None = None,
    ngram: dict[str, Any] | None = None,
    curves: list[dict[str, Any]] | None = None,
    failed: bool = False,
    without: tuple[str, ...] = (),
) -> Path:
    """A run's directory; its numbers are null but those given. `without` names steps that have not run."""
    identity = {"dataset": dataset, "system": system, "seed": seed}
    outcome = {**identity, "status": "diverged" if failed else "finished", "failure": FAILURE if failed else None}
    if "train" not in without:
        objective = {"name": system, "alpha": 3.0} if system == "vae_mine" else {"name": system}
        config = {
            "format_version": 1,
            "settings": {"model": {"hidden": 256}, "training": {"batch_size": 32}, "objective": objective},
            "selected": {} if failed else {"epoch": len(curves or []), "valid_nll": 55.0},
        }
        write_json(folder / "model" / "config.json", {**outcome, **config})
        lines = [json.dumps({**identity, **record}) + "\n" for record in curves or []]
        (folder / "curves.jsonl").write_text("".join(lines))
    if "evaluate" not in without:
        sizes = {} if failed else SIZES
        content = {**dict.fromkeys(MEASURES), **outcome, **sizes, **(metrics or {})}
        write_json(folder / "evaluation" / "metrics.json", content)
    if "ngram" not in without:
        about = {"decoding": "ancestral", "order": 5, "discount_fallback": [], "real_text": REAL_TEXT}
        content = {**dict.fromkeys(NGRAM_MEASURES), **outcome, **about, "sentences": 10000, **(ngram or {})}
        write_json(folder / "ngram.json", content)
    for step in ("train", "evaluate", "sample", "ngram"):
        if step not in without:
            write_json(folder / "timings" / f"{step}.json", timings(step))
    return folder


def timings(step: str) -> dict[str, Any]:
    """A timings file; it does not say whose it is."""
    return {
        "step": step,
        "started": "2026-01-02T03:04:05+00:00",
        "wall_s": 83.25,
        "cpu_s": 80.0,
        "peak_rss_mb": 612.5,
        "host": "box",
        "device": "x86_64 CPU",
        "threads": 1,
        "commit": "0123456789ab",
        "code_sha256": "0" * 64,
        "versions": {"python": "3.11.2", "torch": "2.13.0"},
    }


def learning_curve(
    epochs: int, nll: float, kl: float | None = None, estimate: float | None = None
) -> list[dict[str, Any]]:
    """Epochs that approach the values given; without a KL it is a language model's."""
    records = []
    for epoch in range(1, epochs + 1):
        left = math.exp(-epoch / 2)
        record: dict[str, Any] = {"epoch": epoch, "step": 300 * epoch, "lr": 0.001, "valid_nll": nll * (1 + left)}
        if kl is not None:
            record |= {"beta": min(1.0, 0.1 + 0.2 * epoch), "log_batch_size": math.log(32)}
            record |= {"valid_kl": kl * (1 + left), "valid_mi": 0.9 * kl, "valid_au": round(2 * kl)}
        if estimate is not None:
            record["mi_estimate"] = estimate * (1 - left)
        records.append(record)
    return records
