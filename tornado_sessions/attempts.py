"""What commits that seemed to fail may have stored all the same.

The answer of a store can be lost after it has done what it was asked. Whoever tries again
meets what it stored itself, and must not take it for somebody else's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tornado_sessions.stores.base import Apply, Change, Create


class Attempts(NamedTuple):
    """Those of one session."""

    names: frozenset[str] | None = None
    """The stored names that a `Create` may have left, if there was one."""
    tokens: frozenset[bytes] = frozenset()
    """The digests of the tokens with which an epoch may have begun."""

    def and_of(self, changes: Sequence[Change]) -> Attempts:
        """Return these, and *changes*."""
        names, tokens = self
        for change in changes:
            if isinstance(change, Create):
                names = (names or frozenset()) | change.values.keys()
            elif isinstance(change, Apply) and "epoch" in change.meta:
                tokens |= {change.meta["token"]}
        return Attempts(names, tokens)


NO_ATTEMPTS = Attempts()
