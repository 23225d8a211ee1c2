"""What one writes without this library: a session in MongoDB, by hand.

One client for the process, a signed cookie with a random id, a document for each
session, and a TTL index that deletes the old ones.
"""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta, timezone
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection
from tornado.web import RequestHandler

from benchmarks.handwritten import filling

_LIFETIME = timedelta(days=14)
_COOKIE = "handwritten"


class WithSession(RequestHandler):
    """Reads and writes the session of a visitor."""

    def initialize(self, sessions: AsyncCollection[dict[str, Any]]) -> None:
        self.sessions = sessions

    async def load(self) -> dict[str, Any]:
        cookie = self.get_signed_cookie(_COOKIE)
        if cookie is None:
            self.id = secrets.token_urlsafe(16)
            self.set_signed_cookie(_COOKIE, self.id)
            return {}
        self.id = cookie.decode()
        stored = await self.sessions.find_one({"_id": self.id})
        return stored["data"] if stored is not None else {}

    async def save(self, session: dict[str, Any]) -> None:
        expires_at = datetime.now(timezone.utc) + _LIFETIME
        await self.sessions.update_one(
            {"_id": self.id},
            {"$set": {"data": session, "expires_at": expires_at}},
            upsert=True,
        )


class Read(WithSession):
    """Reads one value."""

    async def get(self) -> None:
        session = await self.load()
        if session["n"] < 1:
            raise RuntimeError("the session is not the one that was begun")
        self.write("ok")


class Write(WithSession):
    """Reads, changes and writes one value; says what it wrote."""

    async def get(self) -> None:
        session = await self.load()
        session["n"] = session.get("n", 0) + 1
        await self.save(session)
        self.write(str(session["n"]))


class Fill(WithSession):
    """Fills the session with so many bytes that nobody reads."""

    async def get(self) -> None:
        session = await self.load()
        await self.save(session | filling(self))
        self.write("ok")


async def routes(url: str) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """Return the routes that keep their sessions at *url*."""
    client = AsyncMongoClient[dict[str, Any]](url)
    sessions = client["handwritten"]["sessions"]
    await sessions.create_index("expires_at", expireAfterSeconds=0)
    shared = {"sessions": sessions}
    return [
        ("/handwritten-read", Read, shared),
        ("/handwritten", Write, shared),
        ("/handwritten-fill", Fill, shared),
    ]
