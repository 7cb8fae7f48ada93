"""Renew constraints.txt: the newest versions within pyproject's bounds, kept where the whole suite passes with them."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests/helpers")]

from tiny_project import copy_of_the_project  # noqa: E402

from textvae.command_line import run  # noqa: E402
from textvae.errors import UnavailableError, exit_codes  # noqa: E402
from textvae.files import replaced  # noqa: E402

EXTRAS = "all,browser,dev"
FAILED = 1
OF_CUDA = ("cuda-", "nvidia-", "triton")
"""What only torch's CUDA build needs, which names their versions itself."""


def newest() -> dict[str, str]:
    """The version of every package that pip would install into an empty environment. Raises UnavailableError."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    done = subprocess.run([*command, f".[{EXTRAS}]"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UnavailableError(f"pip finds no versions that fit together: {reason}; the package index must be reached")
    found = [package["metadata"] for package in json.loads(done.stdout)["install"]]
    versions = {package["name"]: package["version"].partition("+")[0] for package in found}
    return {name: version for name, version in versions.items() if name != "textvae" and not name.startswith(OF_CUDA)}


def normalized(name: str) -> str:
    """A package's name as all of its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def renewed(old: str, versions: dict[str, str]) -> str:
    """constraints.txt with these versions. What is not among them (of torch's CUDA build, where this machine is offered
    the CPU build) stays as it is; the comment on top, too."""
    lines = old.splitlines()
    comment = [line for line in lines if line.startswith("#")]
    pins = {normalized(line.partition("==")[0]): line for line in lines if "==" in line and line not in comment}
    pins |= {normalized(name): f"{name}=={version}" for name, version in versions.items()}
    return "\n".join([*comment, *(pins[name] for name in sorted(pins))]) + "\n"


def suite_passes(constraints: str) -> bool:
    """Whether `make test` passes in an empty copy of the project that has these versions."""
    with tempfile.TemporaryDirectory(prefix="textvae-upgrade-") as folder:
        copy = Path(folder)
        copy_of_the_project(copy)
        (copy / "constraints.txt").write_text(constraints, encoding="utf-8")
        subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
        return subprocess.run(["make", "test"], cwd=copy).returncode == 0


def main(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would change.")] = False,
) -> None:
    """Renew constraints.txt with the newest versions that pyproject.toml admits; prints the difference.

    They are installed into the empty environment of a copy, and the suite runs there: only where it passes is
    constraints.txt written. Exit code 1: the suite fails with them, nothing is written. 69: no versions were found.

    \b
    Examples:
      python tools/upgrade.py --dry-run
      python tools/upgrade.py
    """
    with exit_codes():
        path = ROOT / "constraints.txt"
        old = path.read_text(encoding="utf-8")
        new = renewed(old, newest())
        print(
            "".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), "pinned", "newest", n=0)), end=""
        )
        if new == old:
            print("constraints.txt has the newest versions")
        elif not dry_run:
            if not suite_passes(new):
                print("error: the suite fails with these versions: constraints.txt stays as it is", file=sys.stderr)
                raise SystemExit(FAILED)
            with replaced(path) as temporary:
                temporary.write_text(new, encoding="utf-8")
            print("constraints.txt is renewed: commit it")


if __name__ == "__main__":
    run(main)
