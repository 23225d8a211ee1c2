"""The way to Redis: to one server at a time, or to the masters of a cluster.

Both send each batch in one write for each server and read the answers in order, on a
connection out of the client's own pool. The clients' ``execute_command`` is not used for
scripts that write: it sends a command again if the connection broke before the answer,
and what was carried out twice would count twice.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from tornado_sessions.errors import ConfigurationError
from tornado_sessions.stores.redis_errors import named
from tornado_sessions.stores.redis_scripts import Script

Command: TypeAlias = tuple[bytes, ...]
_SCAN_COUNT = b"500"
_RAW = {"NEVER_DECODE": True}
"""Has a cluster's client return bytes, whatever it was told when it was made."""


class Call(NamedTuple):
    """A script, the keys that it touches, and its other arguments."""

    script: Script
    keys: Sequence[bytes]
    args: Iterable[bytes] = ()

    def by_name(self) -> Command:
        """Return the command for a server that knows the script."""
        sha = self.script.sha.encode()
        return (b"EVALSHA", sha, b"%d" % len(self.keys), *self.keys, *self.args)

    def by_source(self) -> Command:
        """Return the command for one that does not: it will, from then on."""
        source = self.script.source.encode()
        return (b"EVAL", source, b"%d" % len(self.keys), *self.keys, *self.args)


