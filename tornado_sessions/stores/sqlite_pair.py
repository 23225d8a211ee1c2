"""The two SQLite connections of a store: one that reads and one that writes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.sqlite_connection import Connection, DamagedError, Database

T = TypeVar("T")


_FORKED = (
    "this process was forked while the store was open, and SQLite does not survive that "
    '("How To Corrupt An SQLite Database File", 2.6): await the close() of the store or '
    "of its manager before the fork"
)


class Pair:
    """Opened when first needed.

    Reads have a connection and a thread of their own: in WAL mode they need not wait
    while a transaction waits for the disk.

    Args:
        path: The database file.
        busy_timeout: Seconds to wait for a lock that another process holds.
        prepare: Runs on the database before anything else does.
    """

    def __init__(
        self, path: str, busy_timeout: float, prepare: Callable[[Database], None]
    ) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._prepare = prepare
        self._writer: Connection | None = None
        self._process = os.getpid()
        self.reader: Connection | None = None
        """None if they are closed."""

    async def open(self) -> None:
        """Open both, unless that was done.

        Raises:
            StoreError: The parent of this process had done it. (Opened anew here, they
                would hold no lock: within a process SQLite counts those that it has.)
        """
        if self._writer is None:
            self._process = os.getpid()
            writer = Connection(self._path, self._busy_timeout)
            try:
                await writer.run(self._prepare)
            except BaseException:
                await writer.close()
                raise
            if self._writer is not None:  # somebody else was faster
                await writer.close()
                return
            self.reader = Connection(self._path, self._busy_timeout)
            self._writer = writer
        elif self._process != os.getpid():
            raise StoreError(_FORKED)

    async def close(self) -> None:
        """Close both, once what is under way is over; those of a parent stay its own."""
        if self._process != os.getpid():
            return
        both = (self.reader, self._writer)
        self.reader = self._writer = None
        for connection in both:
            if connection is not None:
                await connection.close()

    async def read(self, work: Callable[[Database], T]) -> T:
        """Return what *work* returns, which changes nothing."""
        await self.open()
        return await self._run(self.reader, work)

    async def write(self, work: Callable[[Database], T]) -> T:
        """Return what *work* returns."""
        await self.open()
        return await self._run(self._writer, work)

    async def _run(
        self, connection: Connection | None, work: Callable[[Database], T]
    ) -> T:
        assert connection is not None
        try:
            return await connection.run(work)
        except DamagedError:
            # Who restores the file, or moves it away, need not restart the server.
            if connection in (self.reader, self._writer):
                await self.close()
            raise
