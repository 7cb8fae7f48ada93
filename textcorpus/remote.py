"""A corpus at a URI (s3://bucket/folder, gs://..., https://..., file:///mnt/...), by fsspec.

Credentials are those that each store's client finds by itself (environment, configuration files, a machine's role).
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import fsspec

from textcorpus.sources import refuse_outside
from textvae.addresses import masked, shown
from textvae.errors import DataError, SettingsError, TextVAEError, UnavailableError
from textvae.files import fingerprint
from textvae.progress import Progress, progress

URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""What to install for a scheme: pyproject.toml's name of it."""
CHECKSUMS = ("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "content_md5")
TIMES = ("Last-Modified", "LastModified", "last_modified", "updated", "mtime", "created")
SIZES = ("size", "Size")
FOLDERLESS = ("http", "https")


class Bar(fsspec.Callback):  # type: ignore[misc]
    """fsspec's progress, as ours."""

    def __init__(self, bar: Progress) -> None:
        super().__init__()
        self.bar = bar

    def relative_update(self, inc: int = 1) -> None:
        """So many bytes more."""
        self.bar.advance(inc)


def is_uri(path: str) -> bool:
    """Whether `path` is a URI rather than a path of this machine."""
    return URI.match(path) is not None


def named(path: str | None) -> str | None:
    """`path` as it is written down and shown: of a URI without its secrets."""
    return shown(path) if path is not None and is_uri(path) else path


def version(uri: str) -> str:
    """What the store says that identifies the content: a checksum (ETag), else date and size. Nothing is downloaded.

    Raises DataError where there is nothing, SettingsError for an unknown scheme, UnavailableError for a store that
    cannot be asked or that tells nothing of the kind.
    """
    with answered(uri):
        system, path = located(uri)
        if is_folder(system, uri, path):
            said = {name: identity(info) for name, info in system.find(path, detail=True).items()}
            return f"{len(said)} files {fingerprint(said)}" if said and all(said.values()) else unknown(uri)
        return identity(system.info(path)) or unknown(uri)


def identity(info: dict[str, Any]) -> str:
    """Checksum, or date and size, of what fsspec says of a file; empty where it says neither."""
    for names in (CHECKSUMS, TIMES):
        for name in names:
            if info.get(name):
                size = next((info[key] for key in SIZES if info.get(key) is not None), "unknown")
                return f"{name} {info[name]}, size {size}"
    return ""


def unknown(uri: str) -> str:
    """Raise UnavailableError: the store says nothing by which a change could be seen."""
    raise UnavailableError(
        f"{shown(uri)}: the store tells neither checksum nor date, so a change would go unnoticed; "
        "give the text's `sha256` beside `path`"
    )


def brought(uri: str, folder: Path) -> Path:
    """Copy what is at `uri`, a file or all files below it, into `folder`. Raises like `version`."""
    with answered(uri):
        system, path = located(uri)
        local = folder / name_of(uri)
        if is_folder(system, uri, path):
            names = sorted(system.find(path))
            if not names:
                raise FileNotFoundError(uri)
            targets = {name: local / inside(name, path, uri) for name in names}
        else:
            targets = {path: local}
        with progress(f"fetch {shown(uri)}", None, "bytes") as bar:
            for name, target in targets.items():
                target.parent.mkdir(parents=True, exist_ok=True)
                system.get_file(name, str(target), callback=Bar(bar))
    return local


def name_of(uri: str) -> str:
    """The last part of a URI's path: a name for its copy."""
    return uri.split("?")[0].rstrip("/").rsplit("/", 1)[-1].lstrip(".") or "corpus"


def inside(name: str, folder: str, uri: str) -> str:
    """The name of a file below `folder`, relative to it. Raises DataError where it leads out of it."""
    relative = name.removeprefix(folder.rstrip("/")).lstrip("/")
    refuse_outside(relative, f"{relative} in {shown(uri)}")
    return relative


def located(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path on it."""
    # aiohttp looks at HTTPS_PROXY and NO_PROXY only when told to
    options = {"client_kwargs": {"trust_env": True}} if scheme(uri) in FOLDERLESS else {}
    system, path = fsspec.url_to_fs(uri, **options)
    return system, path


def scheme(uri: str) -> str:
    """`s3` of `s3://bucket/key`."""
    return uri.split(":")[0].lower()


def is_folder(system: Any, uri: str, path: str) -> bool:
    """Whether `path` is a folder; the web has none."""
    return scheme(uri) not in FOLDERLESS and bool(system.isdir(path))


@contextmanager
def answered(uri: str) -> Iterator[None]:
    """Turn what stores and their clients raise into one error that names the URI, the reason and the remedy."""
    remedy = "check the network, the proxy and the credentials"
    unavailable = partial("{}: {}; {}".format, shown(uri))
    try:
        yield
    except (TextVAEError, MemoryError):
        raise
    except ImportError as error:
        extra = EXTRAS.get(scheme(uri))
        how = f"pip install -c constraints.txt -e '.[{extra}]'" if extra else "pip install it"
        raise UnavailableError(unavailable(str(error).rstrip("."), how)) from None
    except FileNotFoundError as error:
        reason = error.__cause__  # what the web's client says of every failure
        if reason is None or getattr(reason, "status", None) in (404, 410):
            raise DataError(f"{shown(uri)}: no such file or folder there; correct `path` in params.yaml") from None
        raise UnavailableError(unavailable(said_by(reason, uri), remedy)) from None
    except ValueError as error:
        if "rotocol not known" not in str(error):
            raise UnavailableError(unavailable(said_by(error, uri), remedy)) from None
        raise SettingsError(
            f"`path: {shown(uri)}`: {error}; known are s3, gs, http, https, file and fsspec's others"
        ) from None
    except Exception as error:  # each store's client has its own
        raise UnavailableError(unavailable(said_by(error, uri), remedy)) from None


def said_by(error: BaseException, uri: str) -> str:
    """One line on what went wrong with `uri`."""
    return masked(" ".join(str(error).split()), uri) or type(error).__name__


@contextmanager
def called(folder: Path, uri: str) -> Iterator[None]:
    """Errors about the copy that was brought to `folder` name the URI that it came from."""
    try:
        yield
    except DataError as error:
        raise DataError(str(error).replace(str(folder / name_of(uri)), shown(uri))) from None
