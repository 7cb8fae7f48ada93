"""What a file's first bytes say that it is: text, compressed text, an archive, or something without lines of text.

The name is not asked: a download may have any, and a renamed file keeps its bytes.
"""

import bz2
import codecs
import gzip
import lzma
import re
import shlex
import tarfile
from collections.abc import Callable, Collection
from pathlib import PurePosixPath
from typing import IO, cast

HEAD_BYTES = 2**15
"""So many first bytes are looked at."""

Opener = Callable[[IO[bytes]], IO[bytes]]
COMPRESSED: tuple[tuple[bytes, Opener], ...] = (
    (rb"\x1f\x8b\x08", lambda stream: cast(IO[bytes], gzip.GzipFile(fileobj=stream))),
    (rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", lambda stream: cast(IO[bytes], bz2.BZ2File(stream))),
    (rb"\xfd7zXZ\0", lambda stream: cast(IO[bytes], lzma.open(stream))),  # noqa: SIM115
)
"""What the standard library decompresses."""

PARQUET = (
    'write its column of text, one sentence a line: `python -c "import sys; from pyarrow import parquet; '
    "[print(' '.join(text.split())) for text in parquet.read_table(sys.argv[1])['text'].to_pylist()]\" "
    "{name} > {stem}.sentences.txt`, with its column's name for `text`"
)
PANDOC = (
    "take its text out: `pandoc --to plain --wrap none {name} > {stem}.sentences.txt`, then put one sentence on a line"
)
TABLE = "save its column of sentences as text, one sentence a line"
SAVE_AS_TEXT = "save it as plain text in UTF-8, one sentence a line"
REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (rb"PAR1\x15", "a Parquet table", PARQUET),
    (rb"ARROW1\0\0|FEA1\0", "an Arrow table", TABLE),
    (rb"Obj\x01", "an Avro table", TABLE),
    (rb"SQLite format 3\0", "an SQLite data base", TABLE),
    (rb"\x28\xb5\x2f\xfd", "compressed with Zstandard", "decompress it: `zstd -d {name}`"),
    (rb"\x04\x22\x4d\x18", "compressed with LZ4", "decompress it: `lz4 -d {name}`"),
    (rb"\x1f\x9d", "compressed with `compress`", "decompress it: `gzip -d {name}`"),
    (rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ\0", "compressed twice", "decompress it once"),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it: `7z x {name}`"),
    (rb"Rar!\x1a\x07", "a RAR archive", "unpack it: `unrar x {name}`"),
    (rb"PK(\x03\x04|\x05\x06)", "a zip archive or an office document", "unpack it, or save it as plain text"),
    (rb"%PDF-", "a PDF document", "take its text out: `pdftotext {name}`, then put one sentence on a line"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a document of an older Office program", SAVE_AS_TEXT),
    (rb"\{\\rtf", "an RTF document", SAVE_AS_TEXT),
    (rb"(\xef\xbb\xbf)?\s*<(?i:!doctype html|html)\b", "a page of HTML", PANDOC.replace("--to", "--from html --to")),
    (rb"(\xef\xbb\xbf)?<\?xml ", "an XML document", "write its sentences to a text file, one a line"),
    (rb"\x89HDF\r\n|\x93NUMPY|\x80[\2-\5]", "data of a program (HDF5, NumPy, pickle)", TABLE),
    (
        rb"(\xef\xbb\xbf)?(WEBVTT\b|\s*\d+\r?\n\d+:\d\d:\d\d[,.]\d+ -->)",
        "subtitles",
        "take numbers and times out: `grep -vE -e '-->|^[0-9]*[[:space:]]*$|^WEBVTT' {name} > {stem}.sentences.txt`",
    ),
    (
        rb"[\0-\x7f]*?\x1b\$[@AB]",
        "text in ISO-2022-JP",
        "convert it: `iconv -f ISO-2022-JP -t UTF-8 {name} > {stem}.utf8.txt`",
    ),
    (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*", "an image", "give text"),
    (rb"version https://git-lfs\.", "a pointer of Git LFS and not the file", "get the file: `git lfs pull`"),
    (rb"(md5: \w+\n[\s\S]*)?outs:\n- ", "a pointer of DVC and not the file", "give the file itself, after `dvc pull`"),
    (
        rb"\xff\xfe\0\0|\0\0\xfe\xff",
        "text in UTF-32",
        "convert it: `iconv -f UTF-32 -t UTF-8 {name} > {stem}.utf8.txt`",
    ),
    (rb"\xff\xfe|\xfe\xff", "text in UTF-16", "convert it: `iconv -f UTF-16 -t UTF-8 {name} > {stem}.utf8.txt`"),
    (rb"([^\0]\0){4}", "text in UTF-16", "convert it: `iconv -f UTF-16LE -t UTF-8 {name} > {stem}.utf8.txt`"),
    (rb"(\0[^\0]){4}", "text in UTF-16", "convert it: `iconv -f UTF-16BE -t UTF-8 {name} > {stem}.utf8.txt`"),
)
"""How a file begins that holds no lines in UTF-8, what it is, and the remedy."""
DOCUMENTS = (
    ("word/document.xml", "a Word document", PANDOC),
    ("xl/workbook.xml", "an Excel workbook", TABLE),
    ("ppt/presentation.xml", "a PowerPoint presentation", SAVE_AS_TEXT),
    ("META-INF/container.xml", "an EPUB book", PANDOC),
    ("META-INF/manifest.xml", "a document of LibreOffice", SAVE_AS_TEXT),
)
"""What a zip archive is that has this member."""
CARRIAGE_RETURNS = "make them line feeds: `tr '\\r' '\\n' < {name} > {stem}.lf.txt`"
SEPARATORS = {"\u2028": "U+2028", "\u2029": "U+2029", "\x85": "U+0085"}
"""What Unicode ends lines with; inside a line they are letters."""
CONTROLS = bytes({*range(32)} - {*b"\t\n\v\f\r\x1b"})
"""Bytes that text hardly has."""


def decompressor(head: bytes) -> Opener | None:
    """What decompresses a file with these first bytes; None for what is not compressed or cannot be read."""
    return next((opener for start, opener in COMPRESSED if re.match(start, head)), None)


def is_tar(head: bytes) -> bool:
    """Whether a tar archive begins like this."""
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return head[:1024] == bytes(1024)  # an archive without members
    return True


def refused(head: bytes, name: str) -> str | None:
    """What the file with these first (decompressed) bytes is and the remedy, where it holds no lines in UTF-8."""
    for start, kind, remedy in REFUSED:
        if re.match(start, head):
            return said(kind, remedy, name)
    if is_tar(head):
        return said("a tar archive inside another file", "unpack it", name)
    ends = head.rstrip(b"\r\n")
    if ends.count(b"\r") - ends.count(b"\r\n") > ends.count(b"\n"):
        return said("text whose lines end in carriage returns alone", CARRIAGE_RETURNS, name)
    for separator, called in SEPARATORS.items() if b"\n" not in ends else ():
        if (found := separator.encode()) in ends and is_utf_8(head):
            octets = "".join(f"\\x{byte:02x}" for byte in found)
            remedy = f"make them line feeds: `sed 's/{octets}/\\n/g' {{name}} > {{stem}}.lf.txt`"
            return said(f"text whose lines end in {called} and not in line feeds", remedy, name)
    if not is_utf_8(head) and len(head) < 20 * sum(head.count(byte) for byte in CONTROLS):
        return said(
            "no text, but data of a kind that is not known here", "give text in UTF-8, one sentence a line", name
        )
    return None


def refused_document(members: Collection[str], name: str) -> str | None:
    """What a zip archive with these members is and the remedy, where it is a document and not an archive of texts."""
    return next((said(kind, remedy, name) for member, kind, remedy in DOCUMENTS if member in members), None)


def is_utf_8(head: bytes) -> bool:
    """Whether a text in UTF-8 may begin like this; the last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def said(kind: str, remedy: str, name: str) -> str:
    """`a Parquet table; write its column ...`, with the file's name in the command."""
    path = PurePosixPath(name)
    stem = str(path.with_name(path.name.split(".")[0] or "text"))
    return f"{kind}; " + remedy.replace("{name}", shlex.quote(name)).replace("{stem}", shlex.quote(stem))
