"""The work of fetch: a source's sentences, written into their splits."""

import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from textcorpus.corpus_sources import Source, source_of
from textcorpus.remote import called, named
from textcorpus.splits import SPLITS, Split, documents_held_out, remove_shared, split_of_sentence
from textvae.config import FetchSettings
from textvae.errors import DataError
from textvae.files import sha256_of_file
from textvae.integrity import write_sealed
from textvae.progress import progress
from textvae.records import SOURCE_VERSION
from textvae.tokenizer import Tokenizer

SENTENCES_PER_ADVANCE = 1000


def write_raw_corpus(settings: FetchSettings, raw: Path) -> dict[str, Any]:
    """Make the folder `raw`: train.txt, valid.txt, test.txt, source.json. Returns what source.json says.

    Raises DataError for a split without a sentence.
    """
    tokenizer = Tokenizer(settings.tokenizer, settings.lowercase, settings.language)
    dropped: Counter[str] = Counter()
    raw.mkdir()
    folder = tempfile.TemporaryDirectory(prefix="textvae-fetch-")
    with folder as scratch, called(Path(scratch), settings.path or ""):
        source = source_of(settings, tokenizer, dropped, Path(scratch))
        counts = write_splits(raw, source, settings)
        source.refuse_changed()
    where = named(settings.path) or settings.package or "what was downloaded"
    for split in SPLITS:
        if not counts[split]:
            raise DataError(
                f"{settings.dataset}: no sentence in the {split} split of {where}; "
                "check the text, or draw the splits otherwise (`split_by`, the fractions, `split_seed`)"
                + "".join(f"; {note}" for note in source.notes)
            )
    if source.splits is None:
        for split, number in remove_shared(raw).items():
            counts[split] -= number
            dropped[f"shared_{split}"] = number
    if not counts["train"] or not counts["valid"]:
        raise DataError(f"{settings.dataset}: every sentence of train or valid is in another split too; add text")
    description = {
        "format_version": SOURCE_VERSION,
        "dataset": settings.dataset,
        "tokenizer": tokenizer.description,
        "origin": source.origin,
        "split": settings.model_dump(include={"splits", "split_by", "valid_fraction", "test_fraction", "split_seed"}),
        "sentences": {split: counts[split] for split in SPLITS},
        "dropped": dict(dropped),
        "sha256": {f"{split}.txt": sha256_of_file(raw / f"{split}.txt") for split in SPLITS},
    }
    if source.notes:
        description["notes"] = [note + f" ({n:,} files)" * (n > 1) for note, n in source.notes.items()]
    write_sealed(raw / "source.json", description)
    return description


def write_splits(raw: Path, source: Source, settings: FetchSettings) -> Counter[Split]:
    """Write every sentence into its split's file. Returns the number of sentences per split."""
    fractions = (settings.valid_fraction, settings.test_fraction, settings.split_seed)
    assigned: dict[str | int, Split] = {}
    if source.splits is not None:
        assigned = source.splits
    elif settings.split_by == "document":
        assigned = documents_held_out(source.documents(), *fractions)
    drawn_by_line = source.splits is None and settings.split_by == "line"
    counts: Counter[Split] = Counter()
    with ExitStack() as stack:
        outputs = {
            split: stack.enter_context((raw / f"{split}.txt").open("w", encoding="utf-8", newline="\n"))
            for split in SPLITS
        }
        bar = stack.enter_context(progress("fetch", total=None, unit="sentences"))
        for number, (document, words) in enumerate(source.sentences(), start=1):
            split = split_of_sentence(words, *fractions) if drawn_by_line else assigned.get(document, "train")
            outputs[split].write(" ".join(words) + "\n")
            counts[split] += 1
            if number % SENTENCES_PER_ADVANCE == 0:
                bar.advance(SENTENCES_PER_ADVANCE)
    return counts
