"""Many trainings shown live on one MLflow server at once: it must have exactly their rows afterwards.

`python tests/live_load.py [TRAININGS [AT ONCE]]` (20, 4) starts a server on loopback, trains that many seeds of a tiny
VAE-MINE, each in a process of its own as `make repro` does, and compares every point of every row with the curves that
the trainings wrote; exit code 1 where one is missing, twice or another. pytest does not collect it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

from tiny import tiny_corpus, train_settings, write_corpus  # noqa: E402
from tracking_helpers import free_port, points, rows  # noqa: E402

from tracking import connect  # noqa: E402
from tracking.place import import_client, make_database  # noqa: E402
from tracking.ui import server_command, server_environment  # noqa: E402

KEYS = ("valid_nll", "valid_kl", "valid_mi", "train_loss")


def served(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server as `make ui` starts it, and its address."""
    make_database(folder / "mlflow.db", import_client({}))
    port, store = free_port(), f"sqlite:///{folder}/mlflow.db"
    with (folder / "log").open("w") as log:
        command = server_command(store, port)
        server = subprocess.Popen(
            command, env=server_environment(store), cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 300
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return server, address
        except (urllib.error.URLError, OSError):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((folder / "log").read_text()) from None
            time.sleep(0.2)


def train(folder: Path, seed: int) -> int:
    """One training in a process of its own. Returns its exit code."""
    arguments = {"corpus": folder / "corpus", "settings": folder / "train.json", "seed": seed}
    arguments |= {"model": folder / f"{seed}/model", "curves": folder / f"{seed}/curves.jsonl"}
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    with (folder / f"{seed}.log").open("w") as log:
        return subprocess.run(
            [sys.executable, "-m", "components.train", *words], cwd=ROOT, stdout=log, stderr=log
        ).returncode


def wrong_rows(folder: Path, count: int) -> list[str]:
    """What the server says otherwise than the curves do."""
    store = connect()
    shown = {run.data.params.get("seed") or run.data.tags.get("seed"): run for run in rows(store)}
    wrong = [] if len(rows(store)) == len(shown) == count else [f"{len(rows(store))} rows for {count} trainings"]
    for seed in map(str, range(1, count + 1)):
        curve = [json.loads(line) for line in (folder / seed / "curves.jsonl").read_text().splitlines()]
        for key in KEYS:
            expected = [(row["epoch"], row[key]) for row in curve]
            if (found := points(store, shown[seed], key) if seed in shown else []) != expected:
                wrong.append(f"seed {seed}, {key}: {found} for {expected}")
        if seed in shown and shown[seed].info.status != "FINISHED":
            wrong.append(f"seed {seed}: {shown[seed].info.status}")
    return wrong


def main(count: int, at_once: int) -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {
            "TEXTVAE_STATE": str(folder / "state"),
            "PYTHONPATH": str(ROOT),
            "MLFLOW_EXPERIMENT_NAME": "load",
        }
        write_corpus(folder / "corpus", tiny_corpus())
        (folder / "train.json").write_text(train_settings("vae_mine", epochs=5).model_dump_json())
        server, os.environ["MLFLOW_TRACKING_URI"] = served(folder)
        try:
            started = time.monotonic()
            with ThreadPoolExecutor(at_once) as pool:
                codes = list(pool.map(lambda seed: train(folder, seed), range(1, count + 1)))
            seconds = time.monotonic() - started
            wrong = [f"seed {seed}: exit code {code}" for seed, code in enumerate(codes, 1) if code] + wrong_rows(
                folder, count
            )
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)
    print("\n".join(wrong) or f"{count} trainings, {at_once} at once, {seconds:.0f} s: every row and point once")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(*map(int, [*sys.argv[1:], *["20", "4"][len(sys.argv) - 1 :]])))
