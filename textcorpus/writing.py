"""How a text is written: with or without spaces between words, and so which tokeniser fits it."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from textvae.errors import TextVAEError
from textvae.lines import words_between_spaces
from textvae.tokenizer import Tokenizer

SEPARATED = re.compile(r"(?:^|\s)[.,;:!?](?:\s|$)")
ATTACHED = re.compile(r"\w[,;:!?](?:\s|$)|\w\.[\"'”’)\]]*$")
"""A dot inside a line may be that of an abbreviation."""
LANGUAGES = {
    "CJK": "zh",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "THAI": "th",
    "LAO": "lo",
    "KHMER": "km",
    "MYANMAR": "my",
    "TIBETAN": "bo",
}
"""Scripts without spaces between words, by the first word of their letters' Unicode names, and a language of each."""
NAMES = {
    "zh": "Chinese", "ja": "Japanese", "th": "Thai", "lo": "Lao", "km": "Khmer", "my": "Burmese", "bo": "Tibetan"
}  # fmt: skip
PUNCTUATION = re.compile(r"(?P<attached>[^\W\d_a-zA-Z][。，、！？]|[。，、！？][^\W\d_a-zA-Z])|[。，、！？]")
LONGEST_WORD = {"zh": 2.5, "ja": 4.0}
LONGEST_OF_OTHERS = 10.0
"""Letters between spaces, on average, that words have where a text is segmented already."""
OTHER_SPACES = r"sed 's/\xe2\x80\x8b\|\xe3\x80\x80/ /g'"
"""Of U+200B and U+3000."""
LEAST_SHARE = 0.25
"""Of the letters: a word of such a script has fewer than one of the Latin names and addresses among them."""
SAMPLE = 100
"""Lines on which a tokeniser is tried."""
KANA_SHARE = 0.05
"""Chinese characters with so many kana among them are Japanese."""


@dataclass(frozen=True)
class Writing:
    """`source`: the tokeniser's settings that fit. `unspaced`: the language of a text without spaces between words."""

    source: dict[str, Any]
    unspaced: str | None = None
    other_spaces: bool = False
    """Whether what stands between its words are spaces that the tokeniser `spaces` does not take for any."""

    def remedy(self, tokenizer: Mapping[str, Any]) -> str | None:
        """What to do where a tokeniser of this description takes lines for words; None where it does not."""
        splits = self.source["tokenizer"] == "words"
        if self.unspaced is None or (
            splits and self.source.items() <= {**tokenizer, "tokenizer": tokenizer["kind"]}.items()
        ):
            return None
        if splits:
            how = f"take `tokenizer: words` with `language: {self.unspaced}`"
        elif self.other_spaces:
            how = f"make spaces of its wide or invisible ones, `{OTHER_SPACES}`, and take `tokenizer: spaces`"
        else:
            how = (
                "put spaces between its words with a segmenter of the language, or between its characters with "
                "`sed 's/./& /g'`, and take `tokenizer: spaces`"
            )
        return f"{NAMES[self.unspaced]} without spaces between words, which is not split: {how}"


def writing_of(lines: list[str]) -> Writing:
    """The tokeniser for a text, by its first lines."""
    language = unspaced_language(lines)
    if language is None:
        return Writing({"tokenizer": tokenizer_of(lines)})
    if splits(language, lines[:SAMPLE]):
        return Writing({"tokenizer": "words", "language": language}, language)
    segmented = unspaced_language([re.sub("[\u200b\u3000]", " ", line) for line in lines]) is None
    return Writing({"tokenizer": "spaces"}, language, segmented)


def splits(language: str, lines: list[str]) -> bool:
    """Whether spaCy has a tokeniser here that splits these lines into words."""
    try:
        tokenizer = Tokenizer("words", lowercase=True, language=language)
    except TextVAEError:
        return False
    return unspaced_language([" ".join(tokenizer(line)) for line in lines]) is None


def tokenizer_of(lines: list[str]) -> str:
    """`spaces` for text whose punctuation stands apart already, or that has none; else `words`."""
    apart = sum(SEPARATED.search(line) is not None for line in lines)
    attached = sum(ATTACHED.search(line) is not None for line in lines)
    return "words" if attached > apart / 4 else "spaces"


def unspaced_language(lines: list[str]) -> str | None:
    """The language of a text that is written without spaces between words; None for one with spaces.

    Many of its letters are of such a script, and what stands between spaces is longer than a word, or a whole line, or
    has punctuation attached to it.
    """
    letters: Counter[str] = Counter()
    runs = alone = 0
    for line in lines:
        words = words_between_spaces(line)
        scripts = [[language_of(letter) for letter in word if letter.isalpha()] for word in words]
        letters.update(language for word in scripts for language in word)
        sizes = [size for word in scripts if (size := sum(map(bool, word)))]
        runs += len(sizes)
        alone += len(sizes) == 1 and sizes[0] > 1
    total = sum(number for language, number in letters.items() if language)
    if not total or total < LEAST_SHARE * letters.total():
        return None
    script = max((number, language) for language, number in letters.items() if language)[1]
    if script == "zh" and letters["ja"] > KANA_SHARE * total:
        script = "ja"
    long = total > LONGEST_WORD.get(script, LONGEST_OF_OTHERS) * runs
    marks = [found["attached"] is not None for line in lines for found in PUNCTUATION.finditer(line)]
    return script if long or 2 * alone > len(lines) or 2 * sum(marks) > len(marks) else None


@lru_cache(maxsize=2**16)
def language_of(letter: str) -> str:
    """The language of a letter's script, empty for a script with spaces."""
    return LANGUAGES.get(unicodedata.name(letter, "").split(" ")[0].split("-")[0], "")
