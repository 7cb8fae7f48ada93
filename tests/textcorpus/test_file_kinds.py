"""A file is what its bytes say: compressed text and archives are read under any name, the rest is named with a remedy.

Where the remedy is a command of every machine it is run, and what it writes is read.
"""

import bz2
import gzip
import io
import json
import lzma
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fetching import NUMBERED, NUMBERED_TEXT, SPLITS, fetched, write, write_zip

from textcorpus import sources
from textcorpus.readers import reader_named
from textcorpus.sources import read_lines, text_files
from textvae.errors import DataError

HALF = NUMBERED_TEXT.index(NUMBERED[200].encode())
MEMBERS = {"a.txt": NUMBERED_TEXT[:HALF], "sub/b.txt.xz": lzma.compress(NUMBERED_TEXT[HALF:]), "README": b"x"}
TEXT = NUMBERED_TEXT.decode()


def tar(mode: str, members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return content.getvalue()


def sentences(folder: Path, path: Path) -> list[str]:
    """All sentences that fetch makes of a path."""
    lines, _ = fetched(folder, path=str(path), valid_fraction=0.2, test_fraction=0.2)
    return sorted(line for split in SPLITS for line in lines[split])


@pytest.mark.parametrize(
    "content",
    [bz2.compress(NUMBERED_TEXT), lzma.compress(NUMBERED_TEXT), gzip.compress(NUMBERED_TEXT)]
    + [tar(mode, MEMBERS) for mode in ("w", "w:gz", "w:bz2", "w:xz")],
    ids=["bz2", "xz", "gz", "tar", "tar.gz", "tar.bz2", "tar.xz"],
)
@pytest.mark.parametrize("name", ["text", "text.txt"])
def test_compressed_text_and_archives_are_read_whatever_their_name(tmp_path: Path, content: bytes, name: str) -> None:
    assert sentences(tmp_path, write(tmp_path / name, content)) == sorted(NUMBERED)


def test_a_name_that_promises_compression_is_no_promise(tmp_path: Path) -> None:
    for number, name in enumerate(("text.gz", "text.tar.gz", "text.xz")):
        assert sentences(tmp_path / str(number), write(tmp_path / name, NUMBERED_TEXT)) == sorted(NUMBERED)


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_damaged_and_exploding_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: type[bytes]
) -> None:
    with pytest.raises(DataError, match=r"a\.txt cannot be read .* damaged"):
        list(read_lines(text_files(write(tmp_path / "a.txt", pack(NUMBERED_TEXT)[:-30]))[0]))
    monkeypatch.setattr(sources, "FREE_BYTES", 500_000)
    with pytest.raises(DataError, match=r"b\.txt, line 100001: more than 100 times"):
        list(read_lines(text_files(write(tmp_path / "b.txt", pack(b"bang\n" * 400_000)))[0]))


def parquet() -> bytes:
    content = io.BytesIO()
    pq.write_table(pa.table({"text": NUMBERED}), content)
    return content.getvalue()


def zstandard() -> bytes:
    return bytes(pa.compress(NUMBERED_TEXT, "zstd", asbytes=True))


