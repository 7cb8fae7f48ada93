"""Fixtures that several test files share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import Corpus, tiny_corpus, write_corpus


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """The tiny corpus, in memory."""
    return tiny_corpus()


@pytest.fixture(scope="session")
def corpus_folder(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus, on disk."""
    return write_corpus(tmp_path_factory.mktemp("tiny") / "corpus", corpus)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: of two workers, none is left with it alone at the end."""
    items.sort(key=lambda item: item.path.name != "test_pipeline.py")
