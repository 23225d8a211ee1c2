"""What a request does with its session while it is being stored, and when that fails."""

import asyncio
import contextlib
from collections import Counter

import msgspec
import pytest

from endkit import create
from httpkit import Acts, Page, serving, ticket_in
from httpkit_stores import (
    AsyncStore,
    FakeClock,
    Gate,
    on_every_store,
    soon,
    until,
)
from socketkit import a_socket, connect, routes
from tornado_sessions import SessionManager, StoreError
from tornado_sessions.stores.base import Apply, Delete, Outcome

AFTER = 600
"""Seconds after which a token is replaced for its age."""


class LosesAnswers(AsyncStore):
    """Carries out commits whose answers are lost, as many as `lost` says."""

    lost = 0

    async def commit(self, changes):
        outcomes = await super().commit(changes)
        if self.lost:
            self.lost -= 1
            raise StoreError("the answer was lost") from ConnectionError("reset")
        return outcomes


class SlowAnswers(AsyncStore):
    """Holds answers up at a gate after the database has given them.

    Whoever parks an "answer" does so for whichever call comes next.
    """

    async def find(self, principal):
        found = await super().find(principal)
        await self.before("found")
        return found

    async def load(self, handles):
        loaded = await super().load(handles)
        await self.before("answer")
        return loaded

    async def commit(self, changes):
        outcomes = await super().commit(changes)
        await self.before("answer")
        return outcomes


class Doing(Page):
    """Does what its subclass says, if it is asked to; counts if not."""

    async def get(self):
        if self.get_arguments("do"):
            await self.do()
        else:
            self.session["n"] = self.session.get("n", 0) + 1
        self.write({"who": self.session.principal, "n": self.session.get("n")})


def carried(session):
    """Return the ticket with which the browser comes again."""
    return session.ticket._replace(handed_out=False)


async def begun(manager):
    """Return the ticket of a new session."""
    session = await manager.load([])
    session["n"] = 1
    await session.save()
    return carried(session)


# -- saves that overlap ------------------------------------------------------------------


async def test_two_saves_at_once_of_which_one_logs_in():
    """T2, C6: the new token goes out, though a save that knew nothing of it ends later."""

    class LogsIn(Doing):
        async def do(self):
            self.session.login("alice")
            await asyncio.gather(self.session.save(), self.note())

        async def note(self):
            self.session["noted"] = True
            await self.session.save()

    async with serving(LogsIn) as site:
        visitor = site.visitor()
        await visitor.get()
        before = ticket_in(visitor.cookie)
        await visitor.get("/?do=1")
        assert ticket_in(visitor.cookie).epoch == before.epoch + 1
        assert (await visitor.get()).body == b'{"who": "alice", "n": 2}'


async def test_a_save_that_loses_against_a_login_of_the_same_request():
    """T2, C6: the same where the slower one wanted to send the cookie, for it moved."""
    async with SessionManager(SlowAnswers(), persistent=True) as manager:
        session = await manager.load([await begun(manager)])
        answer = manager.store.park("answer")
        session.login("alice")
        logging_in = asyncio.ensure_future(session.save())
        await answer.arrival()
        session["noted"] = True
        moved = manager.plan(session)
        answer.open()
        await logging_in
        await manager.perform(moved)
        meta = (await manager.store.kept())[0].meta
        assert (session.ticket.epoch, meta.epoch, meta.principal) == (1, 1, "alice")
        assert session.cookie_due.name == "SEND"


async def test_what_is_asked_for_during_a_save():
    """T1: a login, and how long the cookie lives, are stored by the next one."""
    async with SessionManager(AsyncStore()) as manager:
        session = await manager.load([await begun(manager)])
        session["n"] = 2
        gate = manager.store.park("commit")
        saving = asyncio.ensure_future(session.save())
        await gate.arrival()
        session.login("alice")
        session.persistent = True
        gate.open()
        await saving
        await session.save()
        meta = manager.store.record.meta
        assert (meta.principal, meta.persistent) == ("alice", True)


