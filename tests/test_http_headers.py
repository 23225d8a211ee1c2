"""What the response says to caches, and what it leaves alone (T6, S1, S2)."""

import pytest

from httpkit import Counter, Page, serving, session_cookies
from httpkit_stores import on_both_paths

TOUCHES = {
    "read": lambda handler: handler.session.get("n"),
    "length": lambda handler: len(handler.session),
    "principal": lambda handler: handler.session.principal,
    "current_user": lambda handler: handler.current_user,
    "flashes": lambda handler: handler.session.flashes(),
    "handle": lambda handler: handler.session.handle,
    "repr": lambda handler: repr(handler.session),
    "destroy": lambda handler: handler.session.destroy(),
    "untouched value": lambda handler: handler.session.pop("absent", None),
}


@on_both_paths
async def test_a_request_that_ignores_the_session(make_store):
    """S1 T6 P7: an untouched session costs a stranger nothing: no call, no header."""

    class Ignores(Page):
        def get(self):
            self.write("hello")

    async with serving(Ignores, make_store()) as site:
        answer = await site.visitor().get()
        assert site.store.calls == []
    for name in ("Set-Cookie", "Vary", "Cache-Control"):
        assert name not in answer.headers


@pytest.mark.parametrize("touch", TOUCHES)
@on_both_paths
async def test_looking_stores_nothing_but_varies(make_store, touch):
    """S1 S2 T6 P7: whatever looks at the session varies by cookie and stores nothing."""

    class Looks(Counter):
        def get(self):
            TOUCHES[touch](self)

    async with serving(Looks, make_store()) as site:
        answer = await site.visitor().get()
        assert site.store.calls == []
        assert session_cookies(answer) == []
        assert answer.headers["Vary"] == "Cookie"
        assert "Cache-Control" not in answer.headers
        visitor = site.visitor()
        await visitor.post()
        site.store.forget()
        answer = await visitor.get()
        if touch != "destroy":
            assert site.store.calls == ["load"]
            assert answer.headers.get_list("Set-Cookie") == []
        assert answer.headers["Vary"] == "Cookie"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Accept-Encoding", "Accept-Encoding,Cookie"),
        ("Accept, cookie", "Accept, cookie"),
        ("X-Cookie", "X-Cookie,Cookie"),
        ("*", "*"),
    ],
)
async def test_vary_is_added_to_what_the_handler_says(given, expected):
    """T6: Cookie joins an existing Vary, once, and leaves ``*`` as it is."""

    class Varies(Page):
        def get(self):
            self.set_header("Vary", given)
            self.session.get("n")

    async with serving(Varies) as site:
        answer = await site.visitor().get()
    assert answer.headers["Vary"] == expected


async def test_a_cookie_is_not_stored_by_caches():
    """T6: no-store comes with the session cookie, unless the handler said otherwise."""

    class Caches(Counter):
        def post(self):
            super().post()
            if self.get_argument("cache", None):
                self.set_header("Cache-Control", "private")

    async with serving(Caches) as site:
        visitor = site.visitor()
        assert (await visitor.post()).headers["Cache-Control"] == "no-store"
        assert "Cache-Control" not in (await visitor.post()).headers
        answer = await site.visitor().post("/?cache=1")
    assert answer.headers["Cache-Control"] == "private"


async def test_error_pages_say_it_too():
    """T6: Vary and no-store survive the clear() of an error page."""

    class Fails(Page):
        def get(self):
            self.session.login("ada")
            raise RuntimeError("a bug of the application")

    async with serving(Fails) as site:
        answer = await site.visitor().get()
    assert (answer.code, len(session_cookies(answer))) == (500, 1)
    assert answer.headers["Vary"] == "Cookie"
    assert answer.headers["Cache-Control"] == "no-store"


@on_both_paths
async def test_not_modified(make_store):
    """T5: 304 by ETag works with a session, and still stores what changed."""

    class Etag(Page):
        def get(self):
            self.session["n"] = self.session.get("n", 0) + 1
            self.write("always the same")

    async with serving(Etag, make_store()) as site:
        visitor = site.visitor()
        first = await visitor.get()
        headers = {"If-None-Match": first.headers["Etag"]}
        second = await visitor.get(headers=headers)
        assert (await site.values())["n"] == b"2"
        third = await site.visitor().get(headers=headers)
    assert (second.code, second.body) == (304, b"")
    assert session_cookies(second) == []
    assert (third.code, len(session_cookies(third))) == (304, 1)


@on_both_paths
async def test_compression(make_store):
    """T5 T6: output transforms see the answer whole, and Vary names both reasons."""

    class Large(Page):
        async def get(self):
            self.session["n"] = 1
            self.write("x" * 5000)
            if self.get_argument("flush", None):
                self.flush()
            self.write("y" * 5000)

    async with serving(Large, make_store(), compress_response=True) as site:
        for path in ("/", "/?flush=1"):
            answer = await site.visitor().get(path)
            assert answer.body == b"x" * 5000 + b"y" * 5000
            assert answer.headers["X-Consumed-Content-Encoding"] == "gzip"
            assert {"Cookie", "Accept-Encoding"} == {
                name.strip() for name in answer.headers["Vary"].split(",")
            }
            assert len(session_cookies(answer)) == 1


async def test_the_cookie_goes_out_before_the_body():
    """T2: on the wire, Set-Cookie is among the headers and there is one of it."""
    request = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with serving(Counter) as site:
        answer = await site.exchange(request)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b'{"n": 1}'
    assert head.count(b"Set-Cookie: session=") == 1
    assert b"Vary: Cookie" in head
