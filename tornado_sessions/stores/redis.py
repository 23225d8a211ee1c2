"""Sessions in Redis or Valkey, for many processes on many machines."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tornado_sessions.errors import CodecError, StoreError
from tornado_sessions.stores.base import (
    DEFAULT_NAMESPACE,
    Change,
    Clock,
    EndListener,
    Loaded,
    Outcome,
    Record,
    Store,
    checked_namespace,
)
from tornado_sessions.stores.keeper import Keeper
from tornado_sessions.stores.redis_calls import MOST_IN_CALL, Calls
from tornado_sessions.stores.redis_changes import SLACK, Operation, Operations
from tornado_sessions.stores.redis_client import transport_of, transport_to
from tornado_sessions.stores.redis_commit import Commits
from tornado_sessions.stores.redis_ends import Ends
from tornado_sessions.stores.redis_errors import NotAllowedError, explained, named
from tornado_sessions.stores.redis_layout import Layout, records_of, text_of
from tornado_sessions.stores.redis_scripts import COUNT, LOAD, RANGE
from tornado_sessions.stores.redis_transport import Call, Transport

_INDEXES_AT_ONCE = 16


class RedisStore(Store):
    """Keeps sessions in Redis, or in Valkey, which speaks the same protocol.

    One hash for each session; a batch of changes is one script and one round trip. Redis
    deletes what has expired. What was acknowledged is as durable as Redis is configured.

    ==================================  ===============================================
    ``redis://user:pass@host:6379/0``   one server; ``rediss://`` with TLS
    ``unix:///run/redis.sock?db=0``     by a socket of this machine
    ``redis+sentinel://a,b,c/name``     the master of that name, as the Sentinels say
    ``redis+cluster://a:6379,b:6379``   a cluster, by some of its nodes
    ==================================  ===============================================

    ``valkey://`` says the same as ``redis://``. All but ``namespace`` in the query of a
    URL is for redis-py, such as ``?socket_timeout=1``.

    Who listens for ends has a connection of its own, beside those of the client's pool. In
    two seconds it costs Redis one ``PING``.

    Args:
        client: A URL, or a client of ``redis.asyncio`` or of aioredis 2, which is never
            closed here. Scripts are sent without its retries: they count.
        namespace: Keeps applications apart that share the server.
        clock: See `Store`.

    Raises:
        ConfigurationError: The URL makes no sense, or *client* is something else.
    """

    expires_natively = True
    # With one batch at a time the server would sleep while Redis works, and a node of a
    # cluster that hangs would hold up the others; with many the batches would be small.
    parallel = 4

    def __init__(
        self,
        client: Any,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        clock: Clock = time.time,
    ) -> None:
        super().__init__(clock=clock)
        self._layout = Layout(checked_namespace(namespace))
        self._url = client if isinstance(client, str) else None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeper: Keeper | None = None
        if self._url is None:
            self._use(transport_of(client))
        else:
            self._use(transport_to(self._url))

    def _use(self, transport: Transport) -> None:
        self._transport = transport
        self._calls = Calls(transport, self._layout)
        self._operations = Operations(self._layout, by_slot=transport.by_slot)
        self._commits = Commits(self._calls, self._operations)
        self._ends = Ends(transport, self._layout.channel)

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is loop and not (self._keeper and self._keeper.over):
            return
        self._loop = loop
        if self._url is not None:
            self._use(transport_to(self._url))  # connections belong to their loop
            self._keeper = Keeper(self._transport.close)

    async def close(self) -> None:
        self._loop = None
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            await keeper.close()

    async def load(self, handles: Sequence[str]) -> list[Loaded]:
        await self.open()
        now = self.clock()  # whoever lives then may be extended behind the answer
        places = [self._layout.place(handle) for handle in handles]
        if not self._calls.by_slot and 0 < len(places) <= MOST_IN_CALL:
            (reply,) = await self._calls.run(
                [Call(LOAD, [key for _, key, _ in places])]
            )
            return await self._read(handles, reply, now)
        groups = self._calls.groups([slot for slot, _, _ in places])
        calls = [Call(LOAD, [places[number][1] for number in some]) for some in groups]
        loaded: list[Loaded] = [None] * len(handles)
        for some, reply in zip(groups, await self._calls.run(calls), strict=True):
            asked = [handles[number] for number in some]
            read = await self._read(asked, reply, now)
            for number, one in zip(some, read, strict=True):
                loaded[number] = one
        return loaded

    async def commit(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        await self.open()
        return await self._commits.commit(changes, self.clock())

    async def find(self, principal: str) -> list[Record]:
        await self.open()
        key, now = self._layout.principal(principal), self.clock()
        (reply,) = await self._calls.ask(RANGE, [key], b"-inf", b"+inf", b"-1")
        entries = dict(zip(reply[::2], reply[1::2], strict=True))
        loaded = await self.load([text_of(raw) for raw in entries])
        found: list[Record] = []
        stale: list[Operation] = []
        for (raw, score), one in zip(entries.items(), loaded, strict=True):
            if isinstance(one, StoreError):
                raise one
            if isinstance(one, Record) and one.meta.principal == principal:
                found.append(one)
            elif one is None and float(score) <= now - SLACK:
                # What is there may be about to become theirs, and what is not there may
                # be about to be created: only what is over for long has to go (R4).
                stale.append(self._operations.unindex(principal, raw, score))
        await self._calls.perform(stale, now)
        return found

    async def sweep(self, limit: int) -> int:
        await self.open()
        swept = 0
        while swept < limit:
            now = self.clock()
            over = await self._members(
                self._layout.live, b"-inf", b"%r" % now, limit - swept
            )
            if not over:
                break
            sweeps = [self._operations.sweep(handle) for handle in over]
            for answer in await self._calls.perform(sweeps[: limit - swept], now):
                if isinstance(answer, StoreError):
                    raise answer
                swept += answer.letter == "A"
        return swept

    async def iterate(self, batch: int = 256) -> AsyncIterator[Record]:
        await self.open()
        indexes = self._layout.live
        for start in range(0, len(indexes), _INDEXES_AT_ONCE):
            some = indexes[start : start + _INDEXES_AT_ONCE]
            handles = await self._members(some, b"(%r" % self.clock(), b"+inf")
            for first in range(0, len(handles), batch):
                for one in await self.load(handles[first : first + batch]):
                    if isinstance(one, StoreError):
                        raise one
                    if isinstance(one, Record):
                        yield one

    async def count(self) -> int:
        await self.open()
        lowest = b"(%r" % self.clock()
        replies = await self._calls.ask(COUNT, self._layout.live, lowest, b"+inf")
        return sum(number for (number,) in replies)

    async def clear(self) -> None:
        await self.open()
        await self._calls.delete_all()

    async def listen(self, listener: EndListener) -> None:
        await self.open()
        try:
            await self._ends.tell(listener)
        except NotAllowedError:
            await super().listen(listener)

    async def _members(
        self, indexes: Sequence[bytes], lowest: bytes, highest: bytes, most: int = -1
    ) -> list[str]:
        """Return the handles with these scores, lowest first in each index."""
        replies = await self._calls.ask(RANGE, indexes, lowest, highest, b"%d" % most)
        return [text_of(raw) for reply in replies for raw in reply[::2]]

    async def _read(
        self, handles: Sequence[str], reply: Any, now: float
    ) -> list[Loaded]:
        """Return what a call that loads said of each of *handles*."""
        apart = len(handles) > 1
        if named(reply, "TryAgainError") and apart:
            return await self._read_apart(handles, now)  # their slot is being moved
        if isinstance(reply, Exception):
            return [explained(reply) for _ in handles]
        try:
            records = records_of(handles, reply)
        except CodecError as error:
            # One of them is broken: the others are read without it (R1).
            return await self._read_apart(handles, now) if apart else [error]
        return [_live(one, now) for one in records]

    async def _read_apart(self, handles: Sequence[str], now: float) -> list[Loaded]:
        keys = [self._layout.place(handle)[1] for handle in handles]
        replies = await self._calls.run([Call(LOAD, [key]) for key in keys])
        each = zip(handles, replies, strict=True)
        return [(await self._read([handle], reply, now))[0] for handle, reply in each]


def _live(loaded: Record | str | None, now: float) -> Loaded:
    if isinstance(loaded, str):
        return explained(loaded)
    return loaded if loaded is not None and loaded.meta.expires_at > now else None
