"""Errors of the application: what is kept, what the error page may do, no hang."""

import asyncio
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest
from tornado.web import HTTPError

from httpkit import Counter, Page, serving, session_cookies
from httpkit_stores import on_every_store, on_waiting_stores, soon, until
from tornado_sessions.stores.base import Delete


class Crash(Page):
    """POST counts; GET counts, logs in, or destroys, and then fails."""

    def get(self, action):
        if action == "login":
            self.session.login("ada")
        elif action == "renew":
            self.session.regenerate_id()
        elif action == "destroy":
            self.session.destroy()
        self.session["n"] = -1
        self.session.persistent = True
        del self.session["n"]
        self.session["other"] = 1
        raise RuntimeError("a bug of the application")

    def post(self, action):
        self.session["n"] = 1


CRASH = [(r"/(.*)", Crash)]


@on_every_store
async def test_a_crash_discards_the_data_of_the_request(make_store):
    """S7: a response >= 500 stores none of the request's data and no new session."""
    async with serving(CRASH, make_store()) as site:
        visitor = site.visitor()
        answer = await visitor.get("/")
        assert (answer.code, session_cookies(answer)) == (500, [])
        assert site.store.calls == []
        await visitor.post()
        before = await site.record()
        site.store.forget()
        answer = await visitor.get("/")
    assert (answer.code, session_cookies(answer)) == (500, [])
    assert site.store.calls == ["load"]
    assert await site.record() == before


@on_every_store
@pytest.mark.parametrize(("action", "principal"), [("login", "ada"), ("renew", None)])
async def test_a_crash_still_renews_the_token(make_store, action, principal):
    """S7: login and regenerate_id are carried out with a response >= 500."""
    async with serving(CRASH, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        before = await site.record()
        answer = await visitor.get(f"/{action}")
        after = await site.record()
    assert answer.code == 500
    assert len(session_cookies(answer)) == 1
    assert after.meta.principal == principal
    assert after.meta.epoch == before.meta.epoch + 1
    assert after.meta.token != before.meta.token
    assert (after.values, after.meta.persistent) == (before.values, None)


@on_every_store
async def test_a_crash_still_ends_the_session(make_store):
    """S7: destroy is carried out with a response >= 500, and the cookie is cleared."""
    async with serving(CRASH, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        answer = await visitor.get("/destroy")
    assert answer.code == 500
    assert visitor.cookie is None
    assert await site.records() == []


@on_every_store
async def test_an_error_raised_on_purpose_keeps_the_data(make_store):
    """S7: only a response >= 500 discards; 4xx is an ordinary answer, 503 is not."""

    class Raises(Page):
        def get(self, code):
            self.session["code"] = code
            raise HTTPError(int(code))

    async with serving([(r"/(\d+)", Raises)], make_store()) as site:
        visitor = site.visitor()
        for code in (400, 499, 500, 503):
            assert (await visitor.get(f"/{code}")).code == code
        (raw,) = (await site.values()).values()
    assert raw == b'"499"'


@on_every_store
async def test_an_error_page_may_read_and_write(make_store):
    """T1 S7: write_error reads the session; what it writes follows the status."""

    class Custom(Counter):
        def get(self):
            raise HTTPError(int(self.get_argument("code")))

        def write_error(self, status_code, **kwargs):
            self.session["n"] += 1
            self.finish(f"sorry number {self.session['n']}")

    async with serving(Custom, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        bodies = [(await visitor.get(f"/?code={c}")).body for c in (404, 500, 404)]
    assert bodies == [b"sorry number 2", b"sorry number 3", b"sorry number 3"]


@on_every_store
async def test_an_error_page_that_fails_is_still_an_answer(make_store, caplog):
    """T1 T5: an exception inside write_error ends as in plain Tornado, with no hang."""

    class Broken(Page):
        def get(self):
            self.session["n"] = 1
            raise HTTPError(404)

        def write_error(self, status_code, **kwargs):
            raise RuntimeError("a bug in the error page")

    async with serving(Broken, make_store()) as site:
        answer = await site.visitor().get()
    assert (answer.code, answer.body) == (404, b"")
    assert "Uncaught exception in write_error" in caplog.text


@on_every_store
async def test_a_body_that_may_not_be_sent(make_store, caplog):
    """T5: 204 with a body is a 500 that is logged, as in plain Tornado."""

    class Impossible(Page):
        def get(self):
            self.session["n"] = 1
            self.set_status(204)
            self.write("a body")

    async with serving(Impossible, make_store()) as site:
        visitor = site.visitor()
        answer = await visitor.get()
        assert answer.code == 500
        assert site.access == [(500, "/")]
    assert "Cannot send body with" in caplog.text


@on_every_store
async def test_finishing_twice_is_an_error_of_the_handler(make_store, caplog):
    """T5: the second finish() raises as in plain Tornado; the first answer is sent."""

    class Twice(Page):
        def get(self):
            self.session["n"] = 1
            self.finish("once")
            self.finish("twice")

    async with serving(Twice, make_store()) as site:
        answer = await site.visitor().get()
        await until(lambda: "finish() called twice" in caplog.text)
    assert (answer.code, answer.body) == (200, b"once")
    assert site.access == [(200, "/")]


@on_every_store
async def test_writing_after_finish_is_an_error_of_the_handler(make_store, caplog):
    """T5: write() after finish() raises as in plain Tornado."""

    class Writes(Page):
        def get(self):
            self.session["n"] = 1
            self.finish("once")
            self.write("more")

    async with serving(Writes, make_store()) as site:
        answer = await site.visitor().get()
        await until(lambda: "Cannot write() after finish()" in caplog.text)
    assert (answer.code, answer.body) == (200, b"once")


@on_every_store
async def test_flushing_after_finish_does_no_harm(make_store):
    """T5: flush() after finish() neither lets the verb run nor finishes again."""

    class Flushes(Page):
        def prepare(self):
            self.session["n"] = 1
            self.finish("done")
            self.flush()

        def get(self):
            raise AssertionError("the verb must not run")

    async with serving(Flushes, make_store()) as site:
        answer = await site.visitor().get()
        assert (answer.code, answer.body) == (200, b"done")
        assert site.access == [(200, "/")]


@on_every_store
async def test_user_hooks_see_the_final_status(make_store):
    """T3 T5: on_finish and the log run once, after the commit, with the session."""
    seen, store = [], make_store()

    class Hooks(Page):
        def get(self):
            self.session["n"] = 1

        def on_finish(self):
            seen.append((self.get_status(), self.session["n"], list(store.calls)))

    async with serving(Hooks, store) as site:
        await site.visitor().get()
    assert seen == [(200, 1, ["commit"])]
    assert site.access == [(200, "/")]


async def test_an_error_after_an_unawaited_flush_is_a_500():
    """T4 T5: what fails while the first flush waits for the store becomes the answer."""

    class FlushAndFail(Page):
        def get(self):
            self.session["n"] = 1
            self.write("half")
            self.flush()
            raise RuntimeError("a bug of the application")

    async with serving(FlushAndFail) as site:
        answer = await site.visitor().get()
    assert answer.code == 500
    assert b"half" not in answer.body
    assert site.access == [(500, "/")]


class Carts(Page):
    """Says in the page of an error what is in the session."""

    shown: ClassVar[list[object]]

    def put(self):
        self.session["cart"] = ["tea"]

    async def post(self):
        self.session["cart"] = ["milk"]
        self.session.flash("Saved")
        self.redirect("/")
        if self.get_argument("stays", ""):
            await until(lambda: self.session.ended)
            self.show()

    def write_error(self, status_code, **kwargs):
        self.show()
        self.finish()

    def show(self):
        self.shown.append((self.session["cart"], len(self.session.flashes())))


@asynccontextmanager
async def with_tea(make_store):
    """Yield a site, and a visitor who has tea in the cart, and what is shown."""
    handler = type("Carts", (Carts,), {"shown": []})
    async with serving(handler, make_store()) as site:
        visitor = site.visitor()
        await visitor.fetch("/", method="PUT", body=b"")
        yield site, visitor, handler.shown


@on_every_store
async def test_the_page_of_an_error_shows_what_is_stored(make_store):
    """T3: neither a value nor a flash message of what was not saved."""
    async with with_tea(make_store) as (site, visitor, shown):
        site.store.failing = {"commit"}
        assert (await visitor.post()).code == 503
        assert shown == [(["tea"], 0)]


@on_waiting_stores
async def test_who_goes_on_after_the_end_sees_what_was_stored(make_store):
    """C3: not what came too late to be."""
    async with with_tea(make_store) as (site, visitor, shown):
        gate = site.store.park("commit")
        posted = asyncio.ensure_future(visitor.post("/?stays=1"))
        await gate.arrival()
        await site.store.inner.commit([Delete((await site.record()).handle)])
        gate.open()
        assert (await soon(posted)).code == 302
        await until(lambda: shown)
        assert shown == [(["tea"], 0)]
