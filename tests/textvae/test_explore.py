"""The command line says what the library says, takes text as people have it, and ends with a code and a clear line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_files import changed
from tiny import Corpus, write_corpus
from tiny_model import informative, written

from textvae import explore, load
from textvae.corpus import Sentences
from textvae.latent import TextVAE
from textvae.tokenizer import Tokenizer
from textvae.vocabulary import Vocabulary

TEXTS = ["the cat sees a small dog today", "a dog sleeps", "an elephant sings"]
LINES = "".join(f"{text}\n" for text in TEXTS).encode()


@pytest.fixture(scope="module")
def folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("vae") / "model", informative("vae", corpus), corpus)


@pytest.fixture(scope="module")
def model(folder: Path) -> TextVAE:
    return load(folder)


class Command:
    """Runs `python -m textvae.explore` in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self.capfd = folder, monkeypatch, capfd

    def __call__(self, name: str, *arguments: object, given: bytes = b"", model: Path | None = None) -> Any:
        """(exit code, standard output, standard error)"""
        self.monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        with pytest.raises(SystemExit) as ended:
            explore.main([name, "--model", str(model or self.folder), *map(str, arguments)])
        said = self.capfd.readouterr()
        return ended.value.code or 0, said.out, said.err

    def json(self, name: str, *arguments: object, given: bytes = LINES) -> list[Any]:
        code, out, err = self(name, "--json", *arguments, given=given)
        assert (code, err) == (0, "")
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def command(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(folder, monkeypatch, capfd)


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of text that spaCy's rules split."""
    lines = ["We've seen the U.S. before.", "Mr. Smith doesn't know.", "They aren't here."]
    tokenizer = Tokenizer("words", lowercase=True)
    words = sorted({word for line in lines for word in tokenizer(line)})
    vocabulary = Vocabulary(words, tokenizer.description)
    read = Sentences.of([vocabulary.encode(tokenizer(line)) for line in lines])
    made = Corpus(read, read, read, vocabulary)
    return written(tmp_path_factory.mktemp("prose") / "model", informative("vae", made), made)


# --- what it says ------------------------------------------------------------------------------------------------


def test_reconstruct(command: Command, model: TextVAE) -> None:
    expected = model.reconstruct(TEXTS, samples=2, seed=9)
    found = command.json("reconstruct", "--samples", 2, "--seed", 9)
    assert found == [{"source": one.source, "mean": one.mean, "samples": one.samples} for one in expected]
    assert found == [
        one
        for text in TEXTS
        for one in command.json("reconstruct", "--samples", 2, "--seed", 9, "--text", text, given=b"ignored\n")
    ]


def test_interpolate_goes_from_each_sentence_to_the_next(command: Command, model: TextVAE) -> None:
    found = command.json("interpolate", "--steps", 3)
    assert [(one["from"], one["to"]) for one in found] == [(TEXTS[0], TEXTS[1]), (TEXTS[1], TEXTS[2])]
    for one in found:
        expected = model.interpolate(one["from"], one["to"], 3)
        assert [(step["t"], step["text"]) for step in one["steps"]] == [(step.t, step.text) for step in expected]
        assert [step["log_prob"] for step in one["steps"]] == pytest.approx([s.log_prob for s in expected], rel=1e-5)


def test_neighbours_in_a_text_file_and_in_a_corpus_folder(
    command: Command, model: TextVAE, corpus: Corpus, corpus_folder: Path, tmp_path: Path
) -> None:
    training = [corpus.vocabulary.decode(corpus.train[n]) for n in range(len(corpus.train))]
    (tmp_path / "mine.txt").write_text("\r\n".join(training))
    expected = model.neighbours(TEXTS, training, k=2)
    for place in (tmp_path / "mine.txt", corpus_folder):
        found = command.json("neighbours", "--corpus", place, "-k", 2)
        assert [one["source"] for one in found] == TEXTS
        assert [[near["text"] for near in one["nearest"]] for one in found] == [[o.text for o in e] for e in expected]
        cosines = [near["cosine"] for one in found for near in one["nearest"]]
        assert cosines == pytest.approx([o.cosine for e in expected for o in e], abs=1e-6)


def test_score(command: Command, model: TextVAE) -> None:
    for found, expected in zip(command.json("score", "--samples", 3), model.score(TEXTS, 3), strict=True):
        assert found["words"] == expected.words
        assert found["log_probs"] == pytest.approx(expected.log_probs, abs=1e-5)
        assert found["nll_iw"] == pytest.approx(expected.nll_iw, abs=1e-5)


def test_encode_writes_parquet_npy_and_json(
    command: Command, model: TextVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("textvae.given_text.CHUNK", 2)
    mu_ND, log_var_ND = model.encode(TEXTS)
    for name in ("codes.parquet", "codes.npy"):
        code, out, err = command("encode", "--out", tmp_path / name, given=LINES)
        assert (code, out, err) == (0, "", f"{tmp_path / name}: 3 sentences\n")
    table = pq.read_table(tmp_path / "codes.parquet").to_pydict()
    assert table["sentence"] == TEXTS
    np.testing.assert_allclose(table["mu"], mu_ND, atol=1e-6)
    np.testing.assert_allclose(table["log_var"], log_var_ND, atol=1e-6)
    codes = np.load(tmp_path / "codes.npy", allow_pickle=False)
    assert codes.dtype == np.float32
    np.testing.assert_allclose(codes, mu_ND, atol=1e-6)
    found = command.json("encode")
    assert [one["sentence"] for one in found] == TEXTS
    np.testing.assert_allclose([one["mu"] for one in found], mu_ND, atol=1e-6)
    np.testing.assert_allclose([one["log_var"] for one in found], log_var_ND, atol=1e-6)


SHOWN: dict[str, Callable[[Any], list[str]]] = {
    "reconstruct": lambda one: [one["source"], one["mean"], *one["samples"]],
    "interpolate": lambda one: [step["text"] for step in one["steps"]],
    "neighbours": lambda one: [one["source"], *(near["text"] for near in one["nearest"])],
    "score": lambda one: [f"{word} {p:.2f}" for word, p in zip(one["words"], one["log_probs"], strict=True)],
}
"""What a reader looks for in each table."""


@pytest.mark.parametrize("name", SHOWN)
def test_a_table_has_what_json_has(command: Command, corpus_folder: Path, name: str) -> None:
    arguments = ["--corpus", corpus_folder] if name == "neighbours" else []
    given = b"[bold]the cat :smile:\na dog sleeps\n"
    code, out, err = command(name, *arguments, given=given)
    assert (code, err) == (0, "")
    for one in command.json(name, *arguments, given=given):
        for text in SHOWN[name](one):
            assert f" {text} " in out


# --- what it does not take ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"", "standard input is empty"),
        (b"a dog sleeps\n\na dog\n", "line 2: empty: remove it"),
        (b"a dog\n \t\n", "line 2: empty: remove it"),
        (b"a dog\nun caf\xe9\n", "line 2: not UTF-8"),
        (b"a dog\nthe cat\ra bird\n", "line 2: a carriage return inside the line"),
        (b"dog " * 100_000, "line 1: more than 10,000 characters"),
        (b"dog\n" + "\N{GRINNING FACE}".encode() * 20_000, "line 2: more than 10,000 characters"),
    ],
)
def test_text_that_is_no_list_of_sentences_is_named_by_its_line(command: Command, given: bytes, said: str) -> None:
    code, _, err = command("score", "--json", given=given)
    assert code == 65
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1


