"""What all settings share: strictness, names and numbers that can work everywhere, and errors that name the key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, MappingStartEvent, SequenceStartEvent

from textvae.errors import SettingsError, one_line
from textvae.files import refuse_lone_surrogates

ModelType = TypeVar("ModelType", bound=BaseModel)
Location = Sequence[str | int]
"""Where a value stands: keys of mappings, and positions in lists."""
LONGEST_NAME = 64
LARGEST_SEED = 2**32 - 1
SHOWN_CHARACTERS = 200


class Frozen(BaseModel):
    """Immutable settings that refuse unknown keys, silent conversions such as "5" -> 5, and numbers that are none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=(), allow_inf_nan=False)


def _fit_name(name: str) -> str:
    if not name.isascii() or not name.replace("_", "").isalnum() or not name[0].isalpha():
        raise ValueError("a name is made of ASCII letters, digits and _, and begins with a letter, as in mine_v2")
    if len(name) > LONGEST_NAME:
        raise ValueError(f"a name has at most {LONGEST_NAME} characters")
    return name


Name = Annotated[str, AfterValidator(_fit_name)]
"""Of a data set or a system. It is part of paths, of dvc's stage names, where "-" separates, of the keys that `-S`
takes, where "." does and which begin with a letter, and of MLflow's models, which have neither "." nor "/"."""


def distinct(values: list[str]) -> list[str]:
    """`values`, of which no two may be equal."""
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"{shown(value)} is there twice: leave one out")
    return values


def distinct_names(names: list[str]) -> list[str]:
    """`names`, of which no two may be equal, or differ in upper and lower case only."""
    lower: dict[str, str] = {}
    for name in distinct(names):
        if (other := lower.setdefault(name.lower(), name)) != name:
            raise ValueError(f"{other!r} and {name!r} are one folder on some file systems: rename one")
    return names


Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
"""Of sentences, which are read one after the other."""
Several = Annotated[int, Field(ge=2, le=1_000_000_000)]
"""Sentences that are compared with each other, or whose mean has a standard error."""
Size = Annotated[int, Field(ge=1, le=65_536)]
"""Of a layer: a square matrix of the largest takes 17 GB."""
Times = Annotated[int, Field(ge=1, le=1_000_000)]
"""Epochs, steps, samples: what is done one after the other."""
Steps = Annotated[int, Field(ge=0, le=1_000_000)]
"""Of a schedule, also none."""
Length = Annotated[int, Field(ge=2, le=10_000)]
"""Positions of a sentence that is generated; its end takes one of them. All of a batch are in memory at once."""
Rate = Annotated[float, Field(gt=0, le=1e30)]
"""Of learning, or a norm: larger ones overflow float32."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Of a term in a loss."""
Epochs = Annotated[float, Field(ge=0, le=1e6)]
"""The length of a schedule."""
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
"""What every generator takes: torch, NumPy, Python's, and Kubeflow's numbers."""


def plain_text(text: str) -> str:
    """`text`, which must be neither empty nor hold control characters: no file, address or program is called so."""
    if not text or not text.isprintable():
        raise ValueError("text without control characters is needed, at least one character")
    return text


Text = Annotated[str, AfterValidator(plain_text)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises SettingsError where it cannot be read, or is within itself."""
    try:
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        depth(content)
        refuse_lone_surrogates(content)
    except RecursionError:
        raise SettingsError(f"{path} cannot be read: it is nested without end") from None
    except MarkedYAMLError as error:  # its own text is a picture of several lines
        mark = error.problem_mark
        where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        problem = " ".join(str(error.problem or error.context).split())
        raise SettingsError(f"{path}{where} cannot be read: {problem}") from None
    except (OSError, ValueError, YAMLError) as error:
        raise SettingsError(f"{path} cannot be read: {one_line(error)}") from None
    return content


def depth(content: Any) -> int:
    """How deep mappings and lists are nested in `content`. Raises RecursionError where one is within itself."""
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return 1 + max(map(depth, parts), default=0)


def aliased_lines(path: Path) -> list[int]:
    """The lines of a YAML file on which an alias (`*name`) stands for a whole mapping or list."""
    text, anchors, lines = path.read_text(encoding="utf-8"), set(), []
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            anchors.add(event.anchor)
        elif isinstance(event, AliasEvent) and event.anchor in anchors:
            lines.append(event.start_mark.line + 1)
    return lines


def dotted(location: Location) -> str:
    """`("training", "epochs")` -> `training.epochs`."""
    return ".".join(str(part) for part in location if part != "[key]")


def validated(
    model: type[ModelType], content: Any, where: str = "", key: Callable[[Location], str] = dotted
) -> ModelType:
    """`content` as a `model`. Raises SettingsError that names each wrong key, the reason and what it was.

    `where` goes before everything, `key` says what a place in `content` is called.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            place, found, reason = problem["loc"], problem["input"], problem["msg"].removeprefix("Value error, ")
            name = key(place) or "(top)"
            if problem["type"] == "extra_forbidden":
                known = ", ".join(model.model_fields) if len(place) == 1 else ""
                problems.append(f"{name}: no such key" + (f" (there are: {known})" if known else ""))
            elif problem["type"] == "dict_type" and found is None:
                problems.append(f"{name}: nothing is below it: write {{}}, or leave the key out")
            elif problem["type"] == "value_error" and isinstance(found, dict):  # of several keys, which it names
                problems.append(f"{name}: {reason}")
            else:
                problems.append(f"{name}: {reason} (found {shown(found)})")
        raise SettingsError(f"{where}: {'; '.join(problems)}" if where else "; ".join(problems)) from None


def shown(value: Any) -> str:
    """`value` as a message shows it: not longer than a line or two."""
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
