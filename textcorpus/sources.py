"""Text files, plain, compressed or inside an archive, read line by line. Nothing is ever extracted to disk.

Their first bytes say what they are (textcorpus/file_kinds.py); gzip, bzip2 and xz, zip and tar can be read.

What a line is says textvae/lines.py. A byte order mark at the start of a file is dropped. What is wrong is a DataError
naming file and line.
"""

import hashlib
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from textcorpus.file_kinds import HEAD_BYTES, decompressor, is_tar, refused, refused_document
from textvae.errors import DataError
from textvae.files import sha256_of_file
from textvae.lines import decoded

MAX_LINE_BYTES = 1_000_000
MAX_EXPANSION = 100
"""An archive may hold this many times its own size (text compresses 3 to 10 times, a zip bomb 1,000 times) ..."""
FREE_BYTES = 256 * 2**20
"""... and this much in any case."""
TEXT_SUFFIXES = (".txt", ".gz", ".bz2", ".xz")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz")
Refusal = Callable[[bytes, str], str | None]
"""Of a file's first bytes and its name: what it is and the remedy, None where it may be read."""
DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,
    NotImplementedError,
    UnicodeError,
)
"""What the decompressors, zipfile and tarfile raise on damaged, encrypted or strangely compressed input."""


@dataclass(frozen=True)
class TextFile:
    """One text: `name` is its path inside the folder or archive, `open` gives its bytes, perhaps compressed."""

    name: str
    label: str
    """How messages name it."""
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    stored_bytes: int
    """Size on disk, of the whole archive where it comes from one."""

    @property
    def left_out(self) -> str | None:
        """Why it is not read without being named; None where the name says that it is text."""
        if hidden(self.name):
            return "hidden"
        if self.name.endswith("/"):
            return "a link to a folder, or to nothing: put the files themselves there"
        if self.name.endswith(ARCHIVE_SUFFIXES):
            return "an archive: unpack it, or give it alone as `path`"
        if not self.name.endswith(TEXT_SUFFIXES):
            return "not .txt, .gz, .bz2 or .xz: rename it if it is text, or name it under `splits`"
        return None


def text_files(path: Path) -> list[TextFile]:
    """The files of a folder or archive (zip, tar), sorted by name, or the one file that `path` is.

    Raises DataError for a path that is missing or holds nothing, and for an archive that is damaged, a document of an
    office program, or has a member with an absolute path, a `..`, or that is a link or a device.
    """
    try:
        if path.is_dir():
            files = [on_disk(file, file.relative_to(path).as_posix()) for file in files_below(path)]
            links = sorted(link for link in path.rglob("*") if link.is_symlink() and not link.is_file())
            files += [on_disk(link, f"{link.relative_to(path).as_posix()}/") for link in links]
        elif not path.exists():
            raise DataError(f"{path}: no such file or folder; correct `path` in params.yaml")
        elif (kind := archive_kind(path)) is not None:
            files = zip_members(path) if kind == "zip" else tar_members(path)
        elif path.suffix == ".zip":
            raise DataError(f"{path} is not a zip archive, or is cut short; fetch it again")
        else:
            files = [on_disk(path, path.name)]
    except PermissionError as error:
        raise DataError(f"{error.filename}: no permission to read it; change that with chmod") from None
    if all(hidden(file.name) for file in files):
        raise DataError(f"{path} holds no files; put the text there, one sentence per line")
    return files


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, sorted by name."""
    return sorted(file for file in folder.rglob("*") if file.is_file())


def hidden(name: str) -> bool:
    """Whether some part of the path starts with a dot, or is the folder of attributes that macOS puts into archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def on_disk(path: Path, name: str) -> TextFile:
    """A file on disk."""
    return TextFile(name, str(path), lambda: path.open("rb"), path.stat().st_size if path.is_file() else 0)


def zip_members(path: Path) -> list[TextFile]:
    """The members of a zip archive, to be streamed from it."""
    with damage_reported(str(path)), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if what := refused_document({member.filename for member in members}, str(path)):
        raise DataError(f"{path} is {what}")
    files = []
    for member in sorted(members, key=lambda member: member.filename):
        name, label = member.filename, f"{member.filename} in {path}"
        refuse_outside(name, label)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{label}: a symbolic link; put the file itself into the archive")
        if not member.is_dir():
            files.append(TextFile(name, label, partial(open_member, path, name), path.stat().st_size))
    return files


def tar_members(path: Path) -> list[TextFile]:
    """The members of a tar archive, to be streamed from it. A leading `./` is no part of their names."""
    files, total = [], 0
    with damage_reported(str(path)), tarfile.open(path) as archive:
        for member in archive:
            label = f"{member.name} in {path}"
            refuse_outside(member.name, label)
            if member.isdir():
                continue
            if not member.isfile():
                raise DataError(f"{label}: a link or a device; put the file itself into the archive")
            total += member.size
            refuse_bomb(total, path.stat().st_size, label)  # before what it holds is decompressed to reach the next one
            name = str(PurePosixPath(member.name))
            files.append(TextFile(name, label, partial(open_tar_member, path, name), path.stat().st_size))
    return sorted(files, key=lambda file: file.name)


