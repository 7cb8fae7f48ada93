"""fetch --inspect: what it says of a text is what the pipeline then does, and the entry that it prints works."""

import itertools
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from fetching import fetched, write
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_corpus, train_settings
from tiny_project import PARAMS, sentences

from components.fetch import main
from components.preprocess import preprocess
from textcorpus import inspection
from textcorpus.suggestion import (
    Facts,
    dataset_name,
    held_out_fraction,
    published_splits,
    suggested_entry,
)
from textcorpus.survey import SEVERAL
from textcorpus.writing import tokenizer_of, writing_of
from textvae import training_time
from textvae.config import Params
from textvae.objectives import checked
from textvae.tokenizer import Tokenizer

SPEECH = [f"{line[:-2].capitalize()}." for line in sentences(1500)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with a text in data/ and small settings; no second is spent on measuring."""
    reduced = {
        "preprocess": {"train_sentences": 5000},
        "training": {"epochs": 2},
        "sampling": {"max_length": 5},
    }
    own = {"vae_05": {"objective": {"annealing_epochs": 1}}}
    grid = {**PARAMS["grid"], "datasets": ["other"]}
    entry = {"source": {"path": "data/other.txt"}, "reduced": True, "settings": reduced, "systems": own}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "grid": grid, "datasets": {"other": entry}}))
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(inspection, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training_time, "SECONDS", 0.0)
    return tmp_path


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["--inspect", *arguments])
    said = capsys.readouterr()
    assert ended.value.code == code, said.err
    return said.err if code else said.out


def entry_of(said: str) -> dict[str, Any]:
    """The entry that was printed, as YAML reads it."""
    lines = said.split("below `datasets:`")[1].split("\n\n")[1]
    found: dict[str, Any] = yaml.safe_load(lines)
    return found


def test_what_is_printed_is_what_the_pipeline_does(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "data/my-text.txt", "\n".join(SPEECH).encode())
    before = sorted(project.rglob("*"))
    said = inspected(capsys, "data/my-text.txt")
    assert sorted(project.rglob("*")) == before  # nothing is written
    # the entry, pasted, is taken, and gives the numbers that were printed
    content = yaml.safe_load((project / "params.yaml").read_text())
    content["datasets"] |= entry_of(said)
    content["grid"]["datasets"] = ["my_text"]
    (project / "params.yaml").write_text(yaml.safe_dump(content))
    params = Params.load(project / "params.yaml")
    for system in params.grid.systems:
        checked(params.settings("my_text", system).objective)
    source = params.fetch("my_text")
    assert (source.tokenizer, source.split_by, source.valid_fraction) == ("words", "line", 0.2)
    lines, description = fetched(project / "out", **source.model_dump())
    counts = description["sentences"]
    assert f"train {counts['train']:,}, valid {counts['valid']:,}, test {counts['test']:,}" in said
    lengths = sorted(len(line.split()) for split in lines.values() for line in split)
    assert f"50%: {lengths[(len(lengths) - 1) // 2]}," in said
    assert "longer than 20: 0.0%" in said
    preprocess(raw=project / "out/raw", settings=params.preprocess("my_text"), corpus=project / "out/corpus")
    corpus = yaml.safe_load((project / "out/corpus/corpus.json").read_text())
    assert f"trains on {corpus['sentences']['train']:,} sentences of {corpus['mean_length']:.1f} words" in said
    assert f"{corpus['vocabulary']:,} words, " in said
    words = Counter(word for line in lines["train"] for word in line.split())
    assert f"Vocabulary: {len(words):,} different words" in said
    assert f"{len(words):>8,}   100.0%" in said
    for system in params.grid.systems:
        assert f"\n  {system:<14}  " in said


def test_oddities_are_counted_and_placed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = [*SPEECH[:50], "", "He left town. She stayed there.", "word " * 201, "caf\ufffd", *SPEECH[:50]] * 1
    text += ["Mr. Hay left. Then nothing happened."] * 3
    write(project / "elsewhere.txt", "\n".join(text).encode())
    said = inspected(capsys, "elsewhere.txt", "--source", "{valid_fraction: 0.3, test_fraction: 0.3}")
    assert "107 lines, 1 of them empty, 2 blocks" in said
    assert "longest: line 53, 201 words" in said
    assert "! 4 lines (3.7%; first: line 52) hold several sentences" in said
    assert "! 1 lines (0.9%; first: line 53) are longer than 200 words" in said
    assert "! 1 lines (0.9%; first: line 54) hold U+FFFD" in said
    assert "repeat another one of their split" in said
    assert "! train has" in said
    assert "not below data/" in said
    assert "not measured, there are too few sentences" in said
    assert entry_of(said)["elsewhere"]["source"]["valid_fraction"] == 0.3


def test_text_that_is_not_utf_8_is_named_by_line(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "data/a.txt", b"fine\nna\xefve\n")
    said = inspected(capsys, "data/a.txt", code=65)
    assert said.startswith("error: data/a.txt, line 2: not UTF-8 (0xef at byte 2)")
    assert said.count("\n") == 1


@pytest.mark.parametrize("source", ["{", "words", "{tokeniser: words}", "{tokenizer: letters}"])
def test_a_wrong_source_is_refused(project: Path, capsys: pytest.CaptureFixture[str], source: str) -> None:
    write(project / "data/a.txt", "\n".join(SPEECH).encode())
    assert inspected(capsys, "data/a.txt", "--source", source, code=2).startswith("error: --source")


def test_without_torch_the_rest_is_printed(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "textvae.training_time", None)  # as where its `import torch` fails
    monkeypatch.setitem(sys.modules, "torch", None)
    write(project / "data/a.txt", "\n".join(SPEECH).encode())
    said = inspected(capsys, "data/a.txt")
    assert "not measured, torch is not installed here" in said
    assert "reduced, for a CPU" in said


def test_published_splits_and_documents_are_seen(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, lines in (("train", SPEECH[:900]), ("dev", SPEECH[900:950]), ("test", SPEECH[:50])):
        write(project / f"data/{name}.txt", "\n".join(lines).encode())
    said = inspected(capsys, "data")
    source = entry_of(said)["data"]["source"]
    assert source["splits"] == {"train": "train.txt", "valid": "dev.txt", "test": "test.txt"}
    assert "train 900, valid 50, test 50" in said
    assert "in train too: 50 test sentences" in said  # they are train's first ones
    blocks = "\n\n".join("\n".join(SPEECH[n : n + 10]) for n in range(0, 900, 10))
    write(project / "data/blocks.txt", blocks.encode())
    assert entry_of(inspected(capsys, "data/blocks.txt"))["blocks"]["source"]["split_by"] == "document"


def test_help_shows_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert "python -m components.fetch --inspect data/mine.txt" in inspected(capsys, "x", "--help")


# What fits a text


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["It isn't so, he said.", "Why?"], "words"),
        (["it is n't so , he said .", "why ?"], "spaces"),
        (["no it was n't black monday", "<unk> N years old"], "spaces"),  # PTB has no punctuation
        (["Mr. Vinken is chairman of Elsevier N.V. , the Dutch group .", "He is 61 ."], "spaces"),
    ],
)
def test_tokenised_text_is_told_from_prose(lines: list[str], expected: str) -> None:
    assert tokenizer_of(lines) == expected


CHINESE = [
    f"{who}今天{does}{what}。" for who in "你我他她" for does in ("喜欢", "需要", "忘记") for what in "火车水苹果书" * 2
]
JAPANESE = ["彼女は学校に行きました。", "私のカメラはどこですか？"]
THAI = ["ฉันชอบแอปเปิ้ลวันนี้", "พวกเราต้องการรถไฟ พรุ่งนี้"]


@pytest.mark.parametrize(
    ("lines", "source", "unspaced"),
    [
        (CHINESE, {"tokenizer": "words", "language": "zh"}, "zh"),
        (["2024年3月1日我们看 https://example.org/x"], {"tokenizer": "words", "language": "zh"}, "zh"),
        (["你好", "好的", "谢谢你"], {"tokenizer": "words", "language": "zh"}, "zh"),
        (["我们 今天 需要 火车 。", "老师 喜欢 书"], {"tokenizer": "spaces"}, None),
        (["我 们 今 天", "书"], {"tokenizer": "spaces"}, None),
        (["我 喜歡 iPhone 15，好的。", "你 需要 GPT-4，對嗎。"], {"tokenizer": "words", "language": "zh"}, "zh"),
        (["王小明", "李四"], {"tokenizer": "words", "language": "zh"}, "zh"),
        (JAPANESE, {"tokenizer": "spaces"}, "ja"),
        (["彼女\u3000は\u3000学校\u3000に"], {"tokenizer": "spaces"}, "ja"),  # those are no spaces to `spaces`
        (THAI, {"tokenizer": "spaces"}, "th"),
        (["ພວກເຮົາມັກໝາກແອັບເປີ້ນ"], {"tokenizer": "spaces"}, "lo"),
        (["យើងចូលចិត្តផ្លែប៉ោម"], {"tokenizer": "spaces"}, "km"),
        (["ကျွန်တော်တို့ပန်းသီးကြိုက်တယ်"], {"tokenizer": "spaces"}, "my"),
        (["བཀྲ་ཤིས་བདེ་ལེགས་ཡིན།"], {"tokenizer": "spaces"}, "bo"),  # spaCy has a tokeniser, which does not split it
        (["ฉัน ชอบ แอปเปิ้ล", "เขา ต้องการ รถไฟ"], {"tokenizer": "spaces"}, None),
        (["우리는 오늘 사과가 필요하다.", "선생님은 책을 좋아한다."], {"tokenizer": "words"}, None),
        (["The word 我们 means we.", "Tea is 茶."], {"tokenizer": "words"}, None),
        (["dog", "apple", "Zoë"], {"tokenizer": "spaces"}, None),
    ],
)  # fmt: skip
def test_scripts_without_spaces_are_recognised(lines: list[str], source: dict[str, str], unspaced: str | None) -> None:
    found = writing_of(lines)
    assert (found.source, found.unspaced) == (source, unspaced)


@pytest.mark.parametrize("space", ["\u3000", "\u200b"])
def test_spaces_that_are_none_to_the_tokeniser_become_some(space: str) -> None:
    lines = ["彼女 は 学校 に 行き ました 。".replace(" ", space), "私 の カメラ".replace(" ", space)]
    remedy = writing_of(lines).remedy(Tokenizer("spaces", True).description) or ""
    (command,) = re.findall(r"`(sed [^`]+)`", remedy)
    made = subprocess.run(["bash", "-c", command], input=lines[0], capture_output=True, text=True, check=True).stdout
    assert Tokenizer("spaces", True)(made) == ["彼女", "は", "学校", "に", "行き", "ました", "。"]


def test_chinese_text_gets_an_entry_that_splits_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project / "data/zh.txt", "\n".join(CHINESE).encode())
    said = inspected(capsys, "data/zh.txt")
    source = entry_of(said)["zh"]["source"]
    assert (source["tokenizer"], source["language"]) == ("words", "zh")
    assert "one word each" not in said
    assert "without spaces" not in said
    wrong = inspected(capsys, "data/zh.txt", "--source", "{tokenizer: spaces}")
    assert "! Chinese without spaces between words, which is not split: take `tokenizer: words`" in wrong
    assert "! 144 sentences (100.0%) are one word each" in wrong
    assert "! so many unknown words make every number one of `UNK`" in wrong


def test_text_that_nothing_here_splits_gets_a_remedy_that_works(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "\n".join(f"{kana}{line}" for kana in "アイウエオカキクケコサシスセソ" for line in JAPANESE)
    write(project / "data/ja.txt", text.encode())
    said = inspected(capsys, "data/ja.txt")
    (command,) = re.findall(r"`(sed [^`]+)`", said)
    assert "! Japanese without spaces between words, which is not split: put spaces" in said
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    split = subprocess.run(["bash", "-c", command], input=text.encode(), capture_output=True, env=environment).stdout
    write(project / "data/split.txt", split)
    said = inspected(capsys, "data/split.txt")
    assert "Japanese" not in said
    assert f"50%: {len(JAPANESE[0]) + 1}" in said


def test_sentence_markers_are_marked_and_what_is_not_read(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "data/in").mkdir()
    write(project / "data/in/a.txt", "\n".join(f"<s> {line} </s>" for line in SPEECH).encode())
    write(project / "data/in/b.tok", b"not this\n")
    said = inspected(capsys, "data/in")
    assert "! 1,500 lines (100.0%; first: line 1) hold sentence markers" in said
    assert "! nearly every line begins and ends with sentence markers (</s> <s>): dropped there" in said
    assert "! not read: b.tok (not .txt" in said
    assert entry_of(said)["in"]["source"]["tokenizer"] == "words"


@pytest.mark.parametrize("name", ["t.tsv", "t.txt"])
def test_a_table_is_refused_with_its_column(project: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    write(project / "data" / name, "".join(f"{n}\t{line}\n" for n, line in enumerate(SPEECH)).encode())
    said = inspected(capsys, f"data/{name}", code=65)
    assert said.startswith(f"error: data/{name} is a table with 2 columns between tabs; take the sentences out: `cat ")
    assert "cut -f2" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("names", "valid"),
    [
        (["ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"], "ptb.valid.txt"),
        (["a/train.txt", "a/dev.txt", "a/test.txt", "a/README"], "a/dev.txt"),
        (["train.txt", "dev.txt", "validation.txt", "test.txt"], None),
        (["training.txt", "valid.txt", "test.txt"], None),
        (["train.txt", "test.txt"], None),
    ],
)
def test_files_called_like_splits_are_splits(names: list[str], valid: str | None) -> None:
    found = published_splits(names)
    assert (found and found["valid"]) == valid


@given(st.integers(0, 10**7))
def test_the_held_out_splits_are_large_enough_and_never_most(sentences: int) -> None:
    fraction = held_out_fraction(sentences)
    assert 0.05 <= fraction <= 0.2
    assert fraction == 0.2 or fraction * sentences > 450


@pytest.mark.parametrize(
    ("path", "name"),
    [("data/My-Text.txt.gz", "my_text"), ("s3://b/corpora/wiki/", "wiki"), ("data/é.txt", "mine"), ("x.tgz", "x")],
)
def test_the_entrys_name_is_one(path: str, name: str) -> None:
    assert dataset_name(path) == name


def facts(count: int, length: int = 12) -> Facts:
    return Facts(count, Counter({length: count}), Counter({f"w{n}": 3 if n < 230 else 2 for n in range(500)}))


def test_sizes_follow_the_text(project: Path) -> None:
    params = Params.load(project / "params.yaml")
    small = suggested_entry(params, {"path": "x"}, facts(1000, 33), gpu=False)
    # 230 words occur three times; 99 % of the sentences have 33 words; a fifth of the text: five times the epochs
    assert small["settings"]["preprocess"] == {"max_length": 40, "vocabulary_size": 300}
    assert small["settings"]["training"]["epochs"] == 10
    assert small["systems"] == {"vae_05": {"objective": {"annealing_epochs": 5}}}
    assert small["settings"]["sampling"]["max_length"] == 40
    large = suggested_entry(params, {"path": "x"}, facts(100_000), gpu=False)
    assert large["settings"]["preprocess"] == {"max_length": 20, "vocabulary_size": 300, "train_sentences": 5000}
    assert large["settings"]["training"]["epochs"] == 2
    on_gpu = suggested_entry(params, {"path": "x"}, facts(100_000, 900), gpu=True)
    assert on_gpu == {"source": {"path": "x"}, "settings": {"preprocess": {"max_length": 200, "vocabulary_size": 300}}}


# How long it takes


def test_an_estimate_is_the_rate_of_the_steps_that_were_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that ticks once at every look: a step then takes a second, and a validation one."""
    ticks = itertools.count()
    monkeypatch.setattr(training_time.time, "process_time", lambda: float(next(ticks)))
    corpus = tiny_corpus()
    settings = train_settings("vae_05", epochs=3, batch_size=4)
    found = training_time.estimate(settings, corpus.train, corpus.valid, corpus.size, trainings=2)
    batches = -(-len(corpus.train) // 4)
    assert training_time.FEWEST_STEPS == 4 < batches
    assert found.steps == 4  # the first step is not timed
    assert found.epochs == 3
    tokens = found.tokens_per_second * 4
    assert tokens == pytest.approx(round(tokens))
    total = int(corpus.train.lengths.sum()) + len(corpus.train)
    assert found.epoch_seconds == pytest.approx(total / found.tokens_per_second)
    assert found.seconds == pytest.approx(2 * 3 * (found.epoch_seconds + found.validation_seconds))


def test_an_epoch_shorter_than_the_measurement_is_never_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_time, "SECONDS", 1e9)
    monkeypatch.setattr("textvae.training.Trainer.end_epoch", lambda self: pytest.fail("validated"))
    corpus = tiny_corpus()
    settings = train_settings("lstm_lm", epochs=1, batch_size=8)
    found = training_time.estimate(settings, corpus.train, corpus.valid, corpus.size)
    assert found.steps == 6 - 2  # six batches: neither the first nor the last


def test_a_word_without_end_is_looked_at_once() -> None:
    """A line may be a megabyte of letters: its square would be hours."""
    assert SEVERAL.search("x" * 10**6) is None
    assert SEVERAL.search("It ends there. Here it begins.") is not None
    assert SEVERAL.search("See p. 7. Then") is None
