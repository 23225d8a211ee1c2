"""Races and mistakes around one request that are easy to get wrong."""

import asyncio

import pytest
from tornado.web import Application, RequestHandler

from httpkit import Acts, serving, session_cookies
from httpkit_stores import AsyncStore, FakeClock
from tornado_sessions import (
    ConfigurationError,
    SessionManager,
    SessionMixin,
    StoreError,
)
from tornado_sessions.cookie import Ticket
from tornado_sessions.stores.base import Apply, Create, Outcome
from tornado_sessions.stores.memory import MemoryStore

DAY = 86400.0


@pytest.fixture
def manager():
    """A manager on a store with a clock that is moved by hand."""
    return SessionManager(AsyncStore(clock=FakeClock()))


def carried(session):
    """Return the ticket as the browser will present it."""
    return session.ticket._replace(handed_out=False)


async def begun(manager, **values):
    """Return the ticket of a stored session."""
    session = await manager.load([])
    session.update(values or {"n": 1})
    await session.save()
    return carried(session)


async def loaded(manager, ticket):
    """Return the session that *ticket* opens."""
    return await manager.load([ticket])


@pytest.fixture
def events(manager):
    """What the manager tells, as (kind, reason)."""
    told = []
    manager.subscribe(lambda event: told.append((event.kind, event.reason)))
    return told


@pytest.mark.parametrize(
    "settings",
    [
        {"session_cokie_name": "s"},
        {"session_store": "nowhere://"},
        {"cookie_secret": {1: "a" * 32}},
        {"cookie_secret": {1: "a" * 32}, "key_version": 2},
        {"cookie_secret": ""},
        {"session_cookie_name": "path"},
    ],
    ids=str,
)
@pytest.mark.parametrize("make", [MemoryStore, AsyncStore])
async def test_a_mistake_in_the_settings_is_a_500(settings, make):
    """T1: a request that meets settings that cannot work is answered, with 500."""

    class Writes(SessionMixin, RequestHandler):
        def get(self):
            self.session["n"] = 1

    store = make()
    async with serving(Writes, store) as site:
        site.application.settings.update(settings)
        for name in ("_tornado_sessions_manager", "_tornado_sessions_carrier"):
            if hasattr(site.application, name):
                delattr(site.application, name)
        answer = await asyncio.wait_for(site.visitor().get(), 5)
        assert answer.code == 500
        assert await store.count() == 0


def test_a_reserved_cookie_name_is_refused():
    """K3: a name that http.cookies takes for an attribute is refused at start."""
    with pytest.raises(ConfigurationError, match="cookie_name"):
        SessionManager.of(Application([], session_cookie_name="Path"))


async def test_a_rotation_is_not_confirmed_by_the_request_that_makes_it(
    manager, events
):
    """E4: the answer of a second rotation may be lost as well as that of the first."""
    ticket = await begun(manager)
    manager.store.clock.advance(DAY)
    session = await loaded(manager, ticket)
    await manager.commit(session)
    first = carried(session)
    manager.store.clock.advance(1)
    await manager.commit(await loaded(manager, first))
    manager.store.clock.advance(DAY)
    lost = await loaded(manager, first)
    await manager.commit(lost)
    assert lost.ticket.token != first.token
    manager.store.clock.advance(31)
    again = await loaded(manager, first)
    assert (dict(again), again.ticket.token) == ({"n": 1}, lost.ticket.token)
    assert ("ended", "reuse") not in events


@pytest.mark.parametrize("ask", ["regenerate", "login"])
async def test_a_new_token_goes_on_top_of_a_rotation(manager, events, ask):
    """C5, E4: what asked for a token with no way back gets it, rotated or not."""
    ticket = await begun(manager)
    if ask == "login":
        session = await loaded(manager, ticket)
        session.login("alice")
        await session.save()
        ticket = carried(session)
    manager.store.clock.advance(DAY)
    slow, fast = await loaded(manager, ticket), await loaded(manager, ticket)
    slow.regenerate_id() if ask == "regenerate" else slow.login("alice")
    await manager.commit(fast)
    await manager.commit(slow)
    assert slow.ticket.epoch == ticket.epoch + 1
    assert dict(await loaded(manager, carried(slow))) == {"n": 1}
    assert dict(await loaded(manager, ticket)) == {}
    assert dict(await loaded(manager, carried(fast))) == {}


