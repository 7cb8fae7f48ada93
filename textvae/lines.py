"""What a line of text is, wherever text is read: a corpus, a user's sentences.

A line ends at a line feed, and a carriage return before it belongs to the end. No other character ends one: a carriage
return elsewhere is what other systems end lines with, and would join two sentences, so it is refused. Words are what
stands between characters of WHITE_SPACE, and a line with nothing else is empty.
"""

from textvae.errors import DataError

WHITE_SPACE = " \t\v\f\r\n"
"""ASCII's, at which KenLM splits, too. What Unicode calls spaces or ends of lines beside them (U+00A0, U+2028, U+0085,
...) are letters; only spaCy's rules split at them."""
ASCII_WHITE_SPACE = str.maketrans(WHITE_SPACE, " " * len(WHITE_SPACE))


def words_between_spaces(text: str) -> list[str]:
    """The words of a text whose words are separated already."""
    return [word for word in text.translate(ASCII_WHITE_SPACE).split(" ") if word]


def decoded(line: bytes, where: str, first: bool) -> str:
    """A line without its end; of the `first` of a file without a byte order mark.

    Raises DataError naming `where` for NUL bytes, for bytes that are not UTF-8 and for a carriage return inside it.
    """
    if b"\0" in line:
        raise DataError(f"{where}: a NUL byte, which no text has; take it out, say with `tr -d '\\000'`")
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        wrong = line[error.start]
        raise DataError(
            f"{where}: not UTF-8 (0x{wrong:02x} at byte {error.start}); convert it from its encoding, say with "
            "`iconv -f WINDOWS-1252 -t UTF-8` (or GB18030, BIG5, SHIFT_JIS, EUC-KR, KOI8-R, ...)"
        ) from None
    text = text.removesuffix("\n").rstrip("\r")
    if "\r" in text:
        raise DataError(
            f"{where}: a carriage return inside the line, where another system ends lines; make line feeds of them, "
            "`sed 's/\\r*$//; s/\\r/\\n/g'`, or spaces, `tr '\\r' ' '`"
        )
    return text
