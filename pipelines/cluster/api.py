"""A Kubeflow Pipelines server: submit a compiled pipeline, follow its run, and say what went wrong."""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from textvae.addresses import masked, shown
from textvae.errors import UnavailableError

OUTCOMES = {"SUCCEEDED": 0, "SKIPPED": 0, "FAILED": 1, "CANCELED": 3}
"""The exit code of each state in which a run ends."""
POLL_SECONDS = 10.0
PROBE_SECONDS = 20.0
PENDING_SECONDS = 600.0
"""After so long without a step that runs, say what it may be waiting for."""
IMAGE_TROUBLE = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
REFUSED = (401, 403)


class Kubeflow:
    """One server. Raises UnavailableError where it does not answer, is no Kubeflow Pipelines, or refuses the token."""

    def __init__(self, host: str, namespace: str | None, token: str | None) -> None:
        self.host, self.namespace, self.token = host.rstrip("/"), namespace, token
        self.probe()
        warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
        from kfp import Client

        with self.explained():
            self.client = Client(host=self.host, namespace=namespace or "kubeflow", existing_token=token)

    def probe(self) -> None:
        """Ask whether it is there: kfp's client itself retries a wrong address for half a minute."""
        request = urllib.request.Request(f"{self.host}/apis/v2beta1/healthz")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as response:
                json.load(response)
        except urllib.error.HTTPError as error:
            raise self.unavailable(error.code, error.reason) from None
        except (OSError, ValueError) as error:
            reason = "what answers there is no Kubeflow Pipelines" if isinstance(error, json.JSONDecodeError) else error
            raise self.unavailable(None, str(reason)) from None

    def unavailable(self, status: int | None, reason: str) -> UnavailableError:
        """The error for an answer with an HTTP status, or for none."""
        if status in REFUSED:
            what = "the token" if self.token else "a request without a token"
            return UnavailableError(
                f"{shown(self.host)} refused {what} (HTTP {status}): put a fresh one into $KFP_TOKEN or --token-file, "
                "and check that its owner may create runs in the namespace"
            )
        why = ("" if status is None else f"HTTP {status}, ") + masked(reason, self.host)
        return UnavailableError(
            f"{shown(self.host)} does not answer as Kubeflow Pipelines ({why}): check --host (the address below which "
            "/apis/v2beta1 is, such as https://HOST/pipeline) and that you can reach it"
        )

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn what kfp's client raises into an UnavailableError that says what to do."""
        from kfp_server_api import ApiException  # type: ignore[import-untyped]
        from urllib3.exceptions import HTTPError

        logging.getLogger("urllib3").setLevel(logging.ERROR)
        try:
            yield
        except ApiException as error:
            if error.status in REFUSED:
                raise self.unavailable(error.status, "") from None
            raise UnavailableError(
                f"{shown(self.host)} refused: HTTP {error.status}, {masked(said(error), self.host)}"
            ) from None
        except (HTTPError, TimeoutError, OSError) as error:
            raise self.unavailable(None, str(error)) from None

    def create(self, pipeline: Path, experiment: str) -> str:
        """Submit a compiled pipeline. Returns the run's id."""
        name = f"{experiment} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        with self.explained(), redirect_stdout(StringIO()):  # the client prints addresses of its own
            found = self.client.create_experiment(experiment, namespace=self.namespace)
            run = self.client.run_pipeline(found.experiment_id, name, pipeline_package_path=str(pipeline))
        run_id: str = run.run_id
        return run_id

    def address(self, run_id: str) -> str:
        """Where a person sees the run."""
        return f"{shown(self.host)}/#/runs/details/{run_id}"

    def wait(self, run_id: str) -> int:
        """Print each step's changes of state until the run has ended. Returns the exit code of its outcome."""
        shown: dict[str, str] = {}
        moved = time.monotonic()
        while True:
            with self.explained():
                run = self.client.get_run(run_id)
            changed = False
            for task_id, name, state, error in tasks_of(run):
                if shown.get(task_id) != state:
                    shown[task_id], changed = state, True
                    print(f"{name:<32} {state}", flush=True)
                    if error:
                        print(f"  {explanation(error)}", flush=True)
            if run.state in OUTCOMES:
                reason = getattr(run.error, "message", None)
                print(f"run {run.state}" + (f": {explanation(reason)}" if reason else ""), flush=True)
                return OUTCOMES[run.state]
            if changed or "RUNNING" in shown.values():
                moved = time.monotonic()
            elif time.monotonic() - moved > PENDING_SECONDS:
                print(
                    "no step has started for a while: is there an image with this tag, a node with the GPU, the "
                    "volume, the secret? `kubectl describe pod` in the run's namespace says which",
                    flush=True,
                )
                moved = time.monotonic()
            time.sleep(POLL_SECONDS)


def tasks_of(run: Any) -> list[tuple[str, str, str, str]]:
    """(id, name, state, error) of each step of a run that has a state, in the order of their creation."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    ordered = sorted(tasks, key=lambda task: str(task.create_time or ""))
    return [
        (task.task_id or task.display_name, task.display_name, task.state, getattr(task.error, "message", None) or "")
        for task in ordered
        if task.state
    ]


def explanation(error: str) -> str:
    """A step's error, with the remedy where it is an image that is missing."""
    if not any(trouble in error for trouble in IMAGE_TROUBLE):
        return error
    return (
        f"{error}: the cluster cannot pull the image; build and push the images of this commit, or check "
        "`image_prefix` and `image_pull_secrets` in the cluster's file, and --tag"
    )


def said(error: Any) -> str:
    """The server's own words in an ApiException."""
    try:
        content = json.loads(error.body)
        return str(content.get("error") or content.get("message") or error.reason)
    except (TypeError, ValueError, AttributeError):
        return str(error.reason or error)
