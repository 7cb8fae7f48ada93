"""Shows a training on a tracking server while it runs, by a process beside it that reads the training's curve.

The process is started by its module's name, and nothing of `tracking` is imported here: how MLflow is talked
to is no code of a training, so a change in it trains nothing again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from textvae.errors import StoppedError
from textvae.provenance import ROOT

COMMAND = (sys.executable, "-m", "tracking.live")
EXIT_SECONDS = 12.0
"""How long the end of a training waits for that process, which gives MLflow less and then ends by itself."""


@contextmanager
def shown_live(about: Mapping[str, Any], curves: Path) -> Iterator[None]:
    """Show the training of the block, where $MLFLOW_TRACKING_URI is a server; do nothing otherwise.

    `about`: what makes the run itself, as tracking.record.RunIdentity takes it. `curves`: the file that the training
    writes at the end of each epoch. What becomes of the process never fails a training.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("http://", "https://")):
        yield
        return
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        process = subprocess.Popen(
            [*COMMAND, str(curves)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the training
            text=True,
        )
    except OSError as error:
        print(f"warning: not shown in MLflow while it trains: {error}. Training goes on.", file=sys.stderr, flush=True)
        yield
        return
    status = "FAILED"
    try:
        tell(process, about)
        yield
        status = "FINISHED"
    except (StoppedError, KeyboardInterrupt, GeneratorExit):  # the last of a training beside one that Ctrl-C ended
        status = "KILLED"
        raise
    finally:
        tell(process, {"status": status})
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        try:
            process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()


def tell(process: subprocess.Popen[str], what: Mapping[str, Any]) -> None:
    """Write a line to the process: far less than a pipe holds, so that this returns at once."""
    with suppress(OSError):
        print(json.dumps(what), file=process.stdin, flush=True)
