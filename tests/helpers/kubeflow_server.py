"""A loopback server with the v2beta1 endpoints of Kubeflow Pipelines that a submission uses."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec, PlatformSpec

TOKEN = "the-token"
RUN_ID = "11111111-2222-3333-4444-555555555555"


class Server(ThreadingHTTPServer):
    """Takes one run; each look at it shows the next of `states` of its tasks and of the run."""

    def __init__(self, needs_token: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.needs_token = needs_token
        self.experiments: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        self.specs: list[PipelineSpec] = []
        self.looks: list[dict[str, Any]] = []
        """What the looks at the run show, one after the other: {state, tasks: {name: state}, error}."""
        self.refuse_runs: int | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/pipeline"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *arguments: Any) -> None: ...

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def refused(self) -> bool:
        if self.server.needs_token and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer({"error": "unauthenticated"}, 401)
            return True
        return False

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/pipeline/apis/v2beta1")
        if self.refused():
            return
        if path == "/healthz":
            self.answer({"multi_user": False})
        elif path == "/experiments":
            self.answer({"experiments": self.server.experiments, "total_size": len(self.server.experiments)})
        elif path == f"/runs/{RUN_ID}" and self.server.runs:
            look = self.server.looks.pop(0) if len(self.server.looks) > 1 else self.server.looks[0]
            tasks = [
                {"task_id": name, "display_name": name, "state": state, "create_time": "2026-01-01T00:00:00Z"}
                | ({"error": {"code": 1, "message": look["error"]}} if state == "FAILED" and "error" in look else {})
                for name, state in look.get("tasks", {}).items()
            ]
            self.answer({"run_id": RUN_ID, "state": look["state"], "run_details": {"task_details": tasks}})
        else:
            self.answer({"error": f"no {path}"}, 404)

    def do_POST(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/pipeline/apis/v2beta1")
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused():
            return
        if path == "/experiments":
            created = {"experiment_id": "e1", **content}
            self.server.experiments.append(created)
            self.answer(created)
        elif path == "/runs" and self.server.refuse_runs is not None:
            self.answer({"error": "no such namespace", "code": 3}, self.server.refuse_runs)
        elif path == "/runs":
            spec = content["pipeline_spec"]
            json_format.ParseDict(spec["platform_spec"], PlatformSpec())
            self.server.specs.append(json_format.ParseDict(spec["pipeline_spec"], PipelineSpec()))
            self.server.runs.append(content)
            self.answer({"run_id": RUN_ID, "state": "PENDING", **content})
        else:
            self.answer({"error": f"no {path}"}, 404)


@contextmanager
def running(needs_token: bool = False) -> Iterator[Server]:
    server = Server(needs_token)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
