"""params.yaml -> validated, frozen settings, one model per step. What can never work is an error that names the key.

Merge order: `defaults` < `systems.S` < `datasets.D.settings` < `datasets.D.systems.S`. A system that is `like` another
has first all of that one's, on that data set too, and then what the entries of its own name say.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field
from typing_extensions import TypedDict

from textvae.corpus_settings import Download, FetchSettings, GrammarSettings, PreprocessSettings, SplitName
from textvae.errors import SettingsError
from textvae.step_settings import (
    EvaluationSettings,
    ExamplesSettings,
    ModelSettings,
    NgramSettings,
    SamplingSettings,
    TrainGroupSettings,
    TrainingSettings,
    TrainSettings,
)
from textvae.strict import LARGEST_SEED, Frozen, Location, Name, distinct, distinct_names, dotted, read_yaml, validated

__all__ = [
    "DatasetEntry",
    "Download",
    "EvaluationSettings",
    "ExamplesSettings",
    "FetchSettings",
    "Frozen",
    "GrammarSettings",
    "Grid",
    "GridPoint",
    "Layers",
    "ModelSettings",
    "Name",
    "NgramSettings",
    "Params",
    "PreprocessSettings",
    "ReportSettings",
    "SamplingSettings",
    "Settings",
    "SplitName",
    "TrainGroupSettings",
    "TrainSettings",
    "TrainingSettings",
    "merge",
    "validated",
]


CODE_FOLDER = "code"
"""Below settings/, beside a folder for each data set: the hashes of what the steps run."""


class GridPoint(NamedTuple):
    """One run."""

    dataset: str
    system: str
    seed: str

    @property
    def name(self) -> str:
        """As dvc names the item of a matrix: `sotu-vae_mine-1`."""
        return "-".join(self)

    @property
    def folder(self) -> Path:
        """Where its artifacts are."""
        return Path("runs", *self)


def _fit_seed(text: str) -> str:
    if not (text.isascii() and text.isdigit()) or str(int(text[:99])) != text or int(text) > LARGEST_SEED:
        raise ValueError(f'a seed is a whole number from 0 to {LARGEST_SEED} in quotes, without leading zeros: "1"')
    return text


class Grid(Frozen):
    """The runs: every combination of these."""

    datasets: Annotated[list[Name], Field(min_length=1), AfterValidator(distinct_names)]
    systems: Annotated[list[Name], Field(min_length=1), AfterValidator(distinct_names)]
    seeds: Annotated[list[Annotated[str, AfterValidator(_fit_seed)]], Field(min_length=1), AfterValidator(distinct)]

    def points(self) -> list[GridPoint]:
        """Every combination, seeds outermost: a first seed's comparison is complete before the second begins."""
        return [GridPoint(d, s, seed) for seed in self.seeds for d in self.datasets for s in self.systems]


class ReportOptions(Frozen):
    """How the report compares."""

    baseline: Name | None = "vae_bow"
    """The system that all others' paired differences are shown to, beside LSTM-LM's; none where it is no system of the
    grid."""


class ReportSettings(Grid, ReportOptions):
    """What the report shows: the grid, which data sets shrink the paper's settings, and how it compares."""

    reduced: dict[Name, bool]


class Settings(Frozen):
    """The merged settings of one (data set, system)."""

    preprocess: dict[str, Any] = Field(default={})
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    objective: dict[str, Any]
    evaluation: EvaluationSettings = EvaluationSettings()
    sampling: SamplingSettings = SamplingSettings()
    examples: ExamplesSettings = ExamplesSettings()
    ngram: NgramSettings = NgramSettings()


