"""W1: ten thousand open WebSockets in one process, and how long an end takes to arrive."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from benchmarks.databases import REDIS, NotThereError, cores, running
from benchmarks.load import Connection, connections
from benchmarks.process import server
from benchmarks.report import Progress, Row, missing
from benchmarks.spread import Estimate

FULL = 10_000
QUICK = 300
THEIRS = 100
"""Sockets of the one principal whose sessions end."""
_AT_ONCE = 200
_IDLE = 5.0
_PATIENCE = 60.0
_CLOSE_FRAME = 0x88
_MODULE = "benchmarks.socket_server"


class Socket(asyncio.Protocol):
    """The client's side of a WebSocket, with no more than it takes to see its end."""

    def __init__(self, path: str, cookie: bytes) -> None:
        self._path = path.encode()
        self._cookie = cookie
        loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[float] = loop.create_future()
        """Resolves with the time at which the server began to close."""
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(
            b"GET " + self._path + b" HTTP/1.1\r\nHost: localhost\r\n"
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nCookie: "
            + self._cookie
            + b"\r\n\r\n"
        )

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self.opened.done():
            head, blank, self._received = self._received.partition(b"\r\n\r\n")
            if not blank:
                self._received = head
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                status = head.partition(b"\r\n")[0].decode()
                self.opened.set_exception(ConnectionError(status))
                return
            self.opened.set_result(None)
        if self._received[:1] == bytes([_CLOSE_FRAME]) and not self.ended.done():
            self.ended.set_result(time.perf_counter())

    def close(self) -> None:
        self._transport.abort()


@dataclass(frozen=True)
class Usage:
    """What a server process has taken so far."""

    resident: int
    processor: float

    @classmethod
    async def of(cls, visitor: Connection) -> Usage:
        return cls(**json.loads(await visitor.get("/usage")))


@dataclass(frozen=True)
class Found:
    """What one kind of socket takes."""

    memory: float
    """Bytes for each."""
    handshake: float
    """Microseconds of processor time for each."""
    idle: float
    """Microseconds of processor time a second for each."""
    end: float
    """Milliseconds until the last socket of the principal knew; 0 if nothing ended."""


async def measure(sockets: int, progress: Progress) -> list[Row]:
    """Measure W1 with so many open sockets."""
    rows: list[Row] = []
    with cores() as core:
        progress("W1", 0, 3)
        plain = await with_sockets("memory://", "/plain", sockets, core)
        progress("W1", 1, 3)
        ours = await with_sockets("memory://", "/with-session", sockets, core)
        rows += _rows(sockets, plain, ours)
        progress("W1", 2, 3)
        try:
            async with running(REDIS) as url:
                far = await with_sockets(url, "/with-session", sockets, core)
        except NotThereError as hint:
            return rows + missing(["W1"], REDIS.name, hint)
    redis = "redis://, the same from another process"
    return [*rows, Row("W1", redis, _one(far.end), "ms", at_most=1000)]


async def with_sockets(
    store: str, path: str, number: int, core: Sequence[str]
) -> Found:
    """Open so many sockets, each with a session of its own, and watch them."""
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(
            server("--store", store, *core, module=_MODULE)
        )
        (visitor,) = await stack.enter_async_context(connections(port, 1))
        cookies = await _cookies(visitor, number)
        before = await Usage.of(visitor)
        sockets = await stack.enter_async_context(_opened(port, path, cookies))
        opened = await Usage.of(visitor)
        await asyncio.sleep(_IDLE)
        rested = await Usage.of(visitor)
        ender = visitor
        if not store.startswith("memory"):
            other = await stack.enter_async_context(
                server("--store", store, module=_MODULE)
            )
            (ender,) = await stack.enter_async_context(connections(other, 1))
        end = 0.0 if path == "/plain" else await _end(ender, sockets[:THEIRS])
    return Found(
        (opened.resident - before.resident) / number,
        1e6 * (opened.processor - before.processor) / number,
        1e6 * (rested.processor - opened.processor) / _IDLE / number,
        end,
    )


async def _cookies(visitor: Connection, number: int) -> list[bytes]:
    """Begin so many sessions, the first THEIRS of one principal."""
    cookies = []
    for turn in range(number):
        visitor.cookie = b""
        await visitor.get("/begin/alice" if turn < THEIRS else f"/begin/user{turn}")
        cookies.append(visitor.cookie)
    visitor.cookie = b""
    return cookies


@asynccontextmanager
async def _opened(
    port: int, path: str, cookies: Sequence[bytes]
) -> AsyncIterator[list[Socket]]:
    loop = asyncio.get_running_loop()
    sockets: list[Socket] = []

    async def one(cookie: bytes) -> Socket:
        _, socket = await loop.create_connection(
            lambda: Socket(path, cookie), "127.0.0.1", port
        )
        await asyncio.wait_for(socket.opened, _PATIENCE)
        return socket

    try:
        for start in range(0, len(cookies), _AT_ONCE):
            some = cookies[start : start + _AT_ONCE]
            sockets += await asyncio.gather(*map(one, some))
        yield sockets
    finally:
        for socket in sockets:
            socket.close()


async def _end(visitor: Connection, sockets: Sequence[Socket]) -> float:
    """End the sessions of alice; return after how many milliseconds all knew."""
    began = time.perf_counter()
    ended = await visitor.get("/end/alice")
    if int(ended) != len(sockets):
        raise RuntimeError(f"{ended.decode()} sessions ended, not {len(sockets)}")
    known = asyncio.gather(*(socket.ended for socket in sockets))
    return 1000 * (max(await asyncio.wait_for(known, _PATIENCE)) - began)


def _rows(sockets: int, plain: Found, ours: Found) -> list[Row]:
    open_ones = f"{sockets:,} open sockets"
    ends = f"{THEIRS} sockets of one user among them, all closed after"
    return [
        Row("W1", f"{open_ones}, memory of a plain one", _one(plain.memory), "B"),
        Row("W1", "memory of one with its session", _one(ours.memory), "B"),
        Row("W1", "handshake of a plain one", _one(plain.handshake), "µs"),
        Row("W1", "handshake of one with its session", _one(ours.handshake), "µs"),
        Row("W1", "one that is silent, each second", _one(ours.idle), "µs"),
        Row("W1", f"memory://, {ends}", _one(ours.end), "ms", at_most=1000),
    ]


def _one(value: float) -> Estimate:
    return Estimate(value, value, value)
