"""A compiled pipeline, followed here as a Kubeflow backend does: its graph, its loops, what a command is given.

How a container runs is its caller's. An output lies in the folder of its step, which is named by a hash of all that the
step was given and of its image: a step that has been done with the same is not run again.
"""

from __future__ import annotations

import graphlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format  # type: ignore[import-untyped]
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec
from ruamel.yaml import YAML

from textvae.files import fingerprint, read_json, remove

Artifact = dict[str, Any]
PLACEHOLDER = re.compile(r"\{\{\$(?:\.(inputs|outputs)\.(artifacts|parameters)\['([^']+)'\](\.path)?)?\}\}")
ITEM_FIELD = re.compile(r'parseJson\(string_value\)\["(\w+)"\]')


def say(name: str, state: str) -> None:
    """One line about a step, as pipelines.cluster.api writes it."""
    print(f"{name:<32} {state}", flush=True)


class StepFailedError(Exception):
    """A step failed, or was not run because one before it did: Graph.failures says which."""


@dataclass(frozen=True)
class Container:
    """One container to run. Its outputs go below `folder`."""

    name: str
    image: str
    command: list[str]
    folder: Path


class Graph:
    """Runs the compiled pipeline in `file`, its artifacts below `folder`.

    `run` runs a container and returns its exit code. `image_id` gives the hash of an image. `run_id` and `run_name`
    stand for the backend's. `each` runs the iterations of a loop: `map` one after the other, a pool's side by side.
    """

    def __init__(
        self,
        file: Path,
        folder: Path,
        run: Callable[[Container], int],
        image_id: Callable[[str], str],
        run_id: str,
        run_name: str,
        each: Callable[..., Iterable[Any]] = map,
    ) -> None:
        content = next(YAML(typ="safe", pure=True).load_all(file.read_text(encoding="utf-8")))
        self.spec = json_format.ParseDict(content, PipelineSpec())
        self.executors = json_format.MessageToDict(self.spec.deployment_spec)["executors"]
        self.folder, self._each = folder, each
        self._run, self._image_id = run, image_id
        self._of_the_run = {"{{$.pipeline_job_uuid}}": run_id, "{{$.pipeline_job_name}}": run_name}
        self._lock = threading.Lock()
        self.finished: list[str] = []
        self.failures: list[tuple[Container, int]] = []
        self.stopped = False
        """Set it to start no more steps."""

    def images(self) -> list[str]:
        """Every image that the pipeline names."""
        return sorted({executor["container"]["image"] for executor in self.executors.values()})

    def count(self) -> int:
        """How many steps there are, each iteration of a loop for itself."""
        return sum(1 for _ in self._steps(self.spec.root.dag))

    def _steps(self, dag: Any) -> Iterator[str]:
        for name, task in dag.tasks.items():
            component = self.spec.components[task.component_ref.name]
            if component.HasField("dag"):
                for _ in json.loads(task.parameter_iterator.items.raw):
                    yield from self._steps(component.dag)
            else:
                yield name

    def outputs(self) -> dict[str, Any]:
        """Run the pipeline. Returns the artifacts of its outermost steps, as STEP/OUTPUT.

        Raises StepFailedError when a step failed; by then all has run that did not need it.
        """
        return self._dag(self.spec.root.dag, {}, {}, "")

    def _dag(self, dag: Any, artifacts: Mapping[str, Any], parameters: Mapping[str, Any], run: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        failed: set[str] = set()
        graph = {name: set(task.dependent_tasks) for name, task in dag.tasks.items()}
        for name in graphlib.TopologicalSorter(graph).static_order():
            if graph[name] & failed:
                failed.add(name)
                continue
            try:
                outputs = self._task(dag.tasks[name], made, artifacts, parameters, run)
            except StepFailedError:
                failed.add(name)
                continue
            made |= {f"{name}/{key}": one for key, one in outputs.items()}
        if failed:
            raise StepFailedError
        selectors = {key: output.artifact_selectors[0] for key, output in dag.outputs.artifacts.items()}
        return made | {key: made[f"{one.producer_subtask}/{one.output_artifact_key}"] for key, one in selectors.items()}

    def _task(
        self, task: Any, made: Mapping[str, Any], artifacts: Mapping[str, Any], parameters: Mapping[str, Any], run: str
    ) -> dict[str, Any]:
        """Run one task of a graph, in which `made` was made, and which was given `artifacts` and `parameters`."""
        given = {}
        for key, source in task.inputs.artifacts.items():
            chosen = source.task_output_artifact
            path = f"{chosen.producer_task}/{chosen.output_artifact_key}"
            given[key] = made[path] if chosen.producer_task else artifacts[source.component_input_artifact]
        values = {key: self._parameter(one, parameters) for key, one in task.inputs.parameters.items()}
        component = self.spec.components[task.component_ref.name]
        if not component.HasField("dag"):
            name = f"{task.task_info.name} {run}".strip()
            return self._container(name, component, given, values, task.caching_options.enable_cache)
        iterator = task.parameter_iterator

        def iteration(item: Mapping[str, Any]) -> dict[str, Any] | None:
            try:
                return self._dag(component.dag, given, {**values, iterator.item_input: item}, item["run"])
            except StepFailedError:  # the other iterations go on
                return None

        iterations = list(self._each(iteration, json.loads(iterator.items.raw)))
        if None in iterations:
            raise StepFailedError
        return {key: [one[key] for one in iterations] for key in component.dag.outputs.artifacts}

    def _parameter(self, one: Any, outer: Mapping[str, Any]) -> Any:
        """A task's parameter: a constant, or a field of the loop's item."""
        if not one.component_input_parameter:
            constant = json_format.MessageToDict(one.runtime_value.constant)
            return self._of_the_run.get(constant, constant) if isinstance(constant, str) else constant
        value = outer[one.component_input_parameter]
        field = ITEM_FIELD.fullmatch(one.parameter_expression_selector)
        assert field is not None, one.parameter_expression_selector
        return value[field[1]]

    def _container(
        self, name: str, component: Any, artifacts: Mapping[str, Any], parameters: Mapping[str, Any], cache: bool
    ) -> dict[str, Artifact]:
        """Run one step's container, unless it has been done. Returns its artifacts as the step describes them."""
        definitions = component.input_definitions.parameters.items()
        defaults = {key: json_format.MessageToDict(one.default_value) for key, one in definitions if one.is_optional}
        parameters = {**defaults, **parameters}
        container = self.executors[component.executor_label]["container"]
        uris = {k: [a["uri"] for a in one] if isinstance(one, list) else one["uri"] for k, one in artifacts.items()}
        command = [*container["command"], *container["args"]]
        image_id = self._image_id(container["image"])
        key = fingerprint({"image": image_id, "command": command, "parameters": parameters, "inputs": uris})
        place = self.folder / f"{component.executor_label.removeprefix('exec-')}-{key[:16]}"
        executor_output = place / "executor_output.json"
        outputs: dict[str, Artifact] = {
            key: {"name": key, "uri": str(place / key), "type": {"schemaTitle": one.artifact_type.schema_title}}
            for key, one in component.output_definitions.artifacts.items()
        }
        # Without the inputs, which the command names already: all of a large grid's are too long for one argument.
        executor_input = {
            "outputs": {
                "artifacts": {key: {"artifacts": [one]} for key, one in outputs.items()},
                "outputFile": str(executor_output),
            }
        }

        def filled(found: re.Match[str]) -> str:
            direction, kind, name, path = found.groups()
            if direction is None:
                return json.dumps(executor_input)
            if kind == "parameters":
                value = parameters[name]
                return value if isinstance(value, str) else json.dumps(value)
            artifact = outputs[name] if direction == "outputs" else artifacts[name]
            return str(artifact["uri"]) if path else json.dumps(artifact)

        if cache and executor_output.exists():
            say(name, "CACHED")
        else:
            if self.stopped:
                raise StepFailedError
            remove(place)
            place.mkdir(parents=True)
            arguments = [PLACEHOLDER.sub(filled, argument) for argument in command]
            one = Container(name, container["image"], arguments, place)
            code = self._run(one)
            if code != 0:
                with self._lock:
                    self.failures.append((one, code))
                raise StepFailedError
        with self._lock:
            self.finished.append(name)
        described = read_json(executor_output)["artifacts"]
        return {name: described[name]["artifacts"][0] for name in outputs}
