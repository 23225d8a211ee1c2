"""What a handler does after finish(): as in plain Tornado, nothing of it is sent (T5)."""

import pytest

from httpkit import Counter, Page, serving, stored
from httpkit_stores import on_every_store, soon, until

LATE = {
    "status": lambda handler: handler.set_status(200),
    "header": lambda handler: handler.set_header("X-Late", "1"),
    "location": lambda handler: handler.set_header("Location", "/late"),
    "cookie": lambda handler: handler.set_cookie("late", "1"),
    "no cookie": lambda handler: handler.clear_all_cookies(),
    "clear": lambda handler: handler.clear(),
    "error": lambda handler: handler.send_error(400),
    "redirect": lambda handler: handler.redirect("/late"),
}


class Finished(Page):
    """Redirects, and goes on."""

    def post(self, what):
        self.session["n"] = 1
        self.set_cookie("early", "1")
        self.redirect("/done", status=303)
        LATE[what](self)


def sent(answer):
    cookies = answer.headers.get_list("Set-Cookie")
    names = sorted(line.partition("=")[0] for line in cookies)
    late = answer.headers.get("X-Late")
    return answer.code, answer.headers["Location"], names, late, answer.body


@on_every_store
@pytest.mark.parametrize("what", LATE)
async def test_what_comes_after_finish_is_not_sent(make_store, what):
    """T5: the response is what it was, with the cookie of the session."""
    routes = [(r"/(.*)", Finished)]
    async with serving(routes, make_store()) as site:
        answer = await site.visitor().post(f"/{what.replace(' ', '%20')}")
        assert await stored(site) == 1
    assert sent(answer) == (303, "/done", ["early", "session"], None, b"")


class Unstored(Page):
    def post(self):
        self.session["n"] = 1
        self.set_header("X-Early", "1")
        self.finish("done")
        self.set_header("X-Late", "1")


@on_every_store
async def test_an_error_takes_its_place(make_store, caplog):
    """T3, T5: with the headers of an error page, and none of before or after."""
    async with serving(Unstored, make_store("commit")) as site:
        answer = await site.visitor().post()
        await until(lambda: "no commit today" in caplog.text)
    assert answer.code == 503
    assert not {"X-Early", "X-Late"} & {name for name, _ in answer.headers.get_all()}


class Early(Page):
    def initialize(self):
        self.session["from"] = "ad"

    def get(self):
        self.write(self.session["from"])


@on_every_store
async def test_what_initialize_writes_is_kept(make_store):
    """T1, S1: whatever other cookies a visitor without a session has."""
    async with serving(Early, make_store()) as site:
        for cookies in ({}, {"_ga": "1"}):
            answer = await site.visitor(**cookies).get()
            assert (answer.code, answer.body) == (200, b"ad")
        assert len(await site.records()) == 2


class LoadsLate(Counter):
    """GET loads the session when headers have left."""

    session_autoload = False

    async def get(self):
        self.write("half")
        await soon(self.flush())
        await self.load_session()
        self.session["n"] = 7
        self.finish(" and half")

    async def post(self):
        await self.load_session()
        super().post()


REQUEST = (
    b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nCookie: session=%s\r\n\r\n"
)


@on_every_store
@pytest.mark.parametrize("failing", [False, True])
async def test_headers_leave_once(make_store, failing):
    """T4, T5: a response whose headers have left before it is held has no others."""
    async with serving(LoadsLate, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        if failing:
            site.store.failing.add("commit")
        answer = await site.exchange(REQUEST % visitor.cookie.encode())
        site.store.failing.clear()
        assert await stored(site) == (1 if failing else 7)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert (b"HTTP/1.1" in body, b"half" in body) == (False, True)
    assert failing or body.endswith(b"0\r\n\r\n")


class Tagged(Page):
    """Asks who is there when Tornado asks for the ETag, which is inside finish()."""

    def get(self):
        self.write("letters " * 300)

    def compute_etag(self):
        return f'"{self.current_user}"'


@on_every_store
async def test_a_session_that_is_first_asked_for_inside_finish(make_store):
    """T5: the response is complete, compressed too, and says what it depends on."""
    async with serving(Tagged, make_store(), compress_response=True) as site:
        answer = await site.visitor().get(headers={"Accept-Encoding": "gzip"})
        assert answer.headers["X-Consumed-Content-Encoding"] == "gzip"
        assert answer.body == b"letters " * 300
        assert "Cookie" in answer.headers["Vary"]


class Noting(Page):
    """Counts what is written, a chunk of finish() too."""

    def write(self, chunk):
        self.session["n"] = self.session.get("n", 0) + 1
        super().write(chunk)

    def get(self):
        self.finish("x")


@on_every_store
async def test_a_chunk_of_finish_is_written_before_the_session_is_stored(make_store):
    """T2, T5: what an overridden write() does to the session is in the commit."""
    async with serving(Noting, make_store()) as site:
        request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        head, _, body = (await site.exchange(request)).partition(b"\r\n\r\n")
        assert (body, head.count(b"Set-Cookie: session=")) == (b"x", 1)
        assert await stored(site) == 1


class Etagged(Page):
    """Changes the session when it is too late."""

    def get(self):
        self.write("x")

    def compute_etag(self):
        self.session["n"] = 1


@on_every_store
async def test_a_change_inside_finish_is_reported(make_store, caplog):
    """T4: it is too late for a cookie, and the response is what it was."""
    async with serving(Etagged, make_store()) as site:
        answer = await site.visitor().get()
        assert (answer.code, answer.body) == (200, b"x")
        await until(lambda: "ResponseStarted" in caplog.text)
        assert await site.records() == []
