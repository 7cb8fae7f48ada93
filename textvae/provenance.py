"""What a step ran on: wall time, host, commit, code and versions. Kept out of every result, which must not vary."""

import ast
import hashlib
import os
import platform
import re
import resource
import subprocess
import sys
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from textvae.files import sha256_of_file

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ("textvae", "textcorpus", "components", "reporting", "tracking", "pipelines")
"""The packages that are the project's own."""
PACKAGES = ("torch", "numpy", "pyarrow", "kenlm", "spacy", "pydantic")


class Stopwatch:
    """Started when a step starts; `read` gives the content of its timings file."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.started = datetime.now(UTC)
        self._wall, self._cpu = time.perf_counter(), cpu_seconds()

    def read(self) -> dict[str, Any]:
        """Seconds, peak memory (MB, of this process or its largest child), place and versions."""
        peak_kb = max(own_peak_kb(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
        torch = sys.modules.get("torch")
        cuda = torch is not None and torch.cuda.is_initialized()
        return {
            "step": self.step,
            "started": self.started.isoformat(timespec="seconds"),
            "wall_s": round(time.perf_counter() - self._wall, 3),
            "cpu_s": round(cpu_seconds() - self._cpu, 3),
            "peak_rss_mb": round(peak_kb / 1024, 1),
            "host": platform.node(),
            "device": torch.cuda.get_device_name() if torch is not None and cuda else platform.machine() + " CPU",
            "threads": torch.get_num_threads() if torch is not None else 1,
            "commit": commit(),
            "code_sha256": code_sha256(),
            "versions": {"python": platform.python_version(), **package_versions()},
        }


def own_peak_kb() -> int:
    """The largest memory of this process since its program began.

    Not `ru_maxrss` where Linux can be asked otherwise: that survives the exec, so that a small program which a large
    one has started reports the large one's peak.
    """
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss if found is None else int(found[1])


def cpu_seconds() -> float:
    """CPU time of this process and its finished children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def commit() -> str:
    """The git commit of the code, `-dirty` behind it where files differ; $TEXTVAE_COMMIT in an image without git."""
    if os.environ.get("TEXTVAE_COMMIT"):
        return os.environ["TEXTVAE_COMMIT"]
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def project_modules() -> list[Path]:
    """The project's own source files that this process has imported, relative to its root."""
    # Only those that bear the project's names: a process has thousands of modules, whose paths take a while to resolve.
    own = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in (*PROJECT, "__main__")]
    files = {Path(file).resolve() for module in own if (file := getattr(module, "__file__", None))}
    return sorted(f.relative_to(ROOT) for f in files if any(f.is_relative_to(ROOT / folder) for folder in PROJECT))


def imported_by(module: str) -> dict[str, str]:
    """The project's files that `module` runs: path from its root -> SHA-256.

    Read off the source, not run: itself, what it imports, at the top or in a function, and so on, with what lies
    beside these in a package and is no Python (a template). What is imported by a name made at run time is not seen: it
    has a hash of its own (an objective, a reader), or decides no result.
    """
    own = {path.stem for path in ROOT.iterdir()}
    waiting, seen, found = [module], set[str](), set[Path]()
    while waiting:
        name = waiting.pop()
        if name in seen or name.partition(".")[0] not in own:
            continue
        seen.add(name)
        stem = ROOT.joinpath(*name.split("."))
        file = next((f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.is_file()), None)
        if file is None or file in found:  # not ours, or a function of a module
            continue
        found |= {file, *file.parent.glob("*.j2")}
        waiting += [name.rpartition(".")[0], *imports(file)]
    return {f.relative_to(ROOT).as_posix(): sha256_of_file(f) for f in sorted(found)}


@cache
def imports(file: Path) -> list[str]:
    """The names that a source file imports anywhere but for the type checker; of `from a import b` both a and a.b."""
    names: list[str] = []
    nodes: list[ast.AST] = [ast.parse(file.read_bytes())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        nodes += ast.iter_child_nodes(node)
    return names


def code_sha256() -> str:
    """One hash over the project's imported source files and their names."""
    digest = hashlib.sha256()
    for file in project_modules():
        digest.update(str(file).encode() + b"\0" + (ROOT / file).read_bytes() + b"\0")
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of the packages whose change could change a number."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
