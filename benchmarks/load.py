"""A load generator: keep-alive connections that always have one request under way.

Built in, because a tool that is not there measures nothing. It parses as little as it
can, so that one core of load is enough to keep one core of Tornado busy.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

_LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n", re.IGNORECASE)
_COOKIE = re.compile(rb"\r\nSet-Cookie: ([^;\r]+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """One visitor: a keep-alive connection with a cookie of its own."""

    def __init__(self) -> None:
        self.cookie = b""
        self.body = b""
        self.took: list[float] = []
        """Seconds until each answer, since `repeat` or `repeat_until`."""
        self.interval = 0.0
        """Seconds from one request to the next, if the server is to have time to spare."""
        self._transport: asyncio.Transport | None = None
        self._sent = self._until = 0.0
        self._request = b""
        self._received = b""
        self._left = 0
        self._done: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def repeat(self, path: str, times: int) -> asyncio.Future[None]:
        """Ask for *path* again and again; the future resolves with the last answer."""
        cookie = b"Cookie: " + self.cookie + b"\r\n" if self.cookie else b""
        host = b" HTTP/1.1\r\nHost: localhost\r\nUser-Agent: benchmark\r\n"
        self._request = b"GET " + path.encode() + host + cookie + b"\r\n"
        self._left, self._until = times, 0.0
        self.took = []
        self._done = asyncio.get_running_loop().create_future()
        self._send()
        return self._done

    def repeat_until(self, path: str, end: float) -> asyncio.Future[None]:
        """Ask for *path* until ``time.perf_counter()`` says *end*, but at least once."""
        done = self.repeat(path, 1)
        self._until = end
        return done

    async def get(self, path: str) -> bytes:
        """Return the body of *path*."""
        await self.repeat(path, 1)
        return self.body

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _send(self) -> None:
        self._left -= 1
        assert self._transport is not None
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if not blank or (length is not None and len(body) < int(length[1])):
            return
        self._received = b""
        if not head.startswith(b"HTTP/1.1 200 ") or length is None:
            self._fail(head.partition(b"\r\n")[0].decode())
            return
        self.body = body
        self._answered(head)

    def _answered(self, head: bytes) -> None:
        now = time.perf_counter()
        self.took.append(now - self._sent)
        cookie = _COOKIE.search(head)
        if cookie is not None:
            self.cookie = cookie[1]
        if self._left > 0 or now < self._until:
            self._send_in_time(now)
        elif self._done is not None:
            self._done.set_result(None)

    def _send_in_time(self, now: float) -> None:
        """Ask again when it is time; who gets an answer later than that is late by it.

        Else a server that stalls would seem fast, as nobody asks it meanwhile.
        """
        due = self._sent + self.interval
        if due > now:
            asyncio.get_running_loop().call_later(due - now, self._send)
        else:
            self._send()
            if self.interval:
                self._sent = due

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the server closed the connection")

    def _fail(self, reason: str) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError(reason))


@asynccontextmanager
async def connections(port: int, number: int) -> AsyncIterator[list[Connection]]:
    """Open *number* connections to the server at *port*."""
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(Connection, "127.0.0.1", port))[1]
        for _ in range(number)
    ]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


async def everybody(visitors: Sequence[Connection], path: str, times: int) -> None:
    """Let all *visitors* ask for *path* so many times, at the same time."""
    await asyncio.gather(*(visitor.repeat(path, times) for visitor in visitors))
