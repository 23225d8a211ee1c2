"""The way to the masters of a Redis Cluster, by the client that knows where they are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tornado_sessions.stores.redis_errors import SilentError, named
from tornado_sessions.stores.redis_transport import (
    Command,
    Exchange,
    Transport,
    scanned,
    scanning,
)

log = logging.getLogger("tornado_sessions")

_REDIRECTIONS = 16
_PAUSE = 0.05
"""Seconds before a command is sent again that a moving slot has kept from running."""
_SILENCE = 1.0
"""Seconds for which a node that did not answer is not asked again."""
_TRYING = 10.0
"""Seconds for which one batch may wait whether it answers now."""


class ClusterTransport(Transport):
    """The masters of a cluster, each asked in one write, at the same time.

    A node that hangs holds up one batch, until the client's ``socket_timeout`` or the
    deadline of the requests. For a second after that, what is on that node fails at
    once, so that sessions on the others are served.

    Args:
        client: A ``redis.asyncio.RedisCluster``.
    """

    by_slot = True

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self._exchange: Exchange | None = None
        self._outdated = False
        self._refreshing = asyncio.Lock()
        self._silent: dict[str, float] = {}

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        await self._know_the_nodes()
        answers: list[Any] = [None] * len(commands)
        by_node: dict[str, tuple[Any, list[int]]] = {}
        for n, command in enumerate(commands):
            try:
                node = self._client.get_node_from_key(command.key)
            except Exception as error:  # a slot that nobody serves
                self._outdated, answers[n] = True, error
            else:
                by_node.setdefault(node.name, (node, []))[1].append(n)

        async def ask(node: Any, numbers: list[int]) -> None:
            asked = [commands[n] for n in numbers]
            for n, answer in zip(numbers, await self._ask(node, asked), strict=True):
                answers[n] = await self._redirected(answer, commands[n])

        await asyncio.gather(*(ask(*one) for one in by_node.values()))
        return answers

    async def close(self) -> None:
        await self._client.aclose()

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        await self._know_the_nodes()
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
        if self._silent.get(node.name, 0.0) > now:
            error = SilentError(f"{node.name} did not answer, and is left alone")
            return [error] * len(commands)
        if node.name in self._silent:  # one batch tries; the others still do not
            self._silent[node.name] = now + _TRYING
        try:
            answers = await self._exchanged(node, commands)
        except asyncio.CancelledError:
            self._left_alone(node)  # the deadline has passed
            raise
        except Exception as error:
            if named(error, "TimeoutError"):
                self._left_alone(node)
            self._outdated = True
            return [error] * len(commands)
        self._silent.pop(node.name, None)
        if any(named(one, "ReadOnlyError", "ClusterDownError") for one in answers):
            self._outdated = True
        return answers

    def _left_alone(self, node: Any) -> None:
        self._silent[node.name] = time.monotonic() + _SILENCE
        self._outdated = True

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
                node = self._client.get_node_from_key(command.key)
                (answer,) = await self._ask(node, [command])
            elif named(answer, "MovedError", "AskError"):
                answer = await self._at_other_node(answer, command)
            else:
                break
        return answer

    async def _at_other_node(self, error: Any, command: Command) -> Any:
        if named(error, "MovedError"):
            self._outdated = True
        node = self._client.get_node(error.host, error.port)
        if node is None:  # it has joined since
            self._outdated = True
            await self._know_the_nodes()
            node = self._client.get_node(error.host, error.port)
        if node is None:
            return error
        first = [] if named(error, "MovedError") else [Command((b"ASKING",))]
        return (await self._ask(node, [*first, command]))[-1]

    async def _know_the_nodes(self) -> None:
        """Ask where the slots are, if that may have changed; others need not wait."""
        await self._client.initialize()
        if self._outdated and not self._refreshing.locked():
            async with self._refreshing:
                self._outdated = False
                try:
                    await self._client.nodes_manager.initialize()
                except Exception:  # what is known is tried, and fails if it is wrong
                    self._outdated = True
                    log.warning("the cluster does not tell its nodes", exc_info=True)
