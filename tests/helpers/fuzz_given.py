"""The readers of what people give: text, settings, command lines. Each with its inputs and the step after it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from fuzz_inputs import command_lines, corpora, documents, texts, yaml_files
from fuzzing import ROOT, Reader, Unsaid, emptied
from hypothesis import strategies as st
from machine_faults import STEPS, step_named
from report_artifacts import write_full_experiment
from tiny import tiny_corpus, train_settings, write_corpus
from tiny_model import informative, written
from tiny_project import PARAMS

from components.settings import resolve
from components.step import read_settings
from reporting.artifacts import collect
from reporting.differences import differences, numbers_of
from reporting.results import result_rows
from textcorpus.encoded_corpus import write_encoded_corpus
from textcorpus.raw_corpus import write_raw_corpus
from textvae import config, load
from textvae.config import EvaluationSettings, FetchSettings, PreprocessSettings, TrainSettings, validated
from textvae.corpus_folder import CorpusFolder
from textvae.errors import DataError
from textvae.evaluation import measure
from textvae.files import read_json
from textvae.generation import prior_samples
from textvae.given_text import read_lines
from textvae.objectives import alternatives
from textvae.perplexities import words_by_id
from textvae.training import Trainer

SMALL = 300
"""Settings with a larger number are taken for what they are and not run."""
CODES = (0, 2, 65, 69, 70, 71, 74)
"""With which a step may end."""
TINY = {"dataset": "tiny", "path": "data/tiny.txt", "tokenizer": "spaces", "valid_fraction": 0.3, "test_fraction": 0.3}
EVALUATION = EvaluationSettings(iw_sentences=4, iw_samples=2, gain_sentences=4, gain_codes=2)
SAMPLING = {"sentences": 2, "temperature": 1.0, "top_k": 3, "top_p": 0.5, "max_length": 5, "device": "cpu"}
EXAMPLES = {"sentences": 2, "seed": 0, "texts": ["a dog"], "samples": 1, "steps": 2, "neighbours": 1, "max_length": 5}
STEP_SETTINGS: dict[str, Any] = {
    "fetch": FetchSettings,
    "preprocess": PreprocessSettings,
    "train": TrainSettings,
    "evaluate": EvaluationSettings,
    "sample": config.SamplingSettings,
    "examples": config.ExamplesSettings,
    "ngram": config.NgramSettings,
    "report": config.ReportSettings,
}


class Made:
    """The files that inputs are put among: below `folder`, which is the working directory."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        self.corpus = tiny_corpus()
        self.corpus_folder = write_corpus(folder / "tiny/corpus", self.corpus)
        shutil.copytree(self.corpus_folder, folder / "corpora/tiny/corpus")
        self.model = written(folder / "tiny/model", informative("vae", self.corpus), self.corpus)
        self.report = write_full_experiment(folder)
        self.run = folder / "runs/sotu/vae_mine/1"
        self.raw = folder / "raw"
        (folder / "data").mkdir()
        (folder / "data/tiny.txt").write_text("".join(f"the dog sees {n}\n" for n in range(200)))
        (folder / "tiny.yaml").write_text(yaml.safe_dump(PARAMS))
        self.params = config.Params.load(folder / "tiny.yaml")
        emptied(self.work)
        write_raw_corpus(validated(FetchSettings, TINY), self.raw)

    def run_step(self, settings: Any) -> None:
        """The step whose settings these are, where they are small."""
        name = next(name for name, kind in STEP_SETTINGS.items() if type(settings) is kind)
        if not small({key: value for key, value in settings.model_dump().items() if key != "vocabulary_size"}):
            return
        out = emptied(self.work) / "out"
        if name == "train":
            for objective in alternatives(settings.objective)[1]:
                self.train(settings.model_copy(update={"objective": objective}))
        elif name == "evaluate":
            measure(load(self.model).network, self.corpus.test, settings, 1)
        elif name == "sample":
            list(prior_samples(load(self.model).network, settings, 1))
        elif name == "examples":
            given = {"model": self.model, "corpus": self.corpus_folder, "settings": settings}
            step_named("examples").function(**given, examples=out)
        elif name == "preprocess" and settings.dataset == "tiny":
            write_encoded_corpus(self.raw, settings, out)
        elif name == "fetch" and (settings.grammar is not None or settings.path == TINY["path"]):
            write_raw_corpus(settings, out)
        elif name == "report":
            self.collected(settings)

    def train(self, settings: TrainSettings) -> None:
        """On the tiny corpus."""
        Trainer(settings, self.corpus.train, self.corpus.valid, self.corpus.size, 1).run()

    def collected(self, settings: config.ReportSettings, corpora: str = "corpora/sotu") -> None:
        """What a report reads, as the rows of its table."""
        found = collect([self.folder / "runs"], [self.folder / corpora], settings)
        numbers = {dataset: numbers_of(found, dataset) for dataset in settings.datasets}
        differences(found, numbers)
        result_rows(found, numbers)


