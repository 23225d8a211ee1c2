"""MongoStore: what is read where the members of a replica set know different things."""

import asyncio

import pytest
from pymongo import WriteConcern

from mongokit import mongo_replica_set, new_record
from tornado_sessions.stores.base import Apply, Delete, Outcome
from tornado_sessions.stores.mongo import MongoStore
from tornado_sessions.stores.mongo_reads import fresh_if_primary
from tornado_sessions.testing import FakeClock

APPLIED, GONE = Outcome.APPLIED, Outcome.GONE
COMMANDS = ("--setParameter", "enableTestCommands=1")


@pytest.fixture(scope="module")
def members():
    with mongo_replica_set(2, extra=COMMANDS) as found:
        yield found


@pytest.fixture
async def lagging(members):
    """Give stores; the secondary lags behind as soon as one is open."""
    primary = await asyncio.to_thread(lambda: members.primary)
    [secondary] = [one for one in members.servers if one is not primary]

    def switch(mode):
        secondary.run("configureFailPoint", "rsSyncApplyStop", mode=mode)

    stores = []

    async def lagging(options, **kwargs):
        store = MongoStore(f"{members.url}&{options}", namespace="reads", **kwargs)
        stores.append(store)
        await store.open()
        await store.clear()
        both = store._collection.with_options(write_concern=WriteConcern(2))
        await both.insert_one({"_id": "both have it"})
        await asyncio.to_thread(switch, "alwaysOn")
        return store

    yield lagging
    await asyncio.to_thread(switch, "off")
    for store in stores:
        await store.close()


async def test_what_no_majority_knows_yet(lagging):
    """C3, R2: with w=1 what was acknowledged is read, whatever the read concern says."""
    store = await lagging("w=1&readConcernLevel=majority")
    await store.commit([new_record("a"), new_record("b", principal="p")])
    asked = [Apply("a", {"k": b"1"}), Apply("none"), Apply("b")]
    assert await store.commit(asked) == [APPLIED, GONE, APPLIED]
    found = await store.load(["a", "b", "none"])
    assert [one and one.handle for one in found] == ["a", "b", None]
    assert [one.handle for one in await store.find("p")] == ["b"]
    assert await store.commit([Delete("a"), Delete("b")]) == [APPLIED, APPLIED]
    assert await store.load(["a", "b"]) == [None, None]
    assert await store.find("p") == []


async def test_what_a_secondary_does_not_know_yet(lagging):
    """C3, E6: all sessions of a user are found, and can be ended, wherever others read."""
    clock = FakeClock()
    store = await lagging("w=1&readPreference=secondary", clock=clock)
    old = new_record("old", expires_at=clock() - 1)
    await store.commit([new_record("a", principal="p"), old])
    assert [one.handle for one in await store.find("p")] == ["a"]
    assert await store.commit([Apply("a"), Apply("none")]) == [APPLIED, GONE]
    assert await store.sweep(10) == 1
    assert await store.load(["a"]) == [None]  # that is what the client asked for


@pytest.mark.parametrize(
    ("preference", "level"),
    [
        ("primary", "local"),
        ("primaryPreferred", "local"),
        ("secondary", "majority"),
        ("nearest", "majority"),
    ],
)
async def test_who_answers_is_up_to_the_client(preference, level):
    """C3: loads go where the client says; the primary answers with all that it knows."""
    options = f"readPreference={preference}&readConcernLevel=majority"
    store = MongoStore(f"mongodb://localhost/?{options}")
    collection = store._source.collection("x")
    loads = fresh_if_primary(collection)
    assert loads.read_preference == collection.read_preference
    assert loads.read_concern.level == level
    await store.close()
