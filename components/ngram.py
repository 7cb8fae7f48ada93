"""Forward and reverse perplexity of generated sentences under KenLM's 5-grams (section 5.3 of the paper)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.kenlm_lm import RESERVED_WORDS, SPACES, LanguageModel, Perplexity
from components.step import Input, Output, step
from textvae.config import NgramSettings
from textvae.errors import DataError
from textvae.files import write_json
from textvae.progress import Progress, progress
from textvae.vocabulary import FIRST_TARGET, UNK, UNKNOWN_WORD, Vocabulary

IDENTITY = ("dataset", "system", "seed", "status", "failure", "decoding")
BATCH_SENTENCES = 4096
MEASURES = ("fppl", "fppl_tokens", "fppl_oov", "rppl", "rppl_tokens", "rppl_oov", "rppl_pad")


@dataclass(frozen=True)
class Text:
    """The sentences of a Parquet file with a `tokens` column, as words. Iterating streams them from the file."""

    path: Path
    words: pa.Array
    """The word of every id; null for an id that cannot stand in a sentence."""
    bar: Progress

    def __len__(self) -> int:
        return int(self._open().metadata.num_rows)

    def _open(self) -> pq.ParquetFile:
        try:
            return pq.ParquetFile(self.path)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path} cannot be read ({error}); run the step that writes it again") from None

    @property
    def metadata(self) -> dict[str, Any]:
        """What the step that wrote the file says about it. Raises DataError where that is missing."""
        try:
            content = json.loads(self._open().schema_arrow.metadata[b"textvae"])
        except (TypeError, KeyError, ValueError):
            raise DataError(f"{self.path} does not say what it is; run the step that writes it again") from None
        if not isinstance(content, dict):
            raise DataError(f"{self.path} does not say what it is; run the step that writes it again")
        return content

    def __iter__(self) -> Iterator[str]:
        """Sentences, their words joined by single spaces. Raises DataError for ids of another vocabulary."""
        file = self._open()
        columns = [name for name in ("tokens", "sentence") if name in file.schema_arrow.names]
        try:
            for batch in file.iter_batches(batch_size=BATCH_SENTENCES, columns=columns):
                yield from self._sentences(batch).to_pylist()
                self.bar.advance(len(batch))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{self.path} is damaged ({error}); run the step that writes it again") from None

    def _sentences(self, batch: pa.RecordBatch) -> pa.StringArray:
        tokens = batch["tokens"]
        ids = pc.min_max(tokens.values).as_py()
        if ids["min"] is None or 0 <= ids["min"] <= ids["max"] < len(self.words):
            words = pa.ListArray.from_arrays(tokens.offsets, self.words.take(tokens.values))
            sentences = pc.binary_join(words, " ")
            # The null of a special id makes its whole sentence null.
            if not sentences.null_count and ("sentence" not in batch.schema.names or sentences == batch["sentence"]):
                return sentences
        raise DataError(
            f"{self.path} has ids that are not of the corpus's vocabulary: run its run's steps again with this corpus"
        )


@step
def ngram(
    samples: Annotated[Path, Input("Dataset", "samples.parquet of one run.")],
    corpus: Annotated[Path, Input("Dataset", "The corpus that the run was trained on.")],
    settings: NgramSettings,
    ngram: Annotated[Path, Output("Metrics", "The perplexities, as JSON.")],
) -> dict[str, object]:
    """Measure generated sentences with n-gram language models: FPPL, RPPL and what real text scores.

    FPPL is the perplexity of the generated sentences under a model of the training sentences: low where they are
    fluent. RPPL is that of the test sentences under a model of the generated ones: low where these are as diverse as
    real text, too. rppl_pad spreads that model's leftover probability over the corpus's vocabulary, so that generating
    few words does not make the others cheap. Perplexities include unknown words and one end for every sentence.

    \b
    Examples:
      python -m components.ngram --samples runs/sotu/vae_mine/1/samples.parquet --corpus corpora/sotu/corpus \\
          --settings '{"order": 5}' --ngram /tmp/ngram.json
    """
    vocabulary = Vocabulary.load(corpus / "vocabulary.json")
    words = words_by_id(vocabulary)
    with progress("ngram", None, "sentences") as bar:
        train, test, generated = (
            Text(path, words, bar) for path in (corpus / "train.parquet", corpus / "test.parquet", samples)
        )
        identity = read_identity(generated, train)
        for text in (train, test) if identity["status"] == "diverged" else (train, test, generated):
            if len(text) == 0:
                raise DataError(f"{text.path} has no sentence; run the step that writes it again")

        model = LanguageModel.train(train, settings)
        real = model.perplexity(test)
        fallback = ["train"] if model.discount_fallback else []
        measures: dict[str, Any] = dict.fromkeys((*MEASURES, "sentences"))
        if identity["status"] != "diverged":
            measures = {"sentences": len(generated), **columns("fppl", model.perplexity(generated))}
            model = LanguageModel.train(generated, settings)
            measures |= columns("rppl", model.perplexity(test))
            # Padding leaves the counts alone, so both models of the samples need the fallback or neither does.
            fallback += ["samples"] if model.discount_fallback else []
            model = LanguageModel.train(generated, settings, vocabulary_size=len(vocabulary) - FIRST_TARGET)
            measures["rppl_pad"] = model.perplexity(test).value

    real_text = {"fppl": real.value, "tokens": real.tokens, "oov": real.oov}
    content = {**identity, **measures, "order": settings.order, "discount_fallback": fallback, "real_text": real_text}
    write_json(ngram, content)
    shown = {**identity, **{name: measures[name] for name in ("fppl", "rppl", "rppl_pad")}}
    return {name: value for name, value in shown.items() if value is not None}


def words_by_id(vocabulary: Vocabulary) -> pa.Array:
    """The word of every id, null for PAD, BOS and EOS. Raises DataError for a word that KenLM reads as another."""
    for word in vocabulary.words:
        if not word or word in RESERVED_WORDS or any(space in word for space in SPACES):
            raise DataError(
                f"the vocabulary has the word {word!r}, which KenLM cannot take as a word (it reserves "
                f"{', '.join(RESERVED_WORDS)} and splits at spaces): clean the corpus of it and run preprocess again"
            )
    return pa.array([*[None] * UNK, UNKNOWN_WORD, *vocabulary.words], pa.string())


def read_identity(generated: Text, train: Text) -> dict[str, Any]:
    """Whose sentences these are. Raises DataError where it is not said, or of another corpus."""
    written = generated.metadata
    missing = [key for key in IDENTITY if key not in written]
    if missing:
        raise DataError(f"{generated.path} does not say its {', '.join(missing)}; sample again")
    dataset = train.metadata.get("dataset")
    if written["dataset"] != dataset:
        raise DataError(f"{generated.path} is of the data set {written['dataset']}, the corpus of {dataset}")
    return {key: written[key] for key in IDENTITY}


def columns(name: str, perplexity: Perplexity) -> dict[str, float | int]:
    """A perplexity as it stands in ngram.json."""
    return {name: perplexity.value, f"{name}_tokens": perplexity.tokens, f"{name}_oov": perplexity.oov}


if __name__ == "__main__":
    ngram.main()
