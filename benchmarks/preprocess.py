"""fetch and preprocess on made text of any size: seconds, sentences a second, peak memory. Memory should not grow."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.sizes import Plan
from benchmarks.timing import Row
from textvae.command_line import run

WORDS, MEAN_LENGTH, LONGEST = 40_000, 10, 60
"""As in SNLI: short sentences. The words follow Zipf's law; a third of the sentences repeats another one."""
CHUNK = 10_000


def write_text(path: Path, sentences: int) -> None:
    """Made sentences, one a line."""
    rng = np.random.default_rng(0)
    weights = 1 / np.arange(1, WORDS + 1)
    words = np.array([f"w{rank}" for rank in range(WORDS)])
    with path.open("w", encoding="utf-8") as output:
        for start in range(0, sentences, CHUNK):
            lengths = np.clip(rng.poisson(MEAN_LENGTH, min(CHUNK, sentences - start)), 1, LONGEST)
            tokens = words[rng.choice(WORDS, size=lengths.sum(), p=weights / weights.sum())]
            lines = [" ".join(tokens[end - n : end]) for n, end in zip(lengths, lengths.cumsum(), strict=True)]
            lines[: len(lines) // 3] = lines[-(len(lines) // 3) :] if len(lines) >= 3 else []
            output.write("\n".join(lines) + "\n")


def measured(step: str, folder: Path, *options: str) -> float:
    """Run a step and print what its timings file says. Returns sentences a second."""
    timings = folder / f"{step}.json"
    command = [sys.executable, "-m", f"components.{step}", *options, "--timings", str(timings)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    said = json.loads(timings.read_text())
    sentences = sum(json.loads((folder / "raw/source.json").read_text())["sentences"].values())
    rate: float = sentences / said["wall_s"]
    print(
        f"{step}: {sentences:,} sentences in {said['wall_s']:.0f} s, {rate:,.0f} sentences/s, "
        f"{said['cpu_s']:.1f} s of CPU time, peak memory {said['peak_rss_mb']:.0f} MB",
        flush=True,
    )
    return rate


def made(sentences: int) -> dict[str, float]:
    """Both steps on so many made sentences: how many a second."""
    with tempfile.TemporaryDirectory(prefix="textvae-benchmark-") as scratch:
        folder = Path(scratch)
        write_text(folder / "text.txt", sentences)
        source = {"dataset": "made", "path": str(folder / "text.txt"), "tokenizer": "spaces"}
        fetched = measured("fetch", folder, "--settings", json.dumps(source), "--raw", str(folder / "raw"))
        options = ["--raw", str(folder / "raw"), "--corpus", str(folder / "corpus")]
        return {
            "fetch": fetched,
            "preprocess": measured("preprocess", folder, *options, "--settings", '{"dataset": "made"}'),
        }


def rows(plan: Plan) -> Iterator[Row]:
    """Both steps, once; the start of Python, the processor's waiting and the disk are in it."""
    for step, rate in made(plan.amounts.preprocessed).items():
        yield Row(f"{step}, sentences/s", [rate])


def main(
    sentences: Annotated[int, typer.Argument(min=1000, help="How many to make; the text goes to $TMPDIR.")] = 1_100_000,
) -> None:
    """Time fetch and preprocess on made sentences.

    \b
    Examples:
      python -m benchmarks.preprocess 10000000
    """
    made(sentences)


if __name__ == "__main__":
    run(main)
