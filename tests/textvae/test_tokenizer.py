"""Text -> words: what is split where, what stays as it is, and the unknown word that survives everything."""

import sys

import pytest
import spacy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from textvae import tokenizer as tokenizer_module
from textvae.errors import DataError, SettingsError, UnavailableError
from textvae.tokenizer import LONGEST_RUN, Tokenizer, pipeline

ASCII_WHITE_SPACE = set(" \t\n\v\f\r")
UNKNOWN_FORMS = ["UNK", "_UNK", "<unk>", "<UNK>"]


@pytest.fixture(params=["spaces", "words"])
def lower_casing(request: pytest.FixtureRequest) -> Tokenizer:
    return Tokenizer(request.param, lowercase=True)


@example(" a\u2028b\u0085 \u00a0 c\x1cd\r\n")
@example("<Unk> İ ǅ")
@settings(deadline=None)  # the first call builds the pipeline
@given(st.text())
def test_spaces_splits_at_ascii_white_space_alone_and_is_idempotent(text: str) -> None:
    tokenizer = Tokenizer("spaces", lowercase=False)
    tokens = tokenizer(text)
    # bytes.split() knows ASCII white space only: another statement of the rule, and what KenLM does
    known = [word.decode() for word in text.encode().split()]
    assert tokens == ["UNK" if word in UNKNOWN_FORMS else word for word in known]
    lowered = Tokenizer("spaces", lowercase=True)
    assert lowered(" ".join(lowered(text))) == lowered(text)


@example("(_UNK) :'-( \t.5¢ http://a.b\u00a0c\u2028d\x1fe")
@settings(deadline=None)  # the first call builds the pipeline
@given(st.text())
def test_words_are_never_empty_and_hold_no_ascii_white_space(text: str) -> None:
    for word in Tokenizer("words", lowercase=True)(text):
        assert word
        assert not ASCII_WHITE_SPACE & set(word)


@pytest.mark.parametrize("language", ["en", "fr"])
@settings(deadline=None)  # the first call builds the pipeline
@given(st.text(), st.booleans())
@example("L'eau n'est pas ici, M. Dupont: <Unk>\u00a0! İ ΑΣ", True)
def test_words_joined_by_spaces_are_split_into_the_same_words_at_spaces(
    language: str, text: str, lowercase: bool
) -> None:
    words = Tokenizer("words", lowercase, language)(text)
    assert Tokenizer("spaces", lowercase)(" ".join(words)) == words


def test_words_follow_the_penn_treebank_where_it_matters() -> None:
    text = "Mr. Smith's dog doesn't like the U.S. (or $1.5 million), \"does it?\""
    expected = "Mr. Smith 's dog does n't like the U.S. ( or $ 1.5 million ) , \" does it ? \""
    assert Tokenizer("words", lowercase=False)(text) == expected.split(" ")
    assert Tokenizer("words", lowercase=True)(text) == expected.lower().split(" ")


def test_words_are_spacys_own() -> None:
    text = "It's 5:30 p.m. -- e-mail me@example.org (or don't)... We'll see: 7% of $3,000.00!"
    assert Tokenizer("words", lowercase=False)(text) == [token.text for token in spacy.blank("en")(text)]


@pytest.mark.parametrize("form", UNKNOWN_FORMS)
def test_every_form_of_the_unknown_word_survives_lower_casing(form: str, lower_casing: Tokenizer) -> None:
    assert lower_casing(f"The {form} said Unk") == ["the", "UNK", "said", "unk"]


def test_unknown_words_beside_punctuation(lower_casing: Tokenizer) -> None:
    assert lower_casing("( UNK ) , <unk> .") == ["(", "UNK", ")", ",", "UNK", "."]


def test_lower_casing_makes_no_unknown_word_that_kenlm_refuses() -> None:
    assert Tokenizer("spaces", lowercase=True)("a <Unk> <uNK>") == ["a", "UNK", "UNK"]


def test_words_with_punctuation_attached_to_the_unknown_word() -> None:
    assert Tokenizer("words", lowercase=True)('"UNK, he (_UNK).') == ['"', "UNK", ",", "he", "(", "UNK", ")", "."]


@pytest.mark.parametrize(
    ("paragraph", "expected"),
    [
        ("We try. We win! Do we?", ["We try .", "We win !", "Do we ?"]),
        ('He said. "We will." So.', ["He said .", '" We will . "', "So ."]),
        ('He said: "Yes. (We can.)" And left.', ['He said : " Yes .', '( We can . ) "', "And left ."]),
        ('"Stop!" he cried. Then ran.', ['" Stop ! " he cried .', "Then ran ."]),
        ("Mr. J. P. Hay met Gen. Lee in the U.S. Senate.", ["Mr. J. P. Hay met Gen. Lee in the U.S. Senate ."]),
        ("The cost of this. measure is $1.5 million.", ["The cost of this . measure is $ 1.5 million ."]),
        ("  \u2028 ", []),
        ('"', ['"']),
        ("No end", ["No end"]),
    ],
)
def test_sentences(paragraph: str, expected: list[str]) -> None:
    assert [" ".join(words) for words in Tokenizer("words", lowercase=False).sentences(paragraph)] == expected