async def test_destroying_during_a_save_that_loses_a_race():
    """C5, C3: a rotation that gives way finds no session in its way, and this one ends."""
    clock = FakeClock()
    async with SessionManager(AsyncStore(clock=clock), rotate_after=AFTER) as manager:
        ticket = await begun(manager)
        clock.advance(AFTER)
        slow, quick = await manager.load([ticket]), await manager.load([ticket])
        await quick.save()
        slow["m"] = 1
        gate = manager.store.park("commit")
        saving = asyncio.ensure_future(slow.save())
        await gate.arrival()
        slow.destroy()
        gate.open()
        await saving
        await slow.save()
        assert await manager.count() == 0


# -- saves that fail ---------------------------------------------------------------------


@pytest.mark.parametrize("losing", [1, 2])
@pytest.mark.parametrize("ask", ["login", "regenerate_id"])
async def test_a_new_token_whose_answer_was_lost(ask, losing):
    """F1, T3: who saves again goes on top of what was stored, and keeps the visitor."""

    class SavesAgain(Doing):
        async def do(self):
            if ask == "login":
                self.session.login("alice")
            else:
                self.session.regenerate_id()
            for _ in range(losing):
                with contextlib.suppress(StoreError):
                    await self.session.save()

    async with serving(SavesAgain, LosesAnswers()) as site:
        visitor = site.visitor()
        await visitor.get()
        site.store.lost = losing
        answer = await visitor.get("/?do=1")
        who = b'"alice"' if ask == "login" else b"null"
        assert (answer.code, answer.body) == (200, b'{"who": %s, "n": 1}' % who)
        assert (await visitor.get()).body == b'{"who": %s, "n": 2}' % who


async def test_destroying_during_a_save_that_fails():
    """C3, T3: the session ends all the same, as the answer says."""

    class LogsOut(Doing):
        async def do(self):
            self.session["n"] = 9
            saving = asyncio.ensure_future(self.session.save())
            await gate.arrival()
            self.session.destroy()
            site.store.failing.add("commit")
            gate.open()
            with contextlib.suppress(StoreError):
                await saving
            site.store.failing.clear()

    async with serving(LogsOut) as site:
        visitor = site.visitor()
        await visitor.get()
        gate = site.store.park("commit")
        assert (await visitor.get("/?do=1")).code == 200
        assert await site.records() == []


async def test_a_login_that_failed_is_not_one_of_the_session_after_it():
    """C3: what begins after a destroy() knows nothing of a login before it."""
    async with SessionManager(AsyncStore()) as manager:
        session = await manager.load([await begun(manager)])
        session.login("alice")
        gate = manager.store.park("commit")
        saving = asyncio.ensure_future(session.save())
        await gate.arrival()
        session.destroy()
        manager.store.failing.add("commit")
        gate.open()
        with pytest.raises(StoreError):
            await saving
        manager.store.failing.clear()
        session["n"] = 1
        await session.save()
        assert manager.store.record.meta.principal is None


# -- ends that come meanwhile ------------------------------------------------------------


def stays_open():
    """Return a class of sockets that go on as guests when their session ends."""

    def on_session_end(self, reason):
        self.ends.append((reason, self.current_user))

    return a_socket(on_session_end=on_session_end)


async def socket_and_end(site, message, answer):
    """Have a socket whose message is answered late end meanwhile; return its session."""
    visitor = site.visitor()
    await visitor.get("/acts?set=n:secret&login=alice")
    talk = await connect(visitor)
    handler = site.handler
    await until(lambda: site.manager.watch._looking is not None)
    await soon(site.manager.watch._looking)
    gate = site.store.park(answer)
    await talk.send(message)
    await gate.arrival()
    assert await site.manager.revoke(ticket_in(visitor.cookie).handle)
    await until(lambda: handler.ends)
    gate.open()
    heard = await talk.heard()
    (socket,) = handler.open_sockets
    return socket.session, heard


@pytest.mark.parametrize(
    ("message", "parked", "heard"),
    [
        ("refresh", "answer", "null"),
        ("add m 5", "answer", "5"),
        ("add m 5", "commit", "5"),
    ],
)
async def test_a_socket_whose_session_ends_meanwhile(message, parked, heard):
    """W1, C3: an answer from before brings nothing back, and nothing fails over it."""
    handler = stays_open()
    async with serving(routes(handler), SlowAnswers()) as site:
        site.handler = handler
        session, said = await socket_and_end(site, message, parked)
        assert (session.principal, dict(session), said) == (None, {}, heard)


