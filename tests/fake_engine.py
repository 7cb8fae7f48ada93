"""Stands in for podman or docker: knows some images, and plays each step by writing the outputs that it is told of.

Every call's arguments are appended to $FAKE_ENGINE/calls. $FAKE_ENGINE/fail: lines `WORD CODE`; a step with the word in
its arguments ends with the code. $FAKE_ENGINE/images: what `image inspect` finds. $FAKE_ENGINE/down: `info` fails.
$FAKE_ENGINE/wait: steps wait for a signal, and say which came.
"""

import json
import os
import signal
import sys
from pathlib import Path

HERE = Path(os.environ["FAKE_ENGINE"])


def main(arguments: list[str]) -> int:
    with (HERE / "calls").open("a") as calls:
        calls.write(json.dumps([Path(sys.argv[0]).name, *arguments]) + "\n")
    if arguments[0] == "info":
        if (HERE / "down").exists():
            print("cannot connect to the daemon", file=sys.stderr)
            return 1
        return 0
    if arguments[:2] == ["image", "inspect"]:
        known = arguments[-1] in (HERE / "images").read_text().split()
        print(f"sha256:{arguments[-1]}" if known else "")
        return 0 if known else 125
    if (HERE / "wait").exists():
        print("waiting", flush=True)
        return 128 + signal.sigwait({signal.SIGINT, signal.SIGTERM})
    for line in (HERE / "fail").read_text().splitlines():
        word, code = line.split()
        if any(word in argument for argument in arguments):
            print("error: as told", file=sys.stderr)
            return int(code)
    outputs = json.loads(arguments[arguments.index("--executor-input") + 1])["outputs"]
    for name, listed in outputs.get("artifacts", {}).items():
        Path(listed["artifacts"][0]["uri"]).write_text(name)
    Path(outputs["outputFile"]).write_text(json.dumps({"artifacts": outputs.get("artifacts", {})}))
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.exit(main(sys.argv[1:]))
