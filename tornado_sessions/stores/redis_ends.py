"""Ends, as Redis tells them to those who have subscribed to the channel.

Who listens has a connection for that alone, beside those of the pool. It speaks RESP2, in
which messages are answers like others; a client of any version and protocol reads them.

In a cluster any node will do, because each tells the others what is published. Sharded
channels (``SPUBLISH``, since Redis 7) would spare the nodes that: 2.3 KB and 3 µs for an
end and each other node, so a thousand ends in a second are 2.3 MB and 3 ms. But there are
sockets of any session in any process. Each would have to be connected to all masters, and
subscribe to one channel for each of the 256 tags, again and again wherever slots move or a
replica takes over; and as long as one master is silent, it would be deaf in part. One
connection that works or does not, and can be to another node within half a second, is
worth more than that traffic.

A node that pauses keeps its connections. But the others give up theirs to it after half of
``cluster-node-timeout``, with all that they had for it. So in a cluster a late answer counts
as an interruption (W4), and so does the next one: the others connect again a moment after
the node has come back.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections import deque
from typing import Any

from tornado_sessions.stores.base import EndListener
from tornado_sessions.stores.redis_errors import (
    NotAllowedError,
    SilentError,
    explained,
    named,
)
from tornado_sessions.stores.redis_layout import raw_text, text_of
from tornado_sessions.stores.redis_transport import Transport, known, of_old_master

log = logging.getLogger("tornado_sessions")

_PING_EVERY = 2.0
"""Seconds between two questions whether the connection still is one."""
_UNANSWERED = 2
"""So many of them may be open; the time for the next one is the end of patience."""
_LATE = 0.5
"""Seconds after which an answer shows that a node of a cluster was paused, or this process."""
_NOBODY = b""
"""A message that tells of no end: it is sent to learn whether one could be."""


def end_message(handle: str, reason: str) -> bytes:
    """Return what is published: ``size handle reason``, the size of the handle in bytes."""
    raw = raw_text(handle)
    return b"%d %b %b" % (len(raw), raw, raw_text(reason))


def end_of(message: bytes) -> tuple[str, str]:
    """Return handle and reason.

    Raises:
        ValueError: That is no message of ours.
    """
    size, _, rest = message.partition(b" ")
    if not size.isdigit():
        raise ValueError(f"the size is wrong: {message!r}")
    handle, reason = rest[: int(size)], rest[int(size) :]
    if reason[:1] != b" ":
        raise ValueError(f"the size is wrong: {message!r}")
    return text_of(handle), text_of(reason[1:])


class Ends:
    """Tells what is published.

    Args:
        transport: The way to Redis.
        channel: Where ends are published.
    """

    def __init__(self, transport: Transport, channel: bytes) -> None:
        self._transport = transport
        self._channel = channel
        self._warned = False

    async def tell(self, listener: EndListener) -> None:
        """Tell *listener* of each end, until that fails or is cancelled.

        Raises:
            NotAllowedError: The user lacks a right; that was logged, once.
            StoreError: The connection was lost, or Redis is silent.
        """
        try:
            await _Subscription(self._transport, self._channel, listener).run()
        except NotAllowedError as error:
            self._warn(error)
            raise
        except Exception as error:
            self._transport.lost()
            raise explained(error)  # noqa: B904  (it is the cause already)

    def _warn(self, error: NotAllowedError) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "Redis does not let this user hear which sessions end: %s; instead, each "
                "session with an open socket is read twice a second. Grant the user "
                "+publish +subscribe +ping &%s, and restart",
                error,
                self._channel.decode(),
            )


class _Subscription:
    """A connection on which ends are heard.

    Args:
        transport: The way to Redis.
        channel: Where ends are published.
        listener: Who wants to know.
    """

    def __init__(
        self, transport: Transport, channel: bytes, listener: EndListener
    ) -> None:
        self._transport = transport
        self._connection: Any = None
        self._raw: dict[str, Any] = {}
        self._channel = channel
        self._listener = listener
        self._subscribed = False
        self._unanswered = 0
        self._due: deque[float] = deque()
        """When each PING had to be sent that is yet to be answered."""
        self._back_at = math.inf
        """When a late answer came; another is waited for that was asked for since."""

    async def run(self) -> None:
        """Listen; the connection is closed when that is over."""
        tasks = [asyncio.create_task(one) for one in (self._hear(), self._check())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*done)
        finally:
            self._abort()
            for task in tasks:
                task.cancel()
            try:
                await asyncio.gather(*tasks, return_exceptions=True)
            finally:
                await self._disconnect()

    async def _hear(self) -> None:
        self._connection = connection = _connection(await self._transport.source())
        self._raw = known(connection.read_response, disable_decoding=True)
        await connection.connect()
        # Where this user may not publish nobody hears of ends, and listening is in vain.
        await connection.send_command(b"PUBLISH", self._channel, _NOBODY)
        await connection.send_command(b"SUBSCRIBE", self._channel)
        while True:
            self._note(await self._answer())

    async def _answer(self) -> Any:
        try:
            return await self._connection.read_response(**self._raw)
        except Exception as error:
            if named(error, "NoPermissionError"):
                raise NotAllowedError(str(error)) from error
            raise

    def _note(self, answer: Any) -> None:
        self._unanswered = 0
        if not isinstance(answer, list):
            return
        kind, *said = answer
        if kind == b"subscribe":
            self._subscribed = True
            self._listener.connected()
        elif kind == b"message" and said[1] != _NOBODY:
            self._end(said[1])
        elif kind == b"pong" and self._due:
            self._note_pong(self._due.popleft())

    def _note_pong(self, due: float) -> None:
        now = asyncio.get_running_loop().time()
        if self._transport.by_slot and now - due > _LATE:
            self._back_at = now
            self._listener.connected()
        elif due > self._back_at:
            self._back_at = math.inf
            self._listener.connected()

    def _end(self, message: bytes) -> None:
        try:
            handle, reason = end_of(message)
        except ValueError as error:
            log.warning(
                "a message on %s is no end of a session (%s); it may be that of any, so "
                "each with an open socket is looked at",
                self._channel.decode(),
                error,
            )
            self._listener.connected()
        else:
            self._listener.ended(handle, reason)

    async def _check(self) -> None:
        """Find out when Redis is silent, cut off, or not the master any more."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _PING_EVERY
            await asyncio.sleep(_PING_EVERY)
            if self._unanswered == _UNANSWERED:
                raise SilentError("no answer on the connection on which ends are heard")
            if of_old_master(self._connection):
                raise ConnectionError("the Sentinels have named another master")
            self._unanswered += 1
            if self._subscribed:
                self._due.append(due)
                await self._connection.send_command(b"PING")

    def _abort(self) -> None:
        """Close the socket at once: a server that hangs does not say goodbye by TLS."""
        writer = getattr(self._connection, "_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _disconnect(self) -> None:
        connection = self._connection
        if connection is not None:
            await connection.disconnect(**known(connection.disconnect, nowait=True))


def _connection(source: Any) -> Any:
    """Return a new connection, not open yet, that is no part of any pool.

    It differs from those in the pool: it may be silent for as long as it likes, and who
    tries again if it fails is the caller.
    """
    options = dict(source.connection_kwargs)
    options |= {"socket_timeout": None, "health_check_interval": 0}
    less: dict[str, Any] = {
        "maint_notifications_config": None,  # these need RESP3
        "retry": None,
        "retry_on_error": [],
        "retry_on_timeout": False,
    }
    options |= {name: value for name, value in less.items() if name in options}
    if _takes(source.connection_class, "protocol"):
        options["protocol"] = 2
    return source.connection_class(**options)


def _takes(connection_class: Any, option: str) -> bool:
    inits = (vars(cls).get("__init__") for cls in connection_class.__mro__)
    return any(init and option in inspect.signature(init).parameters for init in inits)