@on_every_store
async def test_an_end_that_depends_on_the_token(make_store):
    """E7, R1: what has another token stays; what is gone is gone, whatever its token."""
    store = make_store()
    async with store:
        await store.commit([create("h"), create("other")])
        ends = [
            Delete("h", "end", "alice", b"another"),
            Delete("other", "end", "alice", b"t"),
            Delete("gone", "end", "alice", b"t"),
        ]
        conflict, applied, gone = Outcome.CONFLICT, Outcome.APPLIED, Outcome.GONE
        assert await store.commit(ends) == [conflict, applied, gone]
        assert [record.handle for record in await store.kept()] == ["h"]
        again = [Delete("h", "end", None, b"t"), Delete("h", "end", None, b"t")]
        assert await store.commit(again) == [applied, gone]
        assert await store.commit([Delete("other", "end", None, b"another")]) == [gone]


async def counted_late(site, first, then):
    """Have *first* count the sessions of alice, and go on when *then* was answered."""
    found = site.store.park("found")
    parked = asyncio.ensure_future(first)
    await found.arrival()
    await then
    found.open()
    await soon(parked)


@pytest.mark.parametrize(
    ("who", "left"), [("alice", {"alice": 1}), ("bob", {"bob": 1})]
)
async def test_a_login_on_a_session_that_is_one_too_many(who, left):
    """E7: what was the oldest is the youngest by then, or that of somebody else."""
    clock = FakeClock()
    store = SlowAnswers(clock=clock)
    async with serving(Acts, store, session_max_per_principal=1) as site:
        one, two = site.visitor(), site.visitor()
        await one.get("/?login=alice")
        clock.advance(10)

        async def again():
            clock.advance(10)
            await one.get(f"/?login={who}")

        await counted_late(site, two.get("/?login=alice"), again())
        kept = Counter(record.meta.principal for record in await site.records())
        assert kept == {"alice": 1, **left}


@pytest.mark.parametrize("who", ["alice", "bob"])
async def test_a_login_on_a_session_that_is_about_to_be_revoked(who):
    """E6: all of alice's end, those that she has logged in on again too, and no other."""
    store = SlowAnswers(clock=FakeClock())
    async with serving(Acts, store) as site:
        one, two = site.visitor(), site.visitor()
        await one.get("/?login=alice")
        await two.get("/?login=alice")
        revoking = site.manager.revoke_all("alice")
        await counted_late(site, revoking, one.get(f"/?login={who}"))
        kept = [record.meta.principal for record in await site.records()]
        assert kept == ([] if who == "alice" else ["bob"])


async def test_sessions_that_are_renewed_all_the_time():
    """E7: who ends them gives up with an error, which says so."""

    class Renews(AsyncStore):
        async def find(self, principal):
            found = await super().find(principal)
            stale = msgspec.structs.replace
            return [stale(one, meta=stale(one.meta, token=b"another")) for one in found]

    async with SessionManager(Renews()) as manager:
        session = manager.new_session()
        session.login("alice")
        await session.save()
        with pytest.raises(StoreError, match="were renewed"):
            await manager.revoke_all("alice")
        assert await manager.count() == 1


async def test_an_unreadable_session_of_a_socket():
    """S6: its record is deleted, also if its token was made by a login."""
    async with SessionManager(AsyncStore()) as manager:
        session = await manager.load([])
        session.login("alice")
        await session.save()
        session.regenerate_id()
        await session.save()
        await manager.store.commit([Apply(session.handle, {"n": b"\xff"})])
        again = await manager.load([carried(session)])
        again.outlives_request = True
        assert again.get("n") is None
        await again.save()
        assert await manager.count() == 0


# -- loads -------------------------------------------------------------------------------


async def test_a_session_that_is_loaded_twice_at_once():
    """C1: whoever awaits load_session() has the same session."""

    class LoadsTwice(Doing):
        session_autoload = False

        async def get(self):
            await asyncio.gather(self.put("a"), self.put("b"))

        async def put(self, key):
            (await self.load_session())[key] = 1

        async def post(self):
            (await self.load_session())["z"] = 1

    async with serving(LoadsTwice) as site:
        visitor = site.visitor()
        await visitor.post()
        assert (await visitor.get()).code == 200
        assert set(await site.values()) == {"a", "b", "z"}


