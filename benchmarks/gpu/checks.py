"""What must hold on a GPU. Each check returns its rows and `passed`."""

from __future__ import annotations

import os
import signal
import tempfile
from typing import Any

import torch

from benchmarks.gpu.workload import CUDA, Pace, Workload, advance, batches_of, compared, measured, weights
from textvae.config import EvaluationSettings
from textvae.errors import StoppedError
from textvae.networks import Network
from textvae.state import StateStore, StopRequest, stop_request
from textvae.training import Trainer

NLL_TOLERANCE = 1e-4
"""Nats a sentence between CPU and GPU."""


def nll_on_cpu_and_gpu(work: Workload) -> dict[str, Any]:
    """NLL and NLL-IW of single sentences by one model on both."""
    torch.manual_seed(0)
    sizes = work.sizes
    network = Network("vae", work.corpus.vocabulary, work.model.model_copy(update={"initialisation": "pytorch"}))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2)  # codes and words matter
    some = work.corpus.test.subset(torch.arange(min(sizes.compared, len(work.corpus.test))).numpy())
    settings = EvaluationSettings(iw_sentences=20, iw_samples=10, gain_sentences=20, gain_codes=8, max_gain_codes=8)
    found = {}
    for device in ("cpu", "cuda") if CUDA else ("cpu", "cpu"):
        found[device] = measured(network.to(device).eval(), some, settings, 1).of_sentences
    other = found["cuda" if CUDA else "cpu"]
    rows = {name: float((other[name] - found["cpu"][name]).nan_to_num().abs().max()) for name in found["cpu"]}
    return {"passed": max(rows.values()) <= NLL_TOLERANCE, "largest_difference_nats": rows}


def captured_against_eager(work: Workload, system: str) -> dict[str, Any]:
    """The same weights after the same steps, over several shapes, an odd one and the ends of two epochs; where the
    training diverges (the paper's Algorithm 1 does), at the same step by the same term."""
    steps = max(work.sizes.check_steps // 10, 3) if system == "lagging" else work.sizes.check_steps
    ended, failures = [], []
    for captured in (True, False):
        trainer = small(work, system, captured=captured)
        outcome = advance(trainer, Pace(steps))
        failures.append(None if outcome is None else outcome.failure or {"message": "its end"})
        ended.append(weights(trainer))
    shapes = {(len(batch), int(trainer.train.lengths[batch].max())) for batch in batches_of(trainer, 0)}
    row = compared(*ended)
    about = {"steps": steps, "shapes": len(shapes), "epochs": trainer.at.epoch, "failure": failures[0]}
    return {**row, "passed": row["passed"] and failures[0] == failures[1], **about}


def small(work: Workload, system: str, **options: Any) -> Trainer:
    """A training on few shapes, quickly validated."""
    return work.trainer(system, corpus=work.few_shapes, iw_sentences=5, iw_samples=5, **options)


def same_seed(work: Workload, system: str) -> dict[str, Any]:
    """Two trainings from one seed; VAE-MINE's on all shapes."""
    ended = []
    steps = work.sizes.seed_steps // 20 + 2 if system == "lagging" else work.sizes.seed_steps
    for _ in range(2):
        trainer = work.trainer(system) if system == "vae_mine" else small(work, system)
        advance(trainer, Pace(steps))
        ended.append(weights(trainer))
    return {**compared(*ended), "steps": steps}


def stop_and_resume(work: Workload, system: str) -> dict[str, Any]:
    """SIGTERM between two steps, then on from the state: as the training that nobody stopped."""
    steps = 6 if system == "lagging" else work.sizes.check_steps
    before = steps // 2 - 1
    whole = small(work, system)
    advance(whole, Pace(steps))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TEXTVAE_STATE"] = folder
        with stop_request() as request:
            said = stopped_by_signal(small(work, system, store=StateStore("benchmark")), request, before)
        resumed = small(work, system, store=StateStore("benchmark"))
        advance(resumed, Pace(steps - before))
    row = compared(weights(whole), weights(resumed))
    right = row["passed"] and said == "TerminatedError" and resumed.at.step == steps
    return {**row, "passed": right, "stopped_by": said, "step": resumed.at.step}


def stopped_by_signal(trainer: Trainer, request: StopRequest, step: int) -> str:
    """Train until SIGTERM, which comes before step `step` + 1. Returns what ended it."""

    class Signalled(StopRequest):
        def __init__(self) -> None:
            self.asked = -1

        def reason(self) -> StoppedError | None:
            self.asked += 1
            if self.asked == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return request.reason()

    trainer.stop = Signalled()
    try:
        trainer.run()
    except StoppedError as error:
        return type(error).__name__
    return "its end"


def divergence(work: Workload, system: str) -> dict[str, Any]:
    """A weight that becomes NaN before a step: the run ends as diverged and names that step, as the eager one does."""
    rows: dict[str, Any] = {}
    at = 7 if len(work.few_shapes.train) > 8 * work.sizes.batch else 2
    for part in ("decoder", "encoder"):
        for captured in (True, False):
            trainer = small(work, system, captured=captured)
            outcome = advance(trainer, Poison(trainer, part, at))
            failure = {} if outcome is None else outcome.failure or {}
            way = "captured" if captured else "eager"
            rows[f"{part} {way}"] = {key: failure.get(key) for key in ("step", "term")}
    right = [rows[f"{part} captured"] == rows[f"{part} eager"] for part in ("decoder", "encoder")]
    right += [row["step"] == at + 1 for row in rows.values()]
    return {"passed": all(right), **rows}


class Poison(StopRequest):
    """Makes a weight NaN when `at` steps are done, and stops the training 200 steps later if nothing else does."""

    def __init__(self, trainer: Trainer, part: str, at: int) -> None:
        self.trainer, self.part, self.at, self.done = trainer, part, at, -1

    def reason(self) -> StoppedError | None:
        """Asked before each step."""
        self.done += 1
        if self.done == self.at:
            with torch.no_grad():
                getattr(self.trainer.network, self.part).lstm.weight_hh_l0[0, 0] = float("nan")
        return StoppedError("nobody noticed") if self.done > self.at + 200 else None
