"""The way to a Redis server, or to whichever is the master now.

Each batch leaves in one write, on a connection out of the client's own pool, and the
answers are read in order. The client's ``execute_command`` is not used: it sends a
command again if the connection broke before the answer came, and what was carried out
twice would count twice.
"""

from __future__ import annotations

import asyncio
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from tornado_sessions.errors import ConfigurationError
from tornado_sessions.stores.redis_errors import OutOfStepError, named
from tornado_sessions.stores.redis_scripts import Script

_SCAN_COUNT = b"500"
_MOST_CONNECTIONS = 16
"""At a time; the manager uses eight, and one for each other call."""
_marks = count(1)


class Call(NamedTuple):
    """A script, the keys that it touches, and its other arguments."""

    script: Script
    keys: Sequence[bytes]
    args: Sequence[bytes] = ()


class Command(NamedTuple):
    """What is sent, and what is known of the answer."""

    words: Sequence[bytes]
    key: bytes = b""
    """In a cluster, whoever has this key gets the command."""
    mark: bytes | None = None
    """What the answer begins with: it is the one to this command and to no other."""


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
        answers = await self.send([_evaluate(call, first) for call in calls])
        self._sent |= first
        # A server that was restarted, or is new in its role, knows no scripts.
        unknown = [n for n, one in enumerate(answers) if named(one, "NoScriptError")]
        if unknown:
            again = [_evaluate(calls[n], {calls[n].script.sha}) for n in unknown]
            for n, answer in zip(unknown, await self.send(again), strict=True):
                answers[n] = answer
        return answers

    @abstractmethod
    async def send(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answer to each command, in order; an exception if it failed."""

    @abstractmethod
    async def close(self) -> None:
        """Close the client's connections: it is ours."""

    @abstractmethod
    def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        """Yield the keys that match *pattern*, of every master, batch by batch."""

    @abstractmethod
    async def source(self) -> Any:
        """Return what knows how to connect to a server that hears of all messages."""

    def lost(self) -> None:
        """Note that a connection to such a server failed."""


class PoolTransport(Transport):
    """One server, or whichever is the master now: what a pool of connections leads to.

    Args:
        pool: The ``connection_pool`` of a client of ``redis.asyncio`` or aioredis.
        sentinels: The clients by which it finds the master, if it does.
        ours: Nobody else uses *pool*, and all its connections lead to the same server:
            then they are kept, for handing them back costs a fifth of what a batch does.
    """

    by_slot = False

    def __init__(
        self, pool: Any, sentinels: Sequence[Any] = (), *, ours: bool = False
    ) -> None:
        super().__init__()
        self._pool = pool
        self._ours = ours
        self._idle: list[Any] = []
        self._sentinels = sentinels
        self._take: Callable[[], Any] = pool.get_connection
        takes = inspect.signature(pool.get_connection).parameters.get("command_name")
        if takes is not None and takes.default is inspect.Parameter.empty:
            self._take = partial(pool.get_connection, "_")  # as older clients want it
        self._exchange = Exchange(pool.connection_class)
        # A pool that has no connection left raises; here the others wait for their turn.
        room = getattr(pool, "max_connections", None) or _MOST_CONNECTIONS
        self._room = asyncio.Semaphore(min(room, _MOST_CONNECTIONS))
        decodes = pool.connection_kwargs.get("decode_responses")
        if decodes and not self._exchange.reads_bytes:
            raise ConfigurationError(
                "this client decodes every answer, but sessions hold bytes; "
                "give RedisStore one without decode_responses=True"
            )

    async def send(self, commands: Sequence[Command]) -> list[Any]:
        async with self._room:
            connection = self._idle.pop() if self._idle else await self._take()
            try:
                return await self._exchange(connection, commands)
            finally:
                if self._ours:
                    self._idle.append(connection)
                else:
                    await self._pool.release(connection)

    async def close(self) -> None:
        self._idle.clear()
        await self._pool.disconnect()
        for sentinel in self._sentinels:
            await sentinel.aclose()

    async def source(self) -> Any:
        return self._pool

    async def scan(self, pattern: bytes) -> AsyncIterator[list[bytes]]:
        cursor = b"0"
        while True:
            (answer,) = await self.send([scanning(cursor, pattern)])
            cursor, keys = scanned(answer)
            yield keys
            if cursor == b"0":
                return


class Exchange:
    """Sends commands on a connection of the driver's and reads their answers.

    Args:
        connection_class: Of which the connections are.
    """

    def __init__(self, connection_class: Any) -> None:
        self._raw = known(connection_class.read_response, disable_decoding=True)
        self._at_once = known(connection_class.disconnect, nowait=True)

    @property
    def reads_bytes(self) -> bool:
        """True if answers are bytes, whatever the client was told when it was made."""
        return bool(self._raw)

    async def __call__(self, connection: Any, commands: Sequence[Command]) -> list[Any]:
        """Return the answer to each command, or the error that Redis answered with.

        Raises:
            Exception: The connection failed; it will be a new one the next time.
        """
        try:
            # Idle for too long, or the server was restarted, or it is not the master now.
            if _is_over(connection) or of_old_master(connection):
                await connection.disconnect(**self._at_once)
                await connection.connect()  # which asks Sentinel; sending does not
            await connection.send_packed_command([_packed(c.words) for c in commands])
            answers = [await self._answer(connection, one.mark) for one in commands]
        except BaseException:
            # Whoever takes it next must not read the answers to these commands.
            await connection.disconnect(**self._at_once)
            raise
        if any(named(one, "ReadOnlyError") or _lacks_replicas(one) for one in answers):
            # It may not be the master any more: the next one will lead to that.
            await connection.disconnect(**self._at_once)
        return answers

    async def _answer(self, connection: Any, mark: bytes | None) -> Any:
        try:
            answer = await connection.read_response(**self._raw)
        except Exception as error:
            if named(error, "ResponseError"):
                return error
            raise
        if mark is None:
            return answer
        if isinstance(answer, bytes) and answer.startswith(mark + b" "):
            return answer[len(mark) + 1 :]
        if isinstance(answer, list) and answer[:1] == [mark]:
            return answer[1:]
        raise OutOfStepError("an answer came that was not asked for")


def scanning(cursor: bytes, pattern: bytes) -> Command:
    """Return the command for the next batch of keys."""
    words = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", _SCAN_COUNT)
    return Command(words)


def scanned(answer: Any) -> tuple[bytes, list[bytes]]:
    """Return the next cursor, ``b"0"`` at the end, and the keys."""
    if isinstance(answer, Exception):
        raise answer
    cursor, keys = answer
    return cursor, keys


def _evaluate(call: Call, in_full: set[str]) -> Command:
    """Return the command that runs a script, by its name or *in_full*."""
    script, mark = call.script, b"%d" % next(_marks)
    start = (b"EVALSHA", script.sha.encode())
    if script.sha in in_full:
        start = (b"EVAL", script.source.encode())
    words = (*start, b"%d" % len(call.keys), *call.keys, mark, *call.args)
    return Command(words, call.keys[0], mark)


def _packed(words: Sequence[bytes]) -> bytes:
    """Return a command as it is sent; the driver's way takes a multiple of the time.

    See "RESP protocol spec", redis.io/docs.
    """
    each = [b"$%d\r\n%b\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%b" % (len(each), b"".join(each))


def _is_over(connection: Any) -> bool:
    """Tell whether the server has hung up, or said something that nobody asked for.

    Not every client looks before it sends.
    """
    reader = getattr(connection, "_reader", None)
    if reader is None:
        return False
    return bool(reader.at_eof() or getattr(reader, "_buffer", None))


def of_old_master(connection: Any) -> bool:
    """Tell whether the Sentinels have named another master since *connection* was made.

    The driver closes those that are idle then, but not those in use. And the old master
    acknowledges what it will forget until it is told: for ten seconds.
    """
    pool = getattr(connection, "connection_pool", None)  # Sentinel's know theirs
    master = getattr(pool, "master_address", None)
    return master is not None and master != (connection.host, connection.port)


def _lacks_replicas(answer: Any) -> bool:
    return isinstance(answer, Exception) and "NOREPLICAS" in str(answer)


def known(method: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Return those of *options* that *method* knows; older clients lack some."""
    parameters = inspect.signature(method).parameters
    return {name: value for name, value in options.items() if name in parameters}
