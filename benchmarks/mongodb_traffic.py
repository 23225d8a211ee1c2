"""Counts what clients ask of MongoDB, as ``serverStatus`` has it.

One command is one round trip, however many documents or changes it names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient

from benchmarks.traffic import Action, Seen

_UNASKED = {"hello", "isMaster", "ismaster", "ping", "serverStatus"}
"""By these a driver watches its server, and we do."""


class MongoTraffic:
    """Counts what a server of its own is asked."""

    def __init__(self, client: AsyncMongoClient[dict[str, Any]]) -> None:
        self._client = client

    async def round_trips(self) -> int:
        status = await self._client.admin.command("serverStatus")
        return sum(
            int(counts["total"])
            for name, counts in status["metrics"]["commands"].items()
            if name not in _UNASKED and isinstance(counts, dict)
        )

    async def during(self, action: Action) -> Seen:
        before = await self.round_trips()
        await action()
        commands = await self.round_trips() - before
        return Seen(commands, commands)


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[MongoTraffic]:
    """Watch the server at *url*."""
    async with AsyncMongoClient[dict[str, Any]](url) as client:
        yield MongoTraffic(client)
