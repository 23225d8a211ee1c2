"""What is left of a session that has ended: a note of why, in the place of its record.

One write removes the record and puts the note there, so neither can happen without the
other, whoever is killed or cut off in between: a note never comes too early, so that
somebody closes the sockets of a session that lives; and never is one lacking, so that
they stay open. Nor does it take another round trip.

A note has

* ``_id``: the handle;
* ``expires_at``: 0, so that to whoever reads records it is an expired one;
* ``ended_at``: a timestamp that the server gives it, later than all before;
* ``reason``: why;
* ``ttl``: when it may be deleted, as with a record.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import Clock, Delete, Outcome
from tornado_sessions.stores.mongo_calls import answer_of
from tornado_sessions.stores.mongo_documents import meta_value, ttl_date
from tornado_sessions.stores.mongo_driver import DatetimeMS, Timestamp
from tornado_sessions.stores.mongo_errors import code_of

log = logging.getLogger("tornado_sessions")

_KEPT = 60.0
"""Seconds for which everybody can read a note, at least."""
_LONGEST = 1 << 10
"""Characters of a reason that are kept."""
_SET_BY_SERVER = Timestamp(0, 0)
_NO_ROOM = {11000, 121, 14031, 17419, 17420}
"""A unique index or a validator of somebody else has no place for notes; or a disk."""
_EXPIRES_AT = {"expires_at": 1}


def note_of(end: Delete, clock: Clock) -> dict[str, Any]:
    """Return the note that *end* leaves."""
    reason = end.reason[:_LONGEST].encode("utf-8", "replace").decode()
    return {
        "expires_at": 0,
        "ended_at": _SET_BY_SERVER,
        "reason": reason,
        "ttl": ttl_date(clock() + _KEPT, clock),
    }


def end_in(document: dict[str, Any]) -> tuple[str, str] | None:
    """Return the handle and the reason if *document* is a note, else None."""
    handle, reason = document.get("_id"), document.get("reason")
    if isinstance(handle, str) and isinstance(reason, str):
        return handle, reason
    return None


def outdated(now: float) -> dict[str, Any]:
    """Return what finds records that expired until *now*, and notes that everybody read."""
    # The first by the clock of the application, the others as the TTL index does it.
    read = {"ttl": {"$lte": DatetimeMS(int(time.time() * 1000))}}
    no_note = {"ended_at": {"$exists": False}}
    return {"expires_at": {"$lte": now}, "$or": [no_note, read]}


class Ends:
    """Ends sessions; says once if that cannot be told to others."""

    def __init__(self) -> None:
        self._warned = False

    async def end(
        self, collection: Any, change: Delete, note: dict[str, Any], now: float
    ) -> Outcome:
        """Put *note* in the place of the record, if it has not expired until *now*.

        It is GONE if there is none, or none with the token that *change* expects.

        Raises:
            StoreError: The database failed.
        """
        # What never expires is malformed: it has to go as well.
        where = {"_id": change.handle, "expires_at": {"$not": {"$lte": now}}}
        if change.expect_token is not None:
            where["token"] = meta_value("token", change.expect_token)
        try:
            replacing = collection.find_one_and_replace(where, note, _EXPIRES_AT)
            found = await answer_of(replacing)
        except StoreError as error:
            if code_of(error) not in _NO_ROOM:
                raise
            self._warn(error)
            deleting = collection.find_one_and_delete(where, _EXPIRES_AT)
            found = await answer_of(deleting)
        expires_at = (found or {}).get("expires_at")
        live = isinstance(expires_at, (int, float)) and expires_at > now
        return Outcome.APPLIED if live else Outcome.GONE

    def _warn(self, error: StoreError) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "a session ended, but other processes cannot be told: their sockets "
                "stay open until it would have expired. %s",
                error,
            )
