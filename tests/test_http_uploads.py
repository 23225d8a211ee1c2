"""A streamed body whose response is finished before it has come, and held (T5)."""

import asyncio

import pytest
from tornado.web import stream_request_body

from httpkit import Page, serving, stored
from httpkit_stores import on_every_store, on_waiting_stores, soon


@stream_request_body
class Upload(Page):
    """Notes what is called."""

    def initialize(self):
        self.seen = self.application.settings.setdefault("seen", [])

    def data_received(self, chunk):
        self.seen.append("data")

    def put(self):
        self.seen.append("put")


class Refuses(Upload):
    """Sends the visitor away before the body has come."""

    def prepare(self):
        self.session.flash("log in first")
        self.redirect("/login")


class TooLarge(Upload):
    """Finishes with the first chunk, in a coroutine or not."""

    def data_received(self, chunk):
        super().data_received(chunk)
        self.session["refused"] = True
        self.set_status(413)
        self.finish("too large")


class Fails(TooLarge):
    """Goes on after it has finished, and fails."""

    def data_received(self, chunk):
        super().data_received(chunk)
        raise RuntimeError("a bug of the application")


class FailsLater(Fails):
    async def data_received(self, chunk):
        await asyncio.sleep(0)
        super().data_received(chunk)


class TooLargeLater(TooLarge):
    async def data_received(self, chunk):
        await asyncio.sleep(0)
        super().data_received(chunk)


async def parked(site, request):
    """Send a request whose commit is parked, then open the gate; return the answer."""
    gate = site.store.park("commit")
    answer = asyncio.ensure_future(site.exchange(request))
    await gate.arrival()
    for _ in range(20):  # turns in which the connection could go on reading
        await asyncio.sleep(0)
    gate.open()
    return await soon(answer)


def put(body, *headers):
    lines = [
        "PUT / HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", body]).encode()


@on_waiting_stores
async def test_a_finish_in_prepare_ends_the_upload(make_store):
    """T5: no chunk and no verb comes after it, however long the store takes."""
    async with serving(Refuses, make_store()) as site:
        answer = await parked(site, put("a small body"))
        assert answer.startswith(b"HTTP/1.1 302 ")
        assert b"\r\nLocation: /login\r\n" in answer
        assert site.application.settings["seen"] == []


@on_waiting_stores
async def test_who_is_refused_is_not_asked_to_continue(make_store):
    """T5: Expect: 100-continue is answered with what the handler has said."""
    async with serving(Refuses, make_store()) as site:
        answer = await parked(site, put("body", "Expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 302 ")


@on_waiting_stores
@pytest.mark.parametrize("handler", [TooLarge, TooLargeLater, Fails, FailsLater])
async def test_a_finish_with_a_chunk_ends_the_upload(make_store, handler):
    """T5: the verb does not run for an upload that was refused on the way.

    Also if the handler fails after it has answered: the answer has left by then.
    """
    async with serving(handler, make_store()) as site:
        answer = await parked(site, put("one chunk"))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert answer.endswith(b"too large")
        assert site.application.settings["seen"] == ["data"]
        assert len(await site.records()) == 1


@on_waiting_stores
async def test_a_failed_commit_ends_the_upload_too(make_store):
    """T3, T5: the answer is a 503, and nothing comes after it."""
    async with serving(Refuses, make_store("commit")) as site:
        answer = await parked(site, put("a small body"))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert site.application.settings["seen"] == []


@pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="Python 3.12 has eager tasks"
)
async def test_eager_tasks_end_the_upload_too(monkeypatch):
    """T5, T8: the connection waits for the held response with any factory of tasks."""
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "_task_factory", asyncio.eager_task_factory)
    async with serving(Refuses) as site:
        answer = await parked(site, put("body", "Expect: 100-continue"))
        assert answer.startswith(b"HTTP/1.1 302 ")
        assert site.application.settings["seen"] == []


@stream_request_body
class OwnReceiver(Page):
    """Says itself who takes the body."""

    def initialize(self):
        self.length = 0
        self.data_received = self.take

    def take(self, chunk):
        self.length += len(chunk)

    def post(self):
        self.session["n"] = self.length
        self.write(str(self.length))


@on_every_store
async def test_data_received_that_is_set_on_the_handler(make_store):
    """T5: it is called, as in plain Tornado."""
    async with serving(OwnReceiver, make_store()) as site:
        assert (await site.visitor().post(body="abc")).body == b"3"
        assert await stored(site) == 3
