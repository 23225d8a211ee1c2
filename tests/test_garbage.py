"""A request leaves nothing behind that only the garbage collector would find."""

import gc
from collections import Counter

import pytest
from tornado.web import stream_request_body

from httpkit import Case, serving
from httpkit_stores import on_both_paths


class Page(Case):
    def get(self):
        self.bump()
        self.write("ok")

    def post(self):
        self.session.login("alice")
        self.session.flash("hello")

    def delete(self):
        self.session.destroy()


@stream_request_body
class Streamed(Page):
    def data_received(self, chunk):
        self.size = len(chunk)

    def put(self):
        self.bump()


@on_both_paths
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT"])
async def test_no_cycles(make_store, method):
    """P3: a session that knew its handler kept 29 objects of each request alive."""
    page = Streamed if method == "PUT" else Page
    async with serving(page, make_store()) as site:
        visitor = site.visitor()
        body = {"POST": b"", "PUT": b"body"}.get(method)
        for _ in range(3):
            await visitor.fetch("/", method=method, body=body)
        gc.collect()
        gc.disable()
        try:
            for _ in range(20):
                await visitor.fetch("/", method=method, body=body)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = Counter(type(one).__name__ for one in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    ours = {"Page", "Streamed", "StreamedBody", "HeldResponse", "HTTPServerRequest"}
    ours |= {"Session", "Values", "Plan"}
    assert {name: count for name, count in left.items() if name in ours} == {}
