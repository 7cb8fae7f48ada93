"""What is measured, in rounds of which the median counts: rates, time on the GPU, memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.gpu import SEVEN
from benchmarks.gpu.workload import (
    CUDA,
    Pace,
    Until,
    Workload,
    advance,
    cleared,
    known,
    measured,
    memory,
    synchronise,
    tokens_between,
)
from textvae.config import EvaluationSettings, SamplingSettings, TrainingSettings
from textvae.errors import StoppedError
from textvae.generation import prior_samples
from textvae.state import StopRequest
from textvae.training import Trainer

JOINT = {"aggressive": False}
"""LaggingVAE's settings for a joint step."""
PROFILED_STEPS = 20


def machine(work: Workload) -> dict[str, Any]:
    """Card, driver and versions."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,clocks.max.sm", "--format=csv,noheader"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        said = ""
    return {
        "card": torch.cuda.get_device_name() if CUDA else f"none: a CPU ({platform.machine()})",
        "nvidia_smi": said,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "train_sentences": len(work.corpus.train),
        "train_tokens": work.corpus.train.target_tokens,
    }


def steps(work: Workload, system: str, ways: Sequence[bool] = (True, False)) -> dict[str, Any]:
    """A system alone: captured and eager. LaggingVAE's is the joint step."""
    return {"captured" if captured else "eager": speed(work, system, captured=captured) for captured in ways}


def speed(work: Workload, system: str, *, captured: bool = True, **options: Any) -> dict[str, Any]:
    """One training on its own: ms a step, target tokens a second, memory."""
    cleared()
    sizes = work.sizes
    plan = (sizes.warm, sizes.steps, sizes.rounds) if captured else ()
    pace = Pace(*(plan or (sizes.eager_warm, sizes.eager_steps, sizes.eager_rounds)))
    started = time.perf_counter()
    trainer = work.trainer(system, captured=captured, objective=JOINT, **options)
    advance(trainer, pace)
    return {**rates(trainer, pace), "warm_s": pace.times[0] - started, **memory()}


def rates(trainer: Trainer, pace: Pace) -> dict[str, Any]:
    """Medians over the rounds of a training's first epoch."""
    seconds = [after - before for before, after in pairwise(pace.times)]
    ends = [pace.warm + number * pace.steps for number in range(pace.rounds + 1)]
    tokens = [tokens_between(trainer, *pair) for pair in pairwise(ends)]
    return {
        "ms_step": median(1e3 * one / pace.steps for one in seconds),
        "tokens_s": median(count / one for count, one in zip(tokens, seconds, strict=True)),
        "rounds_ms": [round(1e3 * one / pace.steps, 3) for one in seconds],
    }


def aggressive(work: Workload, ways: Sequence[bool] = (True, False)) -> dict[str, Any]:
    """A step of LaggingVAE's aggressive phase: the encoder's inner steps and one of the decoder."""
    rows: dict[str, Any] = {}
    for captured in ways:
        cleared()
        trainer = work.trainer("lagging", captured=captured)
        draw, drawn = trainer.objective.draw, [0]

        def counted(draw: Any = draw, drawn: list[int] = drawn) -> Any:
            drawn[0] += 1
            return draw()

        trainer.objective.draw = counted
        pace = Pace(3, 1, 5) if captured else Pace(1, 1, 3)
        advance(trainer, pace)
        row = {**rates(trainer, pace), "inner_steps": drawn[0] / pace.done, **memory()}
        rows["captured" if captured else "eager"] = row
    return rows


def side_by_side(work: Workload) -> dict[str, Any]:
    """The seven systems in one process, LaggingVAE in its aggressive phase."""
    return together(work, [(system, 1) for system in SEVEN])


def many(work: Workload) -> dict[str, Any]:
    """So many trainings of VAE-0.5, on sentences of eight lengths: capturing each shape of each would take the time."""
    return together(work, [("vae_05", seed) for seed in range(1, work.sizes.many + 1)], few_lengths=True)