async def test_refresh_and_mutate_see_nothing_of_a_later_login(manager):
    """C6: a request from before a login stays outside, whatever it does."""
    ticket = await begun(manager)
    planted, victim = await loaded(manager, ticket), await loaded(manager, ticket)
    reader = await loaded(manager, ticket)
    victim.login("victim")
    victim["secret"] = "s"
    victim["n"] = 2
    await victim.save()
    assert await planted.mutate("secret", lambda value: value) is None
    await reader.refresh()
    assert (reader.principal, dict(reader), reader.is_new) == (None, {}, True)


async def test_refresh_does_not_confirm_what_nobody_presented(manager, events):
    """E4: a request that refreshes after a rotation hands the successor out."""
    ticket = await begun(manager)
    manager.store.clock.advance(DAY)
    waiting, rotates = await loaded(manager, ticket), await loaded(manager, ticket)
    await manager.commit(rotates)
    await waiting.refresh()
    await manager.commit(waiting)
    assert waiting.ticket.token == rotates.ticket.token
    manager.store.clock.advance(31)
    assert dict(await loaded(manager, ticket)) == {"n": 1}
    assert ("ended", "reuse") not in events


async def test_a_change_in_place_is_stored_before_it_is_mutated(manager):
    """S3, C2: mutate() builds on what this request did to the value before."""
    session = await loaded(manager, await begun(manager, cart=["0"]))
    session["cart"].append("a")
    assert await session.mutate("cart", lambda cart: [*cart, "b"]) == ["0", "a", "b"]
    assert (await loaded(manager, carried(session)))["cart"] == ["0", "a", "b"]


async def test_a_new_session_may_be_saved_twice_at_once(manager):
    """C1: saves that overlap meet their own record, and that is no error."""
    session = await manager.load([])
    one = session.mutate("a", lambda n: n + 1, 0)
    two = session.mutate("b", lambda n: n + 2, 0)
    assert await asyncio.gather(one, two) == [1, 2]
    assert dict(await loaded(manager, carried(session))) == {"a": 1, "b": 2}
    assert await manager.count() == 1


async def test_a_save_that_was_given_up_may_be_repeated(manager, monkeypatch):
    """F1: a save that was carried out, though it seemed to fail, can be tried again."""
    session = await manager.load([])
    session["a"] = 1
    commit = manager.store.commit

    async def late(changes):
        await commit(changes)
        raise OSError("the answer was lost")

    monkeypatch.setattr(manager.store, "commit", late)
    await manager.start()
    manager._link._commits._call = late
    with pytest.raises(Exception, match="the answer was lost"):
        await session.save()
    manager._link._commits._call = commit
    session["b"] = 2
    await session.save()
    assert dict(await loaded(manager, carried(session))) == {"a": 1, "b": 2}


async def test_an_outdated_duplicate_ends_nothing(manager, events):
    """K2, E5: a cookie that is out of date beside the current one is no theft."""
    ticket = await begun(manager)
    manager.store.clock.advance(DAY)
    session = await loaded(manager, ticket)
    await manager.commit(session)
    await manager.commit(await loaded(manager, carried(session)))
    manager.store.clock.advance(31)
    both = await manager.load([ticket, carried(session)])
    assert dict(both) == {"n": 1}
    assert ("ended", "reuse") not in events


async def test_many_keys_are_cleared_at_once(manager):
    """S8: taking many keys away costs as many steps as there are keys, not squares."""
    session = await loaded(
        manager, await begun(manager, **{f"k{i}": i for i in range(9)})
    )
    changed, removed = session.stored.changes()
    session.clear()
    changed, removed = session.stored.changes()
    assert isinstance(removed, frozenset)
    assert (changed, len(removed)) == ({}, 9)


