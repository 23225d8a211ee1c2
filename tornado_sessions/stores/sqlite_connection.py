"""One SQLite connection with a thread of its own, and its transactions."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tornado_sessions.errors import StoreError

T = TypeVar("T")
Database = sqlite3.Connection

ITEM_ERRORS = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    AttributeError,
    OverflowError,
    TypeError,
    ValueError,
)
"""What an unusable item raises, as opposed to a database in trouble."""


class DamagedError(StoreError):
    """The file is damaged."""


class Connection:
    """A connection and the one thread that uses it, both made when first needed.

    They end with it, if nobody closes it: a store may be dropped, or its loop end.
    """

    def __init__(self, path: str, busy_timeout: float) -> None:
        self._path = path
        self._busy_timeout = busy_timeout
        self._thread = ThreadPoolExecutor(1, "tornado-sessions-sqlite")
        self._db: Database | None = None

    async def run(self, work: Callable[[Database], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._run, work)

    async def close(self) -> None:
        self._thread.submit(self._disconnect)
        # Waits for what is under way, so it must not do that on the event loop.
        await asyncio.get_running_loop().run_in_executor(None, self._thread.shutdown)

    def _run(self, work: Callable[[Database], T]) -> T:
        try:
            if self._db is None:
                self._db = db = self._connect()
                # Not __del__: among garbage, the database might come before us.
                weakref.finalize(self, db.close)
            return work(self._db)
        except (sqlite3.Error, OSError) as error:
            damaged = any(part in str(error) for part in _DAMAGED)
            kind = DamagedError if damaged else StoreError
            raise kind(_explained(error, self._path)) from error

    def _connect(self) -> Database:
        _create_private(self._path)
        db = sqlite3.connect(
            self._path,
            timeout=self._busy_timeout,
            isolation_level=None,  # transactions are begun and ended by us
            cached_statements=512,
            check_same_thread=False,  # it is closed by whoever drops us
        )
        db.text_factory = _text
        try:
            self._until_unlocked(db, "PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def _until_unlocked(self, db: Database, statement: str) -> None:
        # Switching to WAL does not wait for locks as other statements do.
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                db.execute(statement)
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def _disconnect(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None


def _text(raw: bytes) -> str | bytes:
    """Return a damaged text as bytes: the row is at fault, not the whole query."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw


def _create_private(path: str) -> None:
    # SQLite gives the -wal and -shm files the mode of the database file.
    if not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))


class Transaction:
    """A write transaction: taken at once, since an upgrade ignores busy_timeout."""

    begin = "BEGIN IMMEDIATE"

    def __init__(self, db: Database) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute(self.begin)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


class Snapshot(Transaction):
    """A read transaction: what its queries see belongs together."""

    begin = "BEGIN"


_DAMAGED = ("malformed", "not a database")
_ADVICE = {
    "locked": "another process holds it for too long; find it with fuser, or raise "
    "busy_timeout and session_store_timeout",
    "full": "free some space on its disk; nothing was lost",
    "Permission denied": "let this process write to the file and to its directory",
    "readonly": "let this process write to the file and to its directory",
    "No such file": "create its directory first",
    "unable to open": "it must be a file, in a directory that exists, and this process "
    "must be allowed to use both",
    "not a database": "name another file, or move this one away",
    "malformed": "it is damaged: restore it, or move it away to begin an empty one",
}


def _explained(error: Exception, path: str) -> str:
    text = str(error)
    advice = next((a for part, a in _ADVICE.items() if part in text), None)
    return f"SQLite, {path}: {text}" + (f"; {advice}" if advice else "")
