"""What `tornado_sessions.testing` gives to those who test applications."""

from datetime import timedelta

import pytest
from tornado.httpclient import HTTPClientError
from tornado.testing import AsyncHTTPTestCase, gen_test
from tornado.web import Application, RequestHandler

from tornado_sessions import SessionManager, SessionMixin, testing
from tornado_sessions.testing import (
    FakeClock,
    SessionClient,
    prepare_session,
    read_session,
)


class Cart(SessionMixin, RequestHandler):
    def get(self):
        self.write({"cart": self.session.get("cart"), "user": self.current_user})

    def post(self):
        cart = self.session.setdefault("cart", [])
        cart.append(self.get_argument("item"))
        self.redirect("/", status=303)

    def delete(self):
        self.session.destroy()


class Echo(RequestHandler):
    def post(self):
        self.set_cookie("seen", "yes")
        self.set_cookie("gone", "x", max_age=-1)
        self.set_cookie("past", "x", expires_days=-1)
        self.write(self.request.body)


def application(**settings):
    settings = {"cookie_secret": "made up for the tests", **settings}
    return Application([("/", Cart), ("/echo", Echo)], **settings)


class Case(AsyncHTTPTestCase):
    """A base class whose application is served on a free port."""

    settings = {"xsrf_cookies": True}  # noqa: RUF012

    def get_app(self):
        return application(**self.settings)

    def setUp(self):
        super().setUp()
        self.app = self._app
        self.client = SessionClient(self.get_url("/"))
        self.addCleanup(self.client.close)


class TestClient(Case):
    @gen_test
    async def test_it_keeps_cookies(self):
        """S1, T2: the jar carries the session from one request to the next."""
        response = await self.client.post("/", {"item": "tea"})
        assert (response.code, response.headers["Location"]) == (303, "/")
        assert set(self.client.cookies) == {"_xsrf", "session"}
        page = await self.client.get("/")
        assert page.body == b'{"cart": ["tea"], "user": null}'

    @gen_test
    async def test_it_forgets_what_is_over(self):
        """K4: cookies that the server clears or that are past leave the jar."""
        await self.client.post("/", {"item": "tea"})
        headers = {"X-Xsrftoken": self.client.cookies["_xsrf"]}
        await self.client.fetch("DELETE", "/", headers=headers)
        assert "session" not in self.client.cookies
        await self.client.post("/echo")
        assert set(self.client.cookies) == {"_xsrf", "seen"}

    @gen_test
    async def test_posts(self):
        """T1: ready bytes are sent as they are; without the token it is a 403."""
        assert (await self.client.post("/echo", b"raw")).body == b"raw"
        other = SessionClient(self.get_url("/"))
        self.addCleanup(other.close)
        assert (await other.post("/echo", xsrf=False)).code == 403

    @gen_test
    async def test_options_are_those_of_tornado(self):
        """T1: headers are added to the jar's, redirects are followed on demand."""
        headers = {"X-Asked": "yes"}
        response = await self.client.post("/", {"item": "a"}, headers=headers)
        assert response.request.headers["X-Asked"] == "yes"
        page = await self.client.get("/", headers={"Cookie": "mine=1"})
        assert page.request.headers.get_list("Cookie") == ["mine=1"]
        response = await self.client.post("/", {"item": "b"}, follow_redirects=True)
        assert response.code == 200
        async with SessionClient(self.get_url("/")) as fresh:
            page = await fresh.post("/", {"item": "c"}, follow_redirects=True)
            assert (page.code, page.request.method) == (200, "GET")
            assert "session" in fresh.cookies
            with pytest.raises(HTTPClientError):
                await fresh.get("/none", follow_redirects=True, raise_error=True)
            options = {"follow_redirects": True, "max_redirects": 0}
            assert (await fresh.post("/", {"item": "d"}, **options)).code == 303


class TestSessions(Case):
    @gen_test
    async def test_prepare_and_read(self):
        """T8: a prepared session is a real one, and what it became can be read."""
        cookie = await prepare_session(self.app, {"cart": ["tea"]}, principal="alice")
        async with SessionClient(self.get_url("/"), cookie=cookie) as client:
            page = await client.get("/")
            assert page.body == b'{"cart": ["tea"], "user": "alice"}'
            await client.post("/", {"item": "cup"})
            session = await read_session(self.app, client.cookie)
        assert session["cart"] == ["tea", "cup"]
        assert session.principal == "alice"

    @gen_test
    async def test_a_session_that_was_read_can_be_changed(self):
        """T8: `save` stores what the test changed."""
        cookie = await prepare_session(self.app, principal="bob")
        session = await read_session(self.app, cookie)
        session["cart"] = ["gift"]
        await session.save()
        page = await self.client.get("/", headers={"Cookie": cookie})
        assert page.body == b'{"cart": ["gift"], "user": "bob"}'

    @gen_test
    async def test_no_session(self):
        """K2, S1: an unknown cookie reads as a new session; nothing is not prepared."""
        for cookie in ("", "session=forged", "other=1"):
            assert (await read_session(self.app, cookie)).is_new
        with pytest.raises(ValueError, match="an empty session is not stored"):
            await prepare_session(self.app)

    @gen_test
    async def test_the_clock(self):
        """E1: two weeks pass at once."""
        clock = FakeClock()
        SessionManager.of(self.app).store.clock = clock
        cookie = await prepare_session(self.app, {"cart": []})
        clock.advance(timedelta(days=13))
        assert not (await read_session(self.app, cookie)).is_new
        clock.advance(86400)
        assert (await read_session(self.app, cookie)).is_new


class TestSecureSessions(Case):
    settings = {"session_secure": True}  # noqa: RUF012

    @gen_test
    async def test_secure_cookies(self):
        """K3, K5: the strictest settings can be prepared and read as well."""
        cookie = await prepare_session(self.app, {"n": 1})
        assert cookie.startswith("__Host-session=")
        assert (await read_session(self.app, cookie))["n"] == 1


def test_the_clock_stands_still():
    """E1: it moves by seconds or a timedelta, and only when told."""
    clock = FakeClock(1000)
    clock.advance(1.5)
    clock.advance(timedelta(minutes=1))
    assert clock() == clock() == 1061.5


def test_the_public_names():
    """R6: what the module exports is what it documents."""
    assert set(testing.__all__) <= set(vars(testing))
    for name in testing.__all__:
        assert getattr(testing, name).__doc__
