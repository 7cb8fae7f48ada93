"""What a Kubernetes cluster gives to each step: images, CPU, memory, GPUs, volumes, secrets (cluster.yaml)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from kfp import kubernetes
from pydantic import Field, PositiveFloat, PositiveInt, StringConstraints

from textvae.errors import SettingsError
from textvae.strict import Frozen, read_yaml, validated

Cpu = Annotated[str, StringConstraints(pattern=r"^(\d*\.)?\d+m?$")]
Memory = Annotated[str, StringConstraints(pattern=r"^\d+([EPTGMK]i?)?$")]
KubernetesName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]
GRACE_MINUTES = 15
"""Between a training's own time limit, at which it saves its state, and the deadline at which its pod is ended."""
TRAINING = ("train", "train_group")
"""The steps that keep states and show themselves while they run."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60}
LOGIN_KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


class Gpu(Frozen):
    """Accelerators of one container, as Kubernetes names the resource."""

    type: str
    count: PositiveInt = 1


class StepPlace(Frozen):
    """Where one step runs and what it may use."""

    image: KubernetesName
    cpu: Cpu
    memory: Memory
    gpu: Gpu | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, str]] = Field(default_factory=list)
    shared_memory: Memory | None = None
    minutes: PositiveInt = 60
    """The time limit; a training saves its state at it, the other steps are ended."""


class Steps(Frozen):
    """Every step of the pipeline."""

    fetch: StepPlace
    preprocess: StepPlace
    train: StepPlace
    evaluate: StepPlace
    sample: StepPlace
    examples: StepPlace
    ngram: StepPlace
    gather: StepPlace
    report: StepPlace
    publish: StepPlace


class Retry(Frozen):
    """How often, and after how long, a step that failed is tried again."""

    times: int = Field(default=3, ge=0)
    seconds: PositiveInt = 60
    factor: PositiveFloat = 2.0
    longest_seconds: PositiveInt = 900


class Volume(Frozen):
    """A persistent volume claim, and where it is mounted."""

    claim: KubernetesName
    mount: Annotated[str, StringConstraints(pattern=r"^/")]


class Cluster(Frozen):
    """cluster.yaml."""

    image_prefix: str = Field(min_length=1)
    image_pull_secrets: list[KubernetesName] = Field(default_factory=list)
    steps: Steps
    retry: Retry = Retry()
    parallel_runs: int = Field(default=0, ge=0)
    runs_per_gpu: PositiveInt = 1
    """Runs of a data set that one pod trains side by side; with 1 each has a pod of its own."""
    memory_per_run: Memory = "1Gi"
    """What such a pod asks for beside the memory of `train`, for each run but the first."""
    state: Volume
    data: Volume | None = None
    mlflow_secret: KubernetesName

    @classmethod
    def load(cls, path: Path) -> Cluster:
        """Read a cluster's file. Raises SettingsError naming the key and the reason."""
        return validated(cls, read_yaml(path), str(path))

    def place(self, step: str) -> StepPlace:
        """What `step` gets. Of runs that train side by side, `train` only writes out what came of it: it is no
        training's place but that of `evaluate`."""
        if step == "train_group":
            more = (self.runs_per_gpu - 1) * in_bytes(self.memory_per_run)
            memory = f"{-(-(in_bytes(self.steps.train.memory) + more) // UNITS['Mi'])}Mi"
            return self.steps.train.model_copy(update={"memory": memory})
        place: StepPlace = getattr(self.steps, "evaluate" if step == "train" and self.runs_per_gpu > 1 else step)
        return place

    def image(self, step: str, tag: str) -> str:
        """The image of `step`. Raises SettingsError for a tag that could mean another image tomorrow."""
        if tag in ("", "latest") or tag.endswith("-dirty"):
            raise SettingsError(
                f"image tag {tag!r}: Kubeflow's cache takes an image with the same tag for the same code; commit and "
                "build the images of that commit, or give the tag of others with --tag"
            )
        return f"{self.image_prefix}-{self.place(step).image}:{tag}"

    def prepare(self, task: Any, step: str) -> Any:
        """Give `task`, a call of the component of `step`, its resources, volumes, secrets, deadline and retries."""
        place = self.place(step)
        task.set_cpu_request(place.cpu).set_cpu_limit(place.cpu)
        task.set_memory_request(place.memory).set_memory_limit(place.memory)
        task.set_caching_options(step != "publish")
        if self.retry.times:
            seconds, longest = f"{self.retry.seconds}s", f"{self.retry.longest_seconds}s"
            task.set_retry(self.retry.times, seconds, self.retry.factor, longest)
        if place.gpu is not None:
            task.set_accelerator_type(place.gpu.type).set_accelerator_limit(place.gpu.count)
        for key, value in place.node_selector.items():
            kubernetes.add_node_selector(task, key, value)
        for toleration in place.tolerations:
            kubernetes.add_toleration(task, **toleration)
        if place.shared_memory is not None:
            kubernetes.empty_dir_mount(task, "shm", "/dev/shm", medium="Memory", size_limit=place.shared_memory)
        if self.image_pull_secrets:
            kubernetes.set_image_pull_secrets(task, self.image_pull_secrets)
        if step == "fetch" and self.data is not None:
            kubernetes.mount_pvc(task, self.data.claim, self.data.mount)
        if step in TRAINING:
            kubernetes.mount_pvc(task, self.state.claim, self.state.mount)
            task.set_env_variable("TEXTVAE_STATE", self.state.mount)
            task.set_env_variable("TEXTVAE_MAX_MINUTES", str(place.minutes))
        grace = GRACE_MINUTES if step in TRAINING else 0
        kubernetes.set_timeout(task, 60 * (place.minutes + grace))
        if step in (*TRAINING, "publish"):
            # A training only shows itself in MLflow while it runs, so it does without; publish would write to nowhere.
            missing_is_fine = step in TRAINING
            uri = {"MLFLOW_TRACKING_URI": "MLFLOW_TRACKING_URI"}
            kubernetes.use_secret_as_env(task, self.mlflow_secret, uri, optional=missing_is_fine)
            kubernetes.use_secret_as_env(task, self.mlflow_secret, {key: key for key in LOGIN_KEYS}, optional=True)
        return task


def in_bytes(memory: str) -> int:
    """`2Gi` -> 2147483648."""
    number = memory.rstrip("EPTGMKi")
    return int(number) * UNITS[memory.removeprefix(number)]