def test_lines_as_windows_and_editors_write_them(command: Command) -> None:
    given = "\N{ZERO WIDTH NO-BREAK SPACE}a dog sleeps\r\nthe cat sings".encode()
    words = [one["words"] for one in command.json("score", given=given)]
    assert words == [["a", "dog", "sleeps", "EOS"], ["the", "cat", "sings", "EOS"]]


@pytest.mark.parametrize(
    ("name", "arguments", "code", "said"),
    [
        ("encode", [], 2, "either --out FILE.parquet"),
        ("encode", ["--out", "codes.txt"], 2, "either --out FILE.parquet"),
        ("encode", ["--out", "codes.npy", "--json"], 2, "either --out FILE.parquet"),
        ("encode", ["--out", "/proc/nowhere/codes.npy"], 2, "/proc/nowhere/codes.npy cannot be written"),
        ("interpolate", ["--text", "a dog"], 65, "needs two sentences"),
        ("score", ["--text", " "], 65, "--text number 1 is empty"),
        ("score", ["--text", "x" * 20_000], 65, "sentence 1 has 20,000 characters"),
        ("neighbours", ["--corpus", "/nowhere"], 65, "/nowhere cannot be read"),
        ("neighbours", ["--corpus", "/dev/null"], 65, "/dev/null is empty"),
        ("neighbours", [], 2, "--corpus"),
        ("score", ["--samples", "0"], 2, "--samples"),
    ],
)
def test_wrong_options_are_named(
    command: Command, name: str, arguments: list[str], code: int, said: str, tmp_path: Path
) -> None:
    command.monkeypatch.chdir(tmp_path)
    found, out, err = command(name, *arguments, given=LINES)
    assert (found, out) == (code, "")
    assert said in err
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"


