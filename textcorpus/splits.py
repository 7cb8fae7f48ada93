"""Training, validation and test sentences drawn by a seed, and no sentence of one in another."""

import hashlib
from collections.abc import Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Literal

from textvae.errors import DataError

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


def keyed_hash(text: bytes, seed: int) -> int:
    """A 64-bit hash of a text and a seed: random draws that do not depend on the order or on what else there is."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8, key=str(seed).encode()).digest(), "big")


def split_of_sentence(words: list[str], valid: float, test: float, seed: int) -> Split:
    """The split of one sentence, drawn by its hash with the given probabilities: equal sentences land together."""
    position = keyed_hash(" ".join(words).encode(), seed) / 2**64
    if position < valid:
        return "valid"
    return "test" if position < valid + test else "train"


def documents_held_out(documents: Sequence[str | int], valid: float, test: float, seed: int) -> dict[str | int, Split]:
    """The documents of valid and test: those with the smallest hashes, these fractions of the number of documents.

    Raises DataError for fewer than three documents.
    """
    total = len(documents)
    if total < 3:
        raise DataError(f"{total} document(s) cannot be split into three; choose `split_by: line` or name `splits`")
    n_valid, n_test = max(1, round(total * valid)), max(1, round(total * test))
    chosen = nsmallest(n_valid + n_test, documents, key=lambda document: keyed_hash(str(document).encode(), seed))
    return {document: "test" if rank < n_test else "valid" for rank, document in enumerate(chosen)}


def remove_shared(folder: Path) -> dict[Split, int]:
    """Take the test sentences out of valid.txt, and those of both out of train.txt. Returns how many lines went.

    Repetitions inside a split stay. In memory: a 16-byte hash per sentence of valid and test.
    """
    seen: set[bytes] = set()
    removed: dict[Split, int] = {"train": 0, "valid": 0, "test": 0}
    for split in ("test", "valid", "train"):
        path, kept = folder / f"{split}.txt", folder / f"{split}.kept"
        own: set[bytes] = set()
        with path.open("rb") as lines, kept.open("wb") as output:
            for line in lines:
                digest = hashlib.blake2b(line, digest_size=16).digest()
                if digest in seen:
                    removed[split] += 1
                    continue
                if split != "train":
                    own.add(digest)
                output.write(line)
        seen |= own
        kept.replace(path)
    return removed
