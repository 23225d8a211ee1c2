"""Which signed cookies were verified before: a browser sends the same one again and again.

Checking a signature is a good part of what a session costs. It is checked once for each
value in each process; after that the value is known by a keyed hash. Nothing that is
kept opens a session.
"""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping
from hashlib import blake2b

REMEMBERED = 4096
"""Values to know at the most; with twice that many visitors at a time it is of no use."""


class VerifiedCookies:
    """Recalls the content of values that Tornado has verified with the same secret.

    Args:
        max_age: Seconds after which a value is too old, by the time that it was signed.
    """

    def __init__(self, max_age: float) -> None:
        self._max_age = max_age
        self._key = secrets.token_bytes(32)
        self._secret: object = None
        self._recent: set[bytes] = set()
        self._before: set[bytes] = set()

    def recall(self, value: str, secret: object) -> bytes | None:
        """Return what *value* carries if it was verified before and is not too old."""
        if secret != self._secret:
            return None
        name = self._hash(value)
        if name not in self._recent:
            if name not in self._before:
                return None
            self._remember(name)
        # 2|1:0|10:1700000000|7:session|64:content|signature
        _, _, signed_at, rest = value.split("|", 3)
        if int(signed_at[3:]) < time.time() - self._max_age:
            return None
        return base64.b64decode(rest.rsplit("|", 2)[1].partition(":")[2])

    def remember(self, value: str, secret: object) -> None:
        """Have *value* known: Tornado has just verified it with *secret*."""
        if secret != self._secret:
            self._secret = dict(secret) if isinstance(secret, Mapping) else secret
            self._recent, self._before = set(), set()
        self._remember(self._hash(value))

    def _hash(self, value: str) -> bytes:
        return blake2b(value.encode(), digest_size=16, key=self._key).digest()

    def _remember(self, name: bytes) -> None:
        if len(self._recent) >= REMEMBERED // 2:
            self._recent, self._before = set(), self._recent
        self._recent.add(name)
