"""Measure a trained model on the test set."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from components.step import Input, Output, step
from textvae import checkpoint
from textvae.config import EvaluationSettings, SplitName
from textvae.corpus_folder import CorpusFolder
from textvae.errors import SettingsError
from textvae.evaluation import MEASURES, OF_SENTENCES, measure
from textvae.files import fingerprint
from textvae.integrity import write_sealed


@step
def evaluate(
    model: Annotated[Path, Input("Model", "The model directory that train wrote.")],
    corpus: Annotated[Path, Input("Dataset", "The corpus folder that preprocess wrote.")],
    settings: EvaluationSettings,
    evaluation: Annotated[Path, Output("Metrics", "The folder: metrics.json, sentences.parquet, posterior.parquet.")],
    split: Annotated[str, "The sentences: test, or valid to choose settings by."] = "test",
) -> dict[str, Any]:
    """Measure a model on the test set: NLL, NLL-IW, KL, PPL, MI, gain, AU, with standard errors.

    Also writes every sentence's own numbers (sentences.parquet) and its posterior (posterior.parquet). A model whose
    NLL is not finite, or that of no model, is marked as diverged. Ends with exit code 70 when a number contradicts
    mathematics (MI above log N, say); the numbers are printed, nothing is written.

    \b
    Examples:
      python -m components.evaluate --model runs/sotu/vae_mine/1/model --corpus corpora/sotu/corpus \\
          --settings settings/sotu/vae_mine/evaluate.json --evaluation runs/sotu/vae_mine/1/evaluation
    """
    if split not in get_args(SplitName):
        raise SettingsError(f"--split {split}: choose one of {', '.join(get_args(SplitName))}")
    trained = checkpoint.load(model, device=settings.device)
    metrics: dict[str, Any] = {**trained.identity, "split": split, **dict.fromkeys(MEASURES)}
    words: list[str] = []
    of_sentences: dict[str, Tensor] = {}
    mu_ND = log_var_ND = torch.zeros(0, 0)
    if trained.network is not None:
        data = CorpusFolder.open(corpus)
        data.refuse_other(trained.config["corpus_sha256"], model)
        sentences = data.sentences(split)
        columns, of_sentences, mu_ND, log_var_ND = measure(
            trained.network, sentences, settings, int(trained.config["seed"])
        )
        metrics |= columns
        if of_sentences:
            words = [trained.vocabulary.decode(sentences[n]) for n in range(len(sentences))]
        if metrics["status"] == "diverged":
            print(f"DIVERGED: {metrics['failure']['message']}; the report will show it as such", file=sys.stderr)
    evaluation.mkdir()
    about = {key: metrics[key] for key in (*trained.identity, "split")}
    about |= {"corpus_sha256": trained.config["corpus_sha256"], "sentences_sha256": fingerprint({"sentences": words})}
    write_sentences(evaluation / "sentences.parquet", about, words, of_sentences)
    write_posterior(evaluation / "posterior.parquet", words[: len(mu_ND)], mu_ND, log_var_ND)
    write_sealed(evaluation / "metrics.json", metrics, whole_folder=True)
    return {key: value for key, value in metrics.items() if value is not None}


def write_sentences(path: Path, about: dict[str, Any], words: list[str], of_sentences: dict[str, Tensor]) -> None:
    """One row per sentence: its words, and in nats (float64) what is known of it alone, null where nothing is.

    `about` says whose numbers they are, and by two hashes, of the corpus trained on and of these sentences in their
    order, which other files are of the same sentences.
    """
    columns = {"sentence": pa.array(words, pa.string())}
    for name in OF_SENTENCES:
        values_N = of_sentences[name].numpy() if name in of_sentences else np.full(len(words), np.nan)
        columns[name] = pa.array(values_N, pa.float64(), from_pandas=True)  # NaN becomes null
    pq.write_table(pa.table(columns, metadata={"textvae": json.dumps(about, sort_keys=True)}), path)


def write_posterior(path: Path, words: list[str], mu_ND: Tensor, log_var_ND: Tensor) -> None:
    """One row per sentence: its words, mu and log sigma^2 (float32 lists of D); no rows for LSTM-LM."""
    columns = {"sentence": pa.array(words, pa.string())}
    for name, values_ND in (("mu", mu_ND), ("log_var", log_var_ND)):
        flat = pa.array(values_ND.float().numpy().ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, max(values_ND.shape[1], 1))
    pq.write_table(pa.table(columns), path)


if __name__ == "__main__":
    evaluate.main()
