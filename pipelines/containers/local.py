"""The compiled pipeline in containers on this machine: `python -m pipelines.cluster.submit --local`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from pipelines.cluster.resources import Cluster
from pipelines.containers.engine import Engine
from pipelines.containers.graph import Container, Graph, StepFailedError, say
from textvae.config import Params
from textvae.progress import duration

FOLDER = Path(".local")
IMAGE_USER = 10001
"""Who the steps are in the images; docker/Dockerfile makes the account."""
WORKDIR = Path("/app")
PASSED_ON = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_EXPERIMENT_NAME",
)
"""Environment variables that the containers get from here; never on a command line, where everyone reads them."""
HINTS = {
    125: "the engine could not start the container",
    137: "killed, most likely because memory ran out",
}


def on_this_machine(cluster: Cluster) -> Cluster:
    """The cluster's images without GPUs: an image for CUDA becomes the one for the CPU."""
    places = {
        step: place.model_copy(update={"gpu": None, "image": place.image.removesuffix("-cuda")})
        for step, place in cluster.steps
    }
    return cluster.model_copy(update={"steps": cluster.steps.model_copy(update=places)})


def corpus_mounts(params: Params) -> list[tuple[Path, Path]]:
    """Corpora given as a `path`: where each is here, and where its step looks for it."""
    paths = {path for name in params.grid.datasets if (path := params.fetch(name).path) is not None}
    return [(Path(path).resolve(), WORKDIR / path) for path in sorted(paths) if Path(path).exists()]


class Containers:
    """Runs containers with one engine, side by side, their output shown line by line and kept in their folders."""

    def __init__(self, engine: Engine, folder: Path, corpora: Sequence[tuple[Path, Path]]) -> None:
        self.engine = engine
        self.state, self.mlflow = folder / "state", folder / "mlflow"
        # Root hands the folders to the images' user; anybody else is who the steps are, so that the files are theirs.
        self.user = os.getuid() or IMAGE_USER
        self.group = os.getgid() if os.getuid() else IMAGE_USER
        self.own(folder, self.state, self.mlflow)
        self.options = ["--rm", "--network", "host", "--security-opt", "label=disable", "--pull", "never"]
        self.options += ["--user", f"{self.user}:{self.group}"]
        if engine.program == "podman" and os.getuid():
            self.options += ["--userns", "keep-id"]
        mounts = [(folder, folder, ""), *((here, there, ",readonly") for here, there in corpora)]
        self.options += [f"--mount=type=bind,source={here},target={there}{how}" for here, there, how in mounts]
        self.options += [f"--env={name}" for name in PASSED_ON if name in os.environ]
        self.options += [f"--env=TEXTVAE_STATE={self.state}"]
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self.options += [f"--env=MLFLOW_TRACKING_URI=sqlite:///{self.mlflow}/mlflow.db"]
        self.running: dict[str, subprocess.Popen[str]] = {}
        self._lock = threading.Lock()

    def own(self, *folders: Path) -> None:
        """Make folders that the steps may write to."""
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            if os.getuid() == 0:
                os.chown(folder, self.user, self.group)

    def run(self, container: Container) -> int:
        """Run one container to its end. Returns its exit code."""
        self.own(container.folder)
        command = [self.engine.program, "run", *self.options, container.image, *container.command]
        say(container.name, "RUNNING")
        started = time.monotonic()
        # In a session of its own: of Ctrl-C it hears from `forwarded` alone, once.
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
        with self._lock:
            self.running[container.name] = process
        with (container.folder / "log.txt").open("w", encoding="utf-8") as log:
            for line in process.stdout:
                log.write(line)
                print(f"[{container.name}] {line}", end="", flush=True)
        code = process.wait()
        with self._lock:
            del self.running[container.name]
        took = duration(time.monotonic() - started)
        say(container.name, f"SUCCEEDED in {took}" if code == 0 else f"FAILED after {took}: {meaning(code)}")
        return code

    def signal(self, number: int) -> None:
        """Pass a signal on to every container that runs; a training then saves its state."""
        for process in list(self.running.values()):
            process.send_signal(number)


def meaning(code: int) -> str:
    """An exit code, and what it means where it is not the step's own."""
    return f"exit code {code}" + (f" ({HINTS[code]})" if code in HINTS else "")


@contextmanager
def forwarded(graph: Graph, containers: Containers) -> Iterator[list[int]]:
    """While the block runs, SIGINT and SIGTERM stop the graph and go to the containers; gives those that came."""
    came: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        graph.stopped = True
        came.append(number)
        containers.signal(number)

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def run_here(file: Path, params: Params, parallel_runs: int) -> int:
    """Run the compiled pipeline in `file` in containers. Returns 0, or the exit code of the step that failed first.

    `parallel_runs` are made side by side; 0: as many as there are processors.

    Raises UnavailableError where neither podman nor docker works, or an image is missing: then nothing was run.
    """
    engine, folder = Engine.find(), FOLDER.absolute()
    containers = Containers(engine, folder, corpus_mounts(params))
    name = f"textvae {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    parallel = parallel_runs or os.cpu_count() or 1
    pool = ThreadPoolExecutor(parallel)
    graph = Graph(file, folder, containers.run, engine.image_id, str(uuid.uuid4()), name, pool.map)
    for image in graph.images():
        engine.image_id(image)
    steps = graph.count()
    print(f"{steps} steps with {engine.program}, {parallel} runs side by side, in {folder}", flush=True)
    with forwarded(graph, containers) as came, pool:
        try:
            outputs = graph.outputs()
        except StepFailedError:
            outputs = None
    print(f"{len(graph.finished)} of {steps} steps are done", flush=True)
    for container, code in graph.failures:
        print(f"FAILED: {container.name}: {meaning(code)}, see {container.folder}/log.txt", file=sys.stderr)
    if came:
        print("stopped; run it again to go on", file=sys.stderr)
        return 128 + came[0]
    if outputs is None:
        return graph.failures[0][1]
    print(f"report:  {outputs['report/page']['uri']}\nresults: {outputs['report/reports']['uri']}/results.csv")
    return 0
