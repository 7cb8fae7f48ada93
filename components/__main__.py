"""Whether an image has what its steps need: `python -m components --check`."""

import importlib
import os
import platform
import re
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer

from textvae.command_line import run
from textvae.errors import UnavailableError, exit_codes
from textvae.kenlm_lm import find_lmplz
from textvae.provenance import ROOT, commit

STEPS = "TEXTVAE_STEPS"
"""Environment variable that each image sets: the steps that it is for."""
MODULES = {"mlflow-skinny": "mlflow"}
"""Packages whose modules have another name."""


def packages() -> list[str]:
    """The names of the packages that the image was built with."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [re.split(r"[^\w.-]", line)[0] for line in lines]


def imported(module: str, needed_by: str) -> Any:
    """Import `module`. Raises UnavailableError naming it, what needs it, and the reason."""
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that the base image lacks
        raise UnavailableError(f"{needed_by} needs {module}, which cannot be imported: {error}") from None


def versions(steps: list[str]) -> dict[str, str]:
    """Import each package of the image, and each of `steps`. Returns versions, and where lmplz is if it is needed.

    Raises UnavailableError naming the first thing that is missing.
    """
    found = {"python": platform.python_version()}
    for package in packages():
        module = imported(MODULES.get(package, package), f"an image for {' '.join(steps)}")
        found[package] = version(package)
        if package == "torch":
            found["CUDA of torch"] = str(module.version.cuda)
    for step in steps:
        imported(f"components.{step}", f"step {step}")
    if "ngram" in steps:
        found["lmplz"] = str(find_lmplz())
    return found


def main(
    check: Annotated[bool, typer.Option("--check", help="Import what the steps need and print versions.")] = False,
) -> None:
    """Whether this image has what its steps need: the steps in $TEXTVAE_STEPS, the packages in requirements.txt.

    \b
    Examples:
      podman run --rm textvae-train:COMMIT python -m components --check
    """
    if not check or STEPS not in os.environ:
        print(f"usage: python -m components --check, in an image (where ${STEPS} is set)", file=sys.stderr)
        raise SystemExit(2)
    steps = os.environ[STEPS].split()
    with exit_codes():
        found = versions(steps)
    print(f"commit {commit()}: {', '.join(steps)}")
    print("\n".join(f"  {name} {number}" for name, number in found.items()))


if __name__ == "__main__":
    run(main)
