"""Run directories as the other steps write them, with made-up numbers, for the tests of the report."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from made_files import corpus_description, model_config, write_with_hashes

from textvae.config import ReportSettings
from textvae.files import write_json
from textvae.provenance import Stopwatch

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
    *("gain", "gain_se", "gain_sentences", "gain_codes", "au", "sentences", "tokens"),
)
NGRAM_MEASURES = ("fppl", "fppl_tokens", "fppl_oov", "rppl", "rppl_tokens", "rppl_oov", "rppl_pad", "sentences", "cut")
SIZES = {"iw_sentences": 100, "iw_samples": 100, "gain_sentences": 500, "gain_codes": 32}
SIZES |= {"sentences": 1850, "tokens": 40000}
REAL_TEXT = {"fppl": 210.123456789, "tokens": 40000, "oov": 900}


def grid(
    datasets: list[str], systems: list[str], seeds: list[str], reduced: dict[str, bool] | None = None
) -> ReportSettings:
    """The settings of a report."""
    return ReportSettings(datasets=datasets, systems=systems, seeds=seeds, reduced=reduced or {})


def write_corpus(folder: Path, dataset: str, train: int = 10_000, truncated: tuple[int, int] = (0, 0)) -> None:
    """What preprocess leaves of a corpus's statistics; `truncated`: sentences of train and of test that it cut."""
    splits = {split: {"truncated": 0, "out_of_vocabulary_rate": 0.0314} for split in ("train", "valid", "test")}
    splits["train"]["truncated"], splits["test"]["truncated"] = truncated
    description = corpus_description(
        dataset,
        sentences={"train": train, "valid": 1900, "test": 1850},
        mean_length=14.26,
        vocabulary=5000,
        splits=splits,
        settings={"dataset": dataset, "max_length": 40},
        repetitions={"within": {}, "across": {"test_in_train": 12}},
    )
    write_with_hashes(folder / "corpus" / "corpus.json", description)


def write_sentences(
    path: Path, identity: dict[str, Any], values: dict[str, list[float | None]], same_as: str = "a hash"
) -> None:
    """sentences.parquet as evaluate writes it; `same_as`: what files of the same sentences have in common."""
    count = len(next(iter(values.values())))
    about = {**identity, "split": "test", "sentences_sha256": same_as, "corpus_sha256": "ab" * 32}
    # The last sentence is a copy of the first.
    columns = {"sentence": pa.array([f"sentence {n % (count - 1)}" for n in range(count)])}
    for name in ("nll", "reconstruction", "kl", "nll_iw", "gain"):
        columns[name] = pa.array(values.get(name, [None] * count), pa.float64())
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns, metadata={"textvae": json.dumps(about)}), path)


def around(mean: float | None, known: int, count: int = 12) -> list[float | None]:
    """Numbers of sentences with this mean, the first `known` of them; the same spread for whomever."""
    if mean is None:
        return [None] * count
    return [mean + 3 * (n - (known - 1) / 2) if n < known else None for n in range(count)]


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
            "settings": {"model": {"hidden": 256}, "training": {"batch_size": 32}, "objective": objective},
            "selected": {} if failed else {"epoch": len(curves or []), "valid_nll": 55.0},
        }
        write_json(folder / "model" / "config.json", model_config(**{**outcome, **config}))
        lines = [json.dumps({**identity, **record}) + "\n" for record in curves or []]
        (folder / "curves.jsonl").write_text("".join(lines))
    if "evaluate" not in without:
        sizes = {} if failed else SIZES
        content = {**dict.fromkeys(MEASURES), **outcome, **sizes, **(metrics or {})}
        write_json(folder / "evaluation" / "metrics.json", content)
        if content["nll"] is not None:
            of_sentences = {"nll": around(content["nll"], 12), "nll_iw": around(content["nll_iw"], 8)}
            of_sentences["gain"] = around(content["gain"], 10)
            write_sentences(folder / "evaluation" / "sentences.parquet", identity, of_sentences)
    if "ngram" not in without:
        about = {"decoding": "ancestral", "max_length": 30, "order": 5, "real_text": REAL_TEXT}
        about |= {"discount_fallback": [], "estimable_order": {}}
        content = {**dict.fromkeys(NGRAM_MEASURES), **outcome, **about, "sentences": 10000, **(ngram or {})}
        write_json(folder / "ngram.json", content)
    for step in ("train", "evaluate", "sample", "ngram"):
        if step not in without:
            write_json(folder / "timings" / f"{step}.json", timings(step))
    return folder


@functools.cache
def stopwatch() -> dict[str, Any]:
    """What a step writes of itself on this machine."""
    return Stopwatch("train").read()


def timings(step: str) -> dict[str, Any]:
    """A timings file; it does not say whose it is."""
    return {**stopwatch(), "step": step, "wall_s": 83.25}


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


SETTINGS = grid(["sotu", "ptb"], ["lstm_lm", "vae_05", "vae_mine"], ["1", "2"], {"sotu": True, "ptb": False})
VAE = {"kl": 2.5, "mi": 2.25, "mi_se": 0.031, "mi_upper": 2.5, "mi_batch": 2.125, "kl_agg": 0.25, "gain": 1.5, "au": 7}


def measures(nll: float, **more: float) -> dict[str, Any]:
    """A language model's measures; `more` adds a VAE's."""
    return {
        "nll": nll,
        "nll_se": 0.5,
        "nll_iw": nll - 1,
        "nll_iw_se": 1.25,
        "nll_subset": nll + 1,
        "nll_subset_se": 1.5,
        "ppl": nll * 1.1,
        "gain_se": 0.0625,
        **more,
    }


def perplexities(fppl: float, rppl: float) -> dict[str, float]:
    """An n-gram result's numbers."""
    return {"fppl": fppl, "rppl": rppl, "rppl_pad": rppl + 50}


def write_experiment(folder: Path) -> None:
    """Two data sets, three systems, two seeds; on sotu a run diverged, one is missing and one waits for ngram."""
    for dataset in ("sotu", "ptb"):
        write_corpus(folder / "corpora" / dataset, dataset, 42_068 if dataset == "ptb" else 10_000)
        for seed in (1, 2):
            runs = folder / "runs" / dataset
            lost = dataset == "sotu" and seed == 2
            write_run(
                runs / "lstm_lm" / str(seed),
                dataset,
                "lstm_lm",
                seed,
                metrics=measures(60.125 + seed),
                ngram=perplexities(300.0625 + seed, 340.0),
                curves=learning_curve(4, 60.0),
            )
            if not lost:
                write_run(
                    runs / "vae_05" / str(seed),
                    dataset,
                    "vae_05",
                    seed,
                    metrics=measures(64.0, **{**VAE, "kl": 0.03, "mi": 0.02}),
                    ngram=perplexities(290.0, 345.0),
                    curves=learning_curve(4, 64.0, 0.03),
                    without=("ngram",) if dataset == "sotu" else (),
                )
            write_run(
                runs / "vae_mine" / str(seed),
                dataset,
                "vae_mine",
                seed,
                metrics=None if lost else measures(62.1, **VAE),
                ngram={"sentences": None} if lost else perplexities(280.0, 330.0),
                curves=learning_curve(2 if lost else 4, 62.0, 2.5, 3.2),
                failed=lost,
            )