class Layer(TypedDict, total=False):
    """One of the places that settings are merged from, as it stands in params.yaml: each section a mapping."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]

    preprocess: dict[str, Any]
    model: dict[str, Any]
    training: dict[str, Any]
    objective: dict[str, Any]
    evaluation: dict[str, Any]
    sampling: dict[str, Any]
    examples: dict[str, Any]
    ngram: dict[str, Any]


class SystemEntry(Layer, total=False):
    """One entry below `systems`."""

    like: Name


class DatasetEntry(Frozen):
    """One entry below `datasets`."""

    source: dict[str, Any]
    settings: Layer = Layer()
    systems: dict[Name, Layer] = Field(default={})
    reduced: bool = False


class Layers:
    """What one thing's settings are merged from: each layer with the key that it stands below in params.yaml.

    `home` is where a key belongs that is in none of them.
    """

    def __init__(self, home: str, layers: list[tuple[str, Mapping[str, Any]]]) -> None:
        self.home, self.layers = home, layers

    def merged(self) -> dict[str, Any]:
        """All of them, later ones winning."""
        merged: dict[str, Any] = {}
        for _, layer in self.layers:
            merged = merge(merged, layer)
        return merged

    def key(self, location: Location) -> str:
        """Where the value at `location` stands in params.yaml: `datasets.mine.settings.training.epochs`, say."""
        name = next((name for name, layer in reversed(self.layers) if holds(layer, location)), self.home)
        return f"{name}.{dotted(location)}" if location else name


class Params(Frozen):
    """params.yaml."""

    grid: Grid
    report: ReportOptions = ReportOptions()
    defaults: Layer
    systems: dict[Name, SystemEntry]
    datasets: dict[Name, DatasetEntry]

    @classmethod
    def load(cls, path: Path) -> Params:
        """Read params.yaml. Raises SettingsError naming the key and the reason."""
        return cls.checked(read_yaml(path), str(path))

    @classmethod
    def checked(cls, content: Any, path: str) -> Params:
        """The content of a file. Raises SettingsError naming the key and the reason."""
        params = validated(cls, content, path)
        if taken := [name for name in params.datasets if name.lower() == CODE_FOLDER]:
            raise SettingsError(f"{path}: datasets.{taken[0]}: settings/{CODE_FOLDER} is another thing's: rename it")
        for kind, known in (("datasets", params.datasets), ("systems", params.systems)):
            for name in getattr(params.grid, kind):
                if name not in known:
                    raise SettingsError(
                        f"{path}: grid.{kind} names {name!r}, which has no entry below `{kind}:` "
                        f"(there are: {', '.join(known)})"
                    )
        if params.report.baseline not in (None, *params.systems) and "baseline" in params.report.model_fields_set:
            raise SettingsError(
                f"{path}: report.baseline names {params.report.baseline!r}, which has no entry below `systems:` "
                f"(there are: {', '.join(params.systems)})"
            )
        for dataset, entry in params.datasets.items():
            for name in entry.systems:
                if name not in params.systems:
                    raise SettingsError(f"{path}: datasets.{dataset}.systems.{name}: no such system below `systems:`")
        for name in params.systems:
            params.refuse_endless(name, path)
        return params

    def refuse_endless(self, system: str, path: str) -> None:
        """Raise SettingsError where a system is, step by step, like itself, or like one that is not there."""
        followed = [system]
        while (base := self.systems[followed[-1]].get("like")) is not None:
            key = f"{path}: systems.{followed[-1]}.like"
            if base not in self.systems:
                raise SettingsError(f"{key}: there is no {base!r} (there are: {', '.join(self.systems)})")
            if base in followed:
                circle = " is like ".join([*followed[followed.index(base) :], base])
                raise SettingsError(f"{key}: {circle}: take one `like` out")
            followed.append(base)

    def like_system(self, system: str) -> list[str]:
        """The systems whose entries make this one's, itself last."""
        like = self.systems[system].get("like")
        return [*(self.like_system(like) if like else []), system]

    def system(self, system: str) -> dict[str, Any]:
        """A system's entry, with what it has of the one that it is like."""
        return Layers("", [("", without_like(self.systems[name])) for name in self.like_system(system)]).merged()

    def layers(self, dataset: str, system: str) -> Layers:
        """What the settings of one grid point are merged from."""
        entry, (base, *others) = self.datasets[dataset], self.like_system(system)
        layers: list[tuple[str, Mapping[str, Any]]] = [
            ("defaults", self.defaults),
            (f"systems.{base}", without_like(self.systems[base])),
            (f"datasets.{dataset}.settings", entry.settings),
            (f"datasets.{dataset}.systems.{base}", entry.systems.get(base, {})),
        ]
        for name in others:
            layers.append((f"systems.{name}", without_like(self.systems[name])))
            layers.append((f"datasets.{dataset}.systems.{name}", entry.systems.get(name, {})))
        return Layers(f"systems.{system}", layers)

    def settings(self, dataset: str, system: str) -> Settings:
        """The merged settings of one grid point. Raises SettingsError naming the key and the reason."""
        layers = self.layers(dataset, system)
        for name, layer in layers.layers:
            if ".systems." in f".{name}" and "preprocess" in layer:
                raise SettingsError(
                    f"{name}.preprocess: a corpus is made once, for all systems: write it below `defaults` "
                    f"or `datasets.{dataset}.settings`"
                )
        return validated(Settings, layers.merged(), key=layers.key)

    def fetch(self, dataset: str) -> FetchSettings:
        """The settings of the data set's fetch step. Raises SettingsError naming the key and the reason."""
        where = f"datasets.{dataset}.source"
        layers = Layers(where, [(where, self.datasets[dataset].source)])
        return validated(FetchSettings, named(dataset, layers.merged(), where), key=layers.key)

    def preprocess(self, dataset: str) -> PreprocessSettings:
        """The settings of the data set's preprocess step: they cannot depend on a system.

        Raises SettingsError naming the key and the reason.
        """
        where = f"datasets.{dataset}.settings.preprocess"
        own = self.datasets[dataset].settings.get("preprocess", {})
        layers = Layers(where, [("defaults.preprocess", self.defaults.get("preprocess", {})), (where, own)])
        return validated(PreprocessSettings, named(dataset, layers.merged(), where), key=layers.key)


def named(dataset: str, content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`content` with the data set's name, which its entry's key gives. Raises SettingsError where it gives another."""
    if "dataset" in content:
        raise SettingsError(f"{where}.dataset: no such key: the entry's own key, {dataset}, is the name")
    return {"dataset": dataset, **content}


def without_like(entry: SystemEntry) -> dict[str, Any]:
    """A system's own settings."""
    return {key: value for key, value in entry.items() if key != "like"}


def holds(layer: Mapping[str, Any], location: Location) -> bool:
    """Whether there is a value at `location` in `layer`; of lists the positions are not looked at."""
    value: Any = layer
    for part in location:
        if isinstance(value, list) or part == "[key]":
            return True
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged
