"""What is left of sessions that ended in MongoDB, and how others hear of it."""

import asyncio
import time
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from bson import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from motor.motor_tornado import MotorClient
from pymongo import AsyncMongoClient

from faultkit import gone, tasks
from httpkit_stores import PATIENCE
from mongokit import (
    Heard,
    MongoServer,
    apply,
    cursors,
    kill_cursors,
    listening,
    mongo_replica_set,
    mongo_store,
    new_record,
    shared_mongo,
    shared_server,
)
from tornado_sessions import StoreError
from tornado_sessions.stores import mongo_ends, mongo_listening
from tornado_sessions.stores.base import LOOK_EVERY, Delete, Outcome
from tornado_sessions.stores.mongo import MongoStore

APPLIED, GONE = Outcome.APPLIED, Outcome.GONE
KINDS = ["standalone", "replica set"]
ON_EACH_KIND = pytest.mark.parametrize("kind", KINDS)
DRIVERS = {
    "pymongo": lambda url: url,
    "motor-tornado": MotorClient,
    "motor-asyncio": AsyncIOMotorClient,
}


def the_same(store, url):
    """Return another store for the same sessions, as another process has it."""
    return MongoStore(url, namespace=store._namespace, clock=store.clock)


@ON_EACH_KIND
@pytest.mark.parametrize("driver", DRIVERS)
async def test_each_reason_is_heard(kind, driver):
    """W1, W2: another process hears of each end, once, and why."""
    async with (
        mongo_store(kind) as store,
        peer_of(store, shared_mongo(kind), driver) as peer,
        listening(peer) as heard,
    ):
        for reason in ("revoked", "lost: a phone", "", "ünï\0", "x" * 1000):
            await store.commit([new_record("h"), new_record("stays")])
            assert await store.commit([Delete("h", reason)]) == [APPLIED]
            await heard.end("h", reason)
            assert {handle for handle, _ in heard.ends} == {"h"}
            assert heard.connections == 1
        assert len(heard.ends) == 5


@ON_EACH_KIND
async def test_a_thousand_ends(kind):
    """W1: of many that end at once, each is heard of exactly once."""
    handles = [f"h{n}" for n in range(1000)]
    async with mongo_store(kind) as store:
        await store.commit([new_record(handle) for handle in handles])
        async with listening(store) as heard:
            await store.commit([Delete(handle, "all") for handle in handles])
            await heard.until(lambda: len(heard.ends) >= 1000)
            await store.commit([new_record("h"), Delete("h", "last")])
            await heard.end("h", "last")
            await asyncio.sleep(2 * LOOK_EVERY)
    assert sorted(heard.ends) == sorted([("h", "last"), *((h, "all") for h in handles)])


@ON_EACH_KIND
async def test_what_is_no_end_is_not_told(kind):
    """W1: neither what was gone or had expired, nor changes, sweeps and a clearing are."""
    async with mongo_store(kind) as store, listening(store) as heard:
        await store.commit([new_record("h"), new_record("other")])
        await store.commit([new_record("old", expires_at=store.clock() - 1)])
        ends = [Delete("none", "a"), Delete("old", "b"), Delete("h", "c")]
        assert await store.commit(ends) == [GONE, GONE, APPLIED]
        assert await store.commit([Delete("h", "again")]) == [GONE]
        await store.commit([apply("other", {"k": b"1"})])
        await store.sweep(10)
        await store.commit([new_record("last"), Delete("last", "d")])
        await heard.end("last", "d")
        assert heard.ends == [("h", "c"), ("last", "d")]


async def test_the_note():
    """W2, S9: one document is left, without anything that was in the session."""
    async with mongo_store() as store:
        began = time.time()
        await store.commit([new_record("h", {"k": b"secret"}, principal="ada")])
        await store.commit([Delete("h", "why")])
        note = await store._collection.find_one({"_id": "h"})
        assert set(note) == {"_id", "expires_at", "ended_at", "reason", "ttl"}
        assert (note["reason"], note["expires_at"]) == ("why", 0)
        assert abs(note["ended_at"].time - began) < 2
        assert 59 <= int(note["ttl"]) / 1000 - began < 121