@settings(deadline=None)  # the first call builds the pipeline
@given(st.text(alphabet='aB.!?"() \n', max_size=60))
def test_no_word_is_lost_between_sentences(text: str) -> None:
    tokenizer = Tokenizer("words", lowercase=False)
    assert [word for sentence in tokenizer.sentences(text) for word in sentence] == tokenizer(text)


def test_each_gives_one_list_per_text_in_order(lower_casing: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer_module, "CHARACTERS_PER_ZONE", 10)
    texts = ["It isn't.", "", " ", *(f"word{i} other{i}" for i in range(20))]
    assert list(lower_casing.each(texts)) == [lower_casing(text) for text in texts]


def test_each_reads_ahead_by_characters_not_by_lines() -> None:
    consumed = 0

    def texts():  # type: ignore[no-untyped-def]
        nonlocal consumed
        for _ in range(100):
            consumed += 1
            yield "word " * 20_000

    next(iter(Tokenizer("words", lowercase=True).each(texts())))
    assert consumed == 10  # 10 x 100,000 characters make the first million


def test_an_endless_run_of_punctuation_is_one_word() -> None:
    # spaCy alone needs minutes for this line: time quadratic in the run
    tokenizer = Tokenizer("words", lowercase=True)
    assert tokenizer("so " + "(" * 100_000 + " it is.") == ["so", "(" * 100_000, "it", "is", "."]
    assert len(tokenizer("(" * LONGEST_RUN)) == LONGEST_RUN


def test_the_description_makes_the_same_tokenizer(lower_casing: Tokenizer) -> None:
    again = Tokenizer.of(lower_casing.description)
    assert again.description == lower_casing.description
    assert again("Isn't it, UNK?") == lower_casing("Isn't it, UNK?")


@pytest.mark.parametrize("description", [{}, {"kind": "words"}, None, {"lowercase": True, "language": "en"}])
def test_what_describes_no_tokenizer_is_a_data_error(description: dict[str, object]) -> None:
    with pytest.raises(DataError, match="does not describe a tokeniser"):
        Tokenizer.of(description)


def test_unknown_kinds_and_languages_are_settings_errors() -> None:
    with pytest.raises(SettingsError, match="`spaces` or `words`"):
        Tokenizer("letters", lowercase=True)  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="language 'qx'"):
        Tokenizer("words", lowercase=True, language="qx")
    with pytest.raises(SettingsError, match="one sentence per line"):
        Tokenizer("spaces", lowercase=True).sentences("One. Two.")


def test_languages_with_and_without_rules_of_spacys() -> None:
    assert Tokenizer("words", lowercase=True, language="de")("Er sagt z.B. UNK.") == ["er", "sagt", "z.b.", "UNK", "."]
    assert Tokenizer("words", lowercase=True, language="zh")("你好") == ["你", "好"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我喜欢GPT-4.5和iPhone 15。", "我 喜 欢 gpt-4.5 和 iphone 15 。"),
        ("他说UNK，<unk>和_UNK！ BOS", "他 说 UNK ， UNK 和 UNK ！ bos"),
        ("2024年3月1日12:30,“don't”《café》", "2024 年 3 月 1 日 12:30 , “ don't ” 《 café 》"),
        ("𠮷野家でラーメン々", "𠮷 野 家 で ラ ー メ ン 々"),
        ("a,b 3.14% …", "a , b 3.14 % …"),
        ("\u3000 \t", ""),
    ],
)
def test_chinese_is_split_into_characters_and_everything_else_into_words(text: str, expected: str) -> None:
    assert Tokenizer("words", lowercase=True, language="zh")(text) == expected.split()


@settings(deadline=None)  # the first call builds the pipeline
@given(st.text(alphabet="我的。UNK<unk>aé1.-' \u3000"))
def test_chinese_words_are_all_of_the_text_and_are_stable(text: str) -> None:
    tokenizer = Tokenizer("words", lowercase=False, language="zh")
    words = tokenizer(text)
    if "UNK" not in words:
        assert "".join(words) == "".join(text.split())
    assert tokenizer(" ".join(words)) == words


def test_a_long_run_of_chinese_is_characters() -> None:
    tokenizer = Tokenizer("words", lowercase=True, language="zh")
    assert tokenizer("我" * (LONGEST_RUN + 1)) == ["我"] * (LONGEST_RUN + 1)
    assert tokenizer.sentences("我喜欢UNK。他说：“好！”好") == [[*"我喜欢", "UNK", "。"], [*"他说：“好！”"], ["好"]]


@pytest.mark.parametrize("language", ["ja", "th"])
def test_a_language_that_needs_more_than_spacy_says_what_to_do(language: str) -> None:
    with pytest.raises(SettingsError, match=rf"language '{language}': .*beforehand and choose `tokenizer: spaces`"):
        Tokenizer("words", lowercase=True, language=language)


def test_without_spacy_words_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline.cache_clear()
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(UnavailableError, match="pip install spacy"):
        Tokenizer("words", lowercase=True)
    assert Tokenizer("spaces", lowercase=True)("A b") == ["a", "b"]
