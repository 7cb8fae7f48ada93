"""What each JSON file of a corpus and of a run says, and the one reader that takes nothing else for it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator

from textvae.corpus_settings import PreprocessSettings, SplitName
from textvae.errors import DataError
from textvae.integrity import read_sealed
from textvae.step_settings import ModelSettings, TrainingSettings
from textvae.strict import Frozen, Name, Seed, Sha256, dotted, shown

MODEL_VERSION = 2
"""2: a model directory and a state say the hashes of what is in them."""
CORPUS_VERSION = 2
VOCABULARY_VERSION = 1
SOURCE_VERSION = 1

Number = Annotated[float, Field(allow_inf_nan=False)]
Hashes = dict[str, Sha256]


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


class Record(Frozen):
    """What a step writes into one kind of file."""

    written_by: ClassVar[str]
    """The step."""
    version_read: ClassVar[int | None] = None
    """The `format_version` that is read, of a kind of file that has one."""


class Tokenised(Frozen):
    """How text becomes words."""

    kind: Literal["spaces", "words"]
    lowercase: bool
    language: str


class VocabularyFile(Record):
    """vocabulary.json."""

    written_by = "preprocess"
    version_read = VOCABULARY_VERSION
    format_version: int
    tokenizer: Tokenised
    words: list[str]


class Source(Record):
    """source.json, beside the sentences that fetch wrote."""

    written_by = "fetch"
    version_read = SOURCE_VERSION
    format_version: int
    dataset: Name
    tokenizer: Tokenised
    origin: dict[str, Any]
    split: dict[str, Any]
    sentences: dict[SplitName, int]
    dropped: dict[str, int]
    sha256: Hashes
    """Of the file of each split."""
    notes: list[str] = Field(default=[])

    @model_validator(mode="after")
    def all_splits(self) -> Self:
        if len(self.sentences) != 3 or len(self.sha256) != 3:
            raise ValueError("`sentences` and `sha256` are for train, valid and test")
        return self


class Split(Frozen):
    """Of corpus.json: the statistics of a split, of which not all are typed."""

    model_config = ConfigDict(extra="allow")
    truncated: int
    out_of_vocabulary_rate: Number


class Repetitions(Frozen):
    """Of corpus.json: sentences that occur again."""

    within: dict[str, int]
    across: dict[str, int]


class CorpusFile(Record):
    """corpus.json."""

    written_by = "preprocess"
    version_read = CORPUS_VERSION
    format_version: int
    dataset: Name
    sha256: Sha256
    """Of the words and ids: what a model's `corpus_sha256` is compared with."""
    sentences: dict[SplitName, int]
    tokens: dict[SplitName, int]
    mean_length: Number
    vocabulary: int
    splits: dict[SplitName, Split]
    repetitions: Repetitions
    settings: PreprocessSettings
    source: dict[str, Any]
    files: Hashes = Field(default={})

    @model_validator(mode="after")
    def all_splits(self) -> Self:
        if not len(self.sentences) == len(self.tokens) == len(self.splits) == 3:
            raise ValueError("`sentences`, `tokens` and `splits` are for train, valid and test")
        if "test_in_train" not in self.repetitions.across:
            raise ValueError("`repetitions.across` lacks `test_in_train`")
        return self


class Failure(Frozen):
    """Why a training diverged."""

    message: str
    epoch: int | None = None
    step: int | None = None
    term: str | None = None
    largest_energy: Number | None = None


class Identity(Record):
    """Whose it is."""

    dataset: Name
    system: Name
    seed: Seed


class OfRun(Identity):
    """Whose it is, and what became of the training."""

    status: Literal["finished", "diverged"]
    failure: Failure | None

    @model_validator(mode="after")
    def why(self) -> Self:
        if (self.status == "diverged") != (self.failure is not None):
            raise ValueError(f"`status` is {self.status}, and `failure` does not fit that")
        return self


class RunSettings(Frozen):
    """What a model was trained with."""

    model: ModelSettings
    training: TrainingSettings
    objective: dict[str, Any]


class ModelConfig(OfRun):
    """config.json."""

    written_by = "train"
    version_read = MODEL_VERSION
    format_version: int
    kind: Literal["vae", "lstm_lm"]
    selected: dict[str, Number]
    chosen: dict[str, Any] = Field(default={})
    unfinished: str = ""
    """How far the training is, where the model was written before its end: `epoch 29 of 100`."""
    settings: RunSettings
    corpus_sha256: Sha256
    curves_sha256: Sha256 | None = None
    """Of curves.jsonl."""
    files: Hashes = Field(default={})

    @model_validator(mode="after")
    def kept(self) -> Self:
        if self.status == "finished" and "epoch" not in self.selected:
            raise ValueError("`selected` does not say the `epoch` that was kept")
        return self


