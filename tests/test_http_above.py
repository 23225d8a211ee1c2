"""Base classes, and other uses of Tornado than a method that returns (T1, T4, T5, T7)."""

import asyncio

from tornado.httputil import HTTPHeaders
from tornado.web import RequestHandler, authenticated
from tornado.websocket import WebSocketHandler

from httpkit import Counter, Page, serving, stored
from httpkit_stores import Gate, on_every_store, soon, until
from tornado_sessions import SessionMixin

HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: h\r\nCookie: session={}\r\n"
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n"
)


class Envelope(RequestHandler):
    """A base class that wraps what it is given."""

    def finish(self, chunk=None):
        return super().finish(None if chunk is None else {"data": chunk})


class Wrapped(SessionMixin, Envelope):
    def get(self):
        self.session["n"] = self.session.get("n", 0) + 1
        self.finish([self.session["n"]])

    def delete(self):
        self.finish([0])


@on_every_store
async def test_the_finish_of_a_base_class(make_store):
    """T5: it gets what it was called with, with a session and without."""
    async with serving(Wrapped, make_store()) as site:
        visitor = site.visitor()
        assert (await visitor.fetch(method="DELETE")).body == b'{"data": [0]}'
        for number in (1, 2):
            assert (await visitor.get()).body == b'{"data": [%d]}' % number


class ReturnsNothing(RequestHandler):
    """A base class from when these returned nothing; Tornado ignores what they return."""

    def finish(self, chunk=None):
        super().finish(chunk)

    def flush(self, include_footers=False):
        super().flush(include_footers)


class OfOldBase(SessionMixin, ReturnsNothing):
    def post(self):
        self.session["n"] = self.session.get("n", 0) + 1

    async def get(self):
        self.session["n"] = self.session.get("n", 0) + 1
        self.write("one ")
        self.flush()
        await until(lambda: self._headers_written)
        self.write("two")


@on_every_store
async def test_a_base_class_that_returns_nothing(make_store, caplog):
    """T5: its response is whole, and nothing is logged."""
    async with serving(OfOldBase, make_store()) as site:
        visitor = site.visitor()
        assert (await visitor.post()).code == 200
        assert (await visitor.get()).body == b"one two"
        assert await stored(site) == 2
    assert not [record for record in caplog.records if record.exc_info]


class Greets(Page):
    """Asks too early who is there."""

    def set_default_headers(self):
        self.set_header("X-User", self.current_user or "nobody yet")

    @authenticated
    def get(self):
        self.write(self.current_user)

    def post(self):
        self.session.login("ada")


class GreetsByHand(Greets):
    session_autoload = False

    async def prepare(self):
        await self.load_session()


@on_every_store
async def test_who_asks_too_early_is_asked_again(make_store):
    """T1: nobody is refused because a header wanted to know before the load."""
    routes = [("/", Greets), ("/hand", GreetsByHand)]
    async with serving(routes, make_store(), login_url="/login") as site:
        visitor = site.visitor()
        await visitor.post()
        for path in ("/", "/hand"):
            answer = await visitor.get(path)
            assert (answer.code, answer.body) == (200, b"ada")
            assert answer.headers["X-User"] == "nobody yet"


class Background(Page):
    """Answers after its method has returned."""

    async def get(self):
        self._auto_finish = False
        self.write("a")
        await self.flush()
        self.session["n"] = 9
        self.task = asyncio.ensure_future(self.go_on())

    async def go_on(self):
        await gate_of[0].pass_through()
        await self.save_session()
        self.finish("b")


gate_of = [None]


@on_every_store
async def test_a_handler_that_finishes_in_the_background(make_store, caplog):
    """T4: what it saves later is not too late because its method has returned."""
    gate_of[0] = Gate()
    async with serving([("/go", Background), ("/", Counter)], make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        answering = asyncio.ensure_future(visitor.get("/go"))
        await gate_of[0].arrival()
        gate_of[0].open()
        assert (await soon(answering)).body == b"ab"
        assert await stored(site) == 9
    assert "ResponseStarted" not in caplog.text


class Upgrades(SessionMixin, WebSocketHandler):
    """A socket with the mixin for requests, which saves by itself."""

    async def prepare(self):
        self.session.login("bob")
        await self.save_session()


@on_every_store
async def test_an_upgrade_that_saves_sends_its_cookie(make_store):
    """T7: a login is no logout because the 101 comes from elsewhere."""
    async with serving([("/ws", Upgrades), ("/", Counter)], make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        reader, writer = await site.connect()
        writer.write(HANDSHAKE.format(visitor.cookie).encode())
        head = (await soon(reader.readuntil(b"\r\n\r\n"))).decode()
        assert head.startswith("HTTP/1.1 101")
        visitor.keep(HTTPHeaders.parse(head.partition("\r\n")[2]))
        writer.close()
        assert (await visitor.get()).body == b'{"n": 1}'
        assert (await site.record()).meta.principal == "bob"
