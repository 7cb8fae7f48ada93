"""What `make fuzz` gives to readers: a strategy for each kind of input, near to what is right: much is taken."""

from __future__ import annotations

import bz2
import copy
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

ODD_WORDS = ["a", "b", "The", "dog", "UNK", "_UNK", "<unk>", "<s>", "</s>", "PAD", "BOS", "EOS", "[CLS]", "é", "ß", "İ"]
ODD_WORDS += ["<|endoftext|>", "犬は", "我", ",", ".", '"', "|", "{", "}", "[", "1,000"]
ODD_WORDS += ["don't", "U.S.", "-LRB-", "(", ")", "__label__x", "#", "a" * 600, "e\u0301", "\x1b[31m", "\u202e"]
ODD_WORDS += ["\u2028", "\u0085", "\u00a0", "\u3000", "\ufeff", "\x1c"]  # spaces, to Unicode
ENDS = ["\n", "\n", "\n", "\r\n", "\n\n", "\r\r\n", "\r", "\u2028", "\x0b", "\x0c", " \n", "\t\n", "\0\n"]
SPACES = [" ", " ", " ", "  ", "\t", "\x0b", "\u00a0"]
NUMBERS = [0, 1, 2, 3, 5, -1, 0.5, 1.0, -0.0, 1e-30, 1e30, 1e308, 10**9, 10**30, 2**31, 2**63]
OTHERS = [None, True, False, [], {}, [[]], [None], {"a": 1}, "", "x", "1", "nan", "..", "a/b", "finished", "vae"]
TEXTS = ["\0", "\ud800", "\u2028", "\x1b[31m", "a\nb", "ä", "9" * 400]
SCALARS: SearchStrategy[Any] = st.one_of(
    *map(st.sampled_from, (NUMBERS, OTHERS, TEXTS)), st.integers(-3, 40), st.floats(width=32), st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
BYTES = [b"\xff", b"[" * 5000, b"1" * 5000, b"\xef\xbb\xbf"]


def places(content: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where every value of a JSON document stands."""
    if at:
        yield at
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        yield from places(value, (*at, key))


@st.composite
def altered(draw: DrawFn, content: Any) -> Any:
    """`content` (JSON) with one to three changes: another value, a key more or less, a value moved to another place."""
    made = copy.deepcopy(content)
    for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2, 3]))):
        found = list(places(made))
        if not found:
            break
        at = draw(st.sampled_from(found))
        inner = made
        for key in at[:-1]:
            inner = inner[key]
        act = draw(st.sampled_from(["value", "value", "near", "near", "remove", "add", "move"]))
        old = inner[at[-1]]
        if act == "remove":
            del inner[at[-1]]
        elif act == "add" and isinstance(inner, dict):
            inner[draw(st.sampled_from(["x", "", "format_version", "checksum", "files", "status"]))] = copy.deepcopy(
                draw(VALUES)
            )
        elif act == "near" and isinstance(old, int | float) and not isinstance(old, bool):
            inner[at[-1]] = old + draw(st.sampled_from([-1, 1, 2, 0.5, -old, old]))
        elif act == "near" and isinstance(old, list) and old:
            inner[at[-1]] = draw(st.sampled_from([old[1:], old * 2, old[::-1]]))
        elif act == "near":
            continue
        elif act == "move":
            other = made
            for key in draw(st.sampled_from(found)):
                other = other[key] if isinstance(other, dict) and key in other else other
            inner[at[-1]] = copy.deepcopy(other)
        else:
            inner[at[-1]] = copy.deepcopy(draw(VALUES))
    return made


def as_json(value: Any) -> bytes:
    """JSON as others write it: NaN and lone surrogates included."""
    return json.dumps(value).encode()


@st.composite
def damaged(draw: DrawFn, content: bytes) -> bytes:
    """`content` with a bit flipped, an end missing, a part twice, or bytes put in."""
    made = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(made) - 1, 0)))
        act = draw(st.sampled_from(["flip", "cut", "twice", "insert"]))
        if act == "flip" and made:
            made[at] ^= 1 << draw(st.integers(0, 7))
        elif act == "cut":
            del made[at:]
        elif act == "twice":
            made[at:at] = made[at : at + draw(st.integers(1, 40))]
        else:
            made[at:at] = draw(st.binary(max_size=4) | st.sampled_from(BYTES))
    return bytes(made)


def documents(content: Any) -> SearchStrategy[tuple[bytes, bool]]:
    """A JSON file near to `content`, and whether it is sealed anew (a checksum that is right)."""
    whole = st.tuples(altered(content), st.just(True))
    return st.one_of(
        whole.map(lambda made: (as_json(made[0]), True)),
        whole.map(lambda made: (as_json(made[0]), True)),
        altered(content).map(lambda made: (as_json(made), False)),
        damaged(as_json(content)).map(lambda made: (made, False)),
        VALUES.map(lambda made: (as_json(made), True)),
    )


# --- corpora -----------------------------------------------------------------------------------------------------

WORDS = st.sampled_from(ODD_WORDS) | st.text(min_size=1, max_size=4)


@st.composite
def texts(draw: DrawFn) -> bytes:
    """Lines of words, ended and separated in odd ways, in one encoding or another."""
    ends = draw(st.sampled_from([["\n"], ["\n"], ["\r\n"], ENDS]))
    spaces = draw(st.sampled_from([[" "], SPACES]))
    some = draw(st.lists(WORDS, min_size=2, max_size=6))
    text = ""
    for _ in range(draw(st.integers(0, 14))):
        for word in draw(st.lists(st.sampled_from(some), max_size=7)):
            text += word + draw(st.sampled_from(spaces))
        text += draw(st.sampled_from(ends))
    encoding = draw(st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "latin-1", "gb18030"]))
    return text.encode(encoding, errors="replace")


@st.composite
def snli_pairs(draw: DrawFn) -> bytes:
    """Lines of SNLI as JSON, some of them not right."""
    trees = ["( ( A dog ) runs )", "a", "( a b )", "( -LRB- \u00a0 )", "( ( <s> UNK ) b )", "", "( )"]
    columns = ["sentence1_binary_parse", "sentence2_binary_parse", "gold_label"]
    rows = draw(st.lists(st.lists(st.sampled_from(trees), min_size=3, max_size=3), min_size=1, max_size=6))
    pairs: list[Any] = [dict(zip(columns, row, strict=True)) for row in rows]
    if draw(st.integers(0, 5)) == 0:
        pairs[-1] = draw(altered(pairs[-1]))
    return b"\n".join(map(as_json, pairs))


def packed(kind: str, files: dict[str, bytes]) -> bytes:
    """Files as one: compressed (the first alone) or in an archive."""
    first = next(iter(files.values()))
    if kind in ("gz", "bz2", "xz"):
        return {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[kind](first)
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=stream, mode="w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


@st.composite
def corpora(draw: DrawFn, reader: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Files of a corpus below a folder, and settings of fetch that name it."""
    content = snli_pairs() if reader == "snli" else texts()
    names = [f"{split}.{'jsonl' if reader == 'snli' else 'txt'}" for split in ("train", "valid", "test")]
    files = {name: draw(content) for name in names}
    source: dict[str, Any] = {"path": ".", "reader": reader, "lowercase": draw(st.booleans())}
    source["tokenizer"] = "spaces" if reader == "snli" else draw(st.sampled_from(["spaces", "spaces", "words"]))
    if reader == "snli" or draw(st.booleans()):
        source["splits"] = dict(zip(("train", "valid", "test"), names, strict=True))
    else:
        source |= {"valid_fraction": 0.3, "test_fraction": 0.3, "split_by": draw(st.sampled_from(["line", "document"]))}
        source["split_seed"] = draw(st.integers(0, 3))
    kind = draw(st.sampled_from(["folder", "folder", "zip", "tar", "gz", "bz2", "xz", "txt"]))
    if kind == "txt" and reader != "snli":
        files = {"all.txt": b"\n".join(files.values())}
        source["path"] = "all.txt"
    elif kind in ("zip", "tar") or (kind != "folder" and reader != "snli"):
        pack = packed(kind, files)
        files = {f"all.{kind}": draw(damaged(pack)) if draw(st.integers(0, 3)) == 0 else pack}
        source["path"] = f"all.{kind}"
    return files, draw(altered(source)) if draw(st.integers(0, 5)) == 0 else source


# --- YAML, Parquet, command lines --------------------------------------------------------------------------------

YAML_PARTS = [
    "&x ",
    "*x",
    "<<: *x",
    "!!python/object:os.system {}",
    "!!set {a}",
    "2020-01-01",
    "0o17",
    "1_000",
    "no",
    "~",
]
YAML_PARTS += ["? [a]: b", "\t", "---\n", "%YAML 9.9\n", "{a: 1, a: 2}", "|\n  x", "'", '"\\ud800"', "\x85", "\ufeff"]
YAML_PARTS += [".inf", "1e400", "[" * 300, "&x [*x]"]


@st.composite
def yaml_files(draw: DrawFn, content: dict[str, Any], text: str) -> bytes:
    """A YAML file near to `content`, or to its `text`. JSON is YAML."""
    if draw(st.integers(0, 3)):
        return as_json(draw(altered(content)))
    at = draw(st.integers(0, len(text)))
    end = at + draw(st.sampled_from([0, 0, 1, 10]))
    made = text[:at] + draw(st.sampled_from(YAML_PARTS) | st.text(max_size=3)) + text[end:]
    content_bytes = made.encode(errors="replace")
    return draw(damaged(content_bytes)) if draw(st.integers(0, 3)) == 0 else content_bytes


IDS = pa.list_(pa.int32())
TYPES: dict[str, list[pa.DataType]] = {
    "tokens": [IDS] * 12 + [pa.list_(pa.int64()), pa.list_(pa.float32()), pa.large_list(pa.int32()), pa.int32()],
    "sentence": [pa.string()] * 12 + [pa.large_string(), pa.int32()],
    "cut": [pa.bool_()] * 12 + [pa.int32(), pa.string()],
    "log_prob": [pa.float64()] * 12 + [pa.string()],
}


@st.composite
def tables(draw: DrawFn, columns: list[str], metadata: bytes | None = None) -> pa.Table:
    """A table with these columns, or nearly: of other types, with nulls, without one, empty."""
    rows, size = draw(st.integers(0, 5)), draw(st.integers(0, 4))
    floats = [pa.list_(pa.float32(), size)] * 12 + [pa.list_(pa.float32()), pa.list_(pa.float64(), size), pa.float32()]
    kept = [name for name in columns if draw(st.integers(0, 15))]
    made = pa.table({name: draw(column(draw(st.sampled_from(TYPES.get(name, floats))), rows)) for name in kept})
    return made if metadata is None else made.replace_schema_metadata({"textvae": metadata})


@st.composite
def column(draw: DrawFn, kind: pa.DataType, rows: int) -> pa.Array:
    """Values of an Arrow type, nulls among them now and then."""
    inner: SearchStrategy[Any] = st.integers(-1, 14) if draw(st.booleans()) else st.integers(4, 10)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        if pa.types.is_floating(kind.value_type):
            inner = st.sampled_from([0.0, 1.0, -2.5, float("nan"), float("inf"), 1e30])
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        inner = st.lists(inner, min_size=size or 0, max_size=6 if size is None else size)
    elif pa.types.is_boolean(kind):
        inner = st.booleans()
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        inner = st.sampled_from(["", "the cat", "dog", "\0", "a b"])
    elif pa.types.is_floating(kind):
        inner = st.sampled_from([-1.0, float("nan")])
    if draw(st.integers(0, 9)) == 0:
        inner = inner | st.none()
    return pa.array([draw(inner) for _ in range(rows)], kind)


ARGUMENTS = ["", "x", "..", "-1", "0", "1", "10" * 20, "nan", "\udcff", "\u2028", "{}", "{", "[]", "[1]", '{"x": 1}']
ARGUMENTS += ["--", "--help", "/dev/null"]
"""Of command lines; "\\0" can be in none."""


@st.composite
def command_lines(draw: DrawFn, options: dict[str, list[str]]) -> list[str]:
    """The options of a command with right or wrong values; some left out, some twice, some unknown."""
    line: list[str] = []
    for option, good in options.items():
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 1, 1, 1, 2]))):
            value = draw(st.sampled_from(good * 6 + ARGUMENTS) if good else st.sampled_from(ARGUMENTS))
            line += [option, value] if draw(st.integers(0, 9)) else [f"{option}={value}"]
    if draw(st.integers(0, 9)) == 0:
        line.insert(draw(st.integers(0, len(line))), draw(st.sampled_from([*ARGUMENTS, "--no-such", "-h"])))
    return line