def together(work: Workload, runs: list[tuple[str, int]], few_lengths: bool = False) -> dict[str, Any]:
    """Trainings that take turns, each on a stream of its own, for so many seconds after a warm-up."""
    cleared()
    corpus = work.few_lengths if few_lengths else None
    trainers = [work.trainer(system, seed=seed, corpus=corpus) for system, seed in runs]
    started = time.perf_counter()
    turns(trainers, 15 * work.sizes.seconds, work.sizes.warm // (4 if few_lengths else 1))
    warm_s, before = time.perf_counter() - started, list(map(trained_tokens, trainers))
    started = time.perf_counter()
    turns(trainers, work.sizes.seconds)
    seconds = time.perf_counter() - started
    tokens = [after - start for after, start in zip(map(trained_tokens, trainers), before, strict=True)]
    names = [system if len(set(runs)) == len(SEVEN) else f"{system} {seed}" for system, seed in runs]
    rows = {name: round(count / seconds) for name, count in zip(names, tokens, strict=True)}
    used = memory()
    return {"tokens_s": sum(tokens) / seconds, "runs": rows, "warm_s": warm_s, **used, **of_device(len(runs))}


def of_device(runs: int) -> dict[str, float]:
    """What the card has lent this process, its context included, in GB, and that for each of its runs."""
    if not CUDA:
        return {}
    free, total = torch.cuda.mem_get_info()
    return {"device_gb": (total - free) / 1e9, "device_gb_a_run": (total - free) / 1e9 / runs}


def trained_tokens(trainer: Trainer) -> int:
    """Target tokens so far."""
    whole = int(trainer.train.lengths.sum()) + len(trainer.train)
    return trainer.at.epoch * whole + tokens_between(trainer, 0, trainer.at.position)


def turns(trainers: list[Trainer], seconds: float, steps: int | None = None) -> None:
    """Let trainings take turns in this process for so many seconds, or until one has taken so many steps."""
    from textvae.side_by_side import take_turns  # here: an older version has none

    stop = AllUntil(trainers, time.perf_counter() + seconds, steps)
    for trainer in trainers:
        trainer.stop = stop
    for _, ended in take_turns([(None, trainer.steps()) for trainer in trainers], len(trainers)):
        if not isinstance(ended, StoppedError):
            raise RuntimeError(f"a training ended: {ended}")
    synchronise()


class AllUntil(StopRequest):
    """Ends all trainings at a time, or when one has taken so many steps."""

    def __init__(self, trainers: list[Trainer], end: float, steps: int | None) -> None:
        self.trainers, self.end = trainers, end
        self.goal = None if steps is None else max(trainer.at.step for trainer in trainers) + steps

    def reason(self) -> StoppedError | None:
        """Asked before each step."""
        over = time.perf_counter() >= self.end
        over = over or (self.goal is not None and max(trainer.at.step for trainer in self.trainers) >= self.goal)
        return StoppedError("measured") if over else None


def in_processes(work: Workload, plan: dict[str, Any]) -> dict[str, Any]:
    """The seven systems side by side, each in a process of its own: what there was before one process had them all."""
    command = [sys.executable, str(Path(__file__).with_name("worker.py"))]
    processes = []
    for system in SEVEN:
        alone = json.dumps({**plan, "sections": [["alone", {"system": system}]]})
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        processes.append(subprocess.Popen([*command, alone], text=True, **pipes))  # type: ignore[call-overload]
    for process in processes:
        while (line := process.stdout.readline()) and "ready" not in line:
            pass
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    rows, total = {}, 0.0
    for system, process in zip(SEVEN, processes, strict=True):
        output = process.communicate()[0]
        said = json.loads(output.strip().splitlines()[-1])
        if "result" not in said:
            raise RuntimeError(f"{system}: {said.get('error', said)}")
        row = said["result"]
        rows[system], total = round(row["tokens_s"]), total + row["tokens_s"]
    return {"tokens_s": total, "runs": rows}


def alone(work: Workload, system: str) -> dict[str, Any]:
    """One of `in_processes`: gets warm, says so, waits to be told to go on."""
    trainer = work.trainer(system)
    advance(trainer, Pace(1 if system == "lagging" else work.sizes.eager_warm))
    synchronise()
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()
    before, started = trained_tokens(trainer), time.perf_counter()
    advance(trainer, Until(started + 2 * work.sizes.seconds))
    synchronise()
    return {"tokens_s": (trained_tokens(trainer) - before) / (time.perf_counter() - started)}


def precision(work: Workload, system: str) -> dict[str, Any]:
    """Training with TF32 and in IEEE float32."""
    if "precision" not in TrainingSettings.model_fields:
        raise LookupError("there is no setting training.precision")
    return {one: speed(work, system, precision=one) for one in ("tf32", "float32")}


def profile(work: Workload, system: str) -> dict[str, Any]:
    """Kernels a step and the milliseconds for which they keep the GPU busy."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    rows: dict[str, Any] = {}
    for captured in (True, False):
        trainer = work.trainer(system, captured=captured)
        advance(trainer, Pace(work.sizes.warm if captured else work.sizes.eager_warm))
        with profiled(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])]) as trace:
            advance(trainer, Pace(PROFILED_STEPS))
            synchronise()
        events = trace.key_averages()
        kernels = [event for event in events if str(event.device_type).endswith("CUDA")]
        counts = {event.key: event.count for event in events}
        rows["captured" if captured else "eager"] = {
            "kernels_step": sum(event.count for event in kernels) / PROFILED_STEPS,
            "gpu_ms_step": sum(event.self_device_time_total for event in kernels) / 1e3 / PROFILED_STEPS,
            "kernel_launches_step": counts.get("cudaLaunchKernel", 0) / PROFILED_STEPS,
            "graph_launches_step": counts.get("cudaGraphLaunch", 0) / PROFILED_STEPS,
            "waits_step": sum(n for key, n in counts.items() if key.endswith("Synchronize")) / PROFILED_STEPS,
            "items_step": counts.get("aten::item", 0) / PROFILED_STEPS,
            "longest": [
                [event.key[:60], round(event.self_device_time_total / 1e3 / PROFILED_STEPS, 4)]
                for event in sorted(kernels, key=lambda event: -event.self_device_time_total)[:8]
            ],
            "most": [
                [event.key[:100], event.count / PROFILED_STEPS]
                for event in sorted(kernels, key=lambda event: -event.count)[:40]
            ],
        }
    return rows


def samples(work: Workload) -> dict[str, Any]:
    """100,000 sentences from the prior of a network whose weights are random but for their length and words."""
    cleared()
    network = work.talking_network()
    limits = {"max_length": 200, "sentences": min(2_000, work.sizes.samples)}
    for _ in prior_samples(network, SamplingSettings.model_validate(limits), 1):
        pass  # warm
    settings = SamplingSettings.model_validate({**limits, "sentences": work.sizes.samples})
    synchronise()
    started = time.perf_counter()
    batches = list(prior_samples(network, settings, 1))
    synchronise()
    seconds = time.perf_counter() - started
    lengths = [len(one.tokens) for batch in batches for one in batch]
    words, sentences = sum(lengths), len(lengths)
    length = words / sentences
    return {"seconds": seconds, "tokens_s": (words + sentences) / seconds, "mean_length": length, **memory()}


def evaluation(work: Workload) -> dict[str, Any]:
    """All that the step evaluate measures of the test set (NLL, NLL-IW, KL, MI, gain)."""
    cleared()
    network, sizes = work.talking_network(), work.sizes
    chosen = {"iw_sentences": sizes.iw_sentences, "gain_sentences": sizes.iw_sentences, "iw_samples": sizes.iw_samples}
    settings = EvaluationSettings(**known(EvaluationSettings, chosen))
    test = work.corpus.test.subset(torch.arange(min(sizes.test_sentences, len(work.corpus.test))).numpy())
    small = EvaluationSettings(iw_sentences=4, iw_samples=4, gain_sentences=4)
    measured(network, test, small, 1)  # warm
    synchronise()
    started = time.perf_counter()
    found = measured(network, test, settings, 1)
    synchronise()
    seconds = time.perf_counter() - started
    columns = found if isinstance(found, dict) else found.columns
    return {"seconds": seconds, **{name: columns.get(name) for name in ("nll", "nll_iw", "gain", "mi")}, **memory()}