async def test_a_note_is_no_record():
    """R2, R3, C3: whatever reads or changes records does not see it."""
    async with mongo_store() as store:
        await store.commit([new_record("h", principal="p")])
        await store.commit([Delete("h", "why")])
        assert await store.load(["h"]) == [None]
        assert await store.find("p") == []
        assert [one async for one in store.iterate()] == []
        assert await store.count() == 0
        expecting = apply("h", {"k": b"1"}, (), {"k": b"v"})
        assert await store.commit([apply("h", {"k": b"1"})]) == [GONE]
        assert await store.commit([expecting]) == [GONE]
        assert await store.commit([new_record("h")]) == [APPLIED]


async def test_notes_are_swept():
    """R4: without a TTL index a sweep takes notes that everybody has read, no others."""
    async with mongo_store() as store:
        creates = [new_record(handle) for handle in ("new", "read")]
        await store.commit([*creates, Delete("new"), Delete("read")])
        read = {"$set": {"ttl": mongo_ends.DatetimeMS(int(time.time() * 1000) - 1)}}
        await store._collection.update_one({"_id": "read"}, read)
        assert await store.sweep(10) == 1
        assert await store._collection.distinct("_id") == ["new"]


async def test_a_reason_of_any_text():
    """R1: one that is too long or no text for the database still ends the session."""
    async with mongo_store() as store, listening(store) as heard:
        await store.commit([new_record("a"), new_record("b")])
        ends = [Delete("a", "x" * (17 << 20)), Delete("b", "\ud800!")]
        assert await store.commit(ends) == [APPLIED, APPLIED]
        await heard.end("a", "x" * 1024)
        await heard.end("b", "?!")


@pytest.mark.parametrize("obstacle", ["index", "validator"])
async def test_a_note_that_cannot_be_written(obstacle, caplog):
    """W2, F3: the session ends all the same, and one warning says who is not told."""
    async with mongo_store() as store:
        await store.commit([new_record(h, ip=h) for h in ("a", "b", "c")])
        if obstacle == "index":
            await store._collection.create_index("ip", unique=True)
        else:
            rule = {"validator": {"token": {"$exists": True}}}
            await store._collection.database.command(
                "collMod", store._namespace, **rule
            )
        for handle in ("a", "b", "c"):
            assert await store.commit([Delete(handle)]) == [APPLIED]
        assert await store.load(["a", "b", "c"]) == [None] * 3
    [message] = caplog.messages
    assert "cannot be told" in message


@ON_EACH_KIND
async def test_why_is_known_to_whoever_looks(kind, monkeypatch):
    """W4: a session that is looked at and has ended is told with its reason, before."""
    monkeypatch.setattr(mongo_listening, "LOOK_EVERY", 1000)
    async with mongo_store(kind) as store:
        await store.commit([new_record("h"), Delete("h", "while away")])
        async with listening(store) as heard:
            assert heard.ends == []
            assert await store.load(["h", "none"]) == [None, None]
            assert heard.ends == [("h", "while away")]
        await store.load(["h"])
        assert len(heard.ends) == 1


async def test_notes_that_come_late():
    """W1: one whose timestamp is older than that of others already read is heard of."""
    async with mongo_store() as store, listening(store) as heard:
        await store.commit([new_record("first"), Delete("first", "a")])
        await heard.end("first", "a")
        stamp = (await store._collection.find_one({"_id": "first"}))["ended_at"]
        late = {"ended_at": Timestamp(stamp.time - 5, 1), "reason": "b"}
        await store._collection.insert_one({"_id": "late", "expires_at": 0, **late})
        await heard.end("late", "b")
        assert len(heard.ends) == 2