def small(settings: Any) -> bool:
    """Whether a step can be run with these settings in a moment."""
    if isinstance(settings, dict | list):
        return all(map(small, settings.values() if isinstance(settings, dict) else settings))
    return not isinstance(settings, int) or settings <= SMALL


def given(made: Made) -> list[Reader]:
    """A reader for each kind of input that people give."""
    readers = [corpus(made, name) for name in ("lines", "yahoo", "snli")]

    def explore(lines: list[str]) -> None:
        load(made.model).score(lines, samples=2)

    def read(text: bytes) -> list[str]:
        return list(read_lines(io.BytesIO(text), "standard input"))

    readers.append(Reader("text of explore", texts(), read, explore, 4))
    return [*readers, params(made), sweep(made), cluster(made), *settings(made), command_line(made)]


def corpus(made: Made, name: str) -> Reader:
    """Files and the settings of fetch."""

    def read(given: tuple[dict[str, bytes], dict[str, Any]]) -> Path:
        files, source = given
        folder = emptied(made.work) / "given"
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        path = source.get("path")
        known = isinstance(path, str) and path in (".", *files)
        source = {**source, "dataset": "mine", "path": str(folder / path) if known else path}
        asked = validated(FetchSettings, source)
        if not known:  # a file of this machine, or an address
            return made.raw
        write_raw_corpus(asked, made.work / "raw")
        return made.work / "raw"

    def run_on(raw: Path) -> None:
        encoded = emptied(made.folder / "encoded") / "corpus"
        asked = {"dataset": read_json(raw / "source.json")["dataset"], "vocabulary_size": 6}
        write_encoded_corpus(raw, validated(PreprocessSettings, asked), encoded)
        data = CorpusFolder.open(encoded)
        words_by_id(data.vocabulary)
        known, size = {*data.vocabulary.words}, len(data.vocabulary)
        sentences = {split: data.sentences(split) for split in ("train", "valid", "test")}
        for split, ids in sentences.items():
            lines = (raw / f"{split}.txt").read_bytes().decode().split("\n")[:-1]
            expected = [" ".join(word if word in known else "UNK" for word in line.split(" ")) for line in lines]
            if [data.vocabulary.decode(ids[n]) for n in range(len(ids))] != expected:
                raise Unsaid(f"{split} is not given back by its ids")
        if len(sentences["train"]) % 4 == 2:  # now and then: a training takes a while
            trainer = Trainer(train_settings("vae_mine", epochs=1), sentences["train"], sentences["valid"], size, 1)
            measure(trainer.run().network, sentences["test"], EVALUATION, 1)

    return Reader(f"corpus, reader {name}", corpora(name), read, run_on)


def params(made: Made) -> Reader:
    """params.yaml: its settings, read again by the steps."""

    def read(content: bytes) -> dict[str, dict[str, Any]]:
        (made.folder / "params.yaml").write_bytes(content)
        return resolve(config.Params.load(made.folder / "params.yaml"))

    def run_on(files: dict[str, dict[str, Any]]) -> None:
        for name, content in files.items():
            if not name.startswith("code/"):
                kind = STEP_SETTINGS[name.rpartition("/")[2]]
                made.run_step(read_settings(kind, json.dumps(content)))

    return Reader("params.yaml", yaml_files(PARAMS, yaml.safe_dump(PARAMS)), read, run_on, 5, 2.0)


