"""Characters that a terminal or a page would obey rather than show: a text may hold any, and an archive's names too."""

from __future__ import annotations

import re

OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Controls but for tabs and line feeds, separators of lines, changes of direction, halves of characters."""


def visible(text: str) -> str:
    """`text` with each of those as `\\u001b`, as JSON writes it: within a string of JSON it stays what it is."""
    return OBEYED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
