"""The way to the masters of a Redis Cluster, by the client that knows where they are."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tornado_sessions.deadline import within
from tornado_sessions.stores.redis_errors import SilentError, named
from tornado_sessions.stores.redis_transport import (
    Command,
    Exchange,
    Transport,
    scanned,
    scanning,
)

log = logging.getLogger("tornado_sessions")

_REDIRECTIONS = 8
_PAUSE = 0.05
"""Seconds before a command is sent again that a moving slot has kept from running."""
_SILENCE = 1.0
"""Seconds for which a node that did not answer is not asked again."""
_LEASH = 0.25
"""Seconds that it has then, before the others in the batch go on without it."""
_REFRESH = 5.0
"""Seconds for the question where the slots are; it is asked twice a second at most."""
_REFRESH_AGAIN = 0.5


class ClusterTransport(Transport):
    """The masters of a cluster, each asked in one write, at the same time.

    A node that hangs holds up those who were asking, until the client's
    ``socket_timeout`` or the deadline of the requests. After that it is asked once a
    second and for a moment only, and what is there fails at once, so that sessions on
    the other nodes are served.

    Args:
        client: A ``redis.asyncio.RedisCluster``.
    """

    by_slot = True

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self._exchange: Exchange | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_at = -math.inf
        self._moved: dict[int, str] = {}
        """Slots that went to another node since the client asked, and its name."""
        self._silent: dict[str, float] = {}
        """Nodes that did not answer, and until when they are left alone."""
        self._heard: dict[str, float] = {}
        """When nodes last answered."""
        self._turn = random.randrange(1 << 16)
        """Whose turn it is to be listened to; not with every process the same node's."""

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        await self._client.initialize()
        answers: list[Any] = [None] * len(commands)
        by_node: dict[str, tuple[Any, list[int]]] = {}
        for n, command in enumerate(commands):
            try:
                node = self._node_of(command.key)
            except Exception as error:  # a slot that nobody serves
                self._refresh()
                answers[n] = error
            else:
                by_node.setdefault(node.name, (node, []))[1].append(n)

        async def ask(node: Any, numbers: list[int]) -> None:
            asked = [commands[n] for n in numbers]
            for n, answer in zip(numbers, await self._ask(node, asked), strict=True):
                answers[n] = await self._redirected(answer, commands[n])

        await asyncio.gather(*(ask(*one) for one in by_node.values()))
        return answers

    async def close(self) -> None:
        if self._refreshing is not None and not self._refreshing.done():
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        await self._client.aclose()

    async def source(self) -> Any:
        await self._client.initialize()
        nodes = sorted(self._client.get_primaries(), key=lambda node: node.name)
        now = time.monotonic()
        fine = [node for node in nodes if self._silent.get(node.name, 0.0) <= now]
        self._turn += 1
        return (fine or nodes)[self._turn % len(fine or nodes)]

    def lost(self) -> None:
        self._refresh()

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        await self._client.initialize()
        for node in self._client.get_primaries():
            cursor = b"0"
            while True:
                (answer,) = await self._ask(node, [scanning(cursor, pattern)])
                cursor, keys = scanned(answer)
                yield keys
                if cursor == b"0":
                    break

    async def _ask(self, node: Any, commands: Sequence[Command]) -> list[Any]:
        """Return the answers of one node; its own trouble stays its own (R1)."""
        now = time.monotonic()
        until = self._silent.get(node.name)
        if until is not None and until > now:
            error = SilentError(f"{node.name} did not answer, and is left alone")
            return [error] * len(commands)
        try:
            if until is None:
                answers = await self._exchanged(node, commands)
            else:  # one batch tries; the others still do not
                self._silent[node.name] = now + _SILENCE
                exchange = self._exchanged(node, commands)
                answers = await within(_LEASH, exchange)
        except asyncio.CancelledError:
            self._note_silence(node, now)
            raise
        except Exception as error:
            if isinstance(error, asyncio.TimeoutError) or named(error, "TimeoutError"):
                self._note_silence(node, now)
            self._refresh()
            return [error] * len(commands)
        self._silent.pop(node.name, None)
        self._heard[node.name] = time.monotonic()
        if any(named(one, "ReadOnlyError", "ClusterDownError") for one in answers):
            self._refresh()
        return answers

    def _note_silence(self, node: Any, since: float) -> None:
        """Leave *node* alone for a while, unless others have heard from it meanwhile.

        Whoever was cancelled may have had other reasons than a node that hangs.
        """
        now = time.monotonic()
        if now - since >= _LEASH and self._heard.get(node.name, 0.0) < since:
            self._silent[node.name] = now + _SILENCE
            self._refresh()

    async def _exchanged(self, node: Any, commands: Sequence[Command]) -> list[Any]:
        if self._exchange is None:
            self._exchange = Exchange(node.connection_class)
        connection = node.acquire_connection()
        try:
            return await self._exchange(connection, commands)
        finally:
            # redis-py has a method for this since version 6.
            getattr(node, "release", node._free.append)(connection)  # noqa: SLF001

    async def _redirected(self, answer: Any, command: Command) -> Any:
        """Return *answer*, or that of the node which has the slot by now.

        A command that was redirected was not carried out, so it may be sent again.
        """
        for _ in range(_REDIRECTIONS):
            if named(answer, "TryAgainError"):
                await asyncio.sleep(_PAUSE)
                node = self._node_of(command.key)
                (answer,) = await self._ask(node, [command])
            elif named(answer, "MovedError", "AskError"):
                answer = await self._at_other_node(answer, command)
            else:
                break
        return answer

    async def _at_other_node(self, error: Any, command: Command) -> Any:
        node = self._client.get_node(error.host, error.port)
        if node is None:  # it has joined since
            await asyncio.wait([self._refresh()])
            node = self._client.get_node(error.host, error.port)
        if node is None:
            return error
        first = [Command((b"ASKING",))]
        if named(error, "MovedError"):
            # Not by asking anew: older clients cut all connections when they do that.
            first, self._moved[error.slot_id] = [], node.name
        return (await self._ask(node, [*first, command]))[-1]

    def _node_of(self, key: bytes) -> Any:
        moved = self._moved.get(self._client.keyslot(key)) if self._moved else None
        node = self._client.get_node(node_name=moved) if moved else None
        return node or self._client.get_node_from_key(key)

    def _refresh(self) -> asyncio.Task[None]:
        """Have the client ask where the slots are by now; nobody has to wait for it."""
        now, last = time.monotonic(), self._refreshing
        if last is None or (last.done() and now > self._refreshed_at + _REFRESH_AGAIN):
            self._refreshed_at = now
            loop = asyncio.get_running_loop()
            last = self._refreshing = loop.create_task(self._know_the_nodes())
        return last

    async def _know_the_nodes(self) -> None:
        try:
            await within(_REFRESH, self._client.nodes_manager.initialize())
            self._moved.clear()
        except Exception:  # what is known is tried, and fails if it is wrong
            log.warning("the cluster does not tell where its slots are", exc_info=True)
