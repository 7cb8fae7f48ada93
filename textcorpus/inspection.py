"""`python -m components.fetch --inspect PATH`: what the pipeline would make of a text, before it does."""

import tempfile
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from textcorpus.encoded_corpus import most_frequent_words, write_encoded_corpus
from textcorpus.raw_corpus import write_raw_corpus
from textcorpus.remote import brought, called, is_uri, named
from textcorpus.splits import SPLITS
from textcorpus.statistics import QUANTILES, quantile
from textcorpus.suggestion import Facts, dataset_name, suggested_entry, with_entry, yaml_text
from textcorpus.survey import Lines, raw_facts, source_for
from textcorpus.writing import Writing
from textvae.config import FetchSettings, Params, validated
from textvae.control_characters import visible
from textvae.errors import SettingsError, exit_codes
from textvae.progress import duration
from textvae.provenance import ROOT
from textvae.vocabulary import SPECIAL_WORDS

SIZES = (1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
SMALL = {"train": 2_000, "valid": 200, "test": 200}
"""Below this a corpus tells little (docs/own-corpus.md)."""
MANY_ALONE, MANY_UNKNOWN = 0.5, 0.25
"""Shares of sentences of one word, and of unknown words in valid, that say that the text was not split into words."""


def inspect(
    path: Annotated[
        str, typer.Option("--inspect", help="A file, a folder, an archive or a URI: one sentence per line.")
    ],
    source: Annotated[
        str, typer.Option(help="What the entry's `source` should say otherwise, as YAML: '{language: de}'.")
    ] = "{}",
) -> None:
    """Print what the pipeline would make of a text: its oddities, splits, lengths and vocabulary; an entry for
    params.yaml that fits it; and how long each system's training would take here, measured by a second of steps.

    Nothing is written. Where torch is not installed the times are left out.

    \b
    Examples:
      python -m components.fetch --inspect data/mine.txt
      python -m components.fetch --inspect data/mine.txt --source '{split_by: document, lowercase: false}'
    """
    try:
        given = YAML(typ="safe", pure=True).load(source)
    except YAMLError as error:
        raise SettingsError(f"--source is not YAML ({error})") from None
    if not isinstance(given, dict):
        raise SettingsError(f"--source {source!r}: give keys and values, as in '{{split_by: document}}'")
    params = Params.load(ROOT / "params.yaml")
    name = dataset_name(path)
    with tempfile.TemporaryDirectory(prefix="textvae-inspect-") as scratch, called(Path(scratch), path):
        folder = Path(scratch)
        local = brought(path, folder) if is_uri(path) else Path(path)
        chosen, lines, writing = source_for(path, local, given)
        settings = validated(FetchSettings, {"dataset": name, **chosen, "path": str(local)}, "--source")
        raw = folder / "raw"
        fetched = write_raw_corpus(settings, raw)
        words, lengths, repetitions = raw_facts(raw)
        print_lines(path, lines, fetched, repetitions)
        print_writing(writing, fetched["tokenizer"])
        print_lengths(lengths)
        print_vocabulary(words)
        facts = Facts(fetched["sentences"]["train"], lengths, words["train"])
        entry = suggested_entry(params, chosen, facts, gpu_here())
        extended = with_entry(params, name, entry)
        print_entry(name, entry)
        encoded = write_encoded_corpus(raw, extended.preprocess(name), folder / "corpus")
        print_encoded(encoded)
        print_times(extended, name, folder / "corpus", encoded)


def gpu_here() -> bool:
    """Whether torch is installed and sees a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return torch.cuda.is_available()


def print_lines(path: str, lines: Lines, fetched: dict[str, Any], repetitions: dict[str, Any]) -> None:
    """Lines, what is odd about them, and the splits."""
    print(f"Text: {named(path)}\n")
    print(f"  {lines.count:,} lines, {lines.empty:,} of them empty, {lines.blocks:,} blocks between empty ones")
    print(f"  longest: {lines.longest_at}, {lines.longest:,} words")
    sentences, dropped = fetched["sentences"], fetched["dropped"]
    total = sum(sentences.values())
    kind = fetched["tokenizer"]
    rules = "characters, and words between them" if kind["language"] == "zh" else "spaCy's rules"
    how = rules if kind["kind"] == "words" else "split at spaces"
    print(f"  tokenizer {kind['kind']} ({how}, {kind['language']}), {'lower' if kind['lowercase'] else 'own'} case")
    drawn = fetched["split"]
    splits = "as published" if drawn["splits"] else f"drawn by {drawn['split_by']}"
    print(f"  {total:,} sentences, {splits}: " + ", ".join(f"{split} {sentences[split]:,}" for split in SPLITS))
    shared = sum(count for name, count in dropped.items() if name.startswith("shared_"))
    if shared:
        print(f"  {shared:,} sentences were left out because a split that is measured has them too")
    odd = [
        (lines.several, 0.02, lines.several_at, "hold several sentences; put one on each line"),
        (lines.long, 0, lines.long_at, "are longer than 200 words; a sentence is cut at max_length"),
        (lines.replaced, 0, lines.replaced_at, "hold U+FFFD, a character that an earlier conversion lost"),
        (lines.marked, 0, lines.marked_at, "hold sentence markers, as <s>, </s>, [CLS] or EOS"),
    ]
    for count, share, where, what in odd:
        if count > share * lines.count:
            print(f"  ! {count:,} lines ({count / lines.count:.1%}; first: {where}) {what}")
    for note in fetched.get("notes", []):
        print(f"  ! {visible(note)}")
    repeated = sum(repetitions["within"].values())
    if repeated > 0.05 * total:
        print(f"  ! {repeated:,} sentences ({repeated / total:.1%}) repeat another one of their split")
    across = repetitions["across"]
    if drawn["splits"] and any(across.values()):
        print(f"  ! in train too: {across['test_in_train']:,} test sentences, {across['valid_in_train']:,} of valid")
    for split, least in SMALL.items():
        if sentences[split] < least:
            print(f"  ! {split} has {sentences[split]:,} sentences: with fewer than {least:,} the numbers tell little")
    if not is_uri(path) and not Path(path).resolve().is_relative_to(ROOT / "data"):
        print("  ! not below data/: move it there, so that `make repro` sees when it changes")


def print_writing(writing: Writing, tokenizer: dict[str, Any]) -> None:
    """A text without spaces between its words that `tokenizer` does not split."""
    if remedy := writing.remedy(tokenizer):
        print(f"  ! {remedy}")


def print_lengths(lengths: Counter[int]) -> None:
    """Quantiles, and what different limits would cut."""
    total = lengths.total()
    if lengths[1] > MANY_ALONE * total:
        print(f"  ! {lengths[1]:,} sentences ({lengths[1] / total:.1%}) are one word each")
    print("\nLengths (words a sentence)\n")
    print("  " + ", ".join(f"{fraction:.0%}: {quantile(lengths, fraction)}" for fraction in QUANTILES))
    cut = {limit: sum(n for length, n in lengths.items() if length > limit) / total for limit in (20, 40, 60, 100, 200)}
    print("  longer than " + ", ".join(f"{limit}: {share:.1%}" for limit, share in cut.items()))


def print_vocabulary(words: dict[str, Counter[str]]) -> None:
    """How much of train, and of valid, different sizes cover."""
    once = sum(count == 1 for count in words["train"].values())
    different = len(words["train"])
    print(f"\nVocabulary: {different:,} different words in train, {once:,} of them once; share of all words known:\n")
    print(f"  {'size':>8}  {'train':>7}  {'valid':>7}")
    ranked = most_frequent_words(words["train"], max(SIZES))
    for size in [size for size in SIZES if size < different] + [different] * (different <= max(SIZES)):
        known = ranked[:size]
        shares = (sum(words[split][word] for word in known) / words[split].total() for split in ("train", "valid"))
        print(f"  {size:>8,}  " + "  ".join(f"{share:>7.1%}" for share in shares))


def print_entry(name: str, entry: dict[str, Any]) -> None:
    """The entry to paste."""
    why = "this machine's GPU takes the paper's sizes" if "reduced" not in entry else "reduced, for a CPU"
    print(f"\nIn params.yaml: `{name}` in the list grid.datasets, and below `datasets:` ({why})\n")
    print(yaml_text(name, entry), end="")


def print_encoded(corpus: dict[str, Any]) -> None:
    """What is left to train on with these settings."""
    train, valid = corpus["splits"]["train"], corpus["splits"]["valid"]
    print(
        f"\nThat trains on {train['sentences']:,} sentences of {train['mean_length']:.1f} words, "
        f"{train['truncated'] / train['sentences']:.1%} of them cut; "
        f"{corpus['vocabulary']:,} words, {valid['out_of_vocabulary_rate']:.1%} of the words of valid are unknown."
    )
    if valid["out_of_vocabulary_rate"] > MANY_UNKNOWN:
        print("  ! so many unknown words make every number one of `UNK`: check the tokeniser, or take more text")


def print_times(params: Params, name: str, corpus: Path, encoded: dict[str, Any]) -> None:
    """A line per system of the grid, each measured now."""
    try:
        training_time = import_module("textvae.training_time")  # by its name: this library knows no model
    except ImportError:
        print("\nTraining times: not measured, torch is not installed here.")
        return
    batch_size = params.settings(name, params.grid.systems[0]).training.batch_size
    if encoded["sentences"]["train"] < training_time.FEWEST_BATCHES * batch_size:
        print("\nTraining times: not measured, there are too few sentences.")
        return
    print(
        "\nTraining on this machine, one run at a time (from the rate of a few steps; a validation after each epoch)\n"
    )
    print(f"  {'system':<14}  {'steps timed':>11}  {'tokens/s':>8}  {'epochs':>6}  {'at most':>8}")
    total = 0.0
    for found in training_time.estimates(params, name, corpus, encoded["vocabulary"] + len(SPECIAL_WORDS)):
        total += found.seconds
        repeated = f" x {found.trainings}" if found.trainings > 1 else ""
        print(
            f"  {found.system:<14}  {found.steps:>11}  {found.tokens_per_second:>8,.0f}  {found.epochs:>6}  "
            f"{duration(found.seconds):>8}{repeated}",
            flush=True,
        )
    print(f"  {'together':<39}  {duration(total):>14}, one seed, without evaluation and samples")


def main(arguments: list[str]) -> None:
    """The command line: ends the process with an exit code that tells what happened."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name="fetch")(inspect)
    with exit_codes():
        app(arguments, prog_name="python -m components.fetch")
