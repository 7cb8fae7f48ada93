"""A trained model's latent space on one's own sentences, from the command line. A tool, not a step of the pipeline."""

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from textvae.control_characters import visible
from textvae.errors import DataError, SettingsError, exit_codes
from textvae.given_text import given, sentences_of
from textvae.latent import TextVAE, load
from textvae.nearest import FloatArray
from textvae.outputs import written_when_complete
from textvae.progress import progress

WIDE = 100_000
"""Characters a line at most where no terminal breaks it."""

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Look into a trained model's latent space with sentences of your own.\n\n"
    "Sentences come from --text, or one a line from standard input; the model's own tokeniser is applied. What this "
    "project prints is words between spaces: --tokens reads it as such.",
)
ModelFolder = Annotated[Path, typer.Option("--model", help="The model directory that train wrote.")]
GivenTexts = Annotated[list[str] | None, typer.Option("--text", help="A sentence; give it again for more.")]
Tokens = Annotated[
    bool, typer.Option("--tokens", help="Sentences are words between spaces, as this project prints them.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line in place of a table.")]
Seed = Annotated[int | None, typer.Option(help="Of the noise. Default: the model's own.", show_default=False)]


@app.command()
def reconstruct(
    model: ModelFolder,
    text: GivenTexts = None,
    tokens: Tokens = False,
    samples: Annotated[int, typer.Option(min=0, help="Samples of the posterior beside its mean.")] = 3,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Decode sentences from their own codes.

    Greedily, from the posterior's mean and from samples of the posterior.

    \b
    Examples:
      python -m textvae.explore reconstruct --model runs/sotu/vae_mine/1/model --text "We must act now."
      python -m textvae.explore reconstruct --model runs/sotu/vae_mine/1/model --json < sentences.txt
    """
    opened = loaded(model, tokens)
    with printed(as_json, "sentence", "from", "decoded") as show:
        for chunk in given(text, "reconstruct"):
            for one in opened.reconstruct(chunk, samples, seed, tokens=tokens):
                sampled = [["", f"sample {n}", words] for n, words in enumerate(one.samples, start=1)]
                show(asdict(one), [[one.source, "mean", one.mean], *sampled])


@app.command()
def interpolate(
    model: ModelFolder,
    text: GivenTexts = None,
    tokens: Tokens = False,
    steps: Annotated[int, typer.Option(min=2, help="Sentences on the way, both ends among them.")] = 6,
    as_json: AsJson = False,
) -> None:
    """Walk from each sentence's code to the next one's.

    Decodes points on the line between the posterior means, greedily, with log p(x|z) in nats.

    \b
    Examples:
      python -m textvae.explore interpolate --model runs/sotu/vae_mine/1/model \\
          --text "We must act now." --text "I thank the Congress." --steps 8
    """
    opened, ends = loaded(model, tokens), [one for chunk in given(text, "interpolate") for one in chunk]
    if len(ends) < 2:
        raise DataError("an interpolation needs two sentences, and there is one: give another --text or line")
    mu_ND, _ = opened.encode(ends, tokens=tokens)
    with printed(as_json, "t", "log p(x|z)", "text") as show:
        for (n, a), (m, b) in pairwise(enumerate(ends)):
            made = opened.between(mu_ND[n], mu_ND[m], steps)
            record = {"from": a, "to": b, "steps": [asdict(one) for one in made]}
            show(record, [[f"{one.t:.2f}", f"{one.log_prob:.2f}", one.text] for one in made])


@app.command()
def neighbours(
    model: ModelFolder,
    corpus: Annotated[
        Path, typer.Option(help="A text file, one sentence a line, or preprocess's folder (its training sentences).")
    ],
    text: GivenTexts = None,
    tokens: Tokens = False,
    k: Annotated[int, typer.Option("--k", "-k", min=1, help="Neighbours of each sentence.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Find the sentences of a corpus that are nearest.

    By the cosine of the posterior means, exact; the sentence itself is left out. --tokens is for a text file of
    --corpus as well.

    \b
    Examples:
      python -m textvae.explore neighbours --model runs/sotu/vae_mine/1/model \\
          --corpus corpora/sotu/corpus --text "We must act now."
      python -m textvae.explore neighbours --model runs/sotu/vae_mine/1/model --corpus mine.txt < queries.txt
    """
    opened, queries = loaded(model, tokens), [one for chunk in given(text, "neighbours") for one in chunk]
    searched = sentences_of(corpus, opened)
    with progress("neighbours", len(searched), "sentences") as bar:
        found = opened.neighbours(queries, searched, k, bar, tokens=tokens)
    with printed(as_json, "sentence", "cosine", "nearest") as show:
        for query, near in zip(queries, found, strict=True):
            record = {"source": query, "nearest": [asdict(one) for one in near]}
            show(record, [["" if n else query, f"{one.cosine:.4f}", one.text] for n, one in enumerate(near)])


@app.command()
def encode(
    model: ModelFolder,
    text: GivenTexts = None,
    tokens: Tokens = False,
    out: Annotated[
        Path | None,
        typer.Option(help="x.parquet: sentence, mu, log_var. x.npy: the means alone, float32 (sentences, dimensions)."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the codes of sentences to a file.

    A code is the posterior N(mu, exp(log_var)) of a sentence.

    \b
    Examples:
      python -m textvae.explore encode --model runs/sotu/vae_mine/1/model --out codes.npy < sentences.txt
      python -m textvae.explore encode --model runs/sotu/vae_mine/1/model --json --text "We must act now."
    """
    if (out is None) != as_json or (out is not None and out.suffix not in (".parquet", ".npy")):
        raise SettingsError("encode: give either --out FILE.parquet, or --out FILE.npy, or --json")
    if out is not None and out.is_dir():  # it would be replaced, with all that is in it
        raise SettingsError(f"--out {out} is a folder: give the name of a file")
    opened = loaded(model, tokens)
    coded = ((chunk, *opened.encode(chunk, tokens=tokens)) for chunk in given(text, "encode"))
    if out is None:
        for chunk, mu_ND, log_var_ND in coded:
            for sentence, mu, log_var in zip(chunk, mu_ND.tolist(), log_var_ND.tolist(), strict=True):
                record = {"sentence": sentence, "mu": mu, "log_var": log_var}
                print(visible(json.dumps(record, ensure_ascii=False)))
        return
    write = write_npy if out.suffix == ".npy" else write_parquet
    try:
        with written_when_complete({"out": out}) as temporary:
            count = write(temporary["out"], coded)
    except (PermissionError, FileNotFoundError, NotADirectoryError) as error:
        raise SettingsError(f"--out {out} cannot be written ({error.strerror}): choose another folder") from None
    print(f"{out}: {count:,} sentences", file=sys.stderr)


@app.command()
def score(
    model: ModelFolder,
    text: GivenTexts = None,
    tokens: Tokens = False,
    samples: Annotated[int, typer.Option(min=1, help="Samples of the posterior for NLL-IW.")] = 100,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Say how probable sentences are, word by word.

    log p of each word given those before and the posterior's mean, and NLL-IW, an upper bound of -log p(x); in nats.

    \b
    Examples:
      python -m textvae.explore score --model runs/sotu/vae_mine/1/model --text "We must act now."
      python -m textvae.explore score --model runs/sotu/lstm_lm/1/model --json < sentences.txt
    """
    opened = loaded(model, tokens)
    with printed(as_json, "NLL-IW", "log p(x|mean)", "log p of each word") as show:
        for chunk in given(text, "score"):
            for one in opened.score(chunk, samples, seed, tokens=tokens):
                words = zip(one.words, one.log_probs, strict=True)
                shown = "  ".join(f"{word} {log_prob:.2f}" for word, log_prob in words)
                show(asdict(one), [[f"{one.nll_iw:.2f}", f"{sum(one.log_probs):.2f}", shown]])


def loaded(folder: Path, tokens: bool) -> TextVAE:
    """The model; says how it reads sentences where text and words between spaces are not the same."""
    model = load(folder, device="auto")
    if model.vocabulary.tokenizer["kind"] == "words":
        as_text = "split by the model's tokeniser; printed ones are words between spaces: --tokens reads those"
        how = "taken as words between spaces, as they are printed" if tokens else as_text
        print(f"given sentences are {how}", file=sys.stderr)
    return model


@contextmanager
def printed(as_json: bool, *columns: str) -> Iterator[Callable[[Mapping[str, Any], Sequence[Sequence[str]]], None]]:
    """A function that shows one result: as a JSON object, at once, or as rows of a table that is printed at the end."""
    if as_json:
        yield lambda record, rows: print(visible(json.dumps(record, ensure_ascii=False)), flush=True)
        return
    table = Table(*columns)

    def show(record: Mapping[str, Any], rows: Sequence[Sequence[str]]) -> None:
        for row in rows:
            table.add_row(*map(visible, row))
        table.add_section()

    yield show
    width = None if sys.stdout.isatty() else WIDE
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


Coded = Iterator[tuple[list[str], FloatArray, FloatArray]]


def write_npy(path: Path, coded: Coded) -> int:
    """The means as one array. Returns the number of sentences."""
    means = np.concatenate([mu_ND for _, mu_ND, _ in coded]).astype(np.float32)
    written = io.BytesIO()  # into a file, numpy's error does not say that the disk is full
    np.save(written, means, allow_pickle=False)
    path.write_bytes(written.getbuffer())
    return len(means)


def write_parquet(path: Path, coded: Coded) -> int:
    """sentence, mu, log_var (float32 lists), a row a sentence. Returns the number of sentences."""
    count, writer = 0, None
    for chunk, *posteriors in coded:
        columns: dict[str, Any] = {"sentence": pa.array(chunk, pa.string())}
        for name, values_ND in zip(("mu", "log_var"), posteriors, strict=True):
            flat = pa.array(values_ND.astype(np.float32).ravel())
            columns[name] = pa.FixedSizeListArray.from_arrays(flat, values_ND.shape[1])
        table = pa.table(columns)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
        count += len(chunk)
    if writer is not None:
        writer.close()
    return count


def main(arguments: list[str] | None = None) -> None:
    """The command line. Exit code 0; 2: a wrong option; 65: the sentences or the model; 69: something is missing."""
    with exit_codes():
        app(arguments, prog_name="python -m textvae.explore")


if __name__ == "__main__":
    main()