def test_a_folder_is_not_replaced(command: Command, tmp_path: Path) -> None:
    """A Parquet data set is often a folder of that name."""
    (tmp_path / "codes.parquet").mkdir()
    (tmp_path / "codes.parquet" / "part-0.parquet").write_text("kept")
    code, _, err = command("encode", "--out", tmp_path / "codes.parquet", given=LINES)
    assert code == 2, err
    assert (tmp_path / "codes.parquet" / "part-0.parquet").read_text() == "kept"


def test_text_that_is_no_utf_8_on_the_command_line(command: Command) -> None:
    code, _, err = command("score", "--text", "caf\udce9")
    assert code == 65
    assert "UTF-8" in err


def test_models_that_cannot_answer_say_so(command: Command, corpus: Corpus, tmp_path: Path) -> None:
    failure = {"message": "nan"}
    diverged = written(tmp_path / "nan", informative("vae", corpus), corpus, status="diverged", failure=failure)
    lm = written(tmp_path / "lm", informative("lstm_lm", corpus), corpus)
    for place, said in ((diverged, "diverged (nan)"), (lm, "is LSTM-LM"), (tmp_path, "config.json is missing")):
        code, out, err = command("reconstruct", given=LINES, model=place)
        assert (code, out) == (65, "")
        assert said in err
    assert command("score", given=LINES, model=lm)[0] == 0


def test_a_corpus_of_other_words_is_refused(command: Command, corpus: Corpus, tmp_path: Path) -> None:
    other = write_corpus(tmp_path / "corpus", corpus)
    vocabulary = json.loads((other / "vocabulary.json").read_text())
    vocabulary["words"] = vocabulary["words"][::-1]
    (other / "vocabulary.json").write_text(json.dumps(vocabulary))
    changed(other / "corpus.json")
    code, _, err = command("neighbours", "--corpus", other, given=LINES)
    assert code == 65
    assert "another vocabulary" in err


def test_tokens_takes_back_what_was_printed(prose: Path, command: Command, tmp_path: Path) -> None:
    """Every command: what it makes of a text it makes of the printed words too, and not without --tokens."""
    texts = ["We've seen the U.S. before.", "Mr. Smith doesn't know."]

    def run(name: str, given: list[str], *arguments: object) -> Any:
        lines = "".join(f"{text}\n" for text in given).encode()
        code, out, err = command(name, *arguments, given=lines, model=prose)
        assert code == 0
        how = "taken as words between spaces" if "--tokens" in arguments else "split by the model's tokeniser"
        assert err.startswith(f"given sentences are {how}")
        return [json.loads(line) for line in out.splitlines()]

    words = [one["source"] for one in run("reconstruct", texts, "--json")]
    assert words == ["we 've seen the u.s. before .", "mr. smith does n't know ."]
    (tmp_path / "words.txt").write_text("".join(f"{one}\n" for one in words))
    (tmp_path / "texts.txt").write_text("".join(f"{one}\n" for one in texts))
    for name, results in {
        "reconstruct": ["source", "mean", "samples"],
        "interpolate": ["steps"],
        "neighbours": ["nearest"],
        "encode": ["mu", "log_var"],
        "score": ["words", "log_probs", "nll_iw"],
    }.items():
        corpora = [
            ("--corpus", tmp_path / f"{kind}.txt") if name == "neighbours" else () for kind in ("texts", "words")
        ]
        of_texts = run(name, texts, "--json", *corpora[0])
        of_words, split_again = (run(name, words, "--json", *corpora[1], *more) for more in (["--tokens"], []))
        for key in results:
            assert [one[key] for one in of_words] == [one[key] for one in of_texts]
            assert key in ("steps", "mean", "samples") or [one[key] for one in split_again] != [
                one[key] for one in of_texts
            ]


@pytest.mark.parametrize("name", ["reconstruct", "interpolate", "neighbours", "encode", "score"])
def test_every_command_has_help_with_an_example(command: Command, name: str) -> None:
    code, out, _ = command(name, "--help")
    assert code == 0
    assert f"python -m textvae.explore {name} --model" in out
