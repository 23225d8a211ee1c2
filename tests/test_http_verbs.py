"""HEAD, files, uploads, and what is saved by hand: each with something to store."""

import asyncio
from functools import partial

from tornado.web import StaticFileHandler, stream_request_body

from httpkit import Case, assert_counted, serving
from httpkit_stores import on_every_store


class WithHead(Case):
    def get(self):
        self.bump()
        self.write("done")

    head = get


class SavedByHand(Case):
    async def get(self):
        self.bump()
        await self.save_session()
        self.write("done")


class SavedByHandBeforeCrash(Case):
    async def get(self):
        self.bump()
        await self.session.save()
        self.session["n"] = -1
        raise RuntimeError("a bug of the application")


class Static(Case, StaticFileHandler):
    def prepare(self):
        self.bump()


@stream_request_body
class Streamed(Case):
    async def prepare(self):
        self.received = 0

    async def data_received(self, chunk):
        await asyncio.sleep(0)
        self.received += len(chunk)

    def put(self):
        self.bump()
        self.write(f"received {self.received}")


@on_every_store
async def test_head_is_answered_without_a_body(make_store):
    """T5: HEAD commits as GET does, and its answer has headers only."""
    async with serving(WithHead, make_store()) as site:
        visitor = site.visitor()
        head = partial(visitor.fetch, method="HEAD")
        answer = await assert_counted(site, head, 200)
    assert answer.body == b""
    assert answer.headers["Content-Length"] == "4"


@on_every_store
async def test_a_static_file_is_sent_whole(make_store, tmp_path):
    """T5: a StaticFileHandler with a session sends the file, whatever its size."""
    content = bytes(range(256)) * 1000
    (tmp_path / "file.bin").write_bytes(content)
    routes = [(r"/(.*)", Static, {"path": str(tmp_path)})]
    async with serving(routes, make_store()) as site:
        visitor = site.visitor()
        answer = await assert_counted(site, partial(visitor.get, "/file.bin"), 200)
        again = await visitor.get(
            "/file.bin", headers={"If-None-Match": answer.headers["Etag"]}
        )
    assert answer.body == content
    assert (again.code, again.body) == (304, b"")


@on_every_store
async def test_a_streamed_upload_arrives_whole(make_store):
    """T5: a handler with @stream_request_body gets every byte and its session."""
    async with serving(Streamed, make_store()) as site:
        visitor = site.visitor()
        body = b"x" * 200_000
        put = partial(visitor.fetch, method="PUT", body=body)
        answer = await assert_counted(site, put, 200)
    assert answer.body == b"received 200000"


@on_every_store
async def test_what_was_saved_by_hand_stands(make_store):
    """S7 T2: save() counts as the commit of the response, and survives a crash."""
    async with serving(SavedByHand, make_store()) as site:
        visitor = site.visitor()
        await assert_counted(site, visitor.get, 200)
    async with serving(SavedByHandBeforeCrash, make_store()) as site:
        visitor = site.visitor()
        await assert_counted(site, visitor.get, 500)