@dataclass
class _Sent:
    """A command as a node of a cluster takes it, in place of redis-py's own class."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any = None


class Transport(ABC):
    """Sends calls to Redis and returns the raw answers."""

    by_slot: bool
    """True if the keys of one call have to be in one slot of a cluster."""

    def __init__(self) -> None:
        self._sent: set[str] = set()

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Return the answer to each call, in order; an exception if it failed.

        The first time a script goes along, from then on its name does.
        """
        first = {call.script.sha for call in calls} - self._sent
        answers = await self._run(calls, first)
        self._sent |= first
        # A server that was restarted, or is new in its role, knows no scripts.
        unknown = [n for n, one in enumerate(answers) if named(one, "NoScriptError")]
        if unknown:
            again = [calls[n] for n in unknown]
            repeated = await self._run(again, {call.script.sha for call in again})
            for n, answer in zip(unknown, repeated, strict=True):
                answers[n] = answer
        return answers

    async def _run(self, calls: Sequence[Call], in_full: set[str]) -> list[Any]:
        return await self.send(
            [
                (
                    call.keys[0],
                    call.by_source() if call.script.sha in in_full else call.by_name(),
                )
                for call in calls
            ]
        )

    @abstractmethod
    async def send(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        """Return the answer to each command; each comes with a key of its server."""

    @abstractmethod
    async def close(self) -> None:
        """Close the client's connections: it is ours."""

    @abstractmethod
    def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """Yield the keys that match *pattern*, of every master, batch by batch."""


class PoolTransport(Transport):
    """One server, or whichever is the master now: what a pool of connections leads to.

    Args:
        pool: The ``connection_pool`` of a client of ``redis.asyncio`` or aioredis.
        sentinels: The clients by which it finds the master, if it does.
    """

    by_slot = False

    def __init__(self, pool: Any, sentinels: Sequence[Any] = ()) -> None:
        super().__init__()
        self._pool = pool
        self._sentinels = sentinels
        self._take: Callable[[], Any] = pool.get_connection
        takes = inspect.signature(pool.get_connection).parameters.get("command_name")
        if takes is not None and takes.default is inspect.Parameter.empty:
            self._take = partial(pool.get_connection, "_")  # as older clients want it
        self._raw = _known(pool.connection_class.read_response, disable_decoding=True)
        self._at_once = _known(pool.connection_class.disconnect, nowait=True)
        if not self._raw and pool.connection_kwargs.get("decode_responses"):
            raise ConfigurationError(
                "this client decodes every answer, but sessions hold bytes; "
                "give RedisStore one without decode_responses=True"
            )

    async def send(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        connection = await self._take()
        try:
            return await self._exchange(connection, [one for _, one in commands])
        except BaseException:
            # Whoever takes it next must not read the answers to these commands.
            await connection.disconnect(**self._at_once)
            raise
        finally:
            await self._pool.release(connection)

    async def close(self) -> None:
        await self._pool.disconnect()
        for sentinel in self._sentinels:
            await sentinel.aclose()

    async def _exchange(self, connection: Any, commands: list[Command]) -> list[Any]:
        await connection.send_packed_command([_packed(one) for one in commands])
        return [await self._answer(connection) for _ in commands]

    async def _answer(self, connection: Any) -> Any:
        try:
            return await connection.read_response(**self._raw)
        except Exception as error:
            if named(error, "ResponseError"):
                return error
            raise

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        cursor = 0
        while True:
            (answer,) = await self.send([(b"", _scan(cursor, pattern))])
            if isinstance(answer, Exception):
                raise answer
            cursor = int(answer[0])
            yield answer[1]
            if cursor == 0:
                return


class ClusterTransport(Transport):
    """The masters of a cluster, each reached by a pipeline of its own at the same time.

    Args:
        client: A ``redis.asyncio.RedisCluster``.
    """

    by_slot = True

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self._outdated = False
        self._lock = asyncio.Lock()

    async def send(self, commands: Sequence[tuple[bytes, Command]]) -> list[Any]:
        await self._know_the_nodes()
        answers: list[Any] = [None] * len(commands)
        by_node: dict[str, tuple[Any, list[int]]] = {}
        for n, (key, _) in enumerate(commands):
            try:
                node = self._client.get_node_from_key(key)
            except Exception as error:  # a slot that nobody serves
                self._outdated, answers[n] = True, error
            else:
                by_node.setdefault(node.name, (node, []))[1].append(n)
        await asyncio.gather(
            *(
                self._send_to(node, numbers, commands, answers)
                for node, numbers in by_node.values()
            )
        )
        return answers

    async def close(self) -> None:
        await self._client.aclose()

    async def _send_to(
        self,
        node: Any,
        numbers: list[int],
        commands: Sequence[tuple[bytes, Command]],
        answers: list[Any],
    ) -> None:
        """Put the answers of one node in their places; one that is down is alone."""
        sent = [_Sent(_with_name(commands[n][1]), dict(_RAW)) for n in numbers]
        try:
            await node.execute_pipeline(sent)
        except Exception as error:
            for one in sent:
                one.result = error
        except BaseException:  # the deadline has passed: it may be the master no more
            self._outdated = True
            raise
        for n, one in zip(numbers, sent, strict=True):
            answers[n] = await self._redirected(one.result, commands[n][1])

    async def _redirected(self, answer: Any, command: Command) -> Any:
        """Return *answer*, or that of the node which has the slot by now."""
        if not isinstance(answer, Exception):
            return answer
        if named(answer, "AskError", "MovedError", "TryAgainError"):
            # It was not carried out, so it can be sent again; the client knows where.
            try:
                return await self._client.execute_command(*_with_name(command), **_RAW)
            except Exception as error:
                return error
        if not named(answer, "NoScriptError"):
            self._outdated = True
        return answer

    async def _know_the_nodes(self) -> None:
        await self._client.initialize()
        if not self._outdated:
            return
        async with self._lock:
            if self._outdated:
                await self._client.nodes_manager.initialize()
                self._outdated = False

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        await self._know_the_nodes()
        for node in self._client.get_primaries():
            cursor = 0
            while True:
                command = _scan(cursor, pattern)
                answer = await node.execute_command(*_with_name(command), **_RAW)
                cursor = int(answer[0])
                yield answer[1]
                if cursor == 0:
                    break


def _scan(cursor: int, pattern: bytes) -> Command:
    return (b"SCAN", b"%d" % cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT)


def _with_name(command: Command) -> tuple[Any, ...]:
    """Return *command* with its name as text, by which a cluster's client knows it."""
    return (command[0].decode(), *command[1:])


def _packed(command: Command) -> bytes:
    """Return *command* as it is sent; the driver's way takes a multiple of the time.

    See "RESP protocol spec", redis.io/docs.
    """
    each = [b"$%d\r\n%b\r\n" % (len(part), part) for part in command]
    return b"*%d\r\n%b" % (len(each), b"".join(each))


def _known(method: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Return those of *options* that *method* knows; older clients lack some."""
    parameters = inspect.signature(method).parameters
    return {name: value for name, value in options.items() if name in parameters}
