"""Fixtures that several test files share."""

from __future__ import annotations

import inspect
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import settings
from tiny import Corpus, tiny_corpus, write_corpus

# The same inputs in every run: the suite does not fail by chance. `make fuzz` is what looks for new ones.
settings.register_profile("suite", derandomize=True, deadline=None, database=None)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """The tiny corpus, in memory."""
    return tiny_corpus()


@pytest.fixture(scope="session")
def corpus_folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus, on disk."""
    return write_corpus(tmp_path_factory.mktemp("tiny") / "corpus", corpus)


@pytest.fixture
def hangups_heard() -> Iterator[None]:
    """SIGHUP as in a terminal: under nohup it is ignored, by all that is started there too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session", autouse=True)
def callers_without_their_source() -> None:
    """For a name in an error message kfp reads the source of the whole stack at every call on a task: below pytest that
    is most of a compilation."""
    task = sys.modules.get("kfp.dsl.pipeline_task")
    if task is not None:
        task.__dict__["inspect"] = SimpleNamespace(**{**vars(inspect), "stack": lambda: inspect.stack(0)[1:]})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: of two workers, none is left with it alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")
