"""The compiled pipeline: what kfp's protobuf does not check, and that its graph is dvc.yaml's."""

import graphlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes.kubernetes_executor_config_pb2 import KubernetesExecutorConfig
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

from components.settings import resolve
from pipelines.cluster.experiment import RUN_STEPS, STEPS, compile_experiment
from pipelines.cluster.resources import Cluster
from pipelines.cluster.submit import overridden_params
from textvae.config import Params
from textvae.errors import SettingsError

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "pipelines/cluster/cluster.yaml"
TAG = "0a1b2c3d4e5f"

# Everything in which the pipeline differs from dvc.yaml:
ONLY_DVC_STAGES = {"settings"}  # resolved at submission: a step gets its settings as JSON text
# On one machine `make repro` runs train_group before dvc and publish behind it, and results lie in one folder anyway.
ONLY_KUBEFLOW_STEPS = {"train_group", "publish", "gather"}
ONLY_DVC_EDGES = {("fetch", "report")}  # dvc gives report the folder `corpora`, in which the raw text lies too
ONLY_KUBEFLOW_OPTIONS = {
    ("evaluate", "split"),  # on Kubeflow every option is given, here its default
    ("train", "config"),  # what report and publish read of a model, without the weights
    ("train", "finished"),  # on one machine train finds it in .state; without groups there is none
    ("report", "page"),  # Kubeflow's UI shows files, not the pages in a folder
    ("report", "summary"),
    ("report", "timings"),
}


class Compiled(NamedTuple):
    params: Params
    cluster: Cluster
    spec: Any
    platform: dict[str, Any]
    text: str


@pytest.fixture(scope="module")
def params() -> Params:
    """Two data sets, three systems, two seeds."""
    content = Params.load(ROOT / "params.yaml").model_dump()
    content["datasets"]["second"] = content["datasets"]["sotu"]
    content["grid"] = {
        "datasets": ["sotu", "second"],
        "systems": ["lstm_lm", "lagging", "vae_mine"],
        "seeds": ["1", "7"],
    }
    return Params.model_validate(content)


