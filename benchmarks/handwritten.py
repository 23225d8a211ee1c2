"""What one writes without this library: SQLite by hand, one commit for each request.

As durable as `SQLiteStore` and built from the same parts: WAL, synchronous=FULL, a
thread of its own, prepared statements, and a signed cookie with a random id.
"""

from __future__ import annotations

import asyncio
import functools
import json
import secrets
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tornado.web import RequestHandler

_LIFETIME = 14 * 86400


_KEYS = 16


def filling(handler: RequestHandler) -> dict[str, str]:
    """Return sixteen values that have the argument ``bytes`` in all."""
    each = int(handler.get_argument("bytes")) // _KEYS
    return {f"rest{number}": "x" * each for number in range(_KEYS)}


def after_commit() -> None:
    """Do nothing; the benchmark of a slower disk waits here."""


class OneCommitEach:
    """A table of sessions, and the thread that reads and writes them."""

    def __init__(self, path: str) -> None:
        self._thread = ThreadPoolExecutor(1, "handwritten-sqlite")
        self._db = self._thread.submit(self._connect, path).result()

    def _connect(self, path: str) -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(
            "CREATE TABLE sessions (id TEXT PRIMARY KEY, data TEXT NOT NULL, "
            "expires_at REAL NOT NULL) WITHOUT ROWID"
        )
        return db

    async def load(self, session_id: str) -> dict[str, Any]:
        """Return the session, empty if there is none."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._load, session_id)

    async def add(self, session_id: str, values: dict[str, str]) -> None:
        """Add *values* to the session."""
        loop = asyncio.get_running_loop()
        change = functools.partial(self._change, session_id, lambda _: values)
        await loop.run_in_executor(self._thread, change)

    async def count_visit(self, session_id: str) -> int:
        """Add 1 to ``n`` of the session; return it once it is on the disk."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._count, session_id)

    def _load(self, session_id: str) -> dict[str, Any]:
        row = self._db.execute(
            "SELECT data FROM sessions WHERE id = ? AND expires_at > ?",
            (session_id, time.time()),
        ).fetchone()
        found: dict[str, Any] = json.loads(row[0]) if row else {}
        return found

    def _count(self, session_id: str) -> int:
        def one_more(data: dict[str, Any]) -> dict[str, Any]:
            return {"n": data.get("n", 0) + 1}

        return int(self._change(session_id, one_more)["n"])

    def _change(
        self, session_id: str, changes: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> dict[str, Any]:
        self._db.execute("BEGIN IMMEDIATE")
        data = self._load(session_id)
        data.update(changes(data))
        self._db.execute(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?)",
            (session_id, json.dumps(data), time.time() + _LIFETIME),
        )
        self._db.execute("COMMIT")
        after_commit()
        return data


class WithSession(RequestHandler):
    """Knows a session by its cookie."""

    def initialize(self, database: OneCommitEach) -> None:
        self.database = database

    def session_id(self) -> str:
        cookie = self.get_signed_cookie("handwritten")
        if cookie is not None:
            return cookie.decode()
        session_id = secrets.token_urlsafe(16)
        self.set_signed_cookie("handwritten", session_id)
        return session_id


class Read(WithSession):
    """Reads one value."""

    async def get(self) -> None:
        session = await self.database.load(self.session_id())
        if session["n"] < 1:
            raise RuntimeError("the session is not the one that was begun")
        self.write("ok")


class Write(WithSession):
    """Counts visits in a session, by hand."""

    async def get(self) -> None:
        self.write(str(await self.database.count_visit(self.session_id())))


class Fill(WithSession):
    """Fills the session with so many bytes that nobody reads."""

    async def get(self) -> None:
        await self.database.add(self.session_id(), filling(self))
        self.write("ok")


async def routes(path: str) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Return the routes that keep their sessions in the file at *path*."""
    shared = {"database": OneCommitEach(path)}
    return [
        ("/handwritten-read", Read, shared),
        ("/handwritten", Write, shared),
        ("/handwritten-fill", Fill, shared),
    ]