async def test_mutate_keeps_a_persistent_cookie_alive():
    """K3, E3: a use that extends the server side extends the cookie with it."""
    manager = SessionManager(
        AsyncStore(clock=FakeClock()), persistent=True, rotate_after=None
    )
    ticket = await begun(manager)
    due = []
    for _ in range(3):
        manager.store.clock.advance(DAY)
        session = await loaded(manager, ticket)
        await session.mutate("n", lambda n: n + 1)
        due.append(session.cookie_due.value)
    assert due == ["send"] * 3


class Late(SessionMixin, RequestHandler):
    """Redirects, and then does one thing more."""

    async def get(self):
        session = self.session
        session["n"] = session.get("n", 0) + 1
        self.redirect("/next")
        act = self.get_argument("act")
        if act == "set":
            session["late"] = 1
        elif act == "login":
            session.login("late")
        elif act == "destroy":
            session.destroy()
        elif act == "save":
            session["late"] = 1
            await self.save_session()


@pytest.mark.parametrize("make", [MemoryStore, AsyncStore])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("act", ["set", "login", "destroy", "save"])
async def test_what_follows_a_redirect_harms_nothing(make, known, act, caplog):
    """T4: a change after the response is reported, or stored by save_session()."""
    async with serving(Late, make()) as site:
        visitor = site.visitor()
        if known:
            await visitor.get("/?act=none")
        answer = await visitor.get(f"/?act={act}")
        assert answer.code == 302
        await visitor.get("/?act=none")
        stored = [record async for record in site.store.iterate()]
        values = [{k: int(v) for k, v in record.values.items()} for record in stored]
        late = {"late": 1} if act == "save" else {}
        assert values == [{"n": 3 if known else 2, **late}]
        # While a new session is being stored, there is nothing to destroy yet.
        early = act == "destroy" and not known and make is AsyncStore
        assert ("ResponseStarted" in caplog.text) == (act != "save" and not early)


async def test_how_long_the_cookie_lives_is_decided_by_the_record():
    """K3, T4: `persistent` that is set after the response makes no cookie that stays."""

    class Persists(SessionMixin, RequestHandler):
        def get(self):
            self.session.login("ada")
            self.redirect("/")
            self.session.persistent = True

    async with serving(Persists, AsyncStore()) as site:
        (cookie,) = session_cookies(await site.visitor().get())
        assert (cookie["max-age"], cookie["expires"]) == ("", "")
        (record,) = [record async for record in site.store.iterate()]
        assert record.meta.persistent is None


async def test_a_request_from_before_a_login_ends_no_other_session(manager):
    """C6: it writes nothing, be the cookie beside it of a record that nobody can read."""
    planted, broken = await begun(manager), await begun(manager)
    session = await loaded(manager, planted)
    session.login("ada")
    await session.save()
    manager.store.unreadable.add(broken.handle)
    manager.store.forget()
    outdated = await manager.load([broken, planted])
    outdated["x"] = 1
    await manager.commit(outdated)
    assert (outdated.cookie_due.value, manager.store.changes) == ("keep", [])


class Halfway(AsyncStore):
    """Ends sessions, and can begin none."""

    full = False

    async def commit(self, changes):
        done = await super().commit([c for c in changes if not self._fails(c)])
        rest = iter(done)
        full = StoreError("no room")
        return [full if self._fails(change) else next(rest) for change in changes]

    def _fails(self, change):
        return self.full and isinstance(change, Create)


