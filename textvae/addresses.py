"""Addresses (of servers, databases, corpora) as they are shown: without the secrets that they may carry."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

FILES = ("file", "sqlite")
"""Schemes whose addresses are paths: an @ in them is a character like others."""
SECRET = "***"
USER = re.compile(r"(\w[\w+.-]{,40}://)[^\s'\"<>]*@")
QUERY = re.compile(r"(\w[\w+.-]{,40}://[^\s'\"<>?]*)\?[^\s'\"<>)]*")
MOST_CHARACTERS = 4_000
"""Of what a library has said: it may be a whole page, without a space, and looking through it takes its square."""


def shown(address: str) -> str:
    """`address` without name, password and query; of an odd one rather too little than a secret."""
    scheme, separator, rest = address.partition("://") if "://" in address else ("", "", address)
    place, _, query = rest.partition("?")
    if scheme.lower() not in FILES:
        port = place.partition("/")[0].rpartition("]")[2].partition(":")[2]
        if "@" in query and port and not port.isdigit():  # a password with a question mark in it
            return scheme + separator + SECRET
        place = place.rpartition("@")[2]
    # What stands behind the # is part of a page or of a file, and no server is told of it.
    return scheme + separator + place + "".join(query.partition("#")[1:])


def masked(text: str, address: str = "") -> str:
    """The beginning of what a library has said of `address`, and of any other, without what `shown` leaves out."""
    text = text[:MOST_CHARACTERS]
    if address:
        text = text.replace(address, shown(address))
    for secret in sorted(secrets(address), key=len, reverse=True):
        text = text.replace(secret, SECRET)
    return QUERY.sub(r"\1", USER.sub(r"\1", text))


def secrets(address: str) -> set[str]:
    """The password of an address and the values of its query, as they stand there and as they are meant."""
    scheme, _, rest = address.partition("://")
    place, _, query = rest.partition("?")
    values = [part.partition("=")[2] or part for part in re.split("[&;]", query.partition("#")[0])]
    if scheme.lower() not in FILES:
        values.append(rest.rpartition("@")[0].partition(":")[2] if "@" in place else "")
    return {form for value in values for form in (value, unquote_plus(value)) if form}
