"""SNLI 1.0 (Bowman et al., 2015): pairs of sentences with their parses, as JSON lines or as a table.

A sentence is the leaves of its `binary_parse`, as in the corpora of sentences made from SNLI, not the raw text.
https://nlp.stanford.edu/projects/snli/
"""

from collections.abc import Iterator

from textcorpus.readers import Reader
from textcorpus.sources import TextFile, read_lines
from textvae.errors import DataError
from textvae.files import parsed_json

COLUMNS = ("sentence1_binary_parse", "sentence2_binary_parse")


def lines(file: TextFile) -> Iterator[str]:
    """Premise and hypothesis of each pair, whatever its label; pairs that repeat a premise repeat it here.

    Raises DataError naming file and line for what is neither format.
    """
    table = not file.name.endswith(".jsonl")
    header: list[str] = []
    for number, line in enumerate(read_lines(file), start=1):
        if table and number == 1:
            header = line.rstrip("\r").split("\t")
            continue
        try:
            pair = dict(zip(header, line.split("\t"), strict=False)) if table else parsed_json(line)
            yield from [leaves(pair[column]) for column in COLUMNS]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{file.label}, line {number}: no pair of SNLI ({type(error).__name__}: {error}); "
                f"it needs {' and '.join(COLUMNS)}"
            ) from None


def leaves(parse: str) -> str:
    """`( ( A man ) sleeps )` -> `A man sleeps`. A bracket of the text itself is `-LRB-` or `-RRB-` and stays so."""
    return " ".join(leaf for leaf in parse.split() if leaf not in ("(", ")"))


READER = Reader(lines, tokenizer="spaces", published_splits=True, distinct_held_out=True)
