"""The packages of the project's extras, one a line, for `pip install -r`: an image holds the packages, not the wheel.

    python docker/requirements.py data report

`torch` is written as `torch===VERSION` behind the word `cuda`: the pin of constraints.txt, but never a CPU build of it.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def requirements(extras: list[str]) -> list[str]:
    """The project's own dependencies and those of its `extras`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = [*project["dependencies"]]
    for extra in extras:
        packages += project["optional-dependencies"][extra]
    return packages


if __name__ == "__main__":
    cuda = "cuda" in sys.argv[1:]
    [pin] = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    for package in requirements([extra for extra in sys.argv[1:] if extra != "cuda"]):
        print(f"torch==={pin}" if cuda and package == "torch" else package)
