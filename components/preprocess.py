"""Tokenised sentences -> a vocabulary, token ids in Parquet, and the corpus's statistics (corpus.json)."""

from pathlib import Path
from typing import Annotated

from components.step import Input, Output, step
from textcorpus.encoded_corpus import write_encoded_corpus
from textcorpus.splits import SPLITS
from textvae.config import PreprocessSettings


@step
def preprocess(
    raw: Annotated[Path, Input("Dataset")],
    settings: PreprocessSettings,
    corpus: Annotated[Path, Output("Dataset")],
) -> dict[str, object]:
    """Make token ids of a fetched corpus: a Parquet file per split, vocabulary.json, and corpus.json (Table 1).

    The vocabulary is the most frequent training words, ties in alphabetical order; every other word is UNK, and so are
    <s> and </s>. Longer sentences are cut to max_length, or left out where longer than `longest`. train_sentences keeps
    that many, drawn by a hash of the sentence and the seed. The text is read two or three times, never held in memory.

    Examples:

      python -m components.preprocess --raw corpora/sotu/raw --corpus corpora/sotu/corpus
      --settings settings/sotu/preprocess.json
    """
    content = write_encoded_corpus(raw, settings, corpus)
    return {key: content[key] for key in ("dataset", "sha256", "mean_length", "vocabulary")} | {
        f"{split}_sentences": content["sentences"][split] for split in SPLITS
    }


if __name__ == "__main__":
    preprocess.main()
