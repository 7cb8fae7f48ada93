"""Tables and JSON where one sentence a line is expected: what they are, and the command that takes the sentences out.

By content: the same number of fields in every row, or JSON's first brackets; and by name, whatever they hold.
"""

import csv
import json
import re
import shlex
from collections import Counter
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from textcorpus.file_kinds import HEAD_BYTES, is_utf_8
from textcorpus.sentence_markers import MARKER

FEWEST_ROWS, FIRST_ROWS = 3, 100
"""Fewer rows with the same number of fields may be chance; so many are looked at."""
DELIMITERS = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
TABLE_NAMES = (".csv", ".tsv", ".tab")
JSON_NAMES = (".json", ".jsonl", ".ndjson")
JSON = re.compile(r'\s*(\[\s*)?\{\s*"(?:[^"\\]|\\.)*"\s*:|\s*\[\s*"(?:[^"\\\n]|\\.)*"\s*(,\s*"|\]\s*$)', re.MULTILINE)
"""An object's first key, alone or in a list, or a list of strings."""
TAGGED = re.compile(r"(#.*\r?\n)*(\S+(\t\S*)+\r?\n)+\s*\n(#.*\r?\n)*(\S+(\t\S*)+\r?\n){2}")
"""Words with their tags, a line each, and an empty line between sentences."""
UNLABELLED = "sed -E 's/^(__label__[^[:space:]]+[[:space:]]+)+//'"
CATS = {".gz": "zcat", ".bz2": "bzcat", ".xz": "xzcat"}


def not_sentences(head: bytes, name: str) -> str | None:
    """What a file with these first bytes and this name is and the remedy, where its lines are no sentences."""
    if not is_utf_8(head):
        return None  # the remedy for that comes first
    text = MARKER.sub("", head.decode("utf-8-sig", errors="replace"))  # `<|endoftext|>` has two bars
    plain = re.sub(r"\.(gz|bz2|xz)$", "", name.lower())
    if JSON.match(text) or plain.endswith(JSON_NAMES):
        return json_remedy(text, name)
    lines = text.split("\n")
    if len(head) >= HEAD_BYTES:
        lines.pop()  # cut
    if text.startswith("__label__") and all(line.startswith("__label__") for line in lines if line.strip()):
        return f"text with labels in front (fastText); take them out: `{piped(name, UNLABELLED)}`"
    if TAGGED.match(text):
        return f"one word a line with its tags (CoNLL); join them: `{piped(name, joined(text))}`"
    for delimiter in DELIMITERS:
        rows = table_rows(lines, delimiter)
        if len(rows) >= FEWEST_ROWS:
            return table_remedy(rows, delimiter, name)
    if plain.endswith(TABLE_NAMES):
        return "a table, by its name; write its column of sentences to a .txt file, or rename it if it has no columns"
    return None


def joined(text: str) -> str:
    """A command that makes a line of the words between empty lines. CoNLL-U numbers them and has remarks."""
    numbered = re.match(r"(#.*\s+)*1(-\d+)?\t", text) is not None
    wanted = 'NF && /^[0-9]+\\t/ {printf "%s ", $2}' if numbered else 'NF && $1 != "-DOCSTART-" {printf "%s ", $1}'
    return f"awk -F'\\t' '{{sub(/\\r$/, \"\")}} !NF {{print \"\"}} {wanted}'"


def table_rows(lines: list[str], delimiter: str) -> list[list[str]]:
    """The first rows of a table with two columns at least; none where these lines are no table.

    Prose has a space beside its commas, tokenised text on both sides; a table has none.
    """
    by_tabs = (line.split("\t") for line in lines)  # without quotes
    split = by_tabs if delimiter == "\t" else csv.reader(lines, delimiter=delimiter)
    rows: list[list[str]] = []
    try:
        for row in islice(split, FIRST_ROWS):
            if not any(row):
                continue
            padded = any(field.strip(" ") != field for field in row)
            if len(row) < 2 or padded or (rows and len(row) != len(rows[0])):
                return []
            rows.append(row)
    except csv.Error:
        return []
    return rows


def table_remedy(rows: list[list[str]], delimiter: str, name: str) -> str:
    """A command that writes the column with the longest text, without its heading."""
    column = max(range(len(rows[0])), key=lambda number: sum(len(row[number]) for row in rows))
    if delimiter == "\t":
        take, keep = f"cut -f{column + 1}", "tr '\\t' ' '"
    else:
        wanted = "" if delimiter == "," else f", delimiter='{delimiter}'"
        take = python(
            f"import csv, sys; [print(' '.join(row[{column}].split())) for row in csv.reader(sys.stdin{wanted})]"
        )
        keep = f"sed 's/{delimiter}/& /g'"
    headed = len(rows[0][column].split()) == 1 and sum(len(row[column].split()) > 1 for row in rows) > len(rows) / 2
    return (
        f"a table with {len(rows[0])} columns between {DELIMITERS[delimiter]}; take the sentences out: "
        f"`{piped(name, take + ' | tail -n +2' * headed)}` (if all of a row is the sentence: `{keep}`)"
    )


def json_remedy(text: str, name: str) -> str:
    """A command that writes the longest text of every object."""
    sizes: Counter[str] = Counter()
    for found in first_objects(text):
        sizes.update({key: len(value.split()) for key, value in found.items() if isinstance(value, str)})
    by_line = isinstance(parsed(text.strip().split("\n")[0]), dict)
    if not sizes or not (by_line or text.lstrip().startswith("[")):
        return "JSON; write its sentences to a .txt file, one a line"
    rows, row = ("sys.stdin", "json.loads(row)") if by_line else ("json.load(sys.stdin)", "row")
    key = sizes.most_common(1)[0][0]
    command = python(f"import json, sys; [print(' '.join({row}[{key!r}].split())) for row in {rows}]")
    return f"JSON; take the sentences out: `{piped(name, command)}`"


def first_objects(text: str) -> list[dict[str, Any]]:
    """The first objects of JSON that is cut, or of lines of JSON."""
    found: list[dict[str, Any]] = []
    position = text.find("{")
    while position >= 0 and len(found) < FIRST_ROWS:
        try:
            value, position = json.JSONDecoder().raw_decode(text, position)
        except json.JSONDecodeError:
            break
        found.append(value)
        position = text.find("{", position)
    return found


def parsed(line: str) -> Any:
    """A line as JSON; None for what is none."""
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def python(program: str) -> str:
    """A program for the shell."""
    return f'python -c "{program}"'


def piped(name: str, command: str) -> str:
    """The file through a command into a text file beside it."""
    path = PurePosixPath(name)
    target = path.with_name((path.name.split(".")[0] or "text") + ".sentences.txt")
    return f"{CATS.get(path.suffix, 'cat')} {shlex.quote(name)} | {command} > {shlex.quote(str(target))}"
