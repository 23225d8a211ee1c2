"""A store that is down, slow or hanging: what visitors, logs and hooks see."""

import asyncio
import contextlib

import pytest
from tornado.web import HTTPError

from httpkit import Acts, Counter, Page, serving, session_cookies
from httpkit_stores import AsyncStore, on_every_store, soon
from tornado_sessions import SessionError, SessionManager, StoreError
from tornado_sessions.stores.base import Delete


class Watched(Counter):
    """Notes that it ran and which status it had at the end."""

    ran: list
    final: list

    def prepare(self):
        self.ran.append("prepare")

    def on_finish(self):
        self.final.append(self.get_status())


def watched():
    return type("Watched", (Watched,), {"ran": [], "final": []})


@on_every_store
async def test_a_store_that_is_down_for_loading(make_store):
    """T1 T3: a session that cannot be loaded is a 503 before any application code."""
    handler = watched()
    async with serving(handler, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        handler.ran.clear()
        site.store.failing.add("load")
        answer = await visitor.get()
        assert (answer.code, session_cookies(answer)) == (503, [])
        assert site.access[-1] == (503, "/")
        assert handler.ran == []
        assert handler.final == [200, 503]
        site.store.failing.clear()
        assert (await visitor.get()).body == b'{"n": 1}'


@on_every_store
async def test_visitors_without_a_cookie_do_not_notice(make_store):
    """F1 S1: a request without a cookie is served while the store is down."""
    async with serving(Counter, make_store("load", "commit")) as site:
        answer = await site.visitor().get()
        assert (answer.code, answer.body) == (200, b'{"n": null}')
        assert site.store.calls == []


@on_every_store
async def test_the_error_page_gets_an_empty_session(make_store):
    """T1: in the page of that 503 self.session is empty, and refuses to be written."""
    told = []

    class Custom(Counter):
        def write_error(self, status_code, **kwargs):
            try:
                self.session["n"] = 5
            except SessionError as error:
                told.append(str(error))
            self.finish({"len": len(self.session), "user": self.current_user})

    async with serving(Custom, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        site.store.failing.add("load")
        answer = await visitor.get()
    assert (answer.code, answer.body) == (503, b'{"len": 0, "user": null}')
    assert told == ["the session could not be loaded"]


@on_every_store
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_a_store_that_is_down_for_the_commit(make_store, known):
    """T3: what could not be stored is a 503 with no cookie, in log and hooks as well."""
    handler = watched()
    async with serving(handler, make_store()) as site:
        visitor = site.visitor()
        if known:
            await visitor.post()
        before = await site.records()
        site.store.failing.add("commit")
        answer = await visitor.post()
        assert (answer.code, session_cookies(answer)) == (503, [])
        assert b'"n"' not in answer.body
        assert site.access[-1] == (503, "/")
        assert handler.final[-1] == 503
        assert await site.records() == before
        site.store.failing.clear()
        assert (await visitor.post()).code == 200


class Ends(Page):
    """Ends the response in the way the path says, with something to store."""

    async def get(self, end):
        self.session["n"] = 1
        self.write("half")
        await getattr(self, end)()

    async def redirected(self):
        self.redirect("/elsewhere")

    async def flushed(self):
        self.flush()
        self.write("more")

    async def awaited(self):
        await soon(self.flush())
        self.write("more")

    async def finished(self):
        await soon(self.finish())

    async def refused(self):
        raise HTTPError(404)

    async def later(self):
        self._auto_finish = False
        asyncio.get_running_loop().call_later(0.001, self.finish)


@on_every_store
@pytest.mark.parametrize(
    "end", ["redirected", "flushed", "awaited", "finished", "refused", "later"]
)
async def test_a_failed_commit_is_a_503_however_it_ends(make_store, end):
    """T3: redirect, flush, awaited or not, late finish and 404 all become a 503."""
    async with serving([(r"/(.*)", Ends)], make_store("commit")) as site:
        answer = await site.visitor().get(f"/{end}")
        assert answer.code == 503
        assert "Location" not in answer.headers
        assert b"half" not in answer.body
        assert session_cookies(answer) == []
        assert site.access == [(503, f"/{end}")]
        assert site.store.calls == ["commit"]


@on_every_store
@pytest.mark.parametrize("intent", ["login", "renew", "destroy"])
async def test_a_failed_intent_is_a_503(make_store, intent):
    """T3 K4: login, renewal and destroy that were not carried out send no cookie."""

    class Intends(Counter):
        def get(self):
            if intent == "login":
                self.session.login("ada")
            elif intent == "renew":
                self.session.regenerate_id()
            else:
                self.session.destroy()

    async with serving(Intends, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        before = await site.records()
        site.store.failing.add("commit")
        answer = await visitor.get()
        assert (answer.code, session_cookies(answer)) == (503, [])
        assert site.access[-1] == (503, "/")
        assert await site.records() == before
        site.store.failing.clear()
        assert (await visitor.post()).body == b'{"n": 2}'


@on_every_store
async def test_a_failed_save_is_raised_to_the_handler(make_store):
    """T3: ``save_session()`` raises StoreError; unhandled, that is a 503."""

    class Saves(Page):
        async def get(self):
            self.session["n"] = 1
            await self.save_session()

    async with serving(Saves, make_store("commit")) as site:
        answer = await site.visitor().get()
        assert (answer.code, session_cookies(answer)) == (503, [])


@on_every_store
async def test_a_failed_extension_is_not_the_visitors_trouble(make_store):
    """E3 T3: a read-only answer stays a 200 if only the expiry was not moved."""
    async with serving(Counter, make_store(), session_idle_timeout=3600) as site:
        clock = site.store.clock
        visitor = site.visitor()
        await visitor.post()
        site.store.clock = lambda: clock() + 600
        site.store.failing.add("commit")
        site.store.forget()
        answer = await visitor.get()
    assert (answer.code, answer.body) == (200, b'{"n": 1}')
    assert site.store.calls == ["load", "commit"]


@on_every_store
async def test_the_policy_anonymous_serves_without_the_session(make_store):
    """T3: with "anonymous" a failed load gives an empty session; writing is refused."""
    store = make_store()
    async with serving(Counter, store, session_on_store_error="anonymous") as site:
        visitor = site.visitor()
        await visitor.post()
        site.store.failing.add("load")
        read = await visitor.get()
        wrote = await visitor.post()
        site.store.failing.clear()
        assert (await visitor.get()).body == b'{"n": 1}'
    assert (read.code, read.body) == (200, b'{"n": null}')
    assert wrote.code == 503
    assert session_cookies(read) == session_cookies(wrote) == []


@pytest.mark.parametrize("call", ["load", "commit"])
async def test_a_store_that_hangs(call):
    """F1 T3: a call without an answer is a 503 at the deadline, then all is well."""
    store = AsyncStore()  # in memory: all but the parked call must meet the deadline
    async with serving(Counter, store, session_store_timeout=0.3) as site:
        visitor = site.visitor()
        await visitor.post()
        gate = store.park(call)
        answer = await visitor.post()
        assert answer.code == 503
        assert site.access[-1] == (503, "/")
        gate.open()
        assert (await visitor.post()).body == b'{"n": 2}'


@pytest.mark.parametrize("error", [StoreError("full"), OSError("no space left")])
@on_every_store
async def test_a_change_that_fails_alone(make_store, error, caplog):
    """R1 T3: trouble with one change, whatever it is, is a 503 to its visitor only."""
    store = make_store()
    commit = store.commit

    async def picky(changes):
        outcomes = await commit(changes)
        bad = ["big" in getattr(change, "set", ()) for change in changes]
        return [error if b else o for b, o in zip(bad, outcomes, strict=True)]

    store.commit = picky
    async with serving(Acts, store) as site:
        visitor, neighbour = site.visitor(), site.visitor()
        for one in (visitor, neighbour):
            await one.get("/?set=k:1")
        answers = await asyncio.gather(
            visitor.get("/?set=big:1"), neighbour.get("/?set=k:2")
        )
    assert [answer.code for answer in answers] == [503, 200]
    assert str(error) in caplog.text


async def test_a_store_that_cannot_be_opened():
    """T1 T3: a store that does not open is a 503 that says so, for who needs it."""

    class Closed(AsyncStore):
        async def open(self):
            raise OSError("no such disk")

    async with serving(Counter, Closed()) as site:
        visitor = site.visitor()
        assert (await visitor.get()).code == 200
        assert (await visitor.post()).code == 503


async def test_a_store_that_hangs_when_it_is_opened():
    """F1: all who come meanwhile share one attempt: none waits for two deadlines."""
    attempts = []

    class Hanging(AsyncStore):
        async def open(self):
            attempts.append(self)
            await asyncio.Event().wait()

    manager = SessionManager(Hanging(), store_timeout=0.2)
    waiting = [asyncio.ensure_future(manager.count()) for _ in range(8)]
    waiting[0].cancel()
    done = await soon(asyncio.gather(*waiting, return_exceptions=True))
    assert isinstance(done[0], asyncio.CancelledError)
    said = {str(error).partition(";")[0] for error in done[1:]}
    assert said == {"open: the store did not answer within 0.2 s"}
    assert len(attempts) == 1
    with pytest.raises(StoreError):
        await manager.count()
    assert len(attempts) == 2


async def test_a_store_that_hangs_when_it_is_walked():
    """F1: `iterate` has the deadline for each record."""

    class Hanging(AsyncStore):
        async def iterate(self, batch=256):
            async for record in super().iterate(batch):
                yield record
                await asyncio.Event().wait()

    async with SessionManager(Hanging(), store_timeout=0.2) as manager:
        session = manager.new_session()
        session["n"] = 1
        await manager.commit(session)
        records = manager.iterate()
        assert (await anext(records)).handle == session.handle
        with pytest.raises(StoreError, match="iterate: the store did not answer"):
            await anext(records)


async def test_some_cannot_be_revoked():
    """E6, R1: those that can be are, and are told; the error says how many were not."""

    class Refusing(AsyncStore):
        async def commit(self, changes):
            outcomes = await super().commit(changes)
            ends = [isinstance(one, Delete) for one in changes]
            refused = StoreError("not this one")
            return [
                refused if end and not n % 2 else outcome
                for n, (end, outcome) in enumerate(zip(ends, outcomes, strict=True))
            ]

    async with SessionManager(Refusing()) as manager:
        events = []
        for _ in range(600):
            session = manager.new_session()
            session.login("alice")
            await manager.commit(session)
        manager.subscribe(events.append)
        with pytest.raises(StoreError, match="300 of 600 sessions could not be ended"):
            await manager.revoke_all("alice")
    assert [event.reason for event in events] == ["revoked"] * 300


@pytest.mark.parametrize("act", ["login", "destroy"])
async def test_an_error_page_waits_for_no_second_deadline(act):
    """F1: what a store did not answer in time is not asked again for the 503."""

    class Saves(Counter):
        async def get(self):
            if act == "login":
                self.session.login("ada")
            else:
                self.session.destroy()
            await self.save_session()

    store = AsyncStore()
    async with serving(Saves, store, session_store_timeout=0.2) as site:
        visitor = site.visitor()
        await visitor.post()
        store.forget()
        gates = [store.park("commit") for _ in range(2)]
        answer = await visitor.get()
        assert (answer.code, session_cookies(answer)) == (503, [])
        assert store.calls == ["load", "commit"]
        for gate in gates:
            gate.open()


@on_every_store
async def test_an_error_page_tries_again_what_merely_failed(make_store):
    """S7, K4: a logout that failed at once is carried out with the error page."""

    class Saves(Counter):
        async def get(self):
            self.session.destroy()
            site.store.failing.add("commit")
            try:
                await self.save_session()
            finally:
                site.store.failing.clear()

    async with serving(Saves, make_store()) as site:
        visitor = site.visitor()
        await visitor.post()
        assert (await visitor.get()).code == 503
        assert visitor.cookie is None
        assert await site.records() == []


@pytest.mark.parametrize("again", ["save", "destroy"])
async def test_what_is_asked_for_after_a_deadline_is_tried(again):
    """S7, F1: a logout that the store was never asked for is carried out with the 500."""

    class Saves(Counter):
        async def get(self):
            self.session.regenerate_id()
            with contextlib.suppress(StoreError):
                await self.save_session()
            gate.open()
            if again == "save":
                await self.save_session()
            self.session.destroy()
            self.set_status(500)

    store = AsyncStore()
    async with serving(Saves, store, session_store_timeout=0.2) as site:
        visitor = site.visitor()
        await visitor.post()
        gate = store.park("commit")
        assert (await visitor.get()).code == 500
        assert visitor.cookie is None
        assert await site.records() == []