def document(*members: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for member in ("[Content_Types].xml", *members):
            archive.writestr(member, "<x/>")
    return content.getvalue()


@pytest.mark.parametrize("name", ["x.txt", "x"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (parquet(), r"a Parquet table; .*python -c"),
        (zstandard(), r"compressed with Zstandard; .*`zstd -d \S+x(\.txt)?`"),
        (b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(90), r"a 7z archive; .*`7z x"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", r"a PDF document; .*pdftotext"),
        (document("word/document.xml"), r"a Word document; .*pandoc"),
        (document("xl/workbook.xml"), r"an Excel workbook; "),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(90), r"older Office program; "),
        (b"SQLite format 3\0" + bytes(90), r"an SQLite data base; "),
        (b"<!DOCTYPE html>\n<p>text</p>", r"a page of HTML; "),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", r"Git LFS and not the file; .*git lfs pull"),
        (b"outs:\n- md5: 1\n  path: x.txt\n", r"DVC and not the file; .*dvc pull"),
        (gzip.compress(gzip.compress(NUMBERED_TEXT)), r"compressed twice"),
        (bytes(range(256)) * 40, r"no text, but data of a kind that is not known"),
    ],
    ids=[
        "parquet", "zstd", "7z", "pdf", "docx", "xlsx", "doc", "sqlite", "html", "lfs", "dvc", "twice", "unknown"
    ],
)  # fmt: skip
def test_what_holds_no_lines_of_text_is_named_with_a_remedy(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=rf"x(\.txt)? is .*{message}") as refused:
        fetched(tmp_path, path=str(write(tmp_path / name, content)))
    assert "\n" not in str(refused.value)


def as_csv(delimiter: str, heading: str = "") -> bytes:
    rows = [f'{n}{delimiter}"sentence number {n}{delimiter} ."{delimiter}pos\n' for n in range(400)]
    return (heading + "".join(rows)).encode()


CONLL = "-DOCSTART-\tX\n\n" + "".join("".join(f"{word}\tNN\n" for word in s.split()) + "\n" for s in NUMBERED)
CONLLU = "".join(
    f"# text = {s}\n1-2\tof_two\t_\n" + "".join(f"{n}\t{word}\tNN\n" for n, word in enumerate(s.split(), 1)) + "\n"
    for s in NUMBERED
)
SUBTITLES = "".join(f"{n}\n00:00:0{n % 9},000 --> 00:00:0{n % 9},900\n{s}\n\n" for n, s in enumerate(NUMBERED))
OBJECTS = [{"id": "0123456789abcdef" * 4, "meta": {"title": "a long title of some words"}, "text": s} for s in NUMBERED]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("p.txt", parquet(), "a Parquet table"),
        ("cr.txt", NUMBERED_TEXT.replace(b"\n", b"\r"), "carriage returns"),
        ("cr.txt", NUMBERED_TEXT.replace(b"\n", b"\r")[:-1] + b"\n", "carriage returns"),
        ("ls.txt", NUMBERED_TEXT.replace(b"\n", "\u2028".encode()), r"in U.2028 and not in line feeds"),
        ("nel.txt", NUMBERED_TEXT.replace(b"\n", "\x85".encode())[:-2] + b"\n", "in U.0085 and not in line feeds"),
        ("u.txt", TEXT.encode("utf-16"), "UTF-16"),
        ("u.txt", TEXT.encode("utf-16-le"), "UTF-16"),
        ("u.txt", TEXT.encode("utf-16-be"), "UTF-16"),
        ("t.tsv", "".join(f"pos\t{s}\n" for s in NUMBERED).encode(), "between tabs"),
        ("label.txt", ("label\tsentence\n" + "".join(f"1\t{s}\n" for s in NUMBERED)).encode(), "between tabs"),
        ("c.txt", CONLL.encode(), "one word a line"),
        ("c.conllu", CONLLU.replace("\n", "\r\n").encode(), "one word a line"),
        ("l.txt", "".join(f"__label__a __label__b {s}\n" for s in NUMBERED).encode(), "fastText"),
        ("s.srt", SUBTITLES.encode(), "subtitles"),
        ("s.vtt", ("WEBVTT\n\n" + SUBTITLES.replace(",", ".")).encode(), "subtitles"),
        ("mail.txt", TEXT.replace("sentence", "文").encode("iso-2022-jp"), "ISO-2022-JP"),
        ("t.csv", as_csv(",", "id,text,label\n"), "3 columns between commas"),
        ("t.csv.gz", gzip.compress(as_csv(",")), "3 columns between commas"),
        ("t.txt", as_csv(";"), "3 columns between semicolons"),
        ("a file.jsonl", "".join(json.dumps(o) + "\n" for o in OBJECTS).encode(), "JSON"),
        ("j.txt", "".join(json.dumps(o) + "\n" for o in OBJECTS).encode(), "JSON"),
        ("j.json.bz2", bz2.compress(json.dumps(OBJECTS).encode()), "JSON"),
        ("j.json", json.dumps(OBJECTS, indent=2).encode(), "JSON"),
    ],
)  # fmt: skip
def test_the_remedy_is_a_command_that_gives_the_sentences(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=rf"{re.escape(name)} is .*{kind}") as refused:
        fetched(tmp_path, path=str(path))
    commands = re.findall(r"`([^`]+)`", str(refused.value))
    subprocess.run(["bash", "-c", commands[0]], check=True)
    (written,) = set(tmp_path.iterdir()) - {path}
    found = sentences(tmp_path / "out", written)
    assert sorted(re.sub("[,;]", "", line).replace("文", "sentence") for line in found) == sorted(NUMBERED)


