"""Plain text: a line is a sentence. Tables and JSON, whose lines are none, are refused."""

from functools import partial

from textcorpus.readers import Reader
from textcorpus.sources import read_lines
from textcorpus.table_text import not_sentences

READER = Reader(partial(read_lines, also_refused=not_sentences))
