"""Downloads: only the right bytes are taken, from wherever they can be had, and never half of them."""

import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from web import Answer, Web, cut, drip, file, redirect, serving, status

from textcorpus import downloads
from textcorpus.downloads import downloaded
from textvae.config import Download
from textvae.errors import UnavailableError

TEXT = b"".join(b"sentence number %d .\n" % n for n in range(5000))
OTHER = TEXT.replace(b"4999", b"4998")
HALF = len(TEXT) // 2


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no proxy of this machine's, and no pauses between attempts."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TEXTVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))
    return tmp_path / "cache" / "mine"


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


def wanted(url: str, *mirrors: str, text: bytes = TEXT) -> Download:
    return Download(url=url, mirrors=list(mirrors), sha256=hashlib.sha256(text).hexdigest())


def tgz(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    return content.getvalue()


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def test_a_file_is_downloaded_once(web: Web, cache: Path) -> None:
    download = wanted(web.at("/a.txt", file(TEXT)))
    for _ in range(2):
        path = downloaded(download, "mine")
        assert path == cache / "a.txt"
        assert path.read_bytes() == TEXT
    assert web.requests == [("/a.txt", None)]
    assert {p.name for p in cache.iterdir()} == {"a.txt", ".lock"}


def test_an_md5_is_enough_where_nothing_better_is_published(web: Web) -> None:
    url = web.at("/a.txt", file(OTHER), file(TEXT))
    assert downloaded(Download(url=url, md5=hashlib.md5(TEXT).hexdigest()), "mine").read_bytes() == TEXT


@pytest.mark.parametrize(
    ("answers", "ranges"),
    [
        ([file(OTHER), file(TEXT)], [None, None]),
        ([cut(TEXT, HALF), file(TEXT)], [None, f"bytes={HALF}-"]),
        ([cut(TEXT, HALF), file(TEXT, ranges=False)], [None, f"bytes={HALF}-"]),
        ([cut(OTHER, len(TEXT) - 1), file(TEXT), file(TEXT)], [None, f"bytes={len(TEXT) - 1}-", None]),
        ([cut(TEXT, HALF, told=False), file(TEXT)], [None, None]),
        ([cut(TEXT + b"more", len(TEXT) + 1), file(TEXT), file(TEXT)], [None, f"bytes={len(TEXT) + 1}-", None]),
        ([status(503), status(429), file(TEXT)], [None, None, None]),
    ],
    ids=["wrong hash", "cut", "cut, no ranges", "cut, wrong", "cut in silence", "too long", "errors"],
)
def test_what_another_attempt_can_mend_is_mended(web: Web, answers: list[Answer], ranges: list[str | None]) -> None:
    assert downloaded(wanted(web.at("/a.txt", *answers)), "mine").read_bytes() == TEXT
    assert web.requests == [("/a.txt", asked) for asked in ranges]


@pytest.mark.parametrize(
    ("first", "attempts"),
    [(status(404), 1), (status(403), 1), (status(500), 3), (file(OTHER), 3), (cut(TEXT, 0, told=False), 3)],
    ids=["404", "403", "500", "wrong hash", "nothing"],
)
def test_the_second_address_is_asked_when_the_first_fails(web: Web, first: Answer, attempts: int) -> None:
    path = downloaded(wanted(web.at("/a.txt", first), web.at("/b/c.txt", file(TEXT))), "mine")
    assert path.name == "a.txt"
    assert path.read_bytes() == TEXT
    assert [name for name, _ in web.requests] == ["/a.txt"] * attempts + ["/b/c.txt"]


def test_half_a_file_of_the_first_address_is_completed_by_the_second(web: Web) -> None:
    first = web.at("/a.txt", cut(TEXT, HALF), status(404))
    assert downloaded(wanted(first, web.at("/b.txt", file(TEXT))), "mine").read_bytes() == TEXT
    assert web.requests[-1] == ("/b.txt", f"bytes={HALF}-")


def test_a_run_that_was_killed_leaves_no_file_that_passes_for_whole(web: Web, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / ".a.txt.part").write_bytes(TEXT[:HALF])
    (cache / "a.txt").write_bytes(TEXT[:HALF])  # say, copied by hand and cut short
    assert downloaded(wanted(web.at("/a.txt", file(TEXT))), "mine").read_bytes() == TEXT
    assert web.requests == [("/a.txt", f"bytes={HALF}-")]


def test_redirects_are_followed(web: Web) -> None:
    target = web.at("/new/place.txt", file(TEXT))
    assert downloaded(wanted(web.at("/a.txt", redirect(target))), "mine").read_bytes() == TEXT


def test_the_proxy_of_the_environment_is_asked(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{web.server_port}")
    web.at("http://corpora.invalid/a.txt", file(TEXT))
    assert downloaded(wanted("http://corpora.invalid/a.txt"), "mine").read_bytes() == TEXT


@pytest.mark.parametrize("setting", ["READ_SECONDS", "PATIENCE_SECONDS"])
def test_a_server_that_crawls_is_given_up(web: Web, monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    monkeypatch.setattr(downloads, setting, 0.2)
    monkeypatch.setattr(downloads, "RETRIES", 0)
    pause = 5.0 if setting == "READ_SECONDS" else 0.05  # silence; or a byte now and then, so that no read times out
    started = time.monotonic()
    crawling, good = web.at("/a.txt", drip(TEXT, pause)), web.at("/b.txt", file(TEXT))
    assert downloaded(wanted(crawling, good), "mine").read_bytes() == TEXT
    assert time.monotonic() - started < 3


def test_without_a_network_the_error_says_which_file_to_put_where(web: Web, cache: Path) -> None:
    refused = f"http://127.0.0.1:{closed_port()}/a.txt"
    download = wanted(refused, web.at("/b.txt", status(404)))
    with pytest.raises(UnavailableError) as caught:
        downloaded(download, "mine")
    message = str(caught.value)
    for part in (f"{refused}: ", "Connection refused", "/b.txt: 404", f"put it at {cache / 'a.txt'}", download.sha256):
        assert str(part) in message
    assert "\n" not in message
    assert len(message) < 700
    (cache / "a.txt").write_bytes(OTHER)
    with pytest.raises(UnavailableError, match="what is there has another hash"):
        downloaded(download, "mine")
    (cache / "a.txt").write_bytes(TEXT)
    assert downloaded(download, "mine").read_bytes() == TEXT


def test_wrong_bytes_everywhere_are_nowhere_kept(web: Web, cache: Path) -> None:
    with pytest.raises(UnavailableError, match="does not match the known hash"):
        downloaded(wanted(web.at("/a.txt", file(OTHER)), web.at("/b.txt", file(OTHER))), "mine")
    assert {p.name for p in cache.iterdir()} == {".lock"}


def test_files_come_out_of_one_archive(web: Web, cache: Path) -> None:
    texts = {"x.txt": TEXT, "y.txt": OTHER}
    archive = web.at("/all.tgz", file(tgz({f"./data/{name}": text for name, text in texts.items()})))
    for name, text in texts.items():
        download = wanted(web.at(f"/{name}", status(404)), f"{archive}#data/{name}", text=text)
        assert downloaded(download, "mine").read_bytes() == text
    assert [path for path, _ in web.requests].count("/all.tgz") == 1
    assert {p.name for p in cache.iterdir()} == {"x.txt", "y.txt", "all.tgz", ".lock"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tgz({"data/z.txt": TEXT}), r"no file 'data/x\.txt'"),
        (tgz({"data/x.txt": OTHER}), "does not match"),
        (tgz({"data/x.txt": TEXT})[:-100], "cannot be read"),
        (b"<html>Please log in</html>", "cannot be read"),
    ],
    ids=["no such member", "wrong member", "cut", "no archive"],
)
def test_an_archive_without_the_right_file_is_not_kept(web: Web, cache: Path, content: bytes, message: str) -> None:
    archive = web.at("/all.tgz", file(content))
    with pytest.raises(UnavailableError, match=message):
        downloaded(wanted(f"{archive}#data/x.txt"), "mine")
    assert {p.name for p in cache.iterdir()} == {".lock"}


def test_two_at_once_download_once(web: Web) -> None:
    download = wanted(web.at("/a.txt", file(TEXT)))
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(downloaded(download, "mine").read_bytes())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [TEXT] * 4
    assert len(web.requests) == 1
