"""A compiled pipeline run here, each command called as Kubeflow's launcher does: artifacts by path or as JSON."""

import graphlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format

Artifact = dict[str, Any]
PIPELINE_RUN = {"{{$.pipeline_job_uuid}}": "0a1b-2c3d", "{{$.pipeline_job_name}}": "tiny run"}
"""What the backend's driver puts in place of these parameters."""
PLACEHOLDER = re.compile(r"\{\{\$(?:\.(inputs|outputs)\.(artifacts|parameters)\['([^']+)'\](\.path)?)?\}\}")


class Launcher:
    """Runs the graph of `spec` below `folder`; `run` takes a container's command and arguments."""

    def __init__(self, spec: Any, folder: Path, run: Callable[[list[str]], None]) -> None:
        self.spec, self.folder, self.run = spec, folder, run
        self.executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
        self.containers_run = 0

    def dag(self, dag: Any, artifacts: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Run one graph. Returns its outputs, and under `TASK/OUTPUT` those of its tasks."""
        made: dict[str, Any] = {}
        graph = {name: set(task.dependent_tasks) for name, task in dag.tasks.items()}
        for name in graphlib.TopologicalSorter(graph).static_order():
            task = dag.tasks[name]
            given = {}
            for key, source in task.inputs.artifacts.items():
                chosen = source.task_output_artifact
                path = f"{chosen.producer_task}/{chosen.output_artifact_key}"
                given[key] = made[path] if chosen.producer_task else artifacts[source.component_input_artifact]
            values = {key: self.parameter(one, parameters) for key, one in task.inputs.parameters.items()}
            component = self.spec.components[task.component_ref.name]
            outputs: dict[str, Any] = {}
            if component.HasField("dag"):
                iterator = task.parameter_iterator
                for item in json.loads(iterator.items.raw):
                    for key, one in self.dag(component.dag, given, {**values, iterator.item_input: item}).items():
                        outputs.setdefault(key, []).append(one)
            else:
                outputs = self.container(component, given, values)
            made |= {f"{name}/{key}": one for key, one in outputs.items()}
        selected = {}
        for key, output in dag.outputs.artifacts.items():
            [selector] = output.artifact_selectors
            selected[key] = made[f"{selector.producer_subtask}/{selector.output_artifact_key}"]
        return {**made, **selected} if dag is self.spec.root.dag else selected

    def parameter(self, one: Any, outer: Mapping[str, Any]) -> Any:
        """A task's parameter: a constant, or a field of the loop's item."""
        if not one.component_input_parameter:
            constant = json_format.MessageToDict(one.runtime_value.constant)
            return PIPELINE_RUN.get(constant, constant) if isinstance(constant, str) else constant
        value = outer[one.component_input_parameter]
        field = re.fullmatch(r'parseJson\(string_value\)\["(\w+)"\]', one.parameter_expression_selector)
        assert field is not None
        return value[field[1]]

    def container(
        self, component: Any, artifacts: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> dict[str, Artifact]:
        """Run one container's command. Returns its output artifacts as its executor output describes them."""
        self.containers_run += 1
        definitions = component.input_definitions.parameters.items()
        defaults = {name: json_format.MessageToDict(one.default_value) for name, one in definitions if one.is_optional}
        parameters = {**defaults, **parameters}
        place = self.folder / f"{self.containers_run:03}"
        outputs: dict[str, Artifact] = {
            name: {"name": name, "uri": str(place / name), "type": {"schemaTitle": one.artifact_type.schema_title}}
            for name, one in component.output_definitions.artifacts.items()
        }
        listed = {name: {"artifacts": one if isinstance(one, list) else [one]} for name, one in artifacts.items()}
        executor_input = {
            "inputs": {"artifacts": listed, "parameterValues": dict(parameters)},
            "outputs": {
                "artifacts": {name: {"artifacts": [one]} for name, one in outputs.items()},
                "outputFile": str(place / "executor_output.json"),
            },
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

        container = self.executors[component.executor_label]["container"]
        self.run([*container["command"], *(PLACEHOLDER.sub(filled, argument) for argument in container["args"])])
        said = json.loads((place / "executor_output.json").read_text())["artifacts"]
        for name in outputs:
            assert Path(outputs[name]["uri"]).exists(), name
        return {name: said[name]["artifacts"][0] for name in outputs}
