"""Which files decide that a step reruns: read off the source of a made project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from textvae import provenance
from textvae.files import sha256_of_file
from textvae.provenance import imported_by

FILES = {
    "steps/__init__.py": "",
    "steps/one.py": "import json\nfrom library import deep\nfrom library.shapes import Square\nimport library.plain\n",
    "steps/two.py": "import numpy\n",
    "library/__init__.py": "",
    "library/deep.py": "def later():\n    from library.lazy import thing\n    return thing\n",
    "library/lazy.py": "from steps import two_is_no_module\nimport library.deep\n",
    "library/shapes.py": (
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from library.types import Shape\n"
        "else:\n    from library.seen import Shape\nclass Square: ...\n"
    ),
    "library/types.py": "",
    "library/seen.py": "",
    "library/plain.py": "from importlib import import_module\nimport_module('library.named')\n",
    "library/named.py": "",
    "library/page.html.j2": "a template",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    return tmp_path


def test_what_a_module_runs_is_what_it_imports_at_the_top_and_later_and_the_templates_beside(project: Path) -> None:
    """Circles end. Left out: what only the type checker sees, what is imported by a made name, others' modules."""
    found = imported_by("steps.one")
    assert set(found) == {
        *("library/__init__.py", "library/deep.py", "library/lazy.py", "library/page.html.j2", "library/plain.py"),
        *("library/seen.py", "library/shapes.py", "steps/__init__.py", "steps/one.py"),
    }
    assert found == {path: sha256_of_file(project / path) for path in found}
    assert set(imported_by("steps.two")) == {"steps/__init__.py", "steps/two.py"}


def test_only_an_edit_of_what_is_run_changes_the_hashes(project: Path) -> None:
    one, two = imported_by("steps.one"), imported_by("steps.two")
    (project / "library/types.py").write_text("# another\n")
    assert imported_by("steps.one") == one
    (project / "library/lazy.py").write_text("import library.deep  # another\n")
    assert imported_by("steps.one") != one
    assert imported_by("steps.two") == two


def test_a_step_s_peak_memory_is_its_own_and_not_that_of_what_started_it() -> None:
    asked = "from textvae.provenance import Stopwatch; print(Stopwatch('fetch').read()['peak_rss_mb'])"
    started = f"subprocess.run([sys.executable, '-c', {asked!r}], check=True)"
    large = f"import subprocess, sys; held = b'1' * (600 << 20); {started}"
    said = subprocess.run(
        [sys.executable, "-c", large], capture_output=True, text=True, check=True, cwd=provenance.ROOT
    )
    assert 5 < float(said.stdout) < 400
