"""A training shown in MLflow while it runs."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from components.provenance import code_sha256
from components.tracking.place import explained, locked, tracking_uri
from components.tracking.record import Point, RunIdentity, epoch_points
from components.tracking.store import FINGERPRINT_TAG, Store, connect
from textvae.errors import StoppedError

EXIT_SECONDS = 10.0
"""How long the end of a training waits for MLflow to take the last epochs."""
LIVE_LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "2", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


class LiveRun:
    """Shows a training in MLflow while it runs, when $MLFLOW_TRACKING_URI is a server; does nothing otherwise.

    `with LiveRun(identity) as live: live.log_epoch(row)`, entered once everything that training needs is imported (the
    code's hash is part of the identity). A thread does the talking: no training fails, waits or slows down because of
    MLflow, but for at most EXIT_SECONDS at its end. What a server missed, `publish` adds.
    """

    def __init__(self, identity: RunIdentity) -> None:
        self.identity = identity
        self._code = code_sha256()
        self._queue: queue.SimpleQueue[list[Point] | str] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._run_id: str | None = None
        self._known: set[tuple[str, int]] = set()

    def __enter__(self) -> LiveRun:
        if tracking_uri().startswith(("http://", "https://")):
            self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
            self._thread.start()
            self._queue.put([])  # so that the row is there before the first epoch ends
        return self

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """Show one row of curves.jsonl. Returns at once and never raises."""
        if self._thread is not None:
            self._queue.put(epoch_points(row, time.time_ns() // 1_000_000))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if self._thread is None:
            return
        code = code_sha256()
        if code != self._code:  # something was imported late: the timings file will carry the hash of now
            self.identity = replace(self.identity, code_sha256=code)
        stopped = kind is not None and issubclass(kind, StoppedError | KeyboardInterrupt)
        self._queue.put("FINISHED" if kind is None else "KILLED" if stopped else "FAILED")
        self._thread.join(EXIT_SECONDS)
        if self._thread.is_alive():
            self._warn(f"it is too slow (waited {EXIT_SECONDS:.0f} s)")

    def _work(self) -> None:
        store: Store | None = None
        waiting: list[Point] = []
        status: str | None = None
        warned = False
        while status is None:
            for item in self._arrived():
                if isinstance(item, str):
                    status = item
                else:
                    waiting += item
            # Whatever goes wrong in here (mlflow's own bugs included) must not reach the training.
            try:
                store = store or connect(LIVE_LIMITS)
                run_id = self._run_id or self._begin(store)
                new = [point for point in waiting if (point.key, point.step) not in self._known]
                store.log(run_id, new, {}, {})
                waiting.clear()
                if status is not None:
                    store.client.set_tag(run_id, FINGERPRINT_TAG, self.identity.fingerprint)
                    store.client.set_terminated(run_id, status)
            except Exception as error:
                if not warned:
                    self._warn(str(error))
                warned = True

    def _arrived(self) -> list[list[Point] | str]:
        """Everything that waits in the queue, at least one item."""
        items = [self._queue.get()]
        while not self._queue.empty():
            items.append(self._queue.get())
        return items

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
        print(f"warning: not shown in MLflow while it trains: {reason}. Training goes on.", file=sys.stderr, flush=True)
