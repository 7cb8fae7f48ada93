"""Every benchmark of this machine's processor, and one table. (benchmarks.gpu and benchmarks.robustness are apart.)"""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import evaluation, preprocess, sampling, softmax, training
from benchmarks.sizes import Plan
from benchmarks.timing import Row, table
from textvae.command_line import run


def processor() -> str:
    """Its name, as Linux has it."""
    about = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in about.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main(tiny: Annotated[bool, typer.Option("--tiny", help="Only whether it all runs, in seconds.")] = False) -> None:
    """Time the project beside a plain reference and the matrix products, on one thread, in under 10 minutes."""
    plan = Plan("tiny" if tiny else "full")
    found: list[Row] = []
    for benchmark in (training, evaluation, sampling, softmax, preprocess):
        for row in benchmark.rows(plan):
            print(" | ".join(cell for cell in row.cells() if cell), flush=True)
            found.append(row)
    load = "/".join(f"{one:.1f}" for one in os.getloadavg())
    about = f"{processor()}, {torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores, load {load}"
    print(f"\n{about}, torch {torch.__version__}\n")
    print(table(found))


if __name__ == "__main__":
    run(main)
