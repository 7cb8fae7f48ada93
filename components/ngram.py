"""Forward and reverse perplexity of generated sentences under KenLM's 5-grams (section 5.3 of the paper)."""

import sys
from pathlib import Path
from typing import Annotated

from components.step import Input, Output, step
from textvae.config import NgramSettings
from textvae.corpus_folder import CorpusFolder
from textvae.integrity import write_sealed
from textvae.perplexities import Text, perplexities, read_identity, words_by_id
from textvae.progress import progress

SHOWN = ("fppl", "rppl", "rppl_pad", "cut")


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
    few words does not make the others cheap. Perplexities include unknown words and one end for every sentence, also
    for a generated one that was cut before its end: `cut` is their share.

    \b
    Examples:
      python -m components.ngram --samples runs/sotu/vae_mine/1/samples.parquet --corpus corpora/sotu/corpus \\
          --settings '{"order": 5}' --ngram /tmp/ngram.json
    """
    data = CorpusFolder.open(corpus)
    vocabulary = data.vocabulary
    words = words_by_id(vocabulary)
    with progress("ngram", None, "sentences") as bar:
        train, test, generated = (
            Text(path, words, bar) for path in (data.file("train.parquet"), data.file("test.parquet"), samples)
        )
        identity = read_identity(generated, data)
        measured = None if identity["status"] == "diverged" else generated
        measures, warnings = perplexities(train, test, measured, vocabulary, settings)
        longer = train.longer(identity["max_length"])
    write_sealed(ngram, {**identity, **measures})
    if longer:
        warnings.append(
            f"{longer:,} training sentences have more words than sampling.max_length ({identity['max_length']}), which "
            "cuts the generated ones: raise it"
        )
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    shown = {**identity, **{name: measures[name] for name in SHOWN}}
    return {name: value for name, value in shown.items() if value is not None}


if __name__ == "__main__":
    ngram.main()
