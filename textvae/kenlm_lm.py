"""KenLM: n-gram language models that its program lmplz trains, and the perplexity of text under them.

Modified Kneser-Ney smoothing, unpruned, with interpolated unigrams: Heafield, Pouzyrevsky, Clark and Koehn, "Scalable
Modified Kneser-Ney Language Model Estimation", ACL 2013 (https://aclanthology.org/P13-2121). Text is an iterable of
sentences, each its words joined by single spaces; an empty string is a sentence whose only token is its end.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textvae.config import NgramSettings
from textvae.errors import NO_MEMORY, DataError, MemoryLackError, SettingsError, UnavailableError

RESERVED_WORDS = ("<s>", "</s>", "<unk>", "<UNK>")
"""Words that no text may hold: lmplz refuses the first three, and the scorer takes the last one for the third."""
SPACES = "\0\t\n\v\f\r "
"""Characters at which KenLM splits words."""
RERUN = "rerun with --discount_fallback"
"""What lmplz says where the counts of counts admit no Kneser-Ney discounts: tiny, repetitive or artificial text, and
text without a single n-gram of the order."""
LOWEST_ORDER = 2
"""That lmplz and the settings take."""
STDERR_LINES = 8


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text."""

    log10: float
    """The text's log10 probability, unknown words and ends of sentences included."""
    tokens: int
    """Words and one end for every sentence."""
    oov: int
    """Words that the model never saw; each costs what the model gives to `<unk>`."""

    @property
    def value(self) -> float:
        """10 ** (-log10 / tokens), what KenLM's `query` calls the perplexity including OOVs."""
        return float(10 ** (-self.log10 / self.tokens))


class LanguageModel:
    """An n-gram model in memory.

    `order` is that of its longest n-grams: below the one asked for where no sentence is long enough for such an n-gram.
    `discount_fallback`: its discounts are lmplz's stopgap, not estimated ones; `estimable_order` is then the highest
    order of a model that needs none, None where every order does.
    """

    def __init__(
        self, arpa: Path, order: int, discount_fallback: bool = False, estimable_order: int | None = None
    ) -> None:
        try:
            import kenlm  # late, so that a machine that only compiles the pipeline needs no KenLM
        except ImportError as error:
            remedy = "install it with `pip install -c constraints.txt kenlm` (it needs a C++ compiler)"
            raise UnavailableError(f"the Python module kenlm cannot be imported ({error}): {remedy}") from None
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE
        # The ARPA text, not KenLM's binary form: it is read once, and making the binary would read it as well.
        self._model: Any = kenlm.Model(str(arpa), config)
        self.order = order
        self.discount_fallback = discount_fallback
        self.estimable_order = estimable_order

    @classmethod
    def train(cls, sentences: Iterable[str], settings: NgramSettings, vocabulary_size: int = 0) -> LanguageModel:
        """Train on `sentences`, which are streamed to lmplz, again for every order that it tries.

        lmplz refuses an order of which it cannot estimate the discounts, for either of two reasons. Where the longest
        sentence with its two markers is shorter than the order there are no such n-grams, and the model of the highest
        order that has some gives every text the same probability: it is made. Otherwise the n-grams are too few or too
        uniform, and the discounts are lmplz's stopgap.

        `vocabulary_size` pads the vocabulary: the uniform distribution below the unigrams is spread over at least this
        many words (the end of a sentence is one), so that each word that the text does not have gets 1/vocabulary_size
        of it, and the probabilities of that many words sum to 1. Without padding all unknown words count as one: a
        text of few words makes them cheap.
        Raises UnavailableError without lmplz, SettingsError for a `memory` that will not do, DataError where lmplz
        refuses the text, OSError where the disk is full.
        """
        with tempfile.TemporaryDirectory(prefix="lmplz-") as name:
            folder = Path(name)
            arpa = folder / "model.arpa"

            def estimated(order: int, *more: str) -> bool:
                options = ["--order", str(order), "--memory", settings.memory, "--vocab_pad", str(vocabulary_size)]
                exit_code, stderr = run_lmplz(sentences, folder, [*options, *more])
                if exit_code != 0 and (more or RERUN not in stderr):
                    raise lmplz_error(exit_code, stderr, settings.model_copy(update={"order": order}))
                return exit_code == 0

            order = settings.order
            if estimated(order):
                return cls(arpa, order)
            order = min(order, max(map(words_of, sentences), default=0) + 2)
            if order < settings.order and estimated(order):
                return cls(arpa, order)
            lower = next((lower for lower in range(order - 1, LOWEST_ORDER - 1, -1) if estimated(lower)), None)
            estimated(order, "--discount_fallback")
            return cls(arpa, order, True, lower)

    def perplexity(self, sentences: Iterable[str]) -> Perplexity:
        """The perplexity of a text. Raises DataError for a text without sentences."""
        log10, tokens, oov = 0.0, 0, 0
        for sentence in sentences:
            for word_log10, _, unknown in self._model.full_scores(sentence):
                log10 += word_log10
                tokens += 1
                oov += unknown
        if tokens == 0:
            raise DataError("a text without a sentence has no perplexity")
        return Perplexity(log10, tokens, oov)