async def test_a_logout_stands_though_the_next_session_cannot_begin():
    """K4, T3: it is told of, and the cookie is cleared; the answer is a 503."""
    async with serving(Acts, Halfway()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        site.store.full = True
        answer = await visitor.get("/?destroy=1&set=note:bye")
        assert answer.code == 503
        assert ("ended", "destroyed") in site.kinds
        assert await site.records() == []
        (cookie,) = session_cookies(answer)
        assert cookie.value == ""


class Streams(SessionMixin, RequestHandler):
    """Writes in time, and is not to be stored all the same."""

    async def get(self):
        self.session["n"] = 1
        self.set_status(int(self.get_argument("status", "200")))
        await self.flush()
        self.write("x")


@pytest.mark.parametrize("make", [MemoryStore, AsyncStore])
async def test_what_was_left_out_on_purpose_is_no_late_change(make, caplog):
    """T4, S7, K5: a stream whose data were dropped does not report them as late."""
    async with serving(Streams, make(), session_secure=True) as site:
        assert (await site.visitor().get()).code == 200
        assert (await site.visitor().get("/?status=500")).code == 500
        assert "ResponseStarted" not in caplog.text


def test_a_ticket_says_nothing_of_its_token():
    """S9: the repr of what a cookie says shows no secret."""
    assert "secret" not in repr(Ticket("handle", "secret", 0))


async def test_a_login_after_a_mutate_that_came_too_late(manager):
    """C6, C2: who met a new epoch in mutate() is anonymous, and may log in."""
    ticket = await begun(manager, n=1)
    first, second = await loaded(manager, ticket), await loaded(manager, ticket)
    await first.mutate("n", lambda n: n + 1)
    first.regenerate_id()
    await first.save()
    await second.mutate("n", lambda n: n + 1, 0)
    assert (second.principal, second.is_new) == (None, True)
    second.login("bob")
    await second.save()
    (record,) = await manager.store.find("bob")
    assert second.handle == record.handle != first.handle
    assert dict(await loaded(manager, carried(first))) == {"n": 2}


async def test_a_broken_value_takes_no_login_with_it(manager):
    """S6, T3: what this request asked for goes into the session that it begins."""
    ticket = await begun(manager, n=1)
    broken = Apply(ticket.handle, set={"cart": b"\xff"})
    assert await manager.store.commit([broken]) == [Outcome.APPLIED]
    session = await loaded(manager, ticket)
    session.login("alice")
    session["x"], session.persistent = 1, True
    assert session.get("cart", "none") == "none"
    await session.save()
    (record,) = await manager.store.find("alice")
    assert (record.values.keys(), record.meta.persistent) == ({"x"}, True)
    assert record.handle != ticket.handle
    assert dict(await loaded(manager, ticket)) == {}


async def test_destroy_after_the_session_has_ended(manager):
    """K4, C3: the cookie is cleared, and what is written then begins a new session."""
    ticket = await begun(manager)
    session = await loaded(manager, ticket)
    await manager.revoke(session.handle)
    session["a"] = 1
    await session.save()
    assert session.ended
    session.destroy()
    session["b"] = 2
    await session.save()
    assert dict(await loaded(manager, carried(session))) == {"b": 2}
    assert session.handle != ticket.handle


async def test_a_login_before_a_mutate_that_comes_too_late(manager):
    """C6, C2: a login beside another one has a session of its own, and loses nothing."""
    ticket = await begun(manager, n=1)
    first, second = await loaded(manager, ticket), await loaded(manager, ticket)
    first.login("ada")
    await first.mutate("n", lambda n: n + 1)
    await first.save()
    second.login("ada")
    assert await second.mutate("n", lambda n: n + 1) == 2
    await second.save()
    assert first.handle != second.handle
    for session in (first, second):
        found = await loaded(manager, carried(session))
        assert (found.principal, dict(found)) == ("ada", {"n": 2})


async def test_what_another_request_has_set_persistent_stays_so(manager):
    """C1, T4: who did not touch it neither writes it back nor is told of being late."""
    ticket = await begun(manager)
    manager.store.clock.advance(DAY)
    slow, quick = await loaded(manager, ticket), await loaded(manager, ticket)
    quick.persistent = True
    await quick.save()
    await slow.save()
    assert (slow.persistent, slow.touched) == (True, False)
    slow["n"] = 2
    await slow.save()
    (record,) = await manager.store.kept()
    assert record.meta.persistent is True
