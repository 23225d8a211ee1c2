"""Order on the wire: redirects against slow stores, pipelining, visitors who leave."""

import asyncio
import gc

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketHandler, websocket_connect

from httpkit import Counter, Page, serving
from httpkit_stores import (
    AsyncStore,
    on_both_paths,
    on_every_store,
    on_waiting_stores,
    soon,
    until,
)
from tornado_sessions import SessionMixin


class AddAndRedirect(Counter):
    def post(self):
        self.session["n"] = self.session.get("n", 0) + 1
        self.redirect("/", status=303)


async def follow(visitor, rounds):
    """Post and follow the redirect at once, over and over; return what was shown."""
    shown = []
    for _ in range(rounds):
        answer = await visitor.post()
        shown.append((await visitor.get(answer.headers["Location"])).body)
    return shown


async def test_no_redirect_outruns_the_save():
    """T2: with a store that takes 300 ms, 50 redirects of 50 show what was saved."""
    async with serving(AddAndRedirect, AsyncStore(delay=0.3)) as site:
        visitors = [site.visitor() for _ in range(10)]
        shown = await asyncio.gather(*(follow(visitor, 5) for visitor in visitors))
    assert shown == [[b'{"n": %d}' % n for n in range(1, 6)]] * 10


def request(path, *, last=False, cookie=None):
    lines = [f"GET {path} HTTP/1.1", "Host: x"]
    if cookie:
        lines.append(f"Cookie: session={cookie}")
    if last:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Echo(Page):
    def get(self, word):
        self.session[word] = word
        self.write(f"<{word}>")


@on_every_store
async def test_pipelined_requests_are_answered_in_order(make_store):
    """T5: pipelined requests get their answers in order, each after its commit."""
    async with serving([(r"/(.*)", Echo)], make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/zero")
        words = ["one", "two", "three", "four"]
        requests = [
            request(f"/{word}", cookie=visitor.cookie, last=word == "four")
            for word in words
        ]
        answer = (await site.exchange(b"".join(requests))).decode()
        stored = set(await site.values())
    places = [answer.index(f"<{word}>") for word in words]
    assert places == sorted(places)
    assert answer.count("HTTP/1.1 200 OK") == 4
    assert stored == {"zero", *words}


@on_waiting_stores
async def test_a_parked_commit_holds_back_the_pipeline(make_store):
    """T2 T5: an answer that waits for the store lets no later one overtake it."""
    store = make_store()
    gate = store.park("commit")
    async with serving([(r"/(.*)", Echo)], store) as site:
        reader, writer = await site.connect()
        writer.write(request("/one") + request("/two", last=True))
        await gate.arrival()
        assert site.access == []
        gate.open()
        answer = await soon(reader.read())
        writer.close()
    assert answer.index(b"<one>") < answer.index(b"<two>")
    assert [path for _, path in site.access] == ["/one", "/two"]


@pytest.mark.parametrize("flushing", [False, True], ids=["finish", "flush"])
@on_waiting_stores
async def test_a_visitor_who_leaves_during_the_commit(make_store, flushing, caplog):
    """T5: the commit is completed, the handler ends, and no task or error is left."""
    store = make_store()
    gate = store.park("commit")
    finished = []

    class Flushes(Echo):
        async def get(self, word):
            super().get(word)
            if flushing:
                self.flush()

        def on_finish(self):
            finished.append(self.get_status())

    async with serving([(r"/(.*)", Flushes)], store) as site:
        await site.manager.start()
        before = asyncio.all_tasks()  # with those that an open store has
        _reader, writer = await site.connect()
        writer.write(request("/one"))
        await gate.arrival()
        writer.transport.abort()
        await asyncio.sleep(0)
        gate.open()
        await until(lambda: finished)
        assert await site.values() == {"one": b'"one"'}
        await until(lambda: not tasks_left(before))
        gc.collect()
        assert (await site.visitor().get("/two")).code == 200
    assert [r for r in caplog.records if r.levelname == "ERROR"] == []


def tasks_left(before):
    """Return the tasks that are new, but for those of a driver."""
    new = asyncio.all_tasks() - before
    return {task for task in new if "pymongo" not in code_of(task).co_filename}


def code_of(task):
    return task.get_coro().cr_code


@on_waiting_stores
async def test_a_visitor_who_leaves_during_the_load(make_store):
    """T1 T5: a connection that is gone when the session has loaded harms nobody."""
    store = make_store()
    async with serving([(r"/(.*)", Echo)], store) as site:
        visitor = site.visitor()
        await visitor.get("/zero")
        gate = store.park("load")
        _reader, writer = await site.connect()
        writer.write(request("/one", cookie=visitor.cookie))
        await gate.arrival()
        writer.transport.abort()
        gate.open()
        await until(lambda: len(site.access) == 2)
        assert set(await site.values()) == {"zero", "one"}
        assert (await visitor.get("/two")).code == 200


class Talk(SessionMixin, WebSocketHandler):
    def prepare(self):
        self.session["socket"] = True

    def open(self):
        self.write_message(f"hello {self.session.get('one')}")

    def on_message(self, message):
        self.write_message(message)


@on_both_paths
async def test_a_websocket_handshake_is_not_held(make_store):
    """T7: the 101 is never held back, whatever is in the session; the socket works."""
    routes = [(r"/ws", Talk), (r"/(.*)", Echo)]
    async with serving(routes, make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/one")
        for cookie, greeting in [(visitor.cookie, "hello one"), (None, "hello None")]:
            socket = await soon(connected(site, cookie))
            assert await soon(socket.read_message()) == greeting
            await socket.write_message("ping")
            assert await soon(socket.read_message()) == "ping"
            socket.close()
            assert await soon(socket.read_message()) is None


def connected(site, cookie):
    headers = {"Cookie": f"session={cookie}"} if cookie else {}
    return websocket_connect(
        HTTPRequest(f"ws://127.0.0.1:{site.port}/ws", headers=headers)
    )
