"""The step contract: one typed function -> a command line, a Kubeflow container component, a plain call.

A step's parameters are paths marked `Input` or `Output`, one frozen pydantic model of settings, and plain values.
From the signature come `python -m components.NAME --in PATH --settings FILE|JSON --out PATH`, and the same command
in a container. Outputs are written under temporary names and renamed when the function has returned: a step that
fails leaves nothing.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, get_args, get_origin

import typer
from pydantic import BaseModel

from textvae.config import validated
from textvae.errors import DataError, SettingsError, exit_codes
from textvae.files import parsed_json, write_json
from textvae.integrity import write_sealed
from textvae.outputs import written_when_complete
from textvae.provenance import Stopwatch
from textvae.strict import shown

IDENTITY = ("dataset", "system", "seed")
"""What every artifact carries inside, so that a fan-in never guesses from a path."""
LIGHTER = {
    "train": "lower training.batch_size, the model's sizes or preprocess.vocabulary_size, or run fewer side by side",
    "train_group": "run fewer side by side (RUNS_PER_GPU; on a cluster runs_per_gpu), or lower training.batch_size",
    "sample": "lower sampling.max_length, or run fewer side by side",
    "ngram": "lower ngram.memory",
    "report": "lower sampling.sentences",
    "": "run fewer side by side (JOBS=1)",
}
"""What takes less memory, for the error that says that there is too little."""
MOUNTED_STORES = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}
"""Where a Kubeflow launcher mounts each object store: a list of artifacts arrives as URIs, not as paths."""


after_writing: list[Callable[[], None]] = []
"""A step appends what must wait until its outputs have their final names: throwing away what they were made from."""


timings_by: list[Callable[[dict[str, Any]], dict[str, Any]]] = []
"""A step appends what makes of its timings those of all the work in its outputs: a part of it was done before."""


@dataclass(frozen=True)
class Input:
    """Marks a path that must exist; `artifact` is its Kubeflow type (Dataset, Model, Metrics, HTML, Artifact). Typed
    `Path | None` with default None it is optional."""

    artifact: str = "Artifact"
    help: str = ""


@dataclass(frozen=True)
class Output:
    """Marks a path that the step creates, a file or a folder. Typed `Path | None` with default None it is optional."""

    artifact: str = "Artifact"
    help: str = ""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a step, as read from its signature."""

    name: str
    kind: str
    """input, inputs, output, settings or value."""
    type: Any
    default: Any
    artifact: str
    help: str

    @property
    def option(self) -> str:
        """The name on the command line."""
        return "--" + self.name.replace("_", "-")

    @classmethod
    def of(cls, parameter: inspect.Parameter) -> "Parameter":
        """Read one parameter of the function's signature. Raises TypeError for one that fits no kind."""
        annotation, marker = parameter.annotation, None
        if get_origin(annotation) is Annotated:
            annotation, marker = get_args(annotation)[:2]
        artifact, text = getattr(marker, "artifact", ""), getattr(marker, "help", "")
        if isinstance(marker, Input):
            kind = "inputs" if annotation == list[Path] else "input"
        elif isinstance(marker, Output):
            kind = "output"
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            kind, text = "settings", "A JSON file, or JSON text."
        elif annotation in (int, float, str, bool):
            kind, text = "value", str(marker or "")
        else:
            raise TypeError(f"step parameter {parameter.name!r}: no kind fits {annotation!r}")
        return cls(parameter.name, kind, annotation, parameter.default, artifact, text)


