"""Clients that leave while their request waits for the session (T1, T5, T7)."""

import asyncio
import contextlib
from typing import ClassVar

import pytest
from tornado.websocket import WebSocketHandler

from httpkit import Counter, Page, serving, stored
from httpkit_stores import on_waiting_stores, until
from tornado_sessions import WebSocketSessionMixin


class LongPoll(Page):
    """Waits for something, and gives up when the client leaves."""

    noted: ClassVar[list[str]] = []

    async def get(self):
        self.waiter = asyncio.get_running_loop().create_future()
        self.noted.append("waits")
        with contextlib.suppress(asyncio.CancelledError):
            await self.waiter

    def on_connection_close(self):
        self.noted.append("hears")
        self.waiter.cancel()

    def on_finish(self):
        self.noted.append("over")


def request_with(visitor, path="/"):
    return f"GET {path} HTTP/1.1\r\nHost: h\r\nCookie: session={visitor.cookie}\r\n"


async def left(site, call, request):
    """Send *request*, hang up while that call of the store is under way, and let it end."""
    gate = site.store.park(call)
    _, writer = await site.connect()
    writer.write(request.encode())
    await gate.arrival()
    writer.transport.abort()
    await closing(site)
    gate.open()


@on_waiting_stores
async def test_a_client_that_leaves_during_the_load(make_store):
    """T1, T5: the handler hears of it once it has begun, as it would without a session."""
    noted = []
    routes = [("/poll", type("Poll", (LongPoll,), {"noted": noted})), ("/", Counter)]
    async with serving(routes, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        await left(site, "load", request_with(visitor, "/poll") + "\r\n")
        await until(lambda: len(noted) == 3)
        assert noted == ["waits", "hears", "over"]


class Finishes(Page):
    """Is done at once, and would like to hear who did not wait for it."""

    noted: ClassVar[list[str]] = []

    def get(self):
        self.session["n"] = 7
        self.finish("done")

    def on_connection_close(self):
        self.noted.append("hears")

    def on_finish(self):
        self.noted.append("over")


@on_waiting_stores
async def test_a_client_that_leaves_after_finish(make_store):
    """T5: after finish() a handler hears of nobody who leaves."""
    noted = []
    routes = [("/end", type("Ends", (Finishes,), {"noted": noted})), ("/", Counter)]
    async with serving(routes, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        await left(site, "commit", request_with(visitor, "/end") + "\r\n")
        await until(lambda: noted)
        assert noted == ["over"]
        assert await stored(site) == 7


UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
)


@pytest.mark.parametrize("phase", ["load", "commit"])
@on_waiting_stores
async def test_a_socket_whose_client_leaves_before_it_is_open(make_store, phase):
    """T7: open() comes before on_close(), and on_close() comes."""
    noted = []

    class Socket(WebSocketSessionMixin, WebSocketHandler):
        def prepare(self):
            self.session["n"] = 7

        def open(self):
            noted.append("open")

        def on_close(self):
            noted.append("close")

    async with serving([("/ws", Socket), ("/", Counter)], make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        await left(site, phase, request_with(visitor, "/ws") + UPGRADE)
        await until(lambda: len(noted) == 2)
        assert noted == ["open", "close"]


async def closing(site):
    """Wait until the server has noticed that somebody hung up."""
    connections = site.server._connections
    await until(lambda: all(one.stream.closed() for one in connections))