def sweep(made: Made) -> Reader:
    """sweep.yaml: its trials' settings."""
    trials: dict[str, Any] = {
        "vae_05": [{}, {"objective": {"word_dropout": 0.0}}],
        "lstm_lm": [{"model": {"hidden": 4}}],
    }
    content = {"dataset": "tiny", "seed": 1, "trials": trials}

    def read(content: bytes) -> Any:
        from pipelines.machine.sweep import Sweep, planned

        (made.folder / "sweep.yaml").write_bytes(content)
        return planned(Sweep.load(made.folder / "sweep.yaml"), made.params)

    def run_on(trials: Any) -> None:
        for trial in trials:
            made.run_step(validated(TrainSettings, trial.train))

    return Reader("sweep.yaml", yaml_files(content, yaml.safe_dump(content)), read, run_on, 5)


def cluster(made: Made) -> Reader:
    """cluster.yaml: the pipeline compiled for it."""
    text = (ROOT / "pipelines/cluster/cluster.yaml").read_text()

    def read(content: bytes) -> Any:
        from pipelines.cluster.resources import Cluster

        (made.folder / "cluster.yaml").write_bytes(content)
        return Cluster.load(made.folder / "cluster.yaml")

    def run_on(cluster: Any) -> None:
        from pipelines.cluster.experiment import compile_experiment

        compile_experiment(made.params, cluster, "0a1b2c3d4e5f", made.folder / "experiment.yaml")

    return Reader("cluster.yaml", yaml_files(yaml.safe_load(text), text), read, run_on, 25, 0.25)


def settings(made: Made) -> list[Reader]:
    """--settings of each step, as JSON text."""
    contents = {"train": train_settings("vae_mine", epochs=1).model_dump(), "evaluate": EVALUATION.model_dump()}
    contents |= {"sample": SAMPLING, "examples": EXAMPLES, "ngram": {"order": 3, "memory": "64M"}, "fetch": TINY}
    contents |= {"preprocess": {"dataset": "tiny", "vocabulary_size": 5}, "report": made.report.model_dump()}

    def reader(name: str) -> Reader:
        inputs = documents(contents[name]).map(lambda document: document[0].decode(errors="surrogateescape"))
        return Reader(
            f"settings of {name}", inputs, lambda text: read_settings(STEP_SETTINGS[name], text), made.run_step, 3, 0.5
        )

    return [reader(name) for name in STEP_SETTINGS]


def command_line(made: Made) -> Reader:
    """Of each step that writes something; settings that would take long are no part of it."""
    good = {"seed": ["1"], "split": ["test", "valid"], "settings": ["{}", '{"dataset": "tiny"}']}
    good |= {"model": [str(made.model)], "corpus": [str(made.corpus_folder)], "raw": [str(made.raw)]}
    good |= {
        "runs": [str(made.run)],
        "corpora": [str(made.folder / "corpora")],
        "params": [str(made.folder / "tiny.yaml")],
    }

    def line(name: str) -> Any:
        options = {
            p.option: [str(made.work / "out")] if p.kind == "output" else good.get(p.name, ["nowhere"])
            for p in step_named(name).parameters
        }
        return st.tuples(st.just(name), command_lines(options))

    def read(asked: tuple[str, list[str]]) -> None:
        name, options = asked
        if name == "sample":
            options = [option.replace("{}", '{"sentences": 2, "max_length": 5}') for option in options]
        emptied(made.work)
        said, code = io.StringIO(), 0
        with contextlib.redirect_stderr(said):
            try:
                step_named(name).main(options)
            except SystemExit as ended:
                code = int(ended.code or 0)
        errors = [line for line in said.getvalue().split("\n") if line.startswith(("error: ", "Error: "))]
        if code not in CODES or (code and len(errors) != 1):
            raise Unsaid(f"{name} ends with exit code {code} and says {said.getvalue()[-80:]}")
        if code:
            raise DataError(errors[0])

    return Reader("command lines", st.one_of([line(name) for name in STEPS]), read, lambda _: None)
