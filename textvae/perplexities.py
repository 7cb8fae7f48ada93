"""FPPL, RPPL and what real text scores, under KenLM's n-grams (section 5.3 of the paper), of text in Parquet files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from textvae.config import NgramSettings
from textvae.corpus_folder import CorpusFolder
from textvae.errors import DataError
from textvae.kenlm_lm import RESERVED_WORDS, SPACES, LanguageModel
from textvae.progress import Progress
from textvae.sealed_parquet import samples_metadata
from textvae.vocabulary import FIRST_TARGET, UNK, UNKNOWN_WORD, Vocabulary

IDENTITY = ("dataset", "system", "seed", "status", "failure", "decoding", "max_length")
BATCH_SENTENCES = 4096
TEXTS = {"train": "the training text", "samples": "the generated text"}
"""What language models are trained on."""
MEASURES = (
    *("fppl", "fppl_tokens", "fppl_oov", "fppl_order"),
    *("rppl", "rppl_tokens", "rppl_oov", "rppl_order", "rppl_pad"),
    "cut",
)


TYPES: dict[str, Callable[[pa.DataType], bool]] = {
    "tokens": lambda kind: bool(pa.types.is_list(kind) and pa.types.is_integer(kind.value_type)),
    "sentence": pa.types.is_string,
    "cut": pa.types.is_boolean,
}
"""What the columns that are read hold."""


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
            file = pq.ParquetFile(self.path)
            columns = {field.name: field.type for field in file.schema_arrow}
        except MemoryError:  # Arrow's own is an ArrowException
            raise
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{self.path} cannot be read ({error}); run the step that writes it again") from None
        for name, right in TYPES.items():
            if name in columns and not right(columns[name]):
                raise DataError(f"{self.path}: its {name} column is {columns[name]}; run the step that writes it again")
        return file

    @property
    def metadata(self) -> dict[str, Any]:
        """What sample says of the file. Raises DataError where that is missing, damaged or something else."""
        return samples_metadata(self.path)

    def __iter__(self) -> Iterator[str]:
        """Sentences, their words joined by single spaces. Raises DataError for ids of another vocabulary."""
        file = self._open()
        columns = [name for name in ("tokens", "sentence") if name in file.schema_arrow.names]
        try:
            for batch in file.iter_batches(batch_size=BATCH_SENTENCES, columns=columns):
                yield from self._sentences(batch).to_pylist()
                self.bar.advance(len(batch))
        except MemoryError:  # Arrow's own is an ArrowException
            raise
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{self.path} is damaged ({error}); run the step that writes it again") from None

    def longer(self, words: int) -> int:
        """How many sentences have more than so many words."""
        return self._count("tokens", lambda tokens: pc.greater(pc.list_value_length(tokens), words))

    def cut(self) -> int:
        """How many generated sentences were cut before their end."""
        return self._count("cut", lambda cut: cut)

    def _count(self, column: str, chosen: Callable[[pa.Array], pa.BooleanArray]) -> int:
        try:
            batches = self._open().iter_batches(batch_size=BATCH_SENTENCES, columns=[column])
            return sum(pc.sum(chosen(batch[column])).as_py() or 0 for batch in batches)
        except MemoryError:  # Arrow's own is an ArrowException
            raise
        except (OSError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{self.path} is damaged ({error}); run the step that writes it again") from None

    def _sentences(self, batch: pa.RecordBatch) -> pa.StringArray:
        tokens = batch["tokens"]
        ids = pc.min_max(tokens.values).as_py()
        if ids["min"] is None or 0 <= ids["min"] <= ids["max"] < len(self.words):
            words = pa.ListArray.from_arrays(tokens.offsets, self.words.take(tokens.values))
            sentences = pc.binary_join(words, " ")
            # The null of a special id makes its whole sentence null.
            if (
                not sentences.null_count
                and not tokens.null_count
                and ("sentence" not in batch.schema.names or sentences == batch["sentence"])
            ):
                return sentences
        raise DataError(
            f"{self.path} has ids that are not of the corpus's vocabulary: run its run's steps again with this corpus"
        )


def perplexities(
    train: Text, test: Text, generated: Text | None, vocabulary: Vocabulary, settings: NgramSettings
) -> tuple[dict[str, Any], list[str]]:
    """What ngram.json says of the generated sentences (None: of real text alone), and warnings about it.

    Raises DataError for a text without sentences, and what LanguageModel raises.
    """
    texts = [train, test] if generated is None else [train, test, generated]
    for text in texts:
        if len(text) == 0:
            raise DataError(f"{text.path} has no sentence; run the step that writes it again")
    models = {"train": LanguageModel.train(train, settings)}
    real = models["train"].perplexity(test)
    measures: dict[str, Any] = dict.fromkeys((*MEASURES, "sentences"))
    if generated is not None:
        models["samples"] = LanguageModel.train(generated, settings)
        measures = {
            "sentences": len(generated),
            **columns("fppl", models["train"], generated),
            **columns("rppl", models["samples"], test),
            "cut": generated.cut() / len(generated),
        }
        # Padding leaves the counts alone, so both models of the samples need the fallback or neither does.
        padded = LanguageModel.train(generated, settings, vocabulary_size=len(vocabulary) - FIRST_TARGET)
        measures["rppl_pad"] = padded.perplexity(test).value
    fallback = {text: model.estimable_order for text, model in models.items() if model.discount_fallback}
    real_text = {"fppl": real.value, "tokens": real.tokens, "oov": real.oov}
    stopgaps = {"discount_fallback": list(fallback), "estimable_order": fallback}
    return {**measures, "order": settings.order, **stopgaps, "real_text": real_text}, order_warnings(models, settings)


def order_warnings(models: Mapping[str, LanguageModel], settings: NgramSettings) -> list[str]:
    """What keeps the numbers from being those of the order asked for, and what to do."""
    warnings = []
    for text, model in models.items():
        name = TEXTS[text]
        if model.discount_fallback:
            remedy = "it is too little or too uniform (few different words or sentences, one word a line)"
            if model.estimable_order is not None:
                remedy = f"with ngram.order: {model.estimable_order} they can be"
            what = f"the {model.order}-gram discounts of {name} cannot be estimated, and lmplz's stopgap stands in"
            warnings.append(f"{what}: {remedy}")
        elif model.order < settings.order:
            warnings.append(
                f"no sentence of {name} is long enough for a {settings.order}-gram; its language model is the one of "
                f"ngram.order: {model.order}, and so are the numbers"
            )
    return warnings


def columns(name: str, model: LanguageModel, text: Text) -> dict[str, float | int]:
    """A perplexity as it stands in ngram.json."""
    found = model.perplexity(text)
    return {
        name: found.value,
        f"{name}_tokens": found.tokens,
        f"{name}_oov": found.oov,
        f"{name}_order": model.order,
    }


def words_by_id(vocabulary: Vocabulary) -> pa.Array:
    """The word of every id, null for PAD, BOS and EOS. Raises DataError for a word that KenLM reads as another."""
    for word in vocabulary.words:
        if not word or word in RESERVED_WORDS or any(space in word for space in SPACES):
            raise DataError(
                f"the vocabulary has the word {word!r}, which KenLM cannot take as a word (it reserves "
                f"{', '.join(RESERVED_WORDS)} and splits at spaces): clean the corpus of it and run preprocess again"
            )
    return pa.array([*[None] * UNK, UNKNOWN_WORD, *vocabulary.words], pa.string())


def read_identity(generated: Text, corpus: CorpusFolder) -> dict[str, Any]:
    """Whose sentences these are. Raises DataError where it is not said, or of another corpus."""
    written = generated.metadata
    missing = [key for key in (*IDENTITY, "corpus_sha256") if key not in written]
    if missing:
        raise DataError(f"{generated.path} does not say its {', '.join(missing)}; sample again")
    if written["dataset"] != corpus.dataset:
        raise DataError(f"{generated.path} is of the data set {written['dataset']}, the corpus of {corpus.dataset}")
    corpus.refuse_other(written["corpus_sha256"], generated.path)
    return {key: written[key] for key in (*IDENTITY, "model_sha256") if key in written}
