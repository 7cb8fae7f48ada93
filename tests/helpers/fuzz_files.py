"""The readers of what steps leave: JSON, states, Parquet. Each with its inputs and the step after it."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_given import Made
from fuzz_inputs import VALUES, altered, as_json, damaged, documents, tables
from fuzzing import Reader, Unsaid, emptied
from hypothesis import strategies as st
from machine_faults import step_named
from made_files import changed, write_sealed_table
from tiny import SHA256, train_settings

from reporting.artifacts import read_content
from reporting.posteriors import Posterior
from textcorpus.encoded_corpus import write_encoded_corpus
from textvae import checkpoint, load
from textvae.config import GridPoint, PreprocessSettings
from textvae.corpus import Sentences
from textvae.corpus_folder import CorpusFolder
from textvae.files import parsed_json, read_json
from textvae.integrity import write_sealed
from textvae.perplexities import Text, read_identity, words_by_id
from textvae.progress import progress
from textvae.records import MODEL_VERSION, Source, TrainingProgress, read_record
from textvae.state import StateStore
from textvae.strict import validated
from textvae.training import Trainer

OF_RUN = ("evaluation/metrics.json", "ngram.json", "examples.json", "model/candidates.json", "timings/train.json")
"""JSON files of a run directory."""
OF_SOTU = {"dataset": "sotu", "system": "vae_mine", "seed": 1}
CURVE = {**OF_SOTU, "epoch": 1, "step": 300, "valid_nll": 60.0, "valid_mi": None}
ONE: dict[str, Any] = {"value": 2.0, "status": "finished", "failure": None, "valid_nll_iw": 60.0, "difference": 0.0}
ONE |= {"difference_se": 0.0, "valid_mi": 1.0, "curves": [{"epoch": 1, "valid_nll": 60.0}]}
CANDIDATES = {**OF_SOTU, "setting": "alpha", "chosen": 2.0, "rule": "the lowest", "candidates": [ONE]}
PROGRESS = {
    "dataset": "tiny",
    "system": "vae",
    "seed": 1,
    "value": "",
    "pid": 1,
    "updated": 1.0,
    "epoch": 1,
    "epochs": 2,
}
PROGRESS |= {"position": 0.5, "tokens_per_second": 10.0, "seconds_left": None}
SAMPLE_COLUMNS = ["sentence", "tokens", "log_prob", "cut"]


def left(made: Made) -> list[Reader]:
    """A reader for each kind of file that steps leave."""
    of_models = [of_model(made, name) for name in ("vocabulary.json", "config.json")]
    of_runs = [of_run(made, name) for name in (*OF_RUN, "curves.jsonl")]
    tables = [tokens(made), samples(made), posterior(made)]
    return [*of_models, corpus_json(made), source(made), training(made), *of_runs, state(made), *tables]


def put(place: Path, document: tuple[bytes, bool], **more: Any) -> None:
    """Write a file, with a right checksum where that is asked for and can be had. `more`: other values of it."""
    content, sealed = document
    place.write_bytes(content)
    if sealed:
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            write_sealed(place, {**parsed_json(content), **more})


def copied(made: Made, folder: Path) -> Path:
    """A copy of a folder, to be changed."""
    return Path(shutil.copytree(folder, emptied(made.work) / "copy"))


def of_model(made: Made, name: str) -> Reader:
    """config.json or vocabulary.json of a model directory, whose hashes fit otherwise."""
    hashes = read_json(made.model / "config.json")["files"]

    def read(document: tuple[bytes, bool]) -> Any:
        folder = copied(made, made.model)
        put(folder / name, document, **({"files": hashes} if name == "config.json" else {}))
        if name == "vocabulary.json":
            changed(folder / "config.json")
        return load(folder)

    def run_on(model: Any) -> None:
        if model.network is not None:
            words_by_id(model.vocabulary)
            model.sample(2, max_length=3)
            model.score(["a dog", "\u2028 x"], samples=2)

    return Reader(name, documents(read_json(made.model / name)), read, run_on)


def corpus_json(made: Made) -> Reader:
    """corpus.json: of a training's corpus, and of a report's."""

    def read(document: tuple[bytes, bool]) -> CorpusFolder:
        folder = copied(made, made.corpus_folder)
        put(folder / "corpus.json", document)
        return CorpusFolder.open(folder)

    def run_on(data: CorpusFolder) -> None:
        data.refuse_other(SHA256, "the model")
        data.sentences("test")
        made.collected(made.report, "work")

    return Reader("corpus.json", documents(read_json(made.corpus_folder / "corpus.json")), read, run_on)


def source(made: Made) -> Reader:
    """source.json: preprocess of what it is about."""

    def read(document: tuple[bytes, bool]) -> Any:
        folder = copied(made, made.raw)
        put(folder / "source.json", document)
        return read_record(folder / "source.json", Source)

    def run_on(said: Any) -> None:
        asked = validated(PreprocessSettings, {"dataset": said["dataset"]})
        write_encoded_corpus(made.work / "copy", asked, made.work / "corpus")
        CorpusFolder.open(made.work / "corpus").sentences("train")

    return Reader("source.json", documents(read_json(made.raw / "source.json")), read, run_on)


def training(made: Made) -> Reader:
    """progress.json: what `make status` says of it."""

    def read(document: tuple[bytes, bool]) -> Any:
        put(emptied(made.work) / "progress.json", document)
        return read_record(made.work / "progress.json", TrainingProgress)

    def run_on(said: Any) -> None:
        from pipelines.machine.status import state_of

        state_of(GridPoint("tiny", "vae", "1"), {"train"}, {"tiny-vae-1": said})

    return Reader("progress.json", documents(PROGRESS), read, run_on)


def of_run(made: Made, name: str) -> Reader:
    """A file of a run directory: read as the report reads it; now and then the report is made."""
    place, kind = made.run / name, "timings" if name.startswith("timings") else Path(name).stem
    whole = place.read_bytes() if place.exists() else None
    lines = st.lists(altered(CURVE).map(as_json) | VALUES.map(as_json) | damaged(as_json(CURVE)), max_size=3)
    content = CANDIDATES if whole is None else None if kind == "curves" else read_json(place)
    inputs = lines.map(lambda rows: (b"\n".join(rows), False)) if content is None else documents(content)

    @contextlib.contextmanager
    def among_the_others(document: tuple[bytes, bool]) -> Any:
        put(place, document)
        try:
            yield
        finally:
            place.unlink() if whole is None else place.write_bytes(whole)

    def read(document: tuple[bytes, bool]) -> tuple[bytes, bool]:
        with among_the_others(document):
            read_content(kind, place)
            made.collected(made.report)
        return document

    def run_on(document: tuple[bytes, bool]) -> None:
        given = {"runs": [made.folder / "runs"], "corpora": [made.folder / "corpora/sotu"], "settings": made.report}
        with among_the_others(document):
            step_named("report").function(**given, reports=emptied(made.work) / "reports")

    return Reader(name, inputs, read, run_on, 50)


def state(made: Made) -> Reader:
    """The state of a training, which goes on from it or starts anew."""
    settings = train_settings("vae_mine", epochs=2)

    def trainer() -> Trainer:
        return Trainer(settings, made.corpus.train, made.corpus.valid, made.corpus.size, 1, StateStore("made"))

    first = trainer()
    for _ in first.run_epoch(type("Bar", (), {"advance": lambda *_: None})()):
        pass
    StateStore("made").save(1, first.state())
    (file,) = StateStore("made").files()
    tensors, about = checkpoint.read_tensors(file)

    def read(changed: bytes | tuple[Any, int]) -> Trainer:
        if isinstance(changed, bytes):
            file.write_bytes(changed)
        else:
            structure = as_json(changed[0]).decode()
            kept = {name: tensor for n, (name, tensor) in enumerate(tensors.items()) if n != changed[1]}
            said = {"structure": structure, "format_version": str(MODEL_VERSION)}
            checkpoint.write_tensors(file, kept, {**said, "checksum": checkpoint.checksum(structure, kept)})
        resumed = trainer()
        resumed.resume()
        return resumed

    kept = st.tuples(altered(json.loads(about["structure"])), st.sampled_from([-1, -1, -1, *range(len(tensors))]))
    inputs = st.one_of(kept, kept, damaged(file.read_bytes()))
    return Reader("states", inputs, read, lambda resumed: resumed.run(), 3, 0.5)


def tokens(made: Made) -> Reader:
    """The Parquet file of a split: read alike by train and ngram."""
    vocabulary, file = made.corpus.vocabulary, made.work / "train.parquet"

    def read(table: pa.Table) -> Sentences:
        pq.write_table(table, emptied(made.work) / "train.parquet")
        return Sentences.load(file, len(vocabulary))

    def run_on(sentences: Sentences) -> None:
        with progress("ngram", None, "sentences") as bar:
            found = list(Text(file, words_by_id(vocabulary), bar))
        if found != [vocabulary.decode(sentences[n]) for n in range(len(sentences))]:
            raise Unsaid("ngram reads other sentences than train")
        if len(sentences) > 3:
            Trainer(train_settings("vae_mine", epochs=1), sentences, made.corpus.valid, len(vocabulary), 1).run()

    return Reader("Parquet: tokens", tables(["tokens"]), read, run_on)


def samples(made: Made) -> Reader:
    """samples.parquet, sealed: read as ngram reads it."""
    account = read_json(made.model / "config.json")
    about = {key: account[key] for key in ("dataset", "system", "seed", "status", "failure", "corpus_sha256")}
    about |= {"decoding": "ancestral", "max_length": 20}
    data = CorpusFolder.open(made.corpus_folder)

    def read(table: pa.Table) -> Text:
        write_sealed_table(emptied(made.work) / "samples.parquet", table)
        with progress("ngram", None, "sentences") as bar:
            text = Text(made.work / "samples.parquet", words_by_id(data.vocabulary), bar)
            read_identity(text, data)
            list(text)
            text.cut()
        return text

    said = altered(about) | st.just(about)
    return Reader("Parquet: samples", said.flatmap(lambda one: tables(SAMPLE_COLUMNS, as_json(one))), read, len)


def posterior(made: Made) -> Reader:
    """posterior.parquet: the report's figures of it."""

    def read(table: pa.Table) -> Posterior:
        pq.write_table(table, emptied(made.work) / "posterior.parquet")
        return Posterior.read(made.work / "posterior.parquet")

    def run_on(found: Posterior) -> None:
        if len(found.mu_ND) > 1 and found.mu_ND.shape[1] > 1:
            found.kl_D()
            found.variance_D()
            found.principal_components()

    return Reader("Parquet: posterior", tables(["sentence", "mu", "log_var"]), read, run_on)
