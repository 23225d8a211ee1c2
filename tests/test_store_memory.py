"""MemoryStore, against the contract and against its own bookkeeping."""

import asyncio
import math
import random
from unittest import IsolatedAsyncioTestCase

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome
from tornado_sessions.stores.memory import MemoryStore
from tornado_sessions.testing import FakeClock, StoreConformance

PRINCIPALS = ("alice", "bob", "carol")


class TestMemoryStore(StoreConformance, IsolatedAsyncioTestCase):
    async def make_store(self, clock, namespace):
        return MemoryStore(clock=clock)


def create(clock, handle, ttl, principal=None):
    now = clock()
    times = dict.fromkeys(("created_at", "last_seen_at", "epoch_at", "rotated_at"), now)
    meta = Meta(token=b"t", expires_at=now + ttl, principal=principal, **times)
    return Create(handle, meta, {"k": b"v"})


def random_change(chance, clock):
    """Do something to one of 12,000 sessions, most of which live for minutes."""
    handle = f"h{chance.randrange(12_000)}"
    principal = chance.choice([None, *PRINCIPALS, f"only {handle}"])
    expires_at = clock() + chance.uniform(0, 1000)
    return chance.choice(
        [
            create(clock, handle, chance.uniform(0, 600), principal),
            create(clock, handle, chance.uniform(0, 600)),
            Apply(handle=handle, meta={"expires_at": expires_at}),
            Apply(handle=handle, meta={"principal": principal}),
            Delete(handle),
        ]
    )


def check_bookkeeping(store):
    """Both indexes hold exactly what the records say."""
    records = [record for shard in store._shards for record in shard.values()]
    due = [handle for slot in store._expiry._slots.values() for handle in slot]
    assert sorted(due) == sorted(record.handle for record in records)
    assert store._expiry._order == sorted(store._expiry._slots)
    for name in PRINCIPALS:
        theirs = [one.handle for one in records if one.meta.principal == name]
        assert sorted(store._principals.handles(name)) == sorted(theirs)


async def test_bookkeeping_of_ten_thousand_sessions():
    """R3, R4, P6: after 15,000 random changes and sweeps, the indexes are exact."""
    chance, clock = random.Random(7), FakeClock(1e9)
    store = MemoryStore(clock=clock)
    await store.commit([create(clock, f"h{n}", 600, "alice") for n in range(10_000)])
    for _ in range(30):
        await store.commit([random_change(chance, clock) for _ in range(500)])
        clock.advance(chance.uniform(0, 20))
        while await store.sweep(chance.randrange(1, 200)):
            pass
        check_bookkeeping(store)
        live = [record async for record in store.iterate()]
        assert len(live) == await store.count()
        assert all(record.meta.expires_at > clock() for record in live)
    clock.advance(2000)
    while await store.sweep(256):
        pass
    assert not any(store._shards)
    assert not any(store._principals._shards)


async def test_a_sweep_is_a_bounded_slice():
    """P6, R4: however many have expired, one call deletes *limit* and looks at few."""
    clock = FakeClock(1e9)
    store = MemoryStore(clock=clock)
    for number in range(20):
        some = [create(clock, f"h{number}-{n}", number + 1) for n in range(500)]
        await store.commit(some)
    clock.advance(5000)
    looked_at = []
    live = store._live
    store._live = lambda handle, now: looked_at.append(handle) or live(handle, now)
    assert await store.sweep(10) == 10
    assert len(looked_at) <= 20
    assert sum(map(len, store._shards)) == 10_000 - 10


async def test_what_is_about_to_expire_hides_nothing():
    """R4: a sweep that returns less than its limit left nothing that has expired."""
    clock = FakeClock(8e8)  # the beginning of a slot of the expiry index
    store = MemoryStore(clock=clock)
    await store.commit([create(clock, f"live{n}", 7) for n in range(100)])
    await store.commit([create(clock, f"old{n}", 1) for n in range(3)])
    clock.advance(2)
    assert await store.sweep(10) == 3
    assert await store.count() == 100


async def test_a_long_listing_lets_others_have_a_turn():
    """P6: whoever lists all sessions does not hold up the requests of the process."""
    store, turns = MemoryStore(), 0
    await store.commit([create(store.clock, f"h{n}", 600) for n in range(10_000)])

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    seen = [turns async for _ in store.iterate()]
    task.cancel()
    at_a_time = max(map(seen.count, set(seen)))
    assert (len(seen), at_a_time <= 256) == (10_000, True)


async def test_unusable_changes_harm_nobody():
    """R1: each is an error in its place; the others are done, and nothing is left over."""
    clock = FakeClock(1e9)
    store = MemoryStore(clock=clock)
    never = [create(clock, f"never {end}", end) for end in (math.nan, math.inf)]
    await store.commit([create(clock, "there", 600, "alice")])
    unknown = Apply(handle="there", meta={"bogus": 1})
    no_dict = Create("no dict", create(clock, "no dict", 600).meta, None)
    batch = [unknown, *never, no_dict, create(clock, "other", 600, "bob")]
    *failed, applied = await store.commit(batch)
    assert {type(one) for one in failed} == {StoreError}
    assert (applied, await store.count()) == (Outcome.APPLIED, 2)
    check_bookkeeping(store)
