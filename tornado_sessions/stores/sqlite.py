"""Sessions in one SQLite file, for many processes on one machine."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from tornado_sessions.errors import CodecError, ConfigurationError, StoreError
from tornado_sessions.stores.base import (
    DEFAULT_NAMESPACE,
    META_FIELDS,
    Apply,
    Change,
    Clock,
    Create,
    Delete,
    EndListener,
    Loaded,
    Outcome,
    Record,
    Store,
    checked_namespace,
    unusable,
)
from tornado_sessions.stores.polling import EndPolling, News
from tornado_sessions.stores.sqlite_connection import (
    ITEM_ERRORS,
    Database,
    Snapshot,
    Transaction,
)
from tornado_sessions.stores.sqlite_ends import EndTable
from tornado_sessions.stores.sqlite_pair import Pair
from tornado_sessions.stores.sqlite_rows import (
    AFTER,
    assignments,
    blob,
    is_text,
    marks,
    raw_value,
    record_of,
)
from tornado_sessions.stores.sqlite_schema import migrate, tables
from tornado_sessions.stores.url import path_from

_AT_ONCE = 500
"""Handles that one query names: before SQLite 3.32 it takes 999 parameters."""
_COLUMNS = ", ".join(META_FIELDS)
_OVER = """WHERE handle IN (SELECT handle FROM {records}
    WHERE expires_at <= ? ORDER BY expires_at, handle LIMIT ?)"""


class SQLiteStore(Store):
    """Keeps sessions in a SQLite file (WAL, ``synchronous=FULL``).

    What was acknowledged survives a crash. All commits that are asked for while one
    transaction is under way go into the next one together, with one ``fsync``.

    Who listens for ends asks a table for them, twice a second, in one query; while
    nobody listens nobody asks.

    Args:
        path: The database file, or a ``sqlite:///`` URL. Its directory must exist.
        namespace: Keeps applications apart that share the file.
        busy_timeout: Seconds to wait for a lock that another process holds.
        clock: See `Store`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str = DEFAULT_NAMESPACE,
        busy_timeout: float = 4.0,
        clock: Clock = time.time,
    ) -> None:
        super().__init__(clock=clock)
        file = path_from(path, "sqlite")
        if file in ("", ":memory:"):
            raise ConfigurationError(
                "SQLiteStore needs a file, such as sqlite:///sessions.db; "
                "for sessions in memory use memory://"
            )
        self._tables = tables(checked_namespace(namespace))
        self._ends = EndTable(self._tables["ends"])
        self._polling = EndPolling[int]()
        self._pair = Pair(
            os.path.abspath(file), busy_timeout, partial(migrate, namespace)
        )

    async def open(self) -> None:
        await self._pair.open()

    async def close(self) -> None:
        await self._pair.close()

    async def load(self, handles: Sequence[str]) -> list[Loaded]:
        return await self._pair.read(lambda db: self._load(db, handles))

    async def commit(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        given_up = threading.Event()
        try:
            return await self._pair.write(
                lambda db: self._commit(db, changes, given_up)
            )
        except asyncio.CancelledError:
            given_up.set()  # a thread that waits for a lock hears of it in no other way
            raise

    async def find(self, principal: str) -> list[Record]:
        if not is_text(principal):
            return []
        where = "principal = ? AND expires_at > ?"
        place = (principal, self.clock())
        found = await self._pair.read(lambda db: self._select(db, where, place))
        return [record for record in found.values() if isinstance(record, Record)]

    async def sweep(self, limit: int) -> int:
        return await self._pair.write(lambda db: self._sweep(db, limit))

    async def iterate(self, batch: int = 256) -> AsyncIterator[Record]:
        handles: list[str | bytes] = [""]
        while handles:
            place = (handles[-1], min(batch, _AT_ONCE))
            handles = await self._pair.read(lambda db: self._after(db, *place))  # noqa: B023
            for record in await self.load([h for h in handles if isinstance(h, str)]):
                if isinstance(record, Record):
                    yield record

    async def count(self) -> int:
        query = self._sql("SELECT COUNT(*) FROM {records} WHERE expires_at > ?")
        now = self.clock()
        return await self._pair.read(
            lambda db: int(db.execute(query, (now,)).fetchone()[0])
        )

    async def clear(self) -> None:
        await self._pair.write(self._clear)

    async def listen(self, listener: EndListener) -> None:
        await self.open()
        reader = self._pair.reader

        async def look(place: int | None) -> News[int]:
            if reader is None or reader is not self._pair.reader:
                raise StoreError("the store was closed; listen to it again")
            return await reader.run(lambda db: self._ends.news(db, place))

        await self._polling.tell(listener, look)

    # -- in the connections' threads ---------------------------------------------

    def _sql(self, text: str) -> str:
        return text.format(**self._tables)

    def _load(self, db: Database, handles: Sequence[str]) -> list[Loaded]:
        asked = [handle for handle in handles if is_text(handle)]
        where = f"handle IN ({marks(asked)}) AND expires_at > ?"
        found = self._select(db, where, (*asked, self.clock()))
        return [found.get(handle) for handle in handles]

    def _after(self, db: Database, last: str | bytes, most: int) -> list[str | bytes]:
        """Return the next live handles, damaged ones as bytes."""
        found = db.execute(self._sql(AFTER), (last, self.clock(), most))
        return [handle for (handle,) in found]

    def _select(
        self, db: Database, where: str, parameters: Iterable[Any]
    ) -> dict[str, Record | CodecError]:
        query = f"SELECT handle, {_COLUMNS} FROM {{records}} WHERE {where}"
        with Snapshot(db):
            found = db.execute(self._sql(query), tuple(parameters)).fetchall()
            rows = [row for row in found if isinstance(row[0], str)]
            handles = [row[0] for row in rows]
            pairs: dict[str, list[tuple[bytes, bytes]]] = {h: [] for h in handles}
            query = "SELECT handle, name, value FROM {values} WHERE handle IN"
            for start in range(0, len(handles), _AT_ONCE):
                some = handles[start : start + _AT_ONCE]
                for handle, name, value in db.execute(
                    self._sql(f"{query} ({marks(some)})"), some
                ):
                    pairs[handle].append((name, value))
        return {row[0]: record_of(row, pairs[row[0]]) for row in rows}

    def _commit(
        self, db: Database, changes: Sequence[Change], given_up: threading.Event
    ) -> list[Outcome | Exception]:
        """Carry out *changes*; once they are *given_up*, none begins any more.

        Somebody may have stored, and been told so, what it would put back.
        """
        try:
            with Transaction(db):
                if given_up.is_set():
                    raise StoreError("nobody waits for it any more")
                return [self._carry_out(db, change) for change in changes]
        except ITEM_ERRORS as error:
            if len(changes) == 1:
                return [unusable(error)]
            # One item is at fault: its neighbours go without it (R1).
            return [self._commit(db, [change], given_up)[0] for change in changes]

    def _carry_out(self, db: Database, change: Change) -> Outcome:
        now = self.clock()
        if isinstance(change, Create):
            return self._create(db, change, now)
        if not is_text(change.handle):
            return Outcome.GONE
        if isinstance(change, Delete):
            return self._end(db, change, now)
        return self._apply(db, change, now)

    def _create(self, db: Database, change: Create, now: float) -> Outcome:
        lives = self._lives(db, change.handle, now)
        if lives:
            return Outcome.CONFLICT
        if lives is not None:
            self._delete(db, change.handle, now)
        places = marks(META_FIELDS)
        query = f"INSERT INTO {{records}} (handle, {_COLUMNS}) VALUES (?, {places})"
        fields = msgspec.structs.astuple(change.meta)
        db.execute(self._sql(query), (change.handle, *fields))
        self._set(db, change.handle, change.values.items())
        return Outcome.APPLIED

    def _apply(self, db: Database, change: Apply, now: float) -> Outcome:
        unmet = self._unmet(db, change, now)
        if unmet is not None:
            return unmet
        if not all(
            self._holds(db, change.handle, *one) for one in change.expect.items()
        ):
            return Outcome.CONFLICT
        if change.meta:
            self._update(db, change)
        query = self._sql("DELETE FROM {values} WHERE handle = ? AND name = ?")
        db.executemany(query, [(change.handle, blob(name)) for name in change.unset])
        self._set(db, change.handle, change.set.items())
        return Outcome.APPLIED

    def _update(self, db: Database, change: Apply) -> None:
        query = f"UPDATE {{records}} SET {assignments(change.meta)} WHERE handle = ?"
        db.execute(self._sql(query), (*change.meta.values(), change.handle))

    def _unmet(
        self, db: Database, change: Apply | Delete, now: float
    ) -> Outcome | None:
        """Return why *change* cannot be carried out, if its record says so."""
        sql = "SELECT token FROM {records} WHERE handle = ? AND expires_at > ?"
        row = db.execute(self._sql(sql), (change.handle, now)).fetchone()
        if row is None:
            return Outcome.GONE
        expected = change.expect_token in (None, row[0])
        return None if expected else Outcome.CONFLICT

    def _holds(self, db: Database, handle: str, name: str, raw: bytes | None) -> bool:
        query = self._sql("SELECT value FROM {values} WHERE handle = ? AND name = ?")
        row = db.execute(query, (handle, blob(name))).fetchone()
        return (row[0] if row else None) == raw

    def _set(
        self, db: Database, handle: str, items: Iterable[tuple[str, bytes]]
    ) -> None:
        query = self._sql("INSERT OR REPLACE INTO {values} VALUES (?, ?, ?)")
        db.executemany(query, [(handle, blob(k), raw_value(v)) for k, v in items])

    def _end(self, db: Database, change: Delete, now: float) -> Outcome:
        if self._unmet(db, change, now) is Outcome.CONFLICT:
            return Outcome.CONFLICT
        outcome = self._delete(db, change.handle, now)
        if outcome is Outcome.APPLIED:
            self._ends.add(db, change.handle, change.reason)
        return outcome

    def _delete(self, db: Database, handle: str, now: float) -> Outcome:
        lives = self._lives(db, handle, now)
        for table in ("{records}", "{values}"):
            db.execute(self._sql(f"DELETE FROM {table} WHERE handle = ?"), (handle,))
        return Outcome.APPLIED if lives else Outcome.GONE

    def _lives(self, db: Database, handle: str, now: float) -> bool | None:
        """Tell whether a record is yet to expire; None if there is none.

        SQLite compares, as in every other query: a damaged time need not be a number.
        """
        query = self._sql("SELECT expires_at > ? FROM {records} WHERE handle = ?")
        row = db.execute(query, (now, handle)).fetchone()
        return bool(row[0]) if row else None

    def _sweep(self, db: Database, limit: int) -> int:
        place = (self.clock(), limit)
        with Transaction(db):
            # Named by SQLite itself: a damaged handle would not come back as it is.
            for table in ("{values}", "{records}"):
                swept = db.execute(self._sql(f"DELETE FROM {table} {_OVER}"), place)
        return swept.rowcount

    def _clear(self, db: Database) -> None:
        with Transaction(db):
            for table in ("{records}", "{values}"):
                db.execute(self._sql(f"DELETE FROM {table}"))
