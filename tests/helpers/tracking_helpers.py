"""Run directories, and servers that misbehave, for the tests of tracking and components.publish."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from made_files import changed, model_config, write_sealed_table

from textvae.files import write_json

ROOT = Path(__file__).resolve().parents[2]
SETTINGS: dict[str, Any] = {
    "model": {"embedding": 8, "hidden": 16, "latent": 4, "dropout": 0.5},
    "training": {"optimizer": "adam", "learning_rate": 0.001, "epochs": 3, "device": "auto"},
    "objective": {"name": "vae_mine", "alpha": 3.0, "anneal": [0, 10]},
}


def curve(epochs: int, system: str = "vae_mine", seed: int = 0, shift: float = 0.0) -> list[dict[str, Any]]:
    """Rows as train writes them into curves.jsonl."""
    return [
        {"dataset": "sotu", "system": system, "seed": seed, "epoch": epoch, "step": 100 * epoch, "lr": 0.001}
        | {"valid_nll": 100 / 3 - epoch + shift, "valid_au": 4, "mi_estimate": epoch / 7}
        for epoch in range(1, epochs + 1)
    ]


def write_run(runs: Path, system: str = "vae_mine", seed: int = 0, **changes: Any) -> Path:
    """A run directory in the project's format; `changes`: epochs, shift (of valid_nll), learning_rate, nll, diverged"""
    epochs, diverged = changes.get("epochs", 3), changes.get("diverged", False)
    directory = runs / "sotu" / system / str(seed)
    identity: dict[str, Any] = {"dataset": "sotu", "system": system, "seed": seed}
    failure = {"message": "the loss is not finite", "epoch": 2, "step": 150, "term": "kl", "largest_energy": 1e9}
    identity |= {"status": "diverged" if diverged else "finished", "failure": failure if diverged else None}
    learning_rate = changes.get("learning_rate", 0.001)
    settings = SETTINGS | {"training": SETTINGS["training"] | {"learning_rate": learning_rate}}
    settings |= {"objective": SETTINGS["objective"] | {"name": system}}
    config = model_config(**identity, settings=settings, selected={"epoch": 2, "valid_nll": 31.3})
    write_json(directory / "model/config.json", config)
    rows = curve(epochs, system, seed, changes.get("shift", 0.0))
    (directory / "curves.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    nll = None if diverged else changes.get("nll", 98.7654321)
    write_json(directory / "evaluation/metrics.json", identity | {"nll": nll, "au": None if diverged else 4})
    ngram = {"order": 5, "fppl": None if diverged else 55.5, "rppl": None if diverged else 66.25, "sentences": 10}
    write_json(directory / "ngram.json", identity | ngram | {"real_text": {"fppl": 141.19, "tokens": 8, "oov": 0}})
    timings = {"step": "train", "wall_s": 12.5, "started": "2025-01-02T03:04:05+00:00", "host": "here"}
    timings |= {"cpu_s": 12.0, "peak_rss_mb": 300.0}
    write_json(directory / "timings/train.json", timings | {"commit": "0123456789ab", "code_sha256": "c0de"})
    return directory


def write_reports(folder: Path, text: str = "<html>report</html>") -> Path:
    """A folder as the report step writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "report.html").write_text(text)
    lines = ["dataset,system,seed,nll,baseline,nll_iw_minus_lstm_lm,nll_iw_minus_lstm_lm_se"]
    lines.append("sotu,vae_mine,0,98.7654321,vae_bow,-0.25,0.125")
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    return folder


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class Gate(ThreadingHTTPServer):
    """A loopback server in front of MLflow: `mode` is "forward", "slow" (too), "500" (every answer) or "hang" (none).

    After `limit` requests, where it is given, it answers 500; with a `refusal` it answers with this status, as a proxy.
    """

    daemon_threads = True

    def __init__(self, mode: str, behind: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), GateHandler)
        self.mode, self.behind, self.requests = mode, behind, 0
        self.limit: int | None = None
        self.refusal: int | None = None
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"


class GateHandler(BaseHTTPRequestHandler):
    """Answers, or passes on, as the gate says."""

    def handle_any(self) -> None:
        """One request of any method."""
        gate = self.server
        assert isinstance(gate, Gate)
        gate.requests += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if gate.refusal is not None:
            self.answer(gate.refusal, b"<html>no</html>")
        elif gate.mode == "hang":
            time.sleep(30)
        elif gate.mode == "500" or (gate.limit is not None and gate.requests > gate.limit):
            self.answer(500, b"broken")
        else:
            if gate.mode == "slow":
                time.sleep(0.2)
            assert gate.behind is not None
            connection = http.client.HTTPConnection(gate.behind.removeprefix("http://"), timeout=20)
            headers = {key: value for key, value in self.headers.items() if key.lower() != "host"}
            connection.request(self.command, self.path, body, headers)
            response = connection.getresponse()
            self.answer(response.status, response.read())

    def answer(self, status: int, body: bytes) -> None:
        """Send a whole response."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@contextmanager
def gate(mode: str, behind: str | None = None) -> Iterator[Gate]:
    """A `Gate` that serves until the block ends."""
    server = Gate(mode, behind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def rows(store: Any) -> list[Any]:
    """All rows of the experiment that are not in the trash, the report's left out."""
    found = store.client.search_runs([store.experiment_id], "tags.kind = 'run'")
    return sorted(found, key=lambda run: run.info.start_time)


def points(store: Any, run: Any, key: str) -> list[tuple[int, float]]:
    """(epoch, value) of one metric, every logged point of it."""
    return sorted((m.step, m.value) for m in store.client.get_metric_history(run.info.run_id, key))


def outcomes(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What the step printed: name of the row -> what happened to it."""
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    return {name: outcome for name, outcome in lines if not name.startswith("MLflow")}


def with_candidates(directory: Path) -> Path:
    """Say that alpha 3.0 was selected among three values, of which one diverged."""
    config = json.loads((directory / "model/config.json").read_text())
    changed(directory / "model/config.json", chosen={"alpha": 3.0})
    measured = {"valid_nll_iw": 61.5, "difference": 0.25, "difference_se": 0.5, "valid_mi": 1.5}
    curves = {n: [{k: v for k, v in row.items() if not isinstance(v, str)} for row in curve(n)] for n in (1, 3)}
    curves[2] = [{k: v for k, v in row.items() if not isinstance(v, str)} for row in curve(2, shift=1.0)]
    candidates = [
        {"value": 2.0, "status": "finished", "failure": None, **measured, "curves": curves[2]},
        {"value": 3.0, "status": "finished", "failure": None, **measured, "curves": curves[3]},
        {"value": 9.0, "status": "diverged", "failure": "not finite", **dict.fromkeys(measured), "curves": curves[1]},
    ]
    account = {"setting": "alpha", "chosen": 3.0, "rule": "the highest MI", "candidates": candidates}
    account |= {key: config[key] for key in ("dataset", "system", "seed")}
    write_json(directory / "model/candidates.json", account)
    return directory


def nested(store: Any, parent: Any) -> dict[str, Any]:
    """The rows directly under a row, by their names."""
    query = f"tags.mlflow.parentRunId = '{parent.info.run_id}'"
    return {run.info.run_name: run for run in store.client.search_runs([store.experiment_id], query)}


def write_samples(directory: Path, sentences: list[str]) -> None:
    """A run's samples.parquet, which says whose it is."""
    config = json.loads((directory / "model/config.json").read_text())
    about = {key: config[key] for key in ("dataset", "system", "seed", "status", "failure")}
    said = json.dumps({**about, "decoding": "ancestral"})
    table = pa.table({"sentence": pa.array(sentences, pa.string())}).replace_schema_metadata({"textvae": said})
    write_sealed_table(directory / "samples.parquet", table)
