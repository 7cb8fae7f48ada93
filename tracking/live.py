"""A training shown in MLflow while it runs: the process beside it that `textvae.live` starts.

    python -m tracking.live CURVES

Standard input: a line with the run's identity, and at the training's end one with its status. Where the training is
killed there is none, and the pipe ends.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from pathlib import Path

from textvae.addresses import masked
from tracking.place import explained, locked, tracking_uri
from tracking.record import Point, RunIdentity, epoch_points
from tracking.store import FINGERPRINT_TAG, Store, connect

POLL_SECONDS = 1.0
RETRY_SECONDS = 20.0
"""Between two tries at a server that does not answer, unless an epoch ends."""
EXIT_SECONDS = 10.0
"""How long the end of a training waits for MLflow to take the last epochs."""
LIVE_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


class LiveRun:
    """One training from `start` to `end`: a thread reads the curve and tells MLflow. What it misses, `publish` adds."""

    def __init__(self, identity: RunIdentity, curves: Path) -> None:
        self.identity, self.curves = identity, curves
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._run_id: str | None = None
        self._known: set[tuple[str, int]] = set()
        self._warned = False

    def start(self) -> None:
        """Begin to show it: the row is there before the first epoch ends."""
        self._thread.start()

    def end(self, status: str) -> None:
        """Show its end: FINISHED, FAILED or KILLED."""
        self._ended.put(status)
        self._thread.join(EXIT_SECONDS)
        if self._thread.is_alive():
            self._warn(f"it is too slow (waited {EXIT_SECONDS:.0f} s)")

    def _work(self) -> None:
        store: Store | None = None
        status: str | None = None
        seen, tried, failed = -1, 0.0, True
        while status is None:
            try:
                status = self._ended.get(timeout=POLL_SECONDS if tried else 0)
            except queue.Empty:
                written = self._written()
                if written == seen and not (failed and time.monotonic() - tried > RETRY_SECONDS):
                    continue
                seen = written
            tried = time.monotonic()
            try:  # whatever goes wrong, mlflow's own bugs included: the next epoch is another try
                store = store or connect(LIVE_LIMITS)
                run_id = self._run_id or self._begin(store)
                new = self._points()
                store.log(run_id, new, {}, {})
                self._known |= {(point.key, point.step) for point in new}
                if status is not None:
                    store.client.set_tag(run_id, FINGERPRINT_TAG, self.identity.fingerprint)
                    store.client.set_terminated(run_id, status)
                failed = False
            except Exception as error:
                failed = True
                if not self._warned:
                    self._warn(masked(str(error), tracking_uri()))

    def _written(self) -> int:
        """When the curve was written, in nanoseconds; 0 before the first epoch's end."""
        try:
            return self.curves.stat().st_mtime_ns
        except OSError:
            return 0

    def _points(self) -> list[Point]:
        """What the curve has and the row has not."""
        if not self._written():
            return []
        rows = [json.loads(line) for line in self.curves.read_text(encoding="utf-8").splitlines()]
        now = time.time_ns() // 1_000_000
        points = [point for row in rows for point in epoch_points(row, now)]
        return [point for point in points if (point.key, point.step) not in self._known]

    def _begin(self, store: Store) -> str:
        """The row of an earlier attempt at this training, with the points it has, or a new one."""
        with explained(store.uri, f"the row {self.identity.name}"), locked(store.uri):
            run, *_ = store.find(self.identity.fingerprint) or [None]
            if run is None:
                run = store.create(self.identity.fingerprint, self.identity.name, self.identity.tags)
                store.log(run.info.run_id, [], self.identity.params, {})
            else:
                history = store.history(run, list(run.data.metrics))
                self._known = {(key, point.step) for key, points in history.items() for point in points}
                store.client.update_run(run.info.run_id, status="RUNNING")
        self._run_id = run.info.run_id
        return self._run_id

    def _warn(self, reason: str) -> None:
        self._warned = True
        print(f"warning: not shown in MLflow while it trains: {reason}. Training goes on.", file=sys.stderr, flush=True)


def main() -> None:
    """Show the training that writes the curve given, until it ends."""
    live = LiveRun(RunIdentity(**json.loads(sys.stdin.readline())), Path(sys.argv[1]))
    live.start()
    said = sys.stdin.readline()
    live.end(**(json.loads(said) if said else {"status": "KILLED"}))
    os._exit(0)  # not held up by a thread that still waits for a server


if __name__ == "__main__":
    main()
