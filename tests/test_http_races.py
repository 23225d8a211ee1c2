"""Parallel requests of one visitor, parked where it matters (C1, C3, C4)."""

import asyncio
import json

import pytest

from httpkit import Acts, Page, acting, answered, serving, session_cookies
from httpkit_stores import FakeClock, Gate, on_every_store, on_waiting_stores

MINUTE = 60


@on_every_store
async def test_different_keys_survive(make_store):
    """C1: two requests that load the same session and set different keys: both hold."""
    gate = Gate()
    async with serving(acting(a=gate), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:0")
        slow = visitor.get("/?touch=k&wait=a&set=slow:1")
        quick = visitor.get("/?set=quick:2")
        await answered(slow, gate, quick)
        answer = await visitor.get()
    assert answer.body == b'{"k": "0", "quick": "2", "slow": "1"}'


@on_every_store
async def test_the_later_commit_wins(make_store):
    """C1: where both set the same key, the one that commits later wins."""
    gate = Gate()
    async with serving(acting(a=gate), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:0")
        slow = visitor.get("/?set=k:slow&wait=a")
        await answered(slow, gate, visitor.get("/?set=k:quick"))
        assert (await visitor.get()).body == b'{"k": "slow"}'


@on_every_store
async def test_many_at_once_lose_nothing(make_store):
    """C1: fifty parallel requests that each set their own key: all fifty are there."""
    async with serving(Acts, make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:0")
        keys = [f"k{number}" for number in range(50)]
        answers = await asyncio.gather(
            *(visitor.twin().get(f"/?set={key}:1") for key in keys)
        )
        assert {answer.code for answer in answers} == {200}
        assert set(await site.values()) == {"k", *keys}


@on_every_store
async def test_mutate_loses_nothing(make_store):
    """C2: parallel requests that count with mutate() give the exact total."""

    class Counts(Page):
        async def get(self):
            count = await self.session.mutate("n", lambda n: n + 1, default=0)
            self.write({"n": count})

    async with serving(Counts, make_store()) as site:
        visitor = site.visitor()
        await visitor.get()
        twins = [visitor.twin().get() for _ in range(40)]
        answers = await asyncio.gather(*twins)
        counts = {json.loads(answer.body)["n"] for answer in answers}
        assert counts == set(range(2, 42))
        assert await site.values() == {"n": b"41"}


ENDS = ["destroy", "revoke", "expire"]


async def end(site, visitor, clock, how):
    """End the visitor's session in one of three ways."""
    if how == "destroy":
        await visitor.twin().get("/?destroy=1")
    elif how == "revoke":
        assert await site.manager.revoke((await site.record()).handle)
    else:
        clock.advance(2 * MINUTE)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("then", ["set=k:2", "login=eve", "renew=1", "persist=1"])
@on_every_store
async def test_what_has_ended_stays_ended(make_store, how, then):
    """C3: a slow request's commit is dropped with an event, and sends no cookie."""
    gate, clock = Gate(), FakeClock()
    store = make_store(clock=clock)
    handler = acting(a=gate)
    async with serving(handler, store, session_idle_timeout=MINUTE) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        slow = visitor.twin().get(f"/?touch=k&wait=a&{then}")
        slow_answer, _ = await answered(slow, gate, end(site, visitor, clock, how))
        assert slow_answer.code == 200
        assert session_cookies(slow_answer) == []
        assert await site.manager.count() == 0
        assert ("dropped", "ended meanwhile") in site.kinds
        assert (await visitor.get()).body == b"{}"


@on_waiting_stores
async def test_a_commit_under_way_does_not_resurrect(make_store):
    """C3: a commit that is already at the store when the logout comes gets GONE too."""
    store = make_store()
    async with serving(acting(), store) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        gate = store.park("commit")
        slow = visitor.twin().get("/?set=k:2&persist=1")
        slow_answer, logout = await answered(slow, gate, visitor.get("/?destroy=1"))
        assert (slow_answer.code, session_cookies(slow_answer)) == (200, [])
        assert logout.code == 200
        assert await site.records() == []
    assert ("dropped", "ended meanwhile") in site.kinds


@on_every_store
async def test_a_logout_and_a_new_session_do_not_mix(make_store):
    """C3: what begins after destroy() is a new session, unknown to the slow writer."""
    gate = Gate()
    async with serving(acting(a=gate), make_store()) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        old = (await site.record()).handle
        slow = visitor.twin().get("/?touch=k&wait=a&set=k:2")
        await answered(slow, gate, visitor.get("/?destroy=1&set=new:1"))
        assert (await visitor.get()).body == b'{"new": "1"}'
        assert (await site.record()).handle != old


@on_waiting_stores
async def test_expiry_never_moves_back(make_store):
    """C4: a commit that was planned earlier and comes later does not shorten life."""
    clock = FakeClock()
    store = make_store(clock=clock)
    async with serving(acting(), store, session_idle_timeout=10 * MINUTE) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        clock.advance(MINUTE)
        gate = store.park("commit")
        slow = visitor.twin().get("/?touch=k")
        await answered(slow, gate, later(clock, visitor, "/?set=k:2"))
    assert [change.meta["last_seen_at"] for change in store.changes[1:]] == [
        clock() - MINUTE,
        clock(),
    ]
    record = await site.record()
    assert record.values == {"k": b'"2"'}
    assert record.meta.last_seen_at == clock()
    assert record.meta.expires_at == clock() + 10 * MINUTE


async def later(clock, visitor, path):
    clock.advance(MINUTE)
    return await visitor.get(path)


@on_every_store
async def test_an_extension_carries_no_data(make_store):
    """C4: what extends the life of a session names no key."""
    clock = FakeClock()
    store = make_store(clock=clock)
    async with serving(acting(), store, session_idle_timeout=10 * MINUTE) as site:
        visitor = site.visitor()
        await visitor.get("/?set=k:1")
        clock.advance(MINUTE)
        store.forget()
        await visitor.get("/?touch=k")
    (change,) = store.changes
    assert not change.set
    assert not change.unset
    assert set(change.meta) == {"last_seen_at", "expires_at"}
