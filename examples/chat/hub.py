"""The open sockets of this process: what is new for them, and who may say how much."""

import asyncio
import logging
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from tornado.web import Application

from .messages import Line, Messages, News, Presence

log = logging.getLogger(__name__)

LOOK_EVERY = 0.25
"""Seconds between two looks at the file, as long as there are sockets."""
BEAT_EVERY = 2.0
"""Seconds after which a server says again who is with it."""
AT_ONCE, WITHIN = 6, 6.0
"""How many lines one may say within how many seconds."""

T = TypeVar("T")


class Listener(Protocol):
    """What the hub asks of a socket."""

    def show(self, lines: list[Line], rooms: list[Any], people: list[str]) -> None: ...

    def close(self, code: int | None = None, reason: str | None = None) -> None: ...


@dataclass
class Seat:
    """A socket in a room."""

    socket: Listener
    presence: Presence
    fresh: bool = True
    """True until the history of the room was told."""


class Hub:
    """Tells the sockets in a room what is said there, at whichever server.

    One thread does all that blocks, one task all the telling, so nothing overtakes.
    """

    def __init__(self, messages: Messages) -> None:
        self._messages = messages
        self._seats: dict[Listener, Seat] = {}
        self._gone: list[str] = []
        self._newest: int | None = None
        """The last line that was told; None until it was asked for."""
        self._beat_at = 0.0
        self._said: dict[str, deque[float]] = {}
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the file of the messages."""
        self._thread = ThreadPoolExecutor(1, "messages")
        self._due = asyncio.Event()
        await self._call(self._messages.open)

    async def close(self) -> None:
        """Close all sockets, so that their people are gone at once, and the file."""
        for socket in list(self._seats):
            socket.close(1001, "the server stops")
            self.leave(socket)
        if self._watching is not None:
            await self._watching
        await self._call(self._messages.close)
        self._thread.shutdown()

    async def _call(self, do: Callable[..., T], *values: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, do, *values)

    # -- for handlers and sockets --------------------------------------------------

    async def rooms(self) -> dict[int, str]:
        """Return the names of all rooms by their numbers."""
        return await self._call(self._messages.rooms)

    async def open_room(self, name: str) -> int | None:
        """Return the number of a room, new or not; None if there are too many."""
        return await self._call(self._messages.open_room, name)

    async def present(self) -> list[Presence]:
        """Return who is in which room, at whichever server."""
        return await self._call(self._messages.present)

    def enter(self, socket: Listener, presence: Presence) -> None:
        """Tell *socket* from now on what happens in its room, history first."""
        self._seats[socket] = Seat(socket, presence)
        self._look_now(beat=True)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    def leave(self, socket: Listener) -> None:
        """Tell *socket* nothing more; twice does no harm."""
        seat = self._seats.pop(socket, None)
        if seat is not None:
            self._gone.append(seat.presence.socket)
            self._look_now(beat=True)

    def is_hasty(self, name: str) -> bool:
        """Tell whether somebody says too much at once; count this line if not."""
        now = time.monotonic()
        self._forget_the_silent(now)
        said = self._said.pop(name, None) or deque(maxlen=AT_ONCE)
        hasty = len(said) == AT_ONCE and said[0] >= now - WITHIN
        if not hasty:
            said.append(now)
        self._said[name] = said
        return hasty

    def _forget_the_silent(self, now: float) -> None:
        for name, said in list(self._said.items()):
            if said[-1] >= now - WITHIN:
                break  # those behind it have asked since
            del self._said[name]

    async def say(self, room: int, name: str, text: str, nonce: str) -> bool:
        """Keep a line, and have it told; False if it was kept before."""
        new = await self._call(self._messages.say, room, name, text, nonce)
        self._look_now()
        return new

    def _look_now(self, *, beat: bool = False) -> None:
        if beat:
            self._beat_at = 0.0
        self._due.set()

    # -- the telling ---------------------------------------------------------------

    async def _watch(self) -> None:
        """Look and tell as long as there is a socket."""
        self._newest = None
        while self._seats or self._gone:
            self._due.clear()
            try:
                await self._beat()
                await self._look()
            except sqlite3.Error as error:
                log.warning("the messages cannot be reached now: %s", error)
            if self._seats:
                await self._pause()
        self._said.clear()

    async def _pause(self) -> None:
        timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._due.set)
        try:
            await self._due.wait()
        finally:
            timer.cancel()

    async def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beat_at < BEAT_EVERY:
            return
        here, gone = [seat.presence for seat in self._seats.values()], self._gone
        self._beat_at, self._gone = now, []
        await self._call(self._messages.beat, here, gone)

    async def _look(self) -> None:
        if self._newest is None:
            self._newest = await self._call(self._messages.newest)
        seats = list(self._seats.values())
        entered = {seat.presence.room for seat in seats if seat.fresh}
        news = await self._call(self._messages.look, self._newest, entered)
        for seat in seats:
            if seat.socket in self._seats:  # still
                tell(seat, news)
        if news.lines:
            self._newest = news.lines[-1].id


def tell(seat: Seat, news: News) -> None:
    """Tell one socket what there is for it."""
    room = seat.presence.room
    lines = [line for line in news.lines if line.room == room]
    if seat.fresh:
        lines, seat.fresh = news.history[room], False
    names: dict[int, set[str]] = {number: set() for number in news.rooms}
    for one in news.present:
        names[one.room].add(one.name)
    rooms = [
        {"id": number, "name": name, "people": len(names[number])}
        for number, name in news.rooms.items()
    ]
    seat.socket.show(lines, rooms, sorted(names[room], key=str.casefold))


@asynccontextmanager
async def hub_open(application: Application) -> AsyncIterator[None]:
    """Have the hub of an application open as long as it runs."""
    hub = hub_of(application)
    await hub.open()
    try:
        yield
    finally:
        await hub.close()


def hub_of(application: Application) -> Hub:
    """Return the hub of an application."""
    return cast(Hub, application.settings["chat_hub"])
