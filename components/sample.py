"""Generate sentences from a trained model's prior."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa

from components.step import Input, Output, step
from textvae import checkpoint
from textvae.config import SamplingSettings
from textvae.generation import prior_samples
from textvae.progress import progress
from textvae.sealed_parquet import sealed_writer


@step
def sample(
    model: Annotated[Path, Input("Model", "The model directory that train wrote.")],
    settings: SamplingSettings,
    samples: Annotated[Path, Output("Dataset", "The Parquet file to write.")],
) -> dict[str, Any]:
    """Generate sentences from the prior: ancestral, greedy, temperature, top-k or nucleus.

    Writes sentence, token ids, log p(x|z), and whether max_length cut the sentence before its end. The run's own seed
    decides them; a diverged run has none.

    \b
    Examples:
      python -m components.sample --model runs/sotu/vae_mine/1/model --samples /tmp/samples.parquet \\
          --settings '{"sentences": 100, "temperature": 0}'
    """
    trained = checkpoint.load(model, device=settings.device)
    about = {**trained.identity, "corpus_sha256": trained.config["corpus_sha256"]}
    about |= {"decoding": settings.decoding, "max_length": settings.max_length}
    schema = pa.schema(
        [
            ("sentence", pa.string()),
            ("tokens", pa.list_(pa.int32())),
            ("log_prob", pa.float64()),
            ("cut", pa.bool_()),
        ],
        metadata={"textvae": json.dumps(about, sort_keys=True)},
    )
    with sealed_writer(samples, schema) as writer:
        if trained.network is None:
            writer.write_table(schema.empty_table())
            return about
        cut = 0
        with progress("sample", settings.sentences, "sentences") as bar:
            for batch in prior_samples(trained.network, settings, int(trained.config["seed"])):
                words = [trained.vocabulary.decode(one.tokens) for one in batch]
                tokens, log_probs = [one.tokens for one in batch], [one.log_prob for one in batch]
                unended = [one.cut for one in batch]
                writer.write_table(pa.table([words, tokens, log_probs, unended], schema=schema))
                cut += sum(unended)
                bar.advance(len(batch))
    if cut:
        print(
            f"warning: {cut:,} of {settings.sentences:,} sentences had not ended after sampling.max_length "
            f"(in words: {settings.max_length}) and were cut there: raise it, unless the model repeats itself for ever",
            file=sys.stderr,
        )
    return about


if __name__ == "__main__":
    sample.main()
