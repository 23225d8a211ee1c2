"""The ends of the last minute, in a table: what the other processes hear of.

An end is numbered and added in the transaction that deletes the session, so there is one
exactly if there is the other. Rows are only ever removed from the front, never the last:
whoever knows the number of a row can tell whether anything is missing after it.
"""

from __future__ import annotations

import math
import time

from tornado_sessions.stores.polling import AT_ONCE, PRUNE_EVERY, RETENTION, News
from tornado_sessions.stores.sqlite_connection import Database


class EndTable:
    """The table of a namespace.

    Args:
        table: Its quoted name.
    """

    def __init__(self, table: str) -> None:
        self._table = table
        self._prune_at = -math.inf

    def add(self, db: Database, handle: str, reason: str) -> None:
        """Note that the session *handle* ends, inside the transaction that ends it."""
        # SQLite's text has no lone surrogates. No reason is worth a failed logout.
        text = reason.encode("utf-8", "replace").decode()
        db.execute(
            f"INSERT INTO {self._table} (handle, reason, at) VALUES (?, ?, ?)",
            (handle, text, time.time()),
        )
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + PRUNE_EVERY
            self._prune(db)

    def news(self, db: Database, place: int | None) -> News[int]:
        """Return the ends after the one with the number *place*."""
        if place is None:
            query = f"SELECT COALESCE(MAX(seq), 0) FROM {self._table}"
            return News(int(db.execute(query).fetchone()[0]), [])
        # The row that was the last is asked for, too: as long as it is there nothing
        # after it was removed.
        query = (
            f"SELECT seq, handle, reason FROM {self._table} WHERE seq >= ? "
            f"ORDER BY seq LIMIT {AT_ONCE + 1}"
        )
        rows = db.execute(query, (place,)).fetchall()
        first, last = (rows[0][0], rows[-1][0]) if rows else (0, 0)
        texts = [row[1:] for row in rows if row[0] != place]
        ends = [(h, r) for h, r in texts if isinstance(h, str) and isinstance(r, str)]
        missed = first not in (place, place + 1) or len(ends) < len(texts)
        return News(last, ends, missed, more=len(rows) > AT_ONCE)

    def _prune(self, db: Database) -> None:
        # By number and not by age alone: should the wall clock jump, a row in the
        # middle must not go before those in front of it. The row just added stays.
        recent = f"SELECT seq FROM {self._table} WHERE abs(? - at) <= ? ORDER BY seq"
        db.execute(
            f"DELETE FROM {self._table} WHERE seq < ({recent} LIMIT 1)",
            (time.time(), RETENTION),
        )
