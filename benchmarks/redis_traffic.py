"""Counts by ``MONITOR`` what clients ask of Redis, and by ``INFO`` in how many reads.

A pipeline is many commands and one read. What a script calls is not asked by a client,
and ``MONITOR`` marks it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio

from benchmarks.traffic import Action, Seen

_QUESTION = "INFO STATS"


class RedisTraffic:
    """Counts what a server of its own is asked."""

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._own = 0

    async def round_trips(self) -> int:
        info = await self._client.info("STATS")
        self._own += 1
        return int(info["total_reads_processed"]) - self._own

    async def during(self, action: Action) -> Seen:
        async with self._client.monitor() as monitor:
            before = await self.round_trips()
            await action()
            after = await self.round_trips()
            commands = await _between_questions(monitor)
        return Seen(commands, after - before)


async def _between_questions(monitor: Any) -> int:
    """Return the number of commands between our two questions."""
    questions = commands = 0
    async for seen in monitor.listen():
        if seen["command"].upper() == _QUESTION:
            questions += 1
            if questions == 2:
                break
        elif questions and seen["client_type"] != "lua":
            commands += 1
    return commands


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[RedisTraffic]:
    """Watch the server at *url*."""
    async with redis.asyncio.from_url(url) as client:
        await client.ping()  # so that no handshake is counted later
        yield RedisTraffic(client)