async def test_notes_are_seen_for_a_while_only(monkeypatch):
    """W2: a look goes back some seconds, however many ended before."""
    monkeypatch.setattr(mongo_listening, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(mongo_listening, "_MARGIN", 0.3)
    async with mongo_store() as store:
        looks = mongo_listening._Looks(store._collection)
        heard = Heard()
        task = asyncio.ensure_future(looks.go_on(heard))
        handles = [f"h{n}" for n in range(50)]
        await store.commit([new_record(handle) for handle in handles])
        await heard.until(lambda: heard.connections)
        await store.commit([Delete(handle) for handle in handles])
        await heard.until(lambda: len(heard.ends) == 50)
        while len(looks._seen) > 1:
            await asyncio.sleep(0.01)
        assert len(looks._latest) < 50
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert len(heard.ends) == 50


async def test_a_look_that_comes_late(monkeypatch):
    """W4: whoever did not look for long says that something may have been missed."""
    monkeypatch.setattr(mongo_listening, "LOOK_EVERY", 0.01)
    async with mongo_store() as store, listening(store) as heard:
        monkeypatch.setattr(mongo_listening, "_MARGIN", -1)
        await heard.until(lambda: heard.connections > 1)


async def test_a_machine_that_slept(monkeypatch):
    """W4: the loop's clock stood still meanwhile, and the notes of that time are gone."""
    monkeypatch.setattr(mongo_listening, "LOOK_EVERY", 0.01)
    async with mongo_store() as store, listening(store) as heard:
        await heard.until(lambda: heard.connections == 1)
        awake = time.time
        monkeypatch.setattr(mongo_listening.time, "time", lambda: awake() + 3600)
        await heard.until(lambda: heard.connections == 2)


@ON_EACH_KIND
async def test_somebody_elses_documents(kind):
    """F3: what is in the collection and no note of ours disturbs nobody."""
    async with mongo_store(kind) as store, listening(store) as heard:
        for one in ({"_id": 1, "reason": "x"}, {"_id": "a", "reason": 2}):
            await store._collection.insert_one({"_id": one["_id"]})
            odd = {**one, "ended_at": Timestamp(0, 0)}
            await store._collection.replace_one({"_id": one["_id"]}, odd)
        await store.commit([new_record("h"), Delete("h", "why")])
        await heard.end("h", "why")
        assert heard.ends == [("h", "why")]


@pytest.mark.parametrize(
    ("kind", "command", "every"),
    [("standalone", "find", LOOK_EVERY), ("replica set", "getMore", 1.0)],
)
async def test_while_nothing_happens(kind, command, every):
    """W2: two looks a second, or one question for changes; nothing without a listener."""
    server = shared_server(kind)
    async with mongo_store(kind) as store:
        await store.load(["h"])
        async with listening(store):
            began = time.monotonic()
            with server.counting() as found:
                await asyncio.sleep(3)
            most = 1 + (time.monotonic() - began) / every
        await asyncio.sleep(1)  # the server answers the last one
        with server.counting() as without:
            await asyncio.sleep(1)
    assert set(found) == {command}
    assert 2 <= found[command] <= most
    assert without == {}


@asynccontextmanager
async def peer_of(store, url, driver):
    """Give another store for the same sessions, with a client of that driver."""
    client = DRIVERS[driver](url)
    peer = the_same(store, client)
    try:
        yield peer
    finally:
        await peer.close()
        if client is not url:
            client.close()


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.slow
async def test_nothing_is_left_of_a_stream(driver, monkeypatch):
    """W4: whoever stops listening leaves no task, and no cursor at a server that answers."""
    monkeypatch.setattr(mongo_listening, "_GOODBYE", PATIENCE)  # so it does, in time
    monkeypatch.setattr(mongo_listening, "_WAIT", 0.1)
    server = shared_server("replica set")
    async with (
        mongo_store("replica set") as store,
        peer_of(store, server.url, driver) as peer,
    ):
        await peer.load(["h"])
        before = tasks()
        for moment in (0.0, 0.001, 0.003, 0.005, 0.007, 0.1):
            for _ in range(10):
                task = asyncio.ensure_future(peer.listen(Heard()))
                await asyncio.sleep(moment)
                await stopped(task)
        await gone(lambda: set(tasks()) - set(before))
        await gone(lambda: cursors(server, store._collection.full_name))


async def stopped(task):
    """Cancel *task*; it has to end soon."""
    task.cancel()
    await asyncio.wait([task], timeout=PATIENCE)
    assert task.cancelled()


class Resuming:
    """A collection and its change stream; it is closed just before the server is asked.

    The driver takes that for a cursor which was lost, and opens another one.
    """

    alive = True

    def __init__(self):
        self.at_server, self.known = set(), None
        self._closed = asyncio.Event()

    def with_options(self, **options):
        return self

    async def watch(self, *_, **options):
        await self._open(1)
        return self

    async def _open(self, number):
        self.at_server.add(number)
        await asyncio.sleep(0.01)  # the answer is under way
        self.known = number

    async def try_next(self):
        await self._closed.wait()
        await self._open(2)

    async def close(self):
        self._closed.set()
        self.at_server.discard(self.known)


async def test_a_cursor_that_takes_the_place_of_the_closed_one():
    """W4: it is closed as well."""
    both, heard = Resuming(), Heard()
    task = asyncio.ensure_future(mongo_listening.listen(both, heard))
    await heard.until(lambda: heard.connections)
    await stopped(task)
    assert (both.known, both.at_server) == (2, set())


@pytest.mark.slow
async def test_whoever_stops_does_not_wait_for_a_server_that_hangs():
    """W4, F1: neither one whose stream is open nor one who opens it, with any driver."""
    with mongo_replica_set(1) as members:
        server = members.primary
        async with AsyncExitStack() as stack:
            store = await stack.enter_async_context(MongoStore(server.url))
            peers = [
                await stack.enter_async_context(peer_of(store, server.url, driver))
                for driver in DRIVERS
            ]
            listening, opening = [Heard() for _ in peers], [Heard() for _ in peers]
            open_ones = [
                asyncio.ensure_future(peer.listen(heard))
                for peer, heard in zip(peers, listening, strict=True)
            ]
            for heard in listening:
                await heard.until(lambda heard=heard: heard.connections)
            server.pause()
            stack.callback(server.resume)
            others = [
                asyncio.ensure_future(peer.listen(heard))
                for peer, heard in zip(peers, opening, strict=True)
            ]
            await asyncio.sleep(0.1)
            for task in open_ones + others:
                await stopped(task)
            assert not any(heard.connections for heard in opening)


@ON_EACH_KIND
async def test_a_client_that_was_handed_in(kind):
    """W4: it is not closed by whoever stops listening."""
    client = AsyncMongoClient(shared_mongo(kind))
    async with mongo_store(kind) as store:
        peer = the_same(store, client)
        async with listening(peer):
            pass
        await peer.close()
        assert (await client.admin.command("ping"))["ok"]
    await client.close()


async def test_a_server_that_is_not_there():
    """F1: whoever listens to none gets an error, soon."""
    with MongoServer() as server:
        store = MongoStore(f"{server.url}?serverSelectionTimeoutMS=500")
        await store.open()
    with pytest.raises(StoreError):
        await asyncio.wait_for(store.listen(Heard()), PATIENCE)
    await store.close()


async def test_a_server_that_hangs(monkeypatch):
    """F1: whoever listens does not wait for ever, however it does."""
    monkeypatch.setattr(mongo_listening, "_DEADLINE", 0.5)
    with MongoServer() as server:
        store = MongoStore(server.url)
        heard = Heard()
        task = asyncio.ensure_future(store.listen(heard))
        await heard.until(lambda: heard.connections)
        server.pause()
        with pytest.raises(StoreError, match="did not answer in time"):
            await asyncio.wait_for(task, PATIENCE)
        server.resume()
        await store.close()


async def test_a_stream_that_is_killed():
    """W4: a cursor that an administrator killed is replaced, and the gap is told of."""
    server = shared_server("replica set")
    async with mongo_store("replica set") as store, listening(store) as heard:
        for _ in range(3):
            await asyncio.sleep(1.1)  # so that it has answered since it was opened
            heard.connections = 0
            await asyncio.to_thread(kill_cursors, server, store)
            await heard.until(lambda: heard.connections > 0)
        await store.commit([new_record("h"), Delete("h", "why")])
        await heard.end("h", "why")


async def test_a_collection_that_is_dropped():
    """W4: the stream is opened anew, and goes on with what comes after."""
    async with mongo_store("replica set") as store, listening(store) as heard:
        await store.commit([new_record("h")])
        await asyncio.sleep(1.1)
        await store._collection.drop()
        await heard.until(lambda: heard.connections > 1)
        await store.commit([new_record("h"), Delete("h", "why")])
        await heard.end("h", "why")
