"""The code of a model in MLflow's registry (models-from-code): `python_function` around a model directory.

MLflow runs this file when it loads the model. `textvae` comes with the model, and nothing is pickled.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd


class TextModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """`predict` is `encode`, `reconstruct`, `sample` or `score` of `textvae.load(DIRECTORY)`, as a table."""

    def load_context(self, context: Any) -> None:
        """Open the model directory that is among the artifacts."""
        from textvae import load

        self.model = load(Path(context.artifacts["weights"]).parent)

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """One row per sentence of the column `sentence`; `sample` makes as many sentences as there are rows.

        `params`: `call`; `samples`, of the posterior (0: the call's own number); `seed` (-1: the model's own);
        `tokens`, whether the sentences are words between spaces, as `sample` and the report print them.
        Raises DataError where the model has no code, ValueError for a call that there is not.
        """
        asked = {"call": "encode", "samples": 0, "seed": -1, "tokens": False, **(params or {})}
        sentences = [str(sentence) for sentence in model_input["sentence"]]
        seed = None if asked["seed"] < 0 else int(asked["seed"])
        tokens = bool(asked["tokens"])
        how: dict[str, Any] = {"seed": seed, "tokens": tokens}
        how |= {"samples": int(asked["samples"])} if asked["samples"] else {}
        if asked["call"] == "encode":
            mu_ND, log_var_ND = self.model.encode(sentences, tokens=tokens)
            return pd.DataFrame({"mu": mu_ND.tolist(), "log_var": log_var_ND.tolist()})
        if asked["call"] == "sample":
            return pd.DataFrame([asdict(one) for one in self.model.sample(len(sentences), seed)])
        if asked["call"] == "reconstruct":
            return pd.DataFrame([asdict(one) for one in self.model.reconstruct(sentences, **how)])
        if asked["call"] == "score":
            return pd.DataFrame([asdict(one) for one in self.model.score(sentences, **how)])
        raise ValueError(f"call {asked['call']!r}: there are encode, reconstruct, sample and score")


mlflow.models.set_model(TextModel())