def test_a_table_that_is_text_after_all_is_read_after_the_other_remedy(tmp_path: Path) -> None:
    for number, delimiter in enumerate("\t,"):
        path = write(tmp_path / f"{number}.txt", "".join(f"hello{delimiter}{s}\n" for s in NUMBERED).encode())
        with pytest.raises(DataError, match=r"all of a row is the sentence") as refused:
            fetched(tmp_path, path=str(path))
        command = re.findall(r"`([^`]+)`", str(refused.value))[1]
        text = subprocess.run(["bash", "-c", command], input=path.read_bytes(), capture_output=True, check=True).stdout
        assert len(sentences(tmp_path / str(number), write(tmp_path / f"{number}.new.txt", text))) == 400


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.json", "x.jsonl.gz"])
def test_a_tables_name_is_refused_whatever_is_in_it(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=r"x\.\S+ is (a table, by its name|JSON);.* \.txt file"):
        fetched(tmp_path, path=str(write(tmp_path / name, NUMBERED_TEXT)))


@pytest.mark.parametrize(
    "line",
    [
        "well , he said {n} , we go .",
        "Well, he said {n}, we go.",
        "over 1,00{n} people , or more",
        '"Stop, {n}!" he cried.',
        "a \t b \t {n} \t c",
        "{{ {n} }} is a set",
        "[ {n} ] he laughs",
        '[ " stop " , {n} ] he said',
        "<s> {n} </s>",
        "你好，{n}。",
        "x | y | {n}",
    ],
)
def test_prose_and_tokenised_text_are_no_tables(tmp_path: Path, line: str) -> None:
    (file,) = text_files(write(tmp_path / "x.txt", "\n".join(line.format(n=n) for n in range(9)).encode()))
    assert len(list(reader_named("lines").lines(file))) == 9


def test_a_link_to_a_folder_is_told(tmp_path: Path) -> None:
    for name in ("in", "elsewhere"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "a.txt", NUMBERED_TEXT)
    (tmp_path / "in/sub").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/gone.txt").symlink_to(tmp_path / "nowhere")
    _, description = fetched(tmp_path, path=str(tmp_path / "in"))
    assert description["sentences"]["train"] < 400
    assert [note.split(" (")[0] for note in description["notes"]] == ["not read: gone.txt/, sub/"]


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_what_is_not_read_is_told_with_the_reason(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    members = {"a.txt": NUMBERED_TEXT, "b.text": b"no\n", "c.tok": b"no\n", ".d.txt": b"no\n", "e.zip": b"no\n"}
    path = tmp_path / "source"
    if kind == "zip":
        write_zip(path, members)
    else:
        path.mkdir()
        for name, content in members.items():
            write(path / name, content)
    _, description = fetched(tmp_path, path=str(path))
    said = capsys.readouterr().err
    for line in (r"b\.text, c\.tok \(not \.txt", r"\.d\.txt \(hidden\)", r"e\.zip \(an archive: unpack it"):
        assert re.search(rf"^note: not read: {line}", said, re.MULTILINE)
        assert any(re.match(f"not read: {line}", note) for note in description["notes"])


def test_the_files_beside_named_splits_are_told(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.mkdir()
    for name in (*SPLITS, "more"):
        write(path / f"{name}.txt", f"{name} a\n{name} b\n".encode())
    _, description = fetched(tmp_path, path=str(path), splits={split: f"{split}.txt" for split in SPLITS})
    assert description["notes"] == ["not read: more.txt (not among `splits`)"]
