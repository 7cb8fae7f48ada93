"""Show what a trained model's latent space holds, on a few sentences (Tables 3 to 6 of the paper)."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from components.step import Input, Output, step
from textvae.config import ExamplesSettings
from textvae.corpus import Sentences, hashed_order
from textvae.corpus_folder import CorpusFolder
from textvae.integrity import write_sealed
from textvae.latent import TextVAE, load
from textvae.progress import progress


@step
def examples(
    model: Annotated[Path, Input("Model", "The model directory that train wrote.")],
    corpus: Annotated[Path, Input("Dataset", "The corpus folder that preprocess wrote.")],
    settings: ExamplesSettings,
    examples: Annotated[Path, Output("Artifact", "The JSON file to write.")],
) -> dict[str, Any]:
    """Reconstruct, interpolate, sample and search with a trained model, for the report's examples.

    The sentences are named in the settings or drawn from the test set, the same ones for every system; neighbours are
    searched in the whole training set. LSTM-LM only generates; a diverged run has no examples. For sentences of your
    own there is `python -m textvae.explore`.

    \b
    Examples:
      python -m components.examples --model runs/sotu/vae_mine/1/model --corpus corpora/sotu/corpus \\
          --settings settings/sotu/vae_mine/examples.json --examples runs/sotu/vae_mine/1/examples.json
    """
    trained = load(model, device=settings.device)
    found: dict[str, Any] = {"sentences": [], "reconstructions": [], "interpolations": [], "neighbours": []}
    found["prior"] = {"greedy": [], "ancestral": []}
    if trained.network is not None:
        for name, temperature in (("greedy", 0.0), ("ancestral", 1.0)):
            made = trained.sample(settings.sentences, temperature=temperature, max_length=settings.max_length)
            found["prior"][name] = [one.text for one in made]
        if trained.network.kind == "vae":
            data = CorpusFolder.open(corpus)
            data.refuse_other(trained.config["corpus_sha256"], model)
            found |= of_sentences(trained, data, settings)
    write_sealed(examples, {**trained.identity, **found})
    return trained.identity


def of_sentences(trained: TextVAE, data: CorpusFolder, settings: ExamplesSettings) -> dict[str, Any]:
    """What needs sentences and their codes."""
    train, test = data.sentences("train"), data.sentences("test")
    chosen, indices = choose(trained, test, settings)
    texts = [trained.vocabulary.decode(chosen[n]) for n in range(len(chosen))]
    mu_ND, _ = trained.encode(chosen)
    with progress("examples: neighbours", len(train), "sentences") as bar:
        neighbours = trained.neighbours(chosen, train, settings.neighbours, bar)
    made = trained.reconstruct(chosen, settings.samples, max_length=settings.max_length)
    return {
        "sentences": [
            {"split": None if index is None else "test", "index": index, "text": text}
            for index, text in zip(indices, texts, strict=True)
        ],
        "reconstructions": [asdict(one) for one in made],
        "interpolations": [
            {
                "from": texts[n],
                "to": texts[n + 1],
                "steps": [
                    asdict(one) for one in trained.between(mu_ND[n], mu_ND[n + 1], settings.steps, settings.max_length)
                ],
            }
            for n in range(0, len(texts) - 1, 2)
        ],
        "neighbours": [
            {"source": text, "nearest": [{"text": one.text, "cosine": one.cosine} for one in near]}
            for text, near in zip(texts, neighbours, strict=True)
        ],
    }


def choose(trained: TextVAE, test: Sentences, settings: ExamplesSettings) -> tuple[Sentences, list[int | None]]:
    """The sentences that the settings name, else distinct ones of the test set, and their positions in it."""
    position = {test[n].tobytes(): n for n in reversed(range(len(test)))}
    if settings.texts:
        # They are in the report's form, words between spaces: no step that comes after preprocess needs spaCy.
        named = trained.tokenised(settings.texts, tokens=True)
        return named, [position.get(named[n].tobytes()) for n in range(len(named))]
    order = hashed_order(test, f"examples {settings.seed}")
    drawn = [n for n in order.tolist() if position[test[n].tobytes()] == n][: settings.sentences]
    return test.subset(np.array(drawn, np.int64)), list(drawn)


if __name__ == "__main__":
    examples.main()
