"""A web server on this machine that misbehaves as told, for the tests of downloads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat


class Request(BaseHTTPRequestHandler):
    """One request; an `Answer` is a function of it."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Web)
        server.requests.append((self.path, self.headers.get("Range")))
        with server.lock:
            answer = next(server.answers.get(self.path, repeat(status(404))))
        answer(self)

    def reply(self, code: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """A status line, headers and a body. `length`: what is said of the body, -1: nothing."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Silence."""


Answer = Callable[[Request], None]


class Web(ThreadingHTTPServer):
    """The server: what each path answers, one after the other, the last one again and again; and who asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers: dict[str, Iterator[Answer]] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.lock = threading.Lock()

    def at(self, path: str, *answers: Answer) -> str:
        """Say what a path answers. Returns its URL."""
        self.answers[path] = chain(answers, repeat(answers[-1]))
        return f"http://127.0.0.1:{self.server_port}{path}"


@contextmanager
def serving() -> Iterator[Web]:
    """The server, in a thread."""
    with Web() as server:
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.02))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def status(code: int) -> Answer:
    """An empty answer."""
    return lambda request: request.reply(code, b"")


def file(body: bytes, ranges: bool = True) -> Answer:
    """The file, or the rest of it where that is asked for."""

    def answer(request: Request) -> None:
        asked = request.headers.get("Range")
        if not ranges or asked is None:
            return request.reply(200, body)
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            return request.reply(416, b"")
        return request.reply(206, body[start:], Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")

    return answer


def cut(body: bytes, size: int, told: bool = True) -> Answer:
    """The beginning of the file, then the end of the connection; the file's length was told before, or not."""
    return lambda request: request.reply(200, body[:size], len(body) if told else -1)


def redirect(url: str) -> Answer:
    """Elsewhere."""
    return lambda request: request.reply(302, b"", Location=url)


def drip(body: bytes, seconds: float) -> Answer:
    """One byte, a pause, one byte, a pause, ..."""

    def answer(request: Request) -> None:
        request.reply(200, b"", len(body))
        try:
            for byte in body:
                request.wfile.write(bytes([byte]))
                time.sleep(seconds)
        except OSError:
            pass  # the other side has had enough

    return answer
