"""Words that mark where a sentence starts and ends: dropped from the ends of lines, since the project adds its own."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

from textvae.lines import WHITE_SPACE

NEARLY_EVERY = 0.9
"""Of the first lines: markers at an end of so many are dropped at that end of every line."""
FIRST_LINES = 1_000
FIRST_CHARACTERS = 1_000_000
MARKER = re.compile(
    r"(?i:</?s>|<(?:bos|sos|eos|pad|start|end)>|\[(?:cls|sep|bos|sos|eos|pad)\]"
    r"|<\|(?:startoftext|endoftext|begin_of_text|end_of_text)\|>)|(?<![^ \t\v\f\r\n。！？”」』])(?:BOS|SOS|EOS|PAD)"
    r"(?![^ \t\v\f\r\n])"
)


def inner(line: str) -> tuple[int, int]:
    """Where the sentence begins and ends between the markers at the ends of a line."""
    spans = [found.span() for found in MARKER.finditer(line)]
    start, end = 0, len(line)
    for left, right in spans:
        if line[start:left].strip(WHITE_SPACE):
            break
        start = right
    if spans and not line[start:].strip(WHITE_SPACE):
        return start, 0  # nothing but markers
    for left, right in reversed(spans):
        if line[right:end].strip(WHITE_SPACE):
            break
        end = left
    return start, end


def first_lines(lines: Iterator[str]) -> list[str]:
    """The first lines: a bounded number of bounded size together."""
    found: list[str] = []
    size = 0
    while len(found) < FIRST_LINES and size < FIRST_CHARACTERS and (line := next(lines, None)) is not None:
        found.append(line)
        size += len(line)
    return found


def unmarked(lines: Iterator[str], dropped: Counter[str], notes: Counter[str]) -> Iterator[str]:
    """The lines without the markers that stand at the ends of nearly every one of the first lines.

    `dropped` counts the lines that had some; `notes` gets what was decided and which other markers there are.
    """
    first = first_lines(lines)
    with_text = [line for line in first if MARKER.sub("", line).strip(WHITE_SPACE)]  # besides markers
    marked = [line for line in with_text if MARKER.search(line)]
    ends = [(inner(line), len(line)) for line in marked]
    least = NEARLY_EVERY * len(with_text)
    before = bool(marked) and sum(start > 0 for (start, _), _ in ends) >= least
    after = bool(marked) and sum(end < length for (_, end), length in ends) >= least
    kinds = " ".join(sorted({word for line in marked for word in MARKER.findall(line)}))
    if before or after:
        where = "begins and ends" if before and after else "begins" if before else "ends"
        notes[
            f"nearly every line {where} with sentence markers ({kinds}): dropped there, the models add their own"
        ] += 1
    left = sum(MARKER.search(without(line, before, after)) is not None for line in marked)
    if left:
        notes[
            f"{left:,} of the first {len(first):,} lines hold sentence markers ({kinds}) where they are counted as "
            "words; take them out, or put one sentence on a line"
        ] += 1
    if not before and not after:
        yield from chain(first, lines)
        return
    for line in chain(first, lines):
        kept = without(line, before, after)
        dropped["sentence_markers"] += len(kept) < len(line)
        yield kept


def without(line: str, before: bool, after: bool) -> str:
    """The line without the markers at its ends."""
    start, end = inner(line)
    return line[start if before else 0 : end if after else len(line)]
