"""Corpora from the web, by pooch: checked by their hash, from the first address that has them, kept in a cache.

The cache is $TEXTVAE_CACHE, or the user's cache folder; a file put there by hand is as good as a downloaded one. What
arrived before a connection broke is kept beside it as `.NAME.part`, and the next attempt asks for the rest only.
Proxies and certificates are those of the environment (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE).
"""

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urldefrag

import pooch
import requests
import urllib3

from textcorpus.sources import damage_reported, open_tar_member
from textvae.addresses import masked, shown
from textvae.config import Download
from textvae.errors import DataError, UnavailableError
from textvae.progress import progress

RETRIES = 2
"""After a broken connection, a server's error or a wrong hash; with pauses of one and two seconds."""
CONNECT_SECONDS, READ_SECONDS = 10.0, 30.0
PATIENCE_SECONDS, SLOWEST_BYTES_PER_SECOND = 30.0, 5_000
"""A download slower than this after so many seconds is given up (what arrived is kept)."""
CHUNK_BYTES = 2**16


class RefusedError(Exception):
    """The server answered that it will not give the file: asking again is no use."""


def cache_folder() -> Path:
    """Where downloads are kept."""
    return Path(os.environ.get("TEXTVAE_CACHE") or pooch.os_cache("textvae")).expanduser().absolute()


def downloaded(download: Download, dataset: str) -> Path:
    """The file in the cache, downloaded where it is not there, or is not what its hash says.

    Raises UnavailableError that names every address with what went wrong, and where to put the file by hand.
    """
    folder = cache_folder() / dataset
    path, failures = folder / download.name, []
    known_hash = f"sha256:{download.sha256}" if download.sha256 else f"md5:{download.md5}"
    with locked(folder):
        for url in (download.url, *download.mirrors):
            source = pooch.create(
                path=folder,
                base_url="",
                registry={download.name: known_hash},
                urls={download.name: url},
                retry_if_failed=RETRIES,
            )
            try:
                return Path(source.fetch(download.name, downloader=partial(get, path=path)))
            except (requests.RequestException, RefusedError, DataError, ValueError) as error:
                failures.append(f"{shown(url)}: {masked(reason(error), url)}")
                archive, member = urldefrag(url)
                if member:  # its own hash is unknown: do not keep one that lacks the right text
                    (folder / PurePosixPath(archive).name).unlink(missing_ok=True)
    found = " (what is there has another hash)" if path.exists() else ""
    raise UnavailableError(
        f"{download.name} of {dataset} could not be downloaded ({'; '.join(failures)}); check the network and the "
        f"proxy, or get the file elsewhere and put it at {path}{found}: its {known_hash.replace(':', ' is ')}"
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time downloads into a folder; the next finds what the first one brought."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except PermissionError as error:
        raise UnavailableError(f"{error.filename}: no permission to write; set TEXTVAE_CACHE to a folder") from None


def get(url: str, output_file: str, _: object, *, path: Path) -> None:
    """Pooch's downloader: `url` -> `output_file`, to become `path`; behind a `#` is the member of a tar.gz archive.

    Raises requests.RequestException for what another attempt may mend, RefusedError or DataError for the rest.
    """
    address, member = urldefrag(url)
    if not member:
        complete(address, part := path.with_name(f".{path.name}.part"))  # the same for all addresses
        part.replace(output_file)
        return
    archive = path.with_name(PurePosixPath(address).name)
    if not archive.exists():
        complete(address, part := archive.with_name(f".{archive.name}.part"))
        part.replace(archive)
    with damage_reported(str(archive)), open_tar_member(archive, member) as stream, Path(output_file).open("wb") as out:
        shutil.copyfileobj(stream, out)


def complete(url: str, part: Path) -> None:
    """Download into `part`, going on behind what it holds where the server can. Returns when all is there."""
    start = part.stat().st_size if part.exists() else 0
    # unencoded, so that a position in the stream is one in the file
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS)) as response:
        status = response.status_code
        if status == 416:  # nothing behind what is here, though it was not whole
            part.unlink()
            raise requests.ConnectionError("the rest cannot be had")
        if 400 <= status < 500 and status not in (408, 425, 429):
            raise RefusedError(f"{status} {response.reason}")
        response.raise_for_status()
        if status != 206:
            start = 0  # the server sends the whole file
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError("another part came than the one that was asked for")
        length = response.headers.get("Content-Length")
        with part.open("ab" if start else "wb") as output:
            copy(response, output, part.name[1:-5], int(length) if length else None)


def copy(response: requests.Response, output: BinaryIO, name: str, total: int | None) -> None:
    """Write the body as it comes. Raises requests.RequestException when it is cut short, breaks off or crawls."""
    received, started = 0, time.monotonic()
    with progress(f"fetch {name}", total, unit="bytes") as bar:
        try:
            while chunk := response.raw.read1(CHUNK_BYTES):
                output.write(chunk)
                received += len(chunk)
                bar.advance(len(chunk))
                seconds = time.monotonic() - started
                if seconds > PATIENCE_SECONDS and received < seconds * SLOWEST_BYTES_PER_SECOND:
                    raise requests.Timeout(f"only {received:,} bytes came in {seconds:.0f} seconds")
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(str(error)) from None


def reason(error: Exception) -> str:
    """One line on what went wrong, without the names of Python's classes and objects."""
    text = " ".join(str(error).split())
    if isinstance(error, requests.exceptions.ConnectTimeout | requests.exceptions.ReadTimeout):
        return "no answer in time"
    if isinstance(error, ValueError) and "does not match" in text:
        return text.split(". Deleted")[0]
    cause = re.search(r"\(Caused by \w+\((?:.*?: )?(.*)\)\)$", text)
    return cause[1].strip("'\"") if cause else text
