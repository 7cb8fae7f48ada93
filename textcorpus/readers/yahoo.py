"""Yahoo answers as Yang et al. (2017) sampled them: a tokenised document a line, rare words written `_UNK`.

Some copies carry the document's class in front, `label<TAB>document`. https://arxiv.org/abs/1702.08139
"""

from collections.abc import Iterator

from textcorpus.readers import Reader
from textcorpus.sources import TextFile, read_lines


def lines(file: TextFile) -> Iterator[str]:
    """The documents without their labels."""
    for line in read_lines(file):
        label, tab, document = line.partition("\t")
        yield document if tab else label


READER = Reader(lines)
