"""What one writes without this library: a session in Redis, by hand.

One client for the process, whose pool keeps its connections; a signed cookie with a
random id; the session as JSON under one key, with a lifetime that begins anew with
each write.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

import redis.asyncio
from tornado.web import RequestHandler

from benchmarks.handwritten import filling

_LIFETIME = 14 * 86400
_COOKIE = "handwritten"
_POOL = 1000
"""By default redis-py 8 allows 100 connections, and 128 requests at once would fail."""


class Call(RequestHandler):
    """One call of the driver and nothing else: the floor of a request that calls it."""

    def initialize(self, client: redis.asyncio.Redis) -> None:
        self.client = client

    async def get(self) -> None:
        await self.client.get("nothing")
        self.write("ok")


class WithSession(RequestHandler):
    """Reads and writes the session of a visitor."""

    def initialize(self, client: redis.asyncio.Redis) -> None:
        self.client = client

    async def load(self) -> dict[str, Any]:
        cookie = self.get_signed_cookie(_COOKIE)
        if cookie is None:
            self.key = f"session:{secrets.token_urlsafe(16)}"
            self.set_signed_cookie(_COOKIE, self.key)
            return {}
        self.key = cookie.decode()
        stored = await self.client.get(self.key)
        return json.loads(stored) if stored is not None else {}

    async def save(self, session: dict[str, Any]) -> None:
        await self.client.set(self.key, json.dumps(session), ex=_LIFETIME)


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
    shared = {"client": redis.asyncio.from_url(url, max_connections=_POOL)}
    return [
        ("/driver", Call, shared),
        ("/handwritten-read", Read, shared),
        ("/handwritten", Write, shared),
        ("/handwritten-fill", Fill, shared),
    ]
