"""Text -> words, the same way for a corpus and for the sentences that users bring to a trained model.

The text itself is left as it is: no Unicode normalisation, no spelling, no quotes changed. A token never holds ASCII
white space, so tokens joined by one space, one sentence a line, can be read back with `split(" ")` and by KenLM.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

from textvae.errors import DataError, SettingsError, UnavailableError
from textvae.lines import words_between_spaces
from textvae.vocabulary import UNKNOWN_WORD

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc, Token
    from spacy.vocab import Vocab

UNKNOWN_FORMS = frozenset({UNKNOWN_WORD, "_UNK", "<unk>", "<UNK>"})
"""How corpora write the unknown word. All become `UNK`: KenLM refuses `<unk>`, and `_unk` would be another word."""
LONGEST_RUN = 500
"""A longer run of characters without white space is one word, whatever is in it."""
IDEOGRAPHS = "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
IDEOGRAPHS += "\u3040-\u312f\u31a0-\u31ff\uff66-\uff9d"  # kana and bopomofo
RUN = rf"(?:[^\W{IDEOGRAPHS}]|[\u0300-\u036f])+"
CHINESE = re.compile(rf"<unk>|<UNK>|[{IDEOGRAPHS}]|{RUN}(?:(?:['’-]|(?<=\d)[.,:](?=\d)){RUN})*|\S")
"""A word of Chinese text: a character, a run of other letters and digits (`GPT-4.5`), or a punctuation mark."""
CHARACTERS_PER_ZONE = 1_000_000
"""spaCy remembers every string it meets; its memory of them is emptied after this much text."""


class ChineseWords:
    """Chinese characters one by one, what is between them as words: spaCy's own makes `U`, `N`, `K` of `UNK`."""

    def __init__(self, vocab: Vocab) -> None:
        self.vocab = vocab

    def __call__(self, text: str) -> Doc:
        """A text's words, white space left out."""
        from spacy.tokens import Doc

        found = [(match[0], text[match.end() : match.end() + 1].isspace()) for match in CHINESE.finditer(text)]
        return Doc(self.vocab, words=[word for word, _ in found], spaces=[space for _, space in found])


class Tokenizer:
    """Splits a sentence into words, lower-cases them (but not the unknown word) if `lowercase`.

    `kind` is "spaces" (the text is tokenised already: split at ASCII white space) or "words" (spaCy's rules for
    `language`, in English close to the Penn Treebank's: `do n't`).
    Raises SettingsError for a language that spaCy lacks, UnavailableError where spaCy is needed and not installed.
    """

    def __init__(self, kind: Literal["spaces", "words"], lowercase: bool, language: str = "en") -> None:
        if kind not in ("spaces", "words"):
            raise SettingsError(f"tokenizer {kind!r}: choose `spaces` or `words`")
        self.kind, self.lowercase, self.language = kind, lowercase, language
        self._pipeline = pipeline(language) if kind == "words" else None

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Tokenizer:
        """The tokeniser that `description` (in vocabulary.json, say) names. Raises DataError when it names none."""
        try:
            return cls(description["kind"], description["lowercase"], description["language"])
        except (KeyError, TypeError):
            raise DataError(f"{description!r} does not describe a tokeniser; run fetch and preprocess again") from None

    @property
    def description(self) -> dict[str, Any]:
        """What `of` reads."""
        return {"kind": self.kind, "lowercase": self.lowercase, "language": self.language}

    def __call__(self, sentence: str) -> list[str]:
        """The words of one sentence; none for white space."""
        if self._pipeline is None:
            return [self._word(text) for text in words_between_spaces(sentence)]
        return [self._word(token.text) for token in self._pipeline.make_doc(sentence) if not token.is_space]

    def each(self, sentences: Iterable[str]) -> Iterator[list[str]]:
        """The words of each of many sentences, in bounded memory."""
        if self._pipeline is None:
            yield from map(self, sentences)
            return
        for chunk in chunks(sentences, CHARACTERS_PER_ZONE):
            with self._pipeline.memory_zone():
                tokenised = [self(sentence) for sentence in chunk]
            yield from tokenised

    def sentences(self, paragraph: str) -> list[list[str]]:
        """The sentences of a paragraph of prose, as words. For `words` only.

        spaCy's rule (a sentence ends at `.`, `!`, `?` and the punctuation behind it), with two corrections: an opening
        quote or bracket belongs to what it opens, and no sentence starts with a lower-case letter (`"Stop!" he said`).
        """
        if self._pipeline is None:
            raise SettingsError("only the `words` tokeniser finds sentences; `spaces` takes one sentence per line")
        sentences: list[list[Token]] = []
        for span in self._pipeline(paragraph).sents:
            tokens = [token for token in span if not token.is_space]
            if not tokens:
                continue
            if sentences:
                while sentences[-1] and opens(sentences[-1][-1]):
                    tokens.insert(0, sentences[-1].pop())
                if not sentences[-1] or tokens[0].text[0].islower():
                    tokens = sentences.pop() + tokens
            sentences.append(tokens)
        return [[self._word(token.text) for token in tokens] for tokens in sentences]

    def _word(self, text: str) -> str:
        word = text.lower() if self.lowercase else text
        return UNKNOWN_WORD if text in UNKNOWN_FORMS or word in UNKNOWN_FORMS else word


def chunks(texts: Iterable[str], characters: int) -> Iterator[list[str]]:
    """`texts` in lists that end with the text that reaches this many characters (a line end counts as one)."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text) + 1
        if size >= characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def opens(token: Token) -> bool:
    """Whether a quote or bracket has white space (or nothing) before it and none behind it."""
    if token.whitespace_ or not (token.is_quote or token.is_bracket):
        return False
    return token.i == 0 or bool(token.nbor(-1).whitespace_) or token.nbor(-1).is_space


@lru_cache(maxsize=2)
def pipeline(language: str) -> Language:
    """spaCy's rules for a language: a tokeniser and a sentence splitter, no statistical model, nothing downloaded."""
    try:
        import spacy
        from spacy.symbols import ORTH
        from spacy.tokenizer import Tokenizer as RuleTokenizer
    except ImportError:
        raise UnavailableError(
            "the `words` tokeniser needs spaCy: `pip install spacy`, or tokenise the text yourself and choose `spaces`"
        ) from None
    try:
        rules = spacy.blank(language)
    except ImportError as error:
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(
            f"language {language!r}: spaCy has no tokeniser for it here ({reason}); put spaces between the words "
            "beforehand and choose `tokenizer: spaces`"
        ) from None
    rules.add_pipe("sentencizer")
    rules.max_length = sys.maxsize  # the default spares statistical models
    if language == "zh":
        rules.tokenizer = ChineseWords(rules.vocab)
    tokenizer = rules.tokenizer
    if isinstance(tokenizer, RuleTokenizer):  # not so for the languages that have a tokeniser of their own
        match = tokenizer.token_match
        # spaCy takes time quadratic in the punctuation of a run without white space
        tokenizer.token_match = lambda text: len(text) > LONGEST_RUN or (match is not None and match(text))
        for form in UNKNOWN_FORMS:
            tokenizer.add_special_case(form, [{ORTH: form}])
    return rules
