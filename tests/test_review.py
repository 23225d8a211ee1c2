"""Defects that reviews found once, each with the test that would have caught it."""

import asyncio
import gc
import logging

import pytest
from tornado.web import Application

from httpkit_stores import AsyncStore, FakeClock, soon
from tornado_sessions import SessionManager, StoreError
from tornado_sessions.stores.base import Create, Outcome
from tornado_sessions.stores.keeper import Keeper
from tornado_sessions.testing import prepare_session, read_session


async def began(manager, **values):
    session = manager.new_session()
    session.update(values)
    await manager.commit(session)
    return session


async def test_a_mutate_that_met_a_conflict_extends():
    """E3: the second attempt extends what the first one did not."""
    clock = FakeClock()

    class Conflicting(AsyncStore):
        conflicts = 0

        async def commit(self, changes):
            if self.conflicts:
                self.conflicts -= 1
                return [Outcome.CONFLICT]
            return await super().commit(changes)

    store = Conflicting(clock=clock)
    async with SessionManager(store, idle_timeout=1000) as manager:
        session = await began(manager, n=1)
        clock.advance(100)
        store.conflicts = 1
        assert await session.mutate("n", lambda n: n + 1) == 2
        (record,) = await store.load([session.handle])
        assert record.meta.last_seen_at == clock()


async def test_a_create_whose_answer_was_lost():
    """C1, K3: what was deleted and chosen since is stored by the next save."""

    class Losing(AsyncStore):
        lose = True

        async def commit(self, changes):
            outcomes = await super().commit(changes)
            if self.lose and isinstance(changes[0], Create):
                self.lose = False
                raise StoreError("the answer was lost")
            return outcomes

    store = Losing()
    async with SessionManager(store) as manager:
        session = manager.new_session()
        session.update(a=1, b=2)
        try:
            await manager.commit(session)
        except StoreError:
            del session["b"]
            session.persistent = True
            await session.save()
        (record,) = await store.load([session.handle])
        assert set(record.values) == {"a"}
        assert record.meta.persistent is True
        assert session.persistent is True


async def test_a_dropped_store_is_closed():
    """T8: its keeper is not collected before it has done its work."""
    closed = asyncio.Event()

    async def close():
        closed.set()

    keeper = Keeper(close)
    assert not keeper.over
    gc.collect()
    assert not closed.is_set()
    del keeper
    gc.collect()
    await soon(closed.wait())


async def test_a_keeper_that_is_cancelled_at_once():
    """T8: it is over, and whoever asks opens anew."""

    async def close():
        """Nothing was opened yet."""

    keeper = Keeper(close)
    keeper._task.cancel()
    await asyncio.wait([keeper._task])
    await asyncio.sleep(0)
    assert keeper.over


async def test_a_keeper_that_cannot_close(caplog):
    """F4: it says so in the log, and whoever closes goes on."""

    async def close():
        raise OSError("hung up")

    with caplog.at_level(logging.WARNING):
        await Keeper(close).close()
    assert "did not close its connections" in caplog.text


def test_a_keeper_whose_loop_ends():
    """T8: the loop cancels its tasks, and the keeper closes what it keeps."""
    closed = []

    async def close():
        closed.append(asyncio.get_running_loop())

    async def use():
        keepers.append(Keeper(close))
        return asyncio.get_running_loop()

    keepers: list = []
    loop = asyncio.run(use())
    assert closed == [loop]
    assert keepers[0].over


async def test_a_session_outlives_its_request():
    """T8: what `read_session` returns can log in, though its handler is gone."""
    app = Application([], cookie_secret="made up for the tests")
    cookie = await prepare_session(app, {"cart": ["tea"]})
    session = await read_session(app, cookie)
    gc.collect()
    session.login("alice")
    await session.save()
    assert session.principal == "alice"
    assert len(await SessionManager.of(app).sessions_of("alice")) == 1
    await SessionManager.of(app).close()


@pytest.mark.parametrize("saved_first", [True, False])
async def test_two_saves_of_a_new_session_at_once(saved_first):
    """C1, T4: whichever create comes first, what the other one holds is kept."""
    store = AsyncStore()
    async with SessionManager(store) as manager:
        session = manager.new_session()
        session["n"] = 1
        early = manager.plan(session)
        session["late"] = 1
        saves = [manager.perform(early), session.save()]
        tasks = [
            asyncio.ensure_future(one) for one in saves[:: -1 if saved_first else 1]
        ]
        await soon(asyncio.gather(*tasks))
        (record,) = await store.load([session.handle])
        assert set(record.values) == {"n", "late"}