class Step:
    """A step function with its three faces. Call it with keyword arguments like the function it wraps."""

    def __init__(self, function: Callable[..., Mapping[str, Any] | None]) -> None:
        self.function = function
        self.name = function.__name__
        self.module = function.__module__
        self.__doc__ = function.__doc__
        self.parameters = [Parameter.of(p) for p in inspect.signature(function).parameters.values()]

    def __call__(self, **arguments: Any) -> Mapping[str, Any]:
        """Run the step. Returns the metadata that Kubeflow shows beside its outputs (metrics, say)."""
        names = [p.name for p in self.parameters if p.kind == "output" and arguments.get(p.name) is not None]
        outputs = {name: Path(arguments[name]) for name in names}
        after_writing.clear()
        timings_by.clear()
        with written_when_complete(outputs) as temporary:
            metadata = self.function(**{**arguments, **temporary}) or {}
        for action in after_writing:
            action()
        return metadata

    def command(self) -> Callable[..., None]:
        """The function behind the command line, with a signature that typer turns into options."""

        def run(**options: Any) -> None:
            executor_input, timings = options.pop("executor_input"), options.pop("timings")
            stopwatch = Stopwatch(self.name)
            metadata = self(**{p.name: parsed(p, options[p.name]) for p in self.parameters})
            if timings is not None:
                identity = {key: metadata[key] for key in IDENTITY if key in metadata}
                took = stopwatch.read()
                for account in timings_by:
                    took = account(took)
                write_sealed(timings, {**identity, **took})
            if executor_input is not None:
                write_executor_output(json.loads(executor_input), metadata)

        signature = [
            inspect.Parameter(p.name, inspect.Parameter.KEYWORD_ONLY, annotation=cli_annotation(p), default=default)
            for p in self.parameters
            for default in [... if p.default is inspect.Parameter.empty else p.default]
        ]
        extra: dict[str, Any] = {
            "timings": Annotated[Path | None, typer.Option(help="Write wall time, host, versions to this file.")],
            "executor_input": Annotated[str | None, typer.Option(hidden=True)],
        }
        for name, annotation in extra.items():
            signature.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=None)
            )
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in signature}
        run.__doc__ = self.__doc__
        return run

    def main(self, arguments: list[str] | None = None) -> None:
        """The command line: ends the process with an exit code that tells what happened."""
        app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        app.command(name=self.name)(self.command())
        with exit_codes(LIGHTER.get(self.name, LIGHTER[""])):
            app(arguments, prog_name=f"python -m components.{self.name}")

    def container_component(self, image: str, arrivals: Mapping[str, Mapping[str, str]] | None = None) -> Any:
        """The step as a Kubeflow container component: the same command and options in `image`.

        A repeated input arrives as one list of artifacts, or as `arrivals` says: its name -> names of the component's
        inputs -> "inputs" for a list (dsl.Collected), "input" for a single artifact. An input without any does not
        arrive.
        """
        from kfp import dsl

        types: dict[str, Any] = {
            "input": lambda p: dsl.Input[getattr(dsl, p.artifact)],
            "inputs": lambda p: dsl.Input[GenericAlias(list, (getattr(dsl, p.artifact),))],
            "output": lambda p: dsl.Output[getattr(dsl, p.artifact)],
            "settings": lambda p: str,
            "value": lambda p: p.type,
        }
        timings = Parameter("timings", "output", Path, inspect.Parameter.empty, "Artifact", "")
        received = [
            (p.option, replace(p, name=name, kind=kind))
            for p in [*self.parameters, timings]
            for name, kind in (arrivals or {}).get(p.name, {p.name: p.kind}).items()
        ]

        def placeholders(*values: Any) -> Any:
            arguments: list[Any] = []
            for (option, p), value in zip(received, values, strict=True):
                arguments += [option, value.path if p.kind in ("input", "output") else value]
            arguments += ["--executor-input", "{{$}}"]
            return dsl.ContainerSpec(image=image, command=["python", "-m", f"components.{self.name}"], args=arguments)

        placeholders.__name__ = placeholders.__qualname__ = self.name
        placeholders.__doc__ = self.__doc__
        placeholders.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    p.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    annotation=types[p.kind](p),
                    default=p.default if p.kind == "value" else inspect.Parameter.empty,
                )
                for _, p in received
            ]
        )
        placeholders.__annotations__ = {p.name: types[p.kind](p) for _, p in received}
        return dsl.container_component(placeholders)


def step(function: Callable[..., Mapping[str, Any] | None]) -> Step:
    """Make a step of a typed function (see the module's docstring)."""
    return Step(function)


def cli_annotation(parameter: Parameter) -> Any:
    """The type and option by which typer reads `parameter`."""
    option = typer.Option(parameter.option, help=parameter.help, show_default=parameter.kind == "value")
    path = Path if parameter.default is inspect.Parameter.empty else Path | None
    kinds: dict[str, Any] = {"input": path, "inputs": list[str], "output": path, "settings": str}
    annotated: Any = Annotated  # of a type that only this moment knows
    return annotated[kinds.get(parameter.kind, parameter.type), option]


def parsed(parameter: Parameter, value: Any) -> Any:
    """A command-line value as the function expects it. Raises DataError for an input that does not exist."""
    if parameter.kind == "settings":
        return read_settings(parameter.type, value)
    if parameter.kind == "input" and value is not None and not value.exists():
        raise DataError(f"{parameter.option} {value}: no such file or folder; run the step that writes it")
    if parameter.kind == "inputs":
        paths = [path for item in value for path in expand(item)]
        for path in paths:
            if not path.exists():
                raise DataError(f"{parameter.option} {path}: no such file or folder; run the step that writes it")
        return paths
    return value


def expand(item: str) -> list[Path]:
    """One repeated option's value: a path, or Kubeflow's JSON list of artifacts (objects with `uri`) or of paths.

    Raises SettingsError for what begins like such a list and is none.
    """
    if not item.startswith("["):
        return [Path(item)]
    try:
        artifacts = [one["uri"] if isinstance(one, dict) else one for one in parsed_json(item)]
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{shown(item)} is no JSON list of paths or artifacts ({error}): give a path") from None
    paths = []
    for uri in artifacts:
        if not isinstance(uri, str):
            raise SettingsError(f"{shown(item)} names {shown(uri)}, which is no path: give text")
        for scheme, mount in MOUNTED_STORES.items():
            if uri.startswith(scheme):
                uri = mount + uri.removeprefix(scheme)
        paths.append(Path(uri))
    return paths


def read_settings(model: type[BaseModel], text: str) -> BaseModel:
    """Settings from JSON text or from a JSON file. Raises SettingsError naming what is wrong."""
    source = "--settings" if text.lstrip().startswith("{") else text
    try:
        content = parsed_json(text if source == "--settings" else Path(text).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"--settings {text}: no such file; `python -m components.settings` writes it") from None
    except OSError as error:
        raise SettingsError(f"--settings {source} cannot be read ({error.strerror}); give a JSON file") from None
    except ValueError as error:
        raise SettingsError(f"--settings {source}: not JSON ({error})") from None
    return validated(model, content, source)


def write_executor_output(executor_input: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """The file by which a Kubeflow launcher (and kfp's local runner) learns of the outputs and their metadata."""
    outputs = executor_input.get("outputs", {})
    if "outputFile" not in outputs:
        return
    artifacts = {
        name: {"artifacts": [{**artifact, "metadata": {**artifact.get("metadata", {}), **metadata}}]}
        for name, listed in outputs.get("artifacts", {}).items()
        for artifact in listed["artifacts"][:1]
    }
    write_json(Path(outputs["outputFile"]), {"artifacts": artifacts})
