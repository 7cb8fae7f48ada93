"""A corpus by URI: the same sentences as from disk, a change that is seen, and errors that say what to do."""

import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fetching import NUMBERED_TEXT, fetched, three_splits, write
from web import Web, cut, file, redirect, serving, status

from components.settings import identity
from textcorpus.remote import version
from textcorpus.sources import content_sha256
from textvae.config import FetchSettings, validated
from textvae.errors import DataError, SettingsError, TextVAEError, UnavailableError


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, a stand-in for an object store."""
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def tagged(body: bytes, **headers: str) -> Any:
    """A file with headers."""
    return lambda request: request.reply(200, body, **headers)


@pytest.mark.parametrize("store", ["memory", "web", "file"])
def test_a_file_at_a_uri_gives_the_sentences_of_the_file(tmp_path: Path, memory: Any, web: Web, store: str) -> None:
    content = gzip.compress(NUMBERED_TEXT)
    local = write(tmp_path / "text.txt.gz", content)
    expected, said = fetched(tmp_path / "local", path=str(local))
    memory.pipe("/bucket/text.txt.gz", content)
    uris = {
        "memory": "memory://bucket/text.txt.gz",
        "web": web.at("/a/text.txt.gz?version=2", redirect(web.at("/b", file(content)))),
        "file": local.as_uri(),
    }
    lines, remote = fetched(tmp_path / "remote", path=uris[store])
    assert lines == expected
    path = uris[store].partition("?")[0]  # behind it there may be secrets
    assert remote["origin"] == {"path": path, "sha256": said["origin"]["sha256"]}


def test_a_folder_at_a_uri_gives_what_the_folder_gives(tmp_path: Path, memory: Any) -> None:
    source = three_splits(tmp_path / "in", b"a b\nc\n")
    (tmp_path / "in/sub").mkdir()
    write(tmp_path / "in/sub/other.txt", b"not this\n")
    for path in (tmp_path / "in").rglob("*.txt"):
        memory.pipe(f"/bucket/in/{path.relative_to(tmp_path / 'in')}", path.read_bytes())
    memory.pipe("/bucket/in.bak/train.txt", b"\xff")
    expected, _ = fetched(tmp_path / "local", **source)
    lines, said = fetched(tmp_path / "remote", **{**source, "path": "memory://bucket/in"})
    assert lines == expected
    assert said["origin"]["sha256"] == content_sha256(tmp_path / "in")


def test_the_users_sha256_is_enforced(tmp_path: Path, memory: Any) -> None:
    memory.pipe("/text.txt", NUMBERED_TEXT)
    right = hashlib.sha256(NUMBERED_TEXT).hexdigest()
    fetched(tmp_path, path="memory://text.txt", sha256=right)
    memory.pipe("/text.txt", NUMBERED_TEXT.replace(b"399", b"999"))
    with pytest.raises(DataError, match=rf"memory://text\.txt: the SHA-256 is .*, not {right}"):
        fetched(tmp_path, path="memory://text.txt", sha256=right)


def test_bad_text_is_named_by_uri_and_line(tmp_path: Path, memory: Any) -> None:
    memory.pipe("/bucket/text.txt", b"fine\nbad \xff here\n")
    with pytest.raises(DataError, match=r"^memory://bucket/text\.txt, line 2: not UTF-8"):
        fetched(tmp_path, path="memory://bucket/text.txt")


def test_a_member_cannot_leave_the_folder(tmp_path: Path, memory: Any) -> None:
    memory.store["/bucket/in/../../evil.txt"] = memory.store["/bucket/in/a.txt"] = (
        fsspec.implementations.memory.MemoryFile(memory, "/bucket/in/a.txt", b"a\n")
    )
    with pytest.raises(DataError, match="leaves"):
        fetched(tmp_path, path="memory://bucket/in")
    assert list(tmp_path.iterdir()) == []


# What tells one content from another, before anything is downloaded


def resolved(path: str, **more: Any) -> dict[str, str]:
    return identity(FetchSettings(dataset="mine", path=path, **more))


def test_a_change_is_seen_by_the_stores_checksum_or_date(web: Web) -> None:
    def said(**headers: str) -> str:
        return resolved(web.at("/text.txt", tagged(b"a\n", **headers)))["version"]

    assert said(ETag='"one"', Last_Modified="x") == said(ETag='"one"', Last_Modified="y") == 'ETag "one", size 2'
    assert said(ETag='"two"') != said(ETag='"one"')
    monday, tuesday = "Mon, 06 Jul 2026 08:00:00 GMT", "Tue, 07 Jul 2026 08:00:00 GMT"
    assert said(Last_Modified=monday) != said(Last_Modified=tuesday)


def test_a_store_that_tells_nothing_is_refused_unless_the_sha256_is_given(web: Web) -> None:
    uri = web.at("/text.txt", file(b"a\n"))
    with pytest.raises(UnavailableError, match=rf"{uri}: the store tells neither checksum nor date.*`sha256`"):
        resolved(uri)
    web.requests.clear()
    assert resolved(uri, sha256="0" * 64) == {}
    assert web.requests == []  # and nobody is asked


def test_a_changed_or_added_member_of_a_folder_is_seen(memory: Any) -> None:
    memory.pipe({"/in/a.txt": b"a\n", "/in/b.txt": b"b\n"})
    first = version("memory://in")
    assert version("memory://in") == first
    memory.pipe("/in/c.txt", b"c\n")
    second = version("memory://in")
    memory.pipe("/in/c.txt", b"d\n")
    assert len({first, second, version("memory://in")}) == 3


def test_a_path_of_this_machine_is_told_by_its_content_unless_the_settings_do(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"a\n")
    assert resolved(str(path)) == {"sha256": content_sha256(path)}
    assert resolved(str(path), sha256="0" * 64) == {}  # what the user says stands, and fetch checks it
    assert resolved("/not/here.txt", sha256="0" * 64) == {}  # a volume that only the cluster has


def test_source_json_tells_the_version(tmp_path: Path, memory: Any) -> None:
    memory.pipe("/text.txt", NUMBERED_TEXT)
    _, said = fetched(tmp_path, path="memory://text.txt", version="ETag 1")
    assert said["origin"]["version"] == "ETag 1"


# What can go wrong


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (status(404), DataError, "no such file or folder there; correct `path`"),
        (status(403), UnavailableError, "403.*credentials"),
        (status(500), UnavailableError, "500.*check the network"),
        (cut(NUMBERED_TEXT, 100), UnavailableError, "check the network"),
    ],
    ids=["missing", "refused", "broken", "cut"],
)
def test_what_the_web_answers_is_told(tmp_path: Path, web: Web, answer: Any, error: type, message: str) -> None:
    uri = web.at("/text.txt", answer)
    with pytest.raises(TextVAEError, match=rf"{uri}: .*{message}") as caught:
        fetched(tmp_path, path=uri)
    assert type(caught.value) is error
    if "cut" not in message and answer.__name__ != "<lambda>":
        with pytest.raises(error):
            version(uri)
    assert list(tmp_path.iterdir()) == []


def test_nothing_listening_and_nothing_there(tmp_path: Path, web: Web) -> None:
    with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:9/x\.txt: .*check the network"):
        version("http://127.0.0.1:9/x.txt")
    with pytest.raises(DataError, match="memory://nowhere: no such file"):
        version("memory://nowhere")
    with pytest.raises(DataError, match="memory://nowhere: no such file"):
        fetched(tmp_path, path="memory://nowhere")


@pytest.mark.parametrize(
    ("uri", "package", "remedy"),
    [("s3://bucket/a.txt", "s3fs", r"'\.\[s3\]'"), ("gs://bucket/a.txt", "gcsfs", r"'\.\[gcs\]'")],
)
def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch, uri: str, package: str, remedy: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UnavailableError, match=rf"{uri}: .*{package}.*pip install .*{remedy}"):
        version(uri)


def test_an_unknown_scheme_is_named() -> None:
    with pytest.raises(SettingsError, match=r"`path: s4://bucket/a`: .*s4.*known are s3"):
        version("s4://bucket/a")


def test_a_sha256_without_a_path_is_refused() -> None:
    source = {"urls": [{"url": "http://a/b.txt", "sha256": "0" * 64}], "sha256": "0" * 64}
    with pytest.raises(SettingsError, match="`sha256` is for `package` and `path`"):
        validated(FetchSettings, {"dataset": "mine", **source}, "source")


def test_a_secret_in_an_address_is_neither_shown_nor_written_down(
    tmp_path: Path, web: Web, capsys: pytest.CaptureFixture[str]
) -> None:
    """A signed address, say: what the store answers, or a client says of it."""
    secret = "?X-Signature=SECRET"
    url = web.at(f"/text.txt{secret}", file(NUMBERED_TEXT))
    url = url.replace("http://", "http://me:pa-ss@")
    _, said = fetched(tmp_path / "raw", path=url)
    everything = json.dumps(said) + "".join(capsys.readouterr())
    assert f"{web.server_port}/text.txt" in said["origin"]["path"]
    web.at(f"/text.txt{secret}", status(403))
    web.at(f"/gone.txt{secret}", status(404))
    for address in (
        url,
        url.replace("text", "gone"),
        url.replace("http:", "nowhere:"),
        "http://me:pa-ss@127.0.0.1:1/a",
    ):
        with pytest.raises(TextVAEError) as caught:
            fetched(tmp_path / "other", path=address)
        everything += str(caught.value)
    assert "ECRET" not in everything
    assert "pa-ss" not in everything
