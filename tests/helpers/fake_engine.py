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


class FakeEngine:
    """The stand-in's folder: what it was called with, and what it is told to do."""

    def __init__(self, folder: Path, images: list[str]) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "images").write_text("\n".join(images))
        (folder / "fail").write_text("")

    def put(self, name: str) -> None:
        """Onto the PATH as `name`."""
        program = self.folder / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -S {__file__} "$@"\n')
        program.chmod(0o755)

    def calls(self, kind: str) -> list[list[str]]:
        """The arguments of each call of a kind (run, build), in their order."""
        calls = [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]
        return [call for call in calls if call[1] == kind]

    def runs(self) -> list[list[str]]:
        """The arguments of each container that was run, in their order."""
        return self.calls("run")

    def steps(self) -> list[str]:
        """Of each container that was run its step."""
        return [call[call.index("-m") + 1].removeprefix("components.") for call in self.runs()]


def main(arguments: list[str]) -> int:
    """Answer one call. Returns the exit code."""
    here = Path(os.environ["FAKE_ENGINE"])
    with (here / "calls").open("a") as calls:
        calls.write(json.dumps([Path(sys.argv[0]).name, *arguments]) + "\n")
    if arguments[0] == "info":
        if (here / "down").exists():
            print("cannot connect to the daemon", file=sys.stderr)
            return 1
        return 0
    if arguments[:2] == ["image", "inspect"]:
        known = arguments[-1] in (here / "images").read_text().split()
        print(("543000000" if "{{.Size}}" in arguments else f"sha256:{arguments[-1]}") if known else "")
        return 0 if known else 125
    if (here / "wait").exists():
        print("waiting", flush=True)
        return 128 + signal.sigwait({signal.SIGINT, signal.SIGTERM})
    for line in (here / "fail").read_text().splitlines():
        word, code = line.split()
        if any(word in argument for argument in arguments):
            print("error: as told", file=sys.stderr)
            return int(code)
    if arguments[0] == "build":
        with (here / "images").open("a") as images:
            images.write(" " + arguments[arguments.index("--tag") + 1])
    if "--executor-input" not in arguments:
        return 0
    outputs = json.loads(arguments[arguments.index("--executor-input") + 1])["outputs"]
    for name, listed in outputs.get("artifacts", {}).items():
        Path(listed["artifacts"][0]["uri"]).write_text(name)
    Path(outputs["outputFile"]).write_text(json.dumps({"artifacts": outputs.get("artifacts", {})}))
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.exit(main(sys.argv[1:]))
