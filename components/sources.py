"""Text files, plain, gzipped or inside a zip or tar.gz archive, read line by line. Nothing is ever extracted to disk.

Lines end at `\\n` alone (a `\\r` before it is white space to the tokeniser), so that U+0085 or U+2028 inside a sentence
splits nothing. A byte order mark at the start of a file is dropped. What is wrong is a DataError naming file and line.
"""

import gzip
import hashlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from textvae.errors import DataError
from textvae.files import sha256_of_file

MAX_LINE_BYTES = 1_000_000
MAX_EXPANSION = 100
"""An archive may hold this many times its own size (text compresses 3 to 10 times, a zip bomb 1,000 times) ..."""
FREE_BYTES = 256 * 2**20
"""... and this much in any case."""
TEXT_SUFFIXES = (".txt", ".gz")
TAR_SUFFIXES = (".tar.gz", ".tgz")
DAMAGE = (
    OSError,
    EOFError,
    zlib.error,
    zipfile.BadZipFile,
    tarfile.TarError,
    RuntimeError,
    NotImplementedError,
    UnicodeError,
)
"""What gzip, zipfile and tarfile raise on damaged, encrypted or strangely compressed input."""


@dataclass(frozen=True)
class TextFile:
    """One text: `name` is its path inside the folder or archive, `open` gives its (decompressed) bytes."""

    name: str
    label: str
    """How messages name it."""
    open: Callable[[], AbstractContextManager[IO[bytes]]]
    archive_bytes: int | None
    """Size of the compressed file that it comes from, None for plain text."""

    @property
    def is_text(self) -> bool:
        """Whether the suffix says that it is text, so that it is read without being named."""
        return self.name.endswith(TEXT_SUFFIXES)


def text_files(path: Path) -> list[TextFile]:
    """The files of a folder or archive (zip, tar.gz), sorted by name, or the one file that `path` is.

    Hidden files are left out (and `__MACOSX/`). Raises DataError for a path that is missing or holds nothing, and for
    an archive that is damaged or has a member with an absolute path, a `..`, or that is a link or a device.
    """
    try:
        if path.is_dir():
            files = [plain_or_gzip(file, file.relative_to(path).as_posix(), str(file)) for file in files_below(path)]
        elif not path.exists():
            raise DataError(f"{path}: no such file or folder; correct `path` in params.yaml")
        elif zipfile.is_zipfile(path):
            files = zip_members(path)
        elif path.name.endswith(TAR_SUFFIXES):
            files = tar_members(path)
        elif path.suffix == ".zip":
            raise DataError(f"{path} is not a zip archive, or is cut short; fetch it again")
        else:
            files = [plain_or_gzip(path, path.name, str(path))]
    except PermissionError as error:
        raise DataError(f"{error.filename}: no permission to read it; change that with chmod") from None
    if not files:
        raise DataError(f"{path} holds no files; put the text there, one sentence per line")
    return files


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and its subfolders, hidden ones left out, sorted by name."""
    found = (file for file in folder.rglob("*") if file.is_file() and not hidden(file.relative_to(folder).as_posix()))
    return sorted(found)


def hidden(name: str) -> bool:
    """Whether some part of the path starts with a dot, or is the folder of attributes that macOS puts into archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def plain_or_gzip(path: Path, name: str, label: str) -> TextFile:
    """A file on disk."""
    if path.suffix == ".gz":
        return TextFile(name, label, lambda: cast(IO[bytes], gzip.open(path)), path.stat().st_size)
    return TextFile(name, label, lambda: path.open("rb"), None)


def zip_members(path: Path) -> list[TextFile]:
    """The members of a zip archive, to be streamed from it."""
    with damage_reported(str(path)), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    files = []
    for member in sorted(members, key=lambda member: member.filename):
        name, label = member.filename, f"{member.filename} in {path}"
        refuse_outside(name, label)
        if stat.S_ISLNK(member.external_attr >> 16):
            raise DataError(f"{label}: a symbolic link; put the file itself into the archive")
        if not member.is_dir() and not hidden(name):
            files.append(TextFile(name, label, partial(open_member, path, name), path.stat().st_size))
    return files


def tar_members(path: Path) -> list[TextFile]:
    """The members of a tar.gz archive, to be streamed from it. A leading `./` is no part of their names."""
    files, total = [], 0
    with damage_reported(str(path)), tarfile.open(path, "r:gz") as archive:
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
            if not hidden(name):
                files.append(TextFile(name, label, partial(open_tar_member, path, name), path.stat().st_size))
    return sorted(files, key=lambda file: file.name)


def is_archive(path: Path) -> bool:
    """Whether `path` is an archive of several files."""
    return path.is_file() and (path.name.endswith(TAR_SUFFIXES) or zipfile.is_zipfile(path))


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
        member = archive.open(name)
    return cast(IO[bytes], gzip.open(member)) if name.endswith(".gz") else member


@contextmanager
def open_tar_member(path: Path, name: str) -> Iterator[IO[bytes]]:
    """A stream of one member of a tar.gz archive. Raises DataError where there is none."""
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if str(PurePosixPath(member.name)) == name and (stream := archive.extractfile(member)) is not None:
                with stream, gzip.GzipFile(fileobj=stream) if name.endswith(".gz") else nullcontext(stream) as text:
                    yield cast(IO[bytes], text)
                return
    raise DataError(f"{path} has no file {name!r}")


def read_lines(file: TextFile) -> Iterator[str]:
    """The lines of a file, without their ends, one after the other in bounded memory.

    Raises DataError naming the file and the line: longer than MAX_LINE_BYTES, not UTF-8, a NUL byte, more bytes than
    MAX_EXPANSION allows, damaged or encrypted.
    """
    total = 0
    with damage_reported(file.label), file.open() as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{file.label}, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise DataError(f"{where}: longer than {MAX_LINE_BYTES:,} bytes; put one sentence on a line")
            total += len(line)
            if file.archive_bytes is not None:
                refuse_bomb(total, file.archive_bytes, where)
            yield decoded(line, number, where)


def decoded(line: bytes, number: int, where: str) -> str:
    """A line as text, without its end. Raises DataError for NUL bytes and for bytes that are not UTF-8."""
    if b"\0" in line:
        raise DataError(f"{where}: a NUL byte; is this text? UTF-16 becomes UTF-8 with `iconv -f UTF-16 -t UTF-8`")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        wrong = line[error.start]
        raise DataError(
            f"{where}: not UTF-8 (0x{wrong:02x} at byte {error.start}); convert it, say with `iconv -f LATIN1 -t UTF-8`"
        ) from None
    return text.removesuffix("\n")


@contextmanager
def damage_reported(label: str) -> Iterator[None]:
    """Turn what the decompressors raise into a DataError that names the file."""
    try:
        yield
    except DataError:
        raise
    except DAMAGE as error:
        raise DataError(f"{label} cannot be read ({error}); it is damaged or encrypted: fetch it again") from None


def content_sha256(path: Path) -> str:
    """The fingerprint of `path`: a file's SHA-256, or one over the names and SHA-256s of a folder's files.

    Raises DataError where there is nothing.
    """
    if path.is_file():
        return sha256_of_file(path)
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder; correct `path` in params.yaml")
    digest = hashlib.sha256()
    for file in files_below(path):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of_file(file)}\0".encode())
    return digest.hexdigest()
