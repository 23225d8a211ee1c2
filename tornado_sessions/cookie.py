"""The cookie's value, and where to find it in a request.

What Tornado signs is 48 ASCII characters: the handle (22), the token (22) and the epoch
(4, base64url of three bytes). ASCII text whose length is divisible by three becomes
base64 without ``=`` and ``/``, so the value is never quoted, and it stays under 200
bytes with its signature.
"""

from __future__ import annotations

import base64
import binascii
import enum
import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

MAX_VALUE = 512
"""A longer candidate is not even looked at."""
MAX_CANDIDATES = 256
"""How many cookies of our name one request may try: more than a browser keeps."""
_INNER = re.compile(rb"[A-Za-z0-9_-]{48}")
_STANDARD = bytes.maketrans(b"-_", b"+/")


class CookieDue(enum.Enum):
    """What the response has to do with the cookie."""

    KEEP = "keep"
    SEND = "send"
    CLEAR = "clear"


class Ticket(NamedTuple):
    """What a verified cookie says: which session, since which login, and the secret."""

    handle: str
    token: str
    epoch: int
    resign: bool = False
    """The cookie was signed with a key that is not the newest."""
    handed_out: bool = False
    """The visitor has yet to present this token."""
    age: float = 0.0
    """Seconds since the cookie was signed, as of this request."""

    def __repr__(self) -> str:
        return f"Ticket(handle={self.handle!r}, epoch={self.epoch})"


def encode(ticket: Ticket) -> str:
    """Return the text to be signed."""
    epoch = base64.urlsafe_b64encode(ticket.epoch.to_bytes(3, "big")).decode()
    return ticket.handle + ticket.token + epoch


def decode(inner: bytes, *, resign: bool = False) -> Ticket | None:
    """Return the ticket in a verified value, or None if it is not one of ours."""
    if _INNER.fullmatch(inner) is None:
        return None
    text = inner.decode()
    epoch = binascii.a2b_base64(inner[44:].translate(_STANDARD))
    return Ticket(text[:22], text[22:44], int.from_bytes(epoch, "big"), resign)


def candidates(header: str, name: str) -> list[str]:
    """Return every value that the ``Cookie`` header holds for *name*, in order.

    Tornado's own parser keeps the last duplicate only, and browsers send the most
    specific first: a cookie planted on a parent domain would shadow the real one.
    Only blanks and tabs are no part of a name, as in browsers (RFC 6265 §5.4): one that
    begins with another space is no ``__Host-`` cookie, so that subdomains can set it.
    """
    if name not in header:
        return []
    found = [
        value
        for text in _values_of(name)(header)
        if 0 < len(value := text.strip().strip('"')) <= MAX_VALUE
    ]
    return found[:MAX_CANDIDATES]


@lru_cache
def _values_of(name: str) -> Callable[[str], list[str]]:
    return re.compile(rf"(?:^|;)[ \t]*{re.escape(name)}[ \t]*=([^;]*)").findall