def archive_kind(path: Path) -> str | None:
    """`zip` or `tar` (compressed or not) for a file that is such an archive, whatever its name. None for another."""
    if not path.is_file():
        return None
    if zipfile.is_zipfile(path):
        return "zip"
    with damage_reported(str(path)), decompressed(on_disk(path, path.name)) as stream:
        return "tar" if is_tar(stream.peek()) else None


def refuse_outside(name: str, label: str) -> None:
    """Raise DataError for a member whose name leads out of its archive's folder."""
    if name.startswith("/") or "\\" in name or ".." in PurePosixPath(name).parts:
        raise DataError(f"{label}: the name leaves the archive's folder; this is no archive to trust")


def refuse_bomb(size: int, archive_bytes: int, where: str) -> None:
    """Raise DataError for more bytes than an archive of this size may hold."""
    if size > max(FREE_BYTES, MAX_EXPANSION * archive_bytes):
        raise DataError(
            f"{where}: more than {MAX_EXPANSION} times as large as its archive, like a zip bomb; "
            "give the text uncompressed if it is what it should be"
        )


def open_member(path: Path, name: str) -> IO[bytes]:
    """A stream of one member of a zip archive."""
    with zipfile.ZipFile(path) as archive:  # the file below stays open until the member is closed
        return archive.open(name)


@contextmanager
def open_tar_member(path: Path, name: str) -> Iterator[IO[bytes]]:
    """A stream of one member of a tar archive. Raises DataError where there is none."""
    with tarfile.open(path) as archive:
        for member in archive:
            if str(PurePosixPath(member.name)) == name and (stream := archive.extractfile(member)) is not None:
                with stream:
                    yield stream
                return
    raise DataError(f"{path} has no file {name!r}")


@contextmanager
def decompressed(file: TextFile) -> Iterator[io.BufferedReader]:
    """A stream of the file's bytes, decompressed once if they are compressed. Its `peek` gives the first HEAD_BYTES."""
    with file.open() as stored:
        stream: io.BufferedReader = io.BufferedReader(cast(io.RawIOBase, stored), HEAD_BYTES)
        opener = decompressor(stream.peek())
        if opener is not None:
            stream = io.BufferedReader(cast(io.RawIOBase, opener(cast(IO[bytes], stream))), HEAD_BYTES)
        yield stream


def read_lines(file: TextFile, also_refused: Refusal | None = None) -> Iterator[str]:
    """The lines of a file, without their ends, one after the other in bounded memory.

    `also_refused`, given the first bytes and the name, says what the file is and the remedy if its lines are none to
    take. Raises DataError naming the file for that and for what file_kinds refuses, or the file and the line: longer
    than MAX_LINE_BYTES, not UTF-8, a NUL byte, a carriage return inside, more bytes than MAX_EXPANSION allows, damaged
    or encrypted.
    """
    with damage_reported(file.label), decompressed(file) as stream:
        name = file.label if Path(file.label).is_file() else file.name
        head = stream.peek()
        if what := refused(head, name) or (also_refused and also_refused(head, name)):
            raise DataError(f"{file.label} is {what}")
        yield from lines_of(stream, file.label, file.stored_bytes)


def lines_of(stream: io.BufferedReader, label: str, stored_bytes: int) -> Iterator[str]:
    """The lines of a stream of text. Raises DataError as `read_lines` does."""
    number = total = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        where = f"{label}, line {number}"
        if len(line) > MAX_LINE_BYTES:
            raise DataError(f"{where}: longer than {MAX_LINE_BYTES:,} bytes; put one sentence on a line")
        total += len(line)
        refuse_bomb(total, stored_bytes, where)
        yield decoded(line, where, first=number == 1)


@contextmanager
def damage_reported(label: str) -> Iterator[None]:
    """Turn what the decompressors raise into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except PermissionError:
        raise DataError(f"{label}: no permission to read it; change that with chmod") from None
    except DAMAGE as error:
        raise DataError(f"{label} cannot be read ({error}); it is damaged or encrypted: fetch it again") from None


def content_sha256(path: Path) -> str:
    """The fingerprint of `path`: a file's SHA-256, or one over names and SHA-256s of a folder's files (no hidden ones).

    Raises DataError where there is nothing.
    """
    if path.is_file():
        return sha256_of_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; correct `path` in params.yaml")
    digest = hashlib.sha256()
    for file in files_below(path):
        name = file.relative_to(path).as_posix()
        if not hidden(name):
            digest.update(f"{name}\0{sha256_of_file(file)}\0".encode())
    return digest.hexdigest()