@pytest.mark.parametrize("known", [False, True])
async def test_a_change_after_the_response(caplog, known):
    """T4: what nothing stores is an error in the log, also for a visitor who is new."""

    class ChangesLate(Doing):
        def put(self):
            self.finish("done")
            self.session["late"] = True

    async with serving(ChangesLate) as site:
        visitor = site.visitor()
        if known:
            await visitor.get()
        answer = await visitor.fetch("/", method="PUT", body=b"")
        assert answer.body == b"done"
        await until(lambda: "changed after the response had begun" in caplog.text)


async def test_a_load_that_is_answered_after_an_extension():
    """E1, C3: it says that the session was about to end, and ends it no more."""
    clock = FakeClock()
    store = SlowAnswers(clock=clock)
    async with serving(Doing, store) as site:
        visitor = site.visitor()
        await visitor.get()
        clock.advance(site.manager.config.idle_timeout - 1)
        answer = store.park("answer")
        slow = asyncio.ensure_future(visitor.get())
        await answer.arrival()
        await visitor.get()
        clock.advance(2)
        answer.open()
        await soon(slow)
        assert (await visitor.get()).body == b'{"who": null, "n": 3}'
        assert "ended" not in dict(site.kinds)


# -- the end of the server ---------------------------------------------------------------


async def turns():
    """Let whatever can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def is_open(manager):
    """Tell whether anything was left open or running."""
    return manager.store._opened or manager._sweeper.running


async def test_closing_during_a_commit_that_has_to_be_tried_again():
    """F4: the store is closed when nothing asks it any more."""
    clock = FakeClock()
    manager = SessionManager(AsyncStore(clock=clock), rotate_after=AFTER)
    await manager.start()
    ticket = await begun(manager)
    clock.advance(AFTER)
    slow, quick = await manager.load([ticket]), await manager.load([ticket])
    slow["m"] = 1
    await quick.save()
    gate, answered = manager.store.park("commit"), []
    manager.perform_soon(manager.plan(slow), answered.append)
    await gate.arrival()
    loading = manager.store.park("load")
    closing = asyncio.ensure_future(manager.close())
    await turns()  # in which it comes to wait for the commit
    gate.open()
    await loading.arrival()
    await turns()  # in which it could close the store
    assert manager.store._opened
    loading.open()
    await soon(closing)
    assert (answered, manager.store._opened) == ([None], False)


async def test_closing_during_a_login_that_is_one_too_many():
    """F4, E7: nothing opens the store again."""
    manager = SessionManager(AsyncStore(), max_per_principal=1)
    await manager.start()
    answered = []
    for _ in range(2):
        session = manager.new_session()
        session.login("alice")
        manager.perform_soon(manager.plan(session), answered.append)
    await soon(manager.close())
    assert answered == [None, None]
    assert len(await manager.store.kept()) == 1
    assert not is_open(manager)


async def test_closing_while_it_opens():
    """F4, T8: the store is closed, and no sweeper runs, whoever gave up waiting."""

    class OpensSlowly(AsyncStore):
        async def open(self):
            await gate.pass_through()
            await super().open()

    gate = Gate()
    manager = SessionManager(OpensSlowly())
    starting = asyncio.ensure_future(manager.start())
    await gate.arrival()
    starting.cancel()
    closing = asyncio.ensure_future(manager.close())
    await asyncio.wait([starting])
    gate.open()
    await soon(closing)
    assert not is_open(manager)


async def test_closing_after_a_touch():
    """F4, W3: an extension in the background is carried out before, not after."""

    class Expires(AsyncStore):
        expires_natively = True  # else there is a sweeper to wait for

    clock = FakeClock()
    manager = SessionManager(Expires(clock=clock))
    ticket = await begun(manager)
    session = await manager.load([ticket])
    clock.advance(4000)
    manager.touch(session)
    await manager.close()
    assert manager.store.record.meta.last_seen_at == clock.now
    assert not is_open(manager)
