"""The same steps over and over in one process: memory and open files must stay flat.

`python tests/soak.py [MINUTES]` (30) trains, evaluates, samples, makes examples, measures and loads a tiny model again
and again, and prints memory, open files and threads; exit code 1 where they grow. pytest does not collect it.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

from tiny import tiny_corpus, train_settings, write_corpus  # noqa: E402

from components.evaluate import evaluate  # noqa: E402
from components.examples import examples  # noqa: E402
from components.ngram import ngram  # noqa: E402
from components.sample import sample  # noqa: E402
from components.train import train  # noqa: E402
from textvae import load  # noqa: E402
from textvae.config import EvaluationSettings, ExamplesSettings, NgramSettings, SamplingSettings  # noqa: E402

WARM_ROUNDS = 5
"""The first ones load what is imported late and fill caches."""
GROWTH_MB = 8.0


def one_round(folder: Path, corpus: Path) -> None:
    """Every step of one run."""
    model = folder / "model"
    train(
        corpus=corpus,
        settings=train_settings("vae_mine", epochs=1),
        seed=1,
        model=model,
        curves=folder / "curves.jsonl",
    )
    settings = EvaluationSettings(iw_sentences=4, iw_samples=4, gain_sentences=4, gain_codes=2)
    evaluate(model=model, corpus=corpus, settings=settings, evaluation=folder / "evaluation")
    sample(model=model, settings=SamplingSettings(sentences=40, max_length=8), samples=folder / "samples.parquet")
    examples(model=model, corpus=corpus, settings=ExamplesSettings(), examples=folder / "examples.json")
    measure = NgramSettings(order=2, memory="64M")
    ngram(samples=folder / "samples.parquet", corpus=corpus, settings=measure, ngram=folder / "ngram.json")
    load(model).encode(["the cat sleeps"])


def held() -> tuple[float, int, int]:
    """This process's memory in MB, open files and threads."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, len(os.listdir("/proc/self/fd")), threading.active_count()  # noqa: PTH208


def main(minutes: float) -> int:
    found: list[tuple[float, int, int]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["TEXTVAE_STATE"] = str(folder / "state")
        corpus = write_corpus(folder / "corpus", tiny_corpus())
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end or len(found) < 3 * WARM_ROUNDS:
            with contextlib.redirect_stderr(io.StringIO()):
                one_round(folder, corpus)
            found.append(held())
    warm = found[WARM_ROUNDS:]
    third = max(1, len(warm) // 3)
    first, last = ([median(column) for column in zip(*part, strict=True)] for part in (warm[:third], warm[-third:]))
    grows = last[0] - first[0] > GROWTH_MB or last[1:] > first[1:]
    for what, before, after in zip(("memory, MB", "open files", "threads"), first, last, strict=True):
        print(f"{what}: {before:.1f} in the first third, {after:.1f} in the last")
    print(f"{len(found)} rounds in {minutes:g} minutes: {'they grow' if grows else 'flat'}")
    return int(grows)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0))
