"""A corpus of made-up sentences and settings for it: the whole pipeline in a minute. Used by the tests and by CI.

`python tests/helpers/tiny_project.py FOLDER` turns a copy of the project into it.
"""

import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
SYSTEMS = ["lstm_lm", "vae_05", "vae_mine"]
PARAMS = {
    "grid": {"datasets": ["tiny"], "systems": SYSTEMS, "seeds": ["1"]},
    "defaults": {
        "preprocess": {"vocabulary_size": 100},
        "model": {"embedding": 8, "hidden": 12, "latent": 4},
        "training": {"optimizer": "adam", "learning_rate": 0.01, "epochs": 2, "iw_sentences": 8, "iw_samples": 4},
        "evaluation": {"iw_sentences": 8, "iw_samples": 8, "gain_sentences": 8, "gain_codes": 4},
        "sampling": {"sentences": 200, "max_length": 20},
        "ngram": {"order": 3, "memory": "64M"},
    },
    "systems": {
        "lstm_lm": {"objective": {"name": "lstm_lm"}},
        "vae_05": {"objective": {"name": "vae_05", "annealing_epochs": 1}},
        "vae_mine": {"objective": {"name": "vae_mine", "annealing_epochs": 1, "energy_hidden": 8}},
    },
    "datasets": {"tiny": {"source": {"path": "data/tiny.txt", "tokenizer": "spaces"}, "reduced": True}},
}


def sentences(count: int) -> list[str]:
    """Sentences of a little grammar, most of them distinct."""
    rng = random.Random(0)
    nouns, verbs = ["dog", "cat", "bird", "child", "king", "river", "road"], ["sees", "likes", "finds", "follows"]
    adjectives = ["old", "red", "small", "happy", "loud"]
    made = []
    for _ in range(count):
        subject, thing = rng.choice(nouns), rng.choice(nouns)
        described = " ".join(rng.sample(adjectives, rng.randrange(3)))
        made.append(" ".join(f"the {described} {subject} {rng.choice(verbs)} the {thing} .".split()))
    return made


def copy_of_the_project(folder: Path) -> None:
    """Every file that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def write_params(project: Path, params: dict[str, Any]) -> None:
    (project / "params.yaml").write_text(yaml.safe_dump(params))


def write_corpus(project: Path, count: int = 400) -> None:
    """data/tiny.txt."""
    (project / "data/tiny.txt").write_text("\n".join(sentences(count)) + "\n")


if __name__ == "__main__":
    write_corpus(Path(sys.argv[1]))
    write_params(Path(sys.argv[1]), PARAMS)