class Candidate(Frozen):
    """Of candidates.json: the training of one value."""

    value: Any
    status: Literal["finished", "diverged"]
    failure: str | None
    valid_nll_iw: Number | None
    difference: Number | None
    difference_se: Number | None
    valid_mi: Number | None
    curves: list[dict[str, Number]]


class Candidates(Identity):
    """candidates.json."""

    written_by = "train"
    setting: str
    chosen: Any
    rule: str
    candidates: list[Candidate]


class CurveRow(Identity):
    """A line of curves.jsonl: numbers, whatever else a system logs."""

    written_by = "train"
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None]
    epoch: int


class OfModel(OfRun):
    """Of which model it is."""

    model_sha256: Sha256 | None = None
    """Of config.json, without its checksum; what was made by hand may not say it."""


class Metrics(OfModel):
    """metrics.json: numbers, null where a system has none of that name."""

    written_by = "evaluate"
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None]
    split: SplitName = "test"
    files: Hashes = Field(default={})


class Samples(OfModel):
    """What samples.parquet says of itself."""

    written_by = "sample"
    decoding: str
    max_length: int | None = None
    corpus_sha256: Sha256 | None = None


class RealText(Frozen):
    """Of ngram.json: the test sentences under the training sentences' language model."""

    fppl: Number
    tokens: int
    oov: int


class Ngram(OfModel):
    """ngram.json: numbers, null where there are no samples."""

    written_by = "ngram"
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None]
    decoding: str | None = None
    max_length: int | None = None
    order: int
    discount_fallback: list[str] | None = None
    estimable_order: dict[str, int | None] | None = None
    real_text: RealText


class Sentence(Frozen):
    """Of examples.json: one that the others are made of."""

    split: str | None
    index: int | None
    text: str


class Reconstruction(Frozen):
    """Of examples.json: a sentence out of its code."""

    source: str
    mean: str
    samples: list[str]


class Point(Frozen):
    """Of examples.json: a point of an interpolation."""

    t: Number
    text: str
    log_prob: Number


class Interpolation(Frozen):
    """Of examples.json."""

    start: str = Field(alias="from")
    to: str
    steps: list[Point]


class Near(Frozen):
    """Of examples.json: a neighbour."""

    text: str
    cosine: Number


class Neighbours(Frozen):
    """Of examples.json."""

    source: str
    nearest: list[Near]


class Prior(Frozen):
    """Of examples.json."""

    greedy: list[str]
    ancestral: list[str]


class Examples(OfModel):
    """examples.json."""

    written_by = "examples"
    sentences: list[Sentence]
    reconstructions: list[Reconstruction]
    interpolations: list[Interpolation]
    neighbours: list[Neighbours]
    prior: Prior


class Timings(Record):
    """timings/STEP.json. Without an identity (a step that has none) it is of the run that it lies beside."""

    written_by = "the step"
    step: str
    dataset: Name | None = None
    system: Name | None = None
    seed: Seed | None = None
    started: Annotated[str, AfterValidator(_moment)]
    wall_s: Number
    cpu_s: Number
    peak_rss_mb: Number
    host: str
    device: str = ""
    threads: int = 1
    commit: str
    code_sha256: str
    versions: dict[str, str] = Field(default={})


class TrainingProgress(Identity):
    """progress.json, beside the states of a training."""

    written_by = "the training"
    value: str = ""
    pid: Annotated[int, Field(ge=1, lt=2**31)]
    updated: Number
    epoch: int
    epochs: int
    position: Number
    tokens_per_second: Number
    seconds_left: Number | None


def read_record(path: Path, kind: type[Record]) -> dict[str, Any]:
    """What a JSON file says, which is what a file of its kind may say, unharmed.

    Raises DataError where it is missing, damaged, of another format version, or says something else.
    """
    return checked_record(read_sealed(path, kind.written_by, kind.version_read), kind, str(path))


def checked_record(content: Any, kind: type[Record], where: str) -> dict[str, Any]:
    """`content`, which is what a file of its kind may say. Raises DataError naming the key and the reason."""
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first, *more = error.errors(include_url=False)
        problem = f"{dotted(first['loc']) or '(all)'}: {first['msg'].removeprefix('Value error, ')}"
        problem += f" (found {shown(first['input'])})" if first["type"] not in ("missing", "value_error") else ""
        problem += f", and {len(more)} more" if more else ""
        step = kind.written_by
        raise DataError(f"{where} is not as {step} writes it: {problem}: run {step} again") from None
    assert isinstance(content, dict)
    return content