@pytest.fixture(scope="module", params=[1, 4], ids=["a GPU for each run", "a GPU for four runs"])
def compiled(params: Params, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Compiled:
    """Of each data set's six runs, four on one GPU and two on another."""
    file = tmp_path_factory.mktemp("compiled") / "pipeline.yaml"
    cluster = Cluster.load(CLUSTER).model_copy(update={"runs_per_gpu": request.param})
    compile_experiment(params, cluster, TAG, file)
    spec, platform = yaml.safe_load_all(file.read_text())
    json_format.ParseDict(platform, PlatformSpec())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for config in executors.values():
        json_format.ParseDict(config, KubernetesExecutorConfig())
    return Compiled(params, cluster, json_format.ParseDict(spec, PipelineSpec()), executors, file.read_text())


def dags(spec: Any) -> Iterator[tuple[str, Any]]:
    """Every graph of the pipeline with the name of its component."""
    yield "root", spec.root.dag
    for name, component in spec.components.items():
        if component.HasField("dag"):
            yield name, component.dag


def containers(spec: Any) -> dict[str, Any]:
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    return {name: executor["container"] for name, executor in executors.items()}


def step_of(spec: Any, component: str) -> str:
    """The step that a component runs."""
    executor = spec.components[component].executor_label
    return str(containers(spec)[executor]["command"][-1].removeprefix("components."))


def test_every_reference_leads_somewhere_and_every_executor_is_a_steps_own_command(compiled: Compiled) -> None:
    spec, used = compiled.spec, set()
    for _, dag in dags(spec):
        for task in dag.tasks.values():
            assert task.component_ref.name in spec.components
            used.add(task.component_ref.name)
    assert used == set(spec.components)
    labels = {c.executor_label for c in spec.components.values() if not c.HasField("dag")}
    assert labels == set(containers(spec))
    cluster = compiled.cluster
    for name, container in containers(spec).items():
        step = container["command"][-1].removeprefix("components.")
        assert container["command"] == ["python", "-m", f"components.{step}"]
        assert container["image"] == f"textvae-{cluster.place(step).image}:{TAG}", name
        given = list(dict.fromkeys(argument for argument in container["args"] if argument.startswith("--")))
        own = [parameter.option for parameter in STEPS[step].parameters]
        if cluster.runs_per_gpu == 1 and step == "train":
            own.remove("--finished")
        assert given == [*own, "--timings", "--executor-input"]


def test_every_required_input_is_given_and_none_that_the_component_lacks(compiled: Compiled) -> None:
    for _, dag in dags(compiled.spec):
        for task in dag.tasks.values():
            definitions = compiled.spec.components[task.component_ref.name].input_definitions
            for kind in ("parameters", "artifacts"):
                declared, given = getattr(definitions, kind), set(getattr(task.inputs, kind))
                given |= {task.parameter_iterator.item_input} - {""} if kind == "parameters" else set()
                required = {name for name, one in declared.items() if not one.is_optional}
                assert required <= given <= set(declared), (task.task_info.name, kind)


def edges(compiled: Compiled) -> set[tuple[str, str]]:
    """(step, step that reads it), through the loops, out of the artifacts that tasks take."""
    spec = compiled.spec

    def producers(dag: Any, artifact: Any, outer: Any) -> set[str]:
        if artifact.HasField("task_output_artifact"):
            chosen = artifact.task_output_artifact
            component = dag.tasks[chosen.producer_task].component_ref.name
            if not spec.components[component].HasField("dag"):
                assert chosen.output_artifact_key in spec.components[component].output_definitions.artifacts
                return {step_of(spec, component)}
            inner = spec.components[component].dag
            selectors = inner.outputs.artifacts[chosen.output_artifact_key].artifact_selectors
            return {step_of(spec, inner.tasks[one.producer_subtask].component_ref.name) for one in selectors}
        outer_dag, task = outer
        return producers(outer_dag, task.inputs.artifacts[artifact.component_input_artifact], None)

    found = set()

    def walk(dag: Any, outer: Any) -> None:
        for task in dag.tasks.values():
            component = task.component_ref.name
            if spec.components[component].HasField("dag"):
                walk(spec.components[component].dag, (dag, task))
                continue
            for artifact in task.inputs.artifacts.values():
                found.update((producer, step_of(spec, component)) for producer in producers(dag, artifact, outer))

    walk(spec.root.dag, None)
    return found


def dvc_stages() -> dict[str, dict[str, str]]:
    """Each stage of dvc.yaml: its step's options."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    found = {}
    for name, stage in stages.items():
        words = shlex.split(stage["cmd"])[3:]
        found[name] = {o.removeprefix("--"): value for o, value in zip(words[::2], words[1::2], strict=True)}
    return found


def dvc_edges() -> set[tuple[str, str]]:
    """The same out of the paths in dvc.yaml's commands: whoever writes at or below what another reads."""
    stages = {name: options for name, options in dvc_stages().items() if name in STEPS}
    kinds = {name: {p.name: p.kind for p in STEPS[name].parameters} | {"timings": "timings"} for name in stages}
    written = [(n, v) for n, options in stages.items() for o, v in options.items() if kinds[n][o] == "output"]
    return {
        (writer, reader)
        for reader, options in stages.items()
        for option, path in options.items()
        if kinds[reader][option] in ("input", "inputs")
        for writer, output in written
        if output == path or output.startswith(f"{path}/")
    }


def test_the_graph_is_that_of_dvc_but_for_the_declared_differences(compiled: Compiled) -> None:
    steps = {step_of(compiled.spec, name) for name, c in compiled.spec.components.items() if not c.HasField("dag")}
    assert steps - ONLY_KUBEFLOW_STEPS == set(dvc_stages()) - ONLY_DVC_STAGES
    found = edges(compiled)
    grouped = {edge for edge in found if "train_group" in edge}
    expected = {("preprocess", "train_group"), ("train_group", "train")} if compiled.cluster.runs_per_gpu > 1 else set()
    assert grouped == expected
    gathered = {writer for writer, reader in found if reader == "gather"}
    readers = {reader for writer, reader in found if writer == "gather"}
    assert (gathered, readers) == (set(RUN_STEPS), {"report", "publish"})
    through = found | {(writer, reader) for writer in gathered for reader in readers}
    shared = {edge for edge in through if not ONLY_KUBEFLOW_STEPS & set(edge)}
    assert shared == dvc_edges() - ONLY_DVC_EDGES
    assert ("train", "evaluate") in shared
    assert {writer for writer, reader in found if reader == "publish"} == {"report", "gather", "train"}


def test_the_options_are_those_of_dvc_but_for_the_declared_differences(compiled: Compiled) -> None:
    stages = dvc_stages()
    for container in containers(compiled.spec).values():
        step = container["command"][-1].removeprefix("components.")
        if step not in ONLY_KUBEFLOW_STEPS:
            options = {a.removeprefix("--") for a in container["args"] if a.startswith("--")} - {"executor-input"}
            assert {o for o in options if (step, o) not in ONLY_KUBEFLOW_OPTIONS} == set(stages[step]), step


def test_no_graph_has_a_cycle(compiled: Compiled) -> None:
    for _, dag in dags(compiled.spec):
        graph = {}
        for name, task in dag.tasks.items():
            artifacts = task.inputs.artifacts.values()
            before = {a.task_output_artifact.producer_task for a in artifacts if a.HasField("task_output_artifact")}
            assert before <= set(task.dependent_tasks) <= set(dag.tasks)
            graph[name] = set(task.dependent_tasks)
        assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(dag.tasks)


def settings_of(task: Any) -> Any:
    """The settings that a task outside of the loops is given."""
    return json.loads(task.inputs.parameters["settings"].runtime_value.constant.string_value)


def test_each_run_of_the_grid_gets_its_own_settings(compiled: Compiled) -> None:
    tasks = compiled.spec.root.dag.tasks
    loops = [task for task in tasks.values() if task.parameter_iterator.items.raw]
    settings = resolve(compiled.params)
    runs = []
    for loop in loops:
        given = {one.task_output_artifact.producer_task for one in loop.inputs.artifacts.values()}
        [preprocess] = [tasks[name] for name in given if name.startswith("preprocess")]
        dataset = settings_of(preprocess)["dataset"]
        items = json.loads(loop.parameter_iterator.items.raw)
        groups = [settings_of(tasks[name]) for name in given if name.startswith("train-group")]
        trained_before = [{"settings": json.loads(item["train"]), "seed": item["seed"]} for item in items]
        n = compiled.cluster.runs_per_gpu
        assert groups == ([{"runs": trained_before, "at_once": n}] if n > 1 else [])
        assert len(items) <= n or n == 1
        for item in items:
            system = json.loads(item["train"])["system"]
            for step in RUN_STEPS:
                assert json.loads(item[step]) == settings[f"{dataset}/{system}/{step}"]
            assert isinstance(item["seed"], int)
            assert item["run"] == f"{dataset}-{system}-{item['seed']}"
            runs.append(item["run"])
    assert sorted(runs) == sorted(point.name for point in compiled.params.grid.points())


def test_what_kubeflows_ui_shows_is_typed(compiled: Compiled) -> None:
    types = {}
    for name, component in compiled.spec.components.items():
        if not component.HasField("dag"):
            for key, one in component.output_definitions.artifacts.items():
                types[step_of(compiled.spec, name), key] = one.artifact_type.schema_title
    expected = {"model": "Model", "evaluation": "Metrics", "page": "HTML", "summary": "Markdown", "corpus": "Dataset"}
    found = {key: kind.removeprefix("system.") for (_, key), kind in types.items() if key in expected}
    assert found == expected


def test_resources_retries_and_caching(compiled: Compiled) -> None:
    cluster = compiled.cluster
    trains = "train" if cluster.runs_per_gpu == 1 else "train_group"
    for name, container in containers(compiled.spec).items():
        step = container["command"][-1].removeprefix("components.")
        place, resources = cluster.place(step), container["resources"]
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == place.cpu
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == place.memory
        assert (resources.get("accelerator") is not None) == (step == trains), name
    gpu = containers(compiled.spec)[f"exec-{trains.replace('_', '-')}"]["resources"]["accelerator"]
    assert (gpu["resourceType"], gpu["resourceCount"]) == ("nvidia.com/gpu", "1")
    for _, dag in dags(compiled.spec):
        for task in dag.tasks.values():
            if task.component_ref.name.startswith("comp-for-loop"):
                continue
            step = step_of(compiled.spec, task.component_ref.name)
            assert task.caching_options.enable_cache == (step != "publish")
            policy = task.retry_policy
            assert (policy.max_retry_count, policy.backoff_duration.seconds, policy.backoff_factor) == (3, 60, 2.0)


def test_training_has_its_state_volume_shared_memory_deadline_and_place(compiled: Compiled) -> None:
    trainings = {n: c for n, c in compiled.platform.items() if n.startswith("exec-train")}
    assert len(trainings) == len([n for n in containers(compiled.spec) if n.startswith("exec-train")]) > 0
    for name, config in trainings.items():
        assert [(m["constant"], m["mountPath"]) for m in config["pvcMount"]] == [("textvae-state", "/state")]
        environment = {e["name"]: e["value"] for e in containers(compiled.spec)[name]["env"]}
        only_writes = compiled.cluster.runs_per_gpu > 1 and not name.startswith("exec-train-group")
        minutes = 720 if only_writes else 1440
        assert environment == {"TEXTVAE_STATE": "/state", "TEXTVAE_MAX_MINUTES": str(minutes)}
        assert int(config["activeDeadlineSeconds"]) > 60 * minutes  # so that it can save its state before
        if only_writes:  # where evaluate runs
            assert "tolerations" not in config
            continue
        assert config["emptyDirMounts"][0] | {"volumeName": ""} == {
            "volumeName": "", "mountPath": "/dev/shm", "medium": "Memory", "sizeLimit": "1Gi",
        }  # fmt: skip
        assert config["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_credentials_come_from_a_secret_and_publish_cannot_do_without(compiled: Compiled) -> None:
    needed = {}
    for name, config in compiled.platform.items():
        for secret in config.get("secretAsEnv", []):
            assert secret["secretName"] == "textvae-mlflow"
            for pair in secret["keyToEnv"]:
                needed[name.removeprefix("exec-"), pair["envVar"]] = not secret["optional"]
    assert needed["publish", "MLFLOW_TRACKING_URI"]
    assert {key for key, must in needed.items() if must} == {("publish", "MLFLOW_TRACKING_URI")}
    assert needed["train", "MLFLOW_TRACKING_PASSWORD"] is False


@pytest.mark.parametrize(
    ("runs", "memory", "more", "asked_for"),
    [
        (1, "16Gi", "1Gi", "16384Mi"),
        (8, "16Gi", "1Gi", "23552Mi"),
        (3, "8G", "512M", "8606Mi"),
        (2, "1048576", "1", "2Mi"),
    ],
)
def test_a_pod_for_several_runs_asks_for_memory_accordingly(runs: int, memory: str, more: str, asked_for: str) -> None:
    content = yaml.safe_load(CLUSTER.read_text())
    content["steps"]["train"]["memory"] = memory
    cluster = Cluster.model_validate({**content, "runs_per_gpu": runs, "memory_per_run": more})
    assert cluster.place("train_group").memory == asked_for


def changed_cluster(tmp_path: Path, **changes: Any) -> Path:
    content = yaml.safe_load(CLUSTER.read_text())
    content["steps"]["train"] |= changes.pop("train", {})
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def test_another_cluster_is_another_file(params: Params, tmp_path: Path) -> None:
    train = {"gpu": None, "image": "train", "node_selector": {"pool": "big"}, "tolerations": [], "shared_memory": None}
    data = {"claim": "corpora", "mount": "/app/data"}
    path = changed_cluster(
        tmp_path,
        train=train,
        data=data,
        image_prefix="registry.example/t",
        image_pull_secrets=["pull"],
        parallel_runs=2,
    )
    compile_experiment(params, Cluster.load(path), TAG, tmp_path / "p.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "p.yaml").read_text())
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert executors["exec-train"]["nodeSelector"]["labels"] == {"pool": "big"}
    assert executors["exec-fetch"]["pvcMount"][0]["mountPath"] == "/app/data"
    assert all(config["imagePullSecret"][0]["secretName"] == "pull" for config in executors.values())
    container = spec["deploymentSpec"]["executors"]["exec-train"]["container"]
    assert container["image"] == f"registry.example/t-train:{TAG}"
    assert "accelerator" not in container["resources"]
    loops = [task for task in spec["root"]["dag"]["tasks"].values() if "parameterIterator" in task]
    assert [loop["iteratorPolicy"]["parallelismLimit"] for loop in loops] == [2, 2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {"cpus": "4"}}, r"steps\.train\.cpus: no such key"),
        ({"train": {"memory": "16 GB"}}, r"steps\.train\.memory"),
        ({"state": None}, "state: "),
    ],
)
def test_a_wrong_cluster_file_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Cluster.load(changed_cluster(tmp_path, **changes))


@pytest.mark.parametrize("tag", ["latest", "", "0a1b2c-dirty"])
def test_a_tag_that_can_move_is_refused(tag: str) -> None:
    with pytest.raises(SettingsError, match="cache"):
        Cluster.load(CLUSTER).image("train", tag)


def test_overrides_are_those_of_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    before = (ROOT / "params.yaml").read_bytes()
    params = overridden_params(
        ['grid.seeds=["1","2"]', "defaults.sampling.temperature=0.5", "+datasets.sotu.settings.ngram.order=3"]
    )
    assert params.grid.seeds == ["1", "2"]
    settings = params.settings("sotu", "vae_mine")
    assert (settings.sampling.temperature, settings.ngram.order) == (0.5, 3)
    others = [params.settings(name, "vae_mine").ngram.order for name in params.datasets if name != "sotu"]
    assert set(others) <= {5}, "entries that share a mapping by an alias are overridden one by one"
    assert (ROOT / "params.yaml").read_bytes() == before
    with pytest.raises(SettingsError, match=r"-S grid\.seds=1: Could not override 'grid\.seds'"):
        overridden_params(["grid.seds=1"])
    with pytest.raises(SettingsError, match=r"params\.yaml with -S .*names 'nobody'"):
        overridden_params(["grid.systems=[nobody]"])


def test_the_papers_whole_grid_stays_small(params: Params, tmp_path: Path) -> None:
    """7 systems x 3 data sets x 3 seeds: etcd takes objects of 1.5 MB, and Linux 131,072 bytes in one argument.

    A backend tells a step of all its artifacts in one argument, some 400 bytes for each.
    """
    content = params.model_dump()
    content["datasets"]["third"] = content["datasets"]["sotu"]
    systems = Params.load(ROOT / "params.yaml").grid.systems
    content["grid"] = {"datasets": ["sotu", "second", "third"], "systems": systems, "seeds": ["1", "2", "3"]}
    compile_experiment(Params.model_validate(content), Cluster.load(CLUSTER), TAG, tmp_path / "p.yaml")
    assert (tmp_path / "p.yaml").stat().st_size < 400_000
    spec = json_format.ParseDict(next(yaml.safe_load_all((tmp_path / "p.yaml").read_text())), PipelineSpec())
    for step in ("report", "publish"):
        [task] = [task for task in spec.root.dag.tasks.values() if task.component_ref.name == f"comp-{step}"]
        producers = [spec.root.dag.tasks[a.task_output_artifact.producer_task] for a in task.inputs.artifacts.values()]
        items = [producer.parameter_iterator.items.raw for producer in producers]
        assert 63 < sum(len(json.loads(one)) if one else 1 for one in items) < 131_072 / 800