def words_of(sentence: str) -> int:
    """How many words a sentence has."""
    return sentence.count(" ") + 1 if sentence else 0


def run_lmplz(sentences: Iterable[str], folder: Path, options: list[str]) -> tuple[int, str]:
    """Stream `sentences` to lmplz, which writes `folder`/model.arpa, its temporary files beside it.

    Returns its exit code (negative: the signal that killed it) and what it wrote to stderr.
    """
    command = [str(find_lmplz()), *options, "--temp_prefix", f"{folder}/", "--arpa", str(folder / "model.arpa")]
    log = folder / "stderr"
    # Popen's `with` waits for lmplz. cwd: the core file that its abort() may leave goes with the folder.
    with (
        log.open("wb") as stderr,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stderr, stderr=stderr, cwd=folder) as process,
    ):
        assert process.stdin is not None
        try:
            with process.stdin as text:
                for sentence in sentences:
                    text.write(sentence.encode() + b"\n")
        except BrokenPipeError:
            pass  # lmplz ended early: its exit code and stderr say why
    return process.returncode, log.read_text(encoding="utf-8", errors="replace")


def lmplz_error(exit_code: int, stderr: str, settings: NgramSettings) -> Exception:
    """The error to raise for a failure of lmplz, by what it complained of."""
    if "No space left on device" in stderr:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), tempfile.gettempdir())
    lines = [" ".join(line.split()) for line in stderr.strip().splitlines()[-STDERR_LINES:]] or ["nothing on stderr"]
    said = f"its last lines: {' / '.join(lines)}"
    options = f"(order {settings.order}, memory {settings.memory})"
    if exit_code == -signal.SIGKILL:
        return MemoryLackError(
            f"lmplz {options} was killed, most likely because this machine's memory ran out: free some, or lower "
            "ngram.memory"
        )
    if NO_MEMORY.search(said):
        return MemoryLackError(f"lmplz {options} got too little memory: free some, or lower ngram.memory; {said}")
    what = f"lmplz {options} failed with exit code {exit_code}"
    if re.search("memory|-S setting", lines[-1]):
        return SettingsError(f"{what}: set ngram.memory to what it needs and the machine has, such as 1G; {said}")
    return DataError(f"{what}: it refused the text; {said}")


def find_lmplz() -> Path:
    """lmplz from $KENLM_BIN (the program or its folder), PATH, or beside this Python. Raises UnavailableError."""
    given = os.environ.get("KENLM_BIN")
    if given:
        program = Path(given, "lmplz") if Path(given).is_dir() else Path(given)
        if not os.access(program, os.X_OK) or program.is_dir():
            raise UnavailableError(f"KENLM_BIN is {given}, where lmplz is not: correct it or unset it")
        return program.absolute()
    beside = Path(sys.executable).parent
    found = shutil.which("lmplz") or shutil.which("lmplz", path=beside)
    if found is None:
        raise UnavailableError(
            "lmplz, which trains KenLM's language models, is neither in a folder of PATH nor beside this Python: "
            f"build it with `tools/build_lmplz.sh {sys.executable} {beside}`, or set KENLM_BIN to its folder"
        )
    return Path(found).absolute()
