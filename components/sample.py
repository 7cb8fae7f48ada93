"""Generate sentences from a trained model's prior."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc

from components.step import Input, Output, step
from textvae import checkpoint
from textvae.config import SamplingSettings
from textvae.generation import Samples, prior_samples
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
        cut, words = 0, pa.array([trained.vocabulary.decode([i]) for i in range(len(trained.vocabulary))])
        with progress("sample", settings.sentences, "sentences") as bar:
            for batch in prior_samples(trained.network, settings, int(trained.config["seed"])):
                writer.write_table(pa.table(columns_of(batch, words), schema=schema))
                cut += int(batch.cut.sum())
                bar.advance(len(batch))
    if cut:
        print(
            f"warning: {cut:,} of {settings.sentences:,} sentences had not ended after sampling.max_length "
            f"(in words: {settings.max_length}) and were cut there: raise it, unless the model repeats itself for ever",
            file=sys.stderr,
        )
    return about


def columns_of(batch: Samples, words: pa.StringArray) -> list[pa.Array]:
    """A batch as the file's columns, without a Python object for each word; `words` are those of all ids."""
    tokens, offsets = pa.array(batch.sentences.tokens), pa.array(batch.sentences.offsets, pa.int32())
    sentences = pc.binary_join(pa.ListArray.from_arrays(offsets, words.take(tokens)), " ")
    return [sentences, pa.ListArray.from_arrays(offsets, tokens), pa.array(batch.log_probs), pa.array(batch.cut)]


if __name__ == "__main__":
    sample.main()
