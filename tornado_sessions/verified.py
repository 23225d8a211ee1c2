"""Which signed cookies were verified before: a browser sends the same one again and again.

Checking a signature is a good part of what a session costs. It is checked once for each
value in each process; after that the value is known by a keyed hash. Nothing that is
kept opens a session.
"""

from __future__ import annotations

import secrets
import time
from binascii import a2b_base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from tornado_sessions.cookie import Ticket

REMEMBERED = 4096
"""Values to know at the most; with twice that many visitors at a time it is of no use."""


_CONTENT = slice(-129, -65)
"""Where a value has its content, 48 characters as base64: before 64 hex digits."""


class _Known(NamedTuple):
    signed_at: int
    epoch: int


class VerifiedCookies:
    """Recalls the tickets in values that Tornado has verified with the same secret.

    Args:
        max_age: Seconds after which a value is too old, by the time that it was signed.
    """

    def __init__(self, max_age: float) -> None:
        self._max_age = max_age
        self._key = secrets.token_bytes(32)
        self._secret: object = None
        self._recent: dict[bytes, _Known] = {}
        self._before: dict[bytes, _Known] = {}

    def recall(self, value: str, secret: object) -> Ticket | None:
        """Return what *value* says if it was verified before and is not too old."""
        if secret != self._secret:
            return None
        name = self._hash(value)
        known = self._recent.get(name)
        if known is None:
            known = self._before.get(name)
            if known is None:
                return None
            self._remember(name, known)
        age = time.time() - known.signed_at
        if age > self._max_age:
            return None
        text = a2b_base64(value[_CONTENT]).decode()
        return Ticket(text[:22], text[22:44], known.epoch, age=age)

    def remember(self, value: str, secret: object, ticket: Ticket) -> Ticket:
        """Have *value* known: Tornado has verified it with *secret*, and it says that.

        Returns:
            The ticket, and how old it is.
        """
        if secret != self._secret:
            self._secret = dict(secret) if isinstance(secret, Mapping) else secret
            self._recent, self._before = {}, {}
        # 2|1:0|10:1700000000|7:session|64:content|signature
        signed_at = int(value.split("|", 3)[2][3:])
        self._remember(self._hash(value), _Known(signed_at, ticket.epoch))
        return ticket._replace(age=time.time() - signed_at)

    def _hash(self, value: str) -> bytes:
        return blake2b(value.encode(), digest_size=16, key=self._key).digest()

    def _remember(self, name: bytes, known: _Known) -> None:
        if len(self._recent) >= REMEMBERED // 2:
            self._recent, self._before = {}, self._recent
        self._recent[name] = known
