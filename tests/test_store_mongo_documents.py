"""MongoStore: what its documents and indexes are, and what makes them unreadable."""

import itertools
import logging
import time
from datetime import timedelta

import pytest
from bson.datetime_ms import DatetimeMS

from mongokit import ROOT, MongoServer, mongo_store, new_record, values
from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import Apply, Delete, Outcome, Record
from tornado_sessions.stores.mongo import MongoStore
from tornado_sessions.stores.mongo_documents import escaped, unescaped
from tornado_sessions.testing import FakeClock

APPLIED, GONE, CONFLICT = Outcome.APPLIED, Outcome.GONE, Outcome.CONFLICT
ODD_KEYS = [
    *("", ".", "..", "a.b", ".a", "a.", "$", "$set", "a$b", "\0", "a\0b", "%", "%%"),
    *("%0025", "%2e", "0", "-1", "_id", "values", "__proto__", "é😀", " ", "\n"),
    *("\ud800", "\udfff\ud800", "x" * 5000, "." * 2000),
]


@pytest.fixture
async def store():
    async with mongo_store(clock=FakeClock()) as opened:
        await opened.commit([new_record("h", principal="p")])
        yield opened


async def document(store, handle="h"):
    return await store._collection.find_one({"_id": handle})


@pytest.mark.parametrize("key", ODD_KEYS, ids=lambda key: ascii(key[:9]))
async def test_odd_keys(store, key):
    """S5: any str is a key, in each kind of change, and none is taken for a path."""
    assert await store.commit([new_record("o", {key: b"1"})]) == [APPLIED]
    assert await values(store, "o") == {key: b"1"}
    for outcome, change in [
        (APPLIED, Apply("o", {key: b"2"})),
        (CONFLICT, Apply("o", {key: b"3"}, (), {key: b"1"})),
        (APPLIED, Apply("o", {key: b"3", "n": b""}, (), {key: b"2", "n": None})),
        (CONFLICT, Apply("o", {}, (), {key: None})),
        (APPLIED, Apply("o", {}, [key])),
        (APPLIED, Apply("o", {"n": b"1"}, (), {key: None})),
    ]:
        assert await store.commit([change]) == [outcome], change
    assert await values(store, "o") == {"n": b"1"}
    assert await values(store) == {"k": b"v"}


def test_escaping_is_one_to_one():
    """S5: no two keys share a field, and each field name leads back to its key."""
    alphabet = "%.$\0a02e4\ud800"
    keys = {
        "".join(some)
        for n in range(4)
        for some in itertools.product(alphabet, repeat=n)
    }
    names = {escaped(key): key for key in keys}
    assert len(names) == len(keys)
    assert {name: unescaped(name) for name in names} == names
    assert not any({*name} & {*".$\0\ud800"} for name in names)


async def test_the_layout(store):
    """R4, E2: `_id`, fields of the meta, values, and a date for the TTL index."""
    found = await document(store)
    (record,) = await store.load(["h"])
    assert found["values"] == {"k": b"v"}
    assert (found["_id"], found["principal"]) == ("h", "p")
    assert found["expires_at"] == record.meta.expires_at
    assert "previous" not in found
    expires = record.meta.expires_at
    assert expires <= int(found["ttl"]) / 1000 <= expires + 60


async def test_the_ttl_goes_by_the_clock_of_the_server():
    """R3, E2: however wrong the application's clock is, a record lives its time."""
    async with mongo_store(clock=FakeClock(start=1000.0)) as store:
        await store.commit([new_record(created_at=1000.0, expires_at=1000.0 + 3600)])
        ttl = int((await document(store))["ttl"]) / 1000
        assert time.time() + 3500 < ttl < time.time() + 3700
        await store.commit([Apply("h", meta={"expires_at": 1000.0 + 7200})])
        later = int((await document(store))["ttl"]) / 1000
        assert time.time() + 7100 < later < time.time() + 7300
        await store.commit([Apply("h", meta={"expires_at": 1000.0 + 60})])
        assert int((await document(store))["ttl"]) / 1000 == later


async def test_what_the_server_has_not_deleted_yet_is_absent(store):
    """R3: an expired document that is still there is shown to nobody."""
    store.clock.advance(timedelta(days=2))
    assert await document(store) is not None
    assert await store.load(["h"]) == [None]
    assert await store.find("p") == []
    assert await store.count() == 0
    assert [one async for one in store.iterate()] == []
    changes = [Apply("h"), Apply("h", expect={"k": b"v"})]
    assert [await store.commit([one]) for one in changes] == [[GONE], [GONE]]
    assert await document(store) is not None
    before = await document(store)
    assert await store.commit([Delete("h")]) == [GONE]
    assert await document(store) == before


async def test_indexes(store):
    """R4: a TTL index, one by principal, by expiry and by end, made once."""
    await store.close()
    await store.open()
    found = await store._collection.index_information()
    keys = {one["key"][0][0]: one for one in found.values()}
    assert set(keys) == {"_id", "ttl", "principal", "expires_at", "ended_at"}
    assert keys["ttl"]["expireAfterSeconds"] == 0
    assert store.expires_natively


UNFIT = {
    "it leaves some out": (
        "ttl",
        {
            "expireAfterSeconds": 0,
            "partialFilterExpression": {"principal": {"$exists": True}},
        },
    ),
    "of two fields": ([("ttl", 1), ("principal", 1)], {"name": "ttl_1"}),
}


@pytest.mark.parametrize(("keys", "options"), UNFIT.values(), ids=UNFIT)
async def test_an_index_that_does_not_delete(store, keys, options, caplog):
    """R4: where the server would leave expired sessions, a sweeper does not."""
    await store._collection.drop_indexes()
    await store._collection.create_index(keys, **options)
    await store.close()
    with caplog.at_level(logging.WARNING):
        await store.open()
    assert not store.expires_natively
    assert "createIndex({ttl: 1}" in caplog.text


async def test_an_index_beside_the_one_that_deletes(store, caplog):
    """R4: another index that begins with the same field does not hide it."""
    await store._collection.drop_indexes()
    await store._collection.create_index("ttl", expireAfterSeconds=1)
    await store._collection.create_index([("ttl", 1), ("principal", 1)])
    await store.close()
    await store.open()
    assert store.expires_natively
    assert caplog.messages == []


@pytest.mark.parametrize("natively", [True, False])
async def test_an_index_that_is_there_otherwise(store, natively, caplog):
    """R4: an index that somebody else made is left as it is, and used if it can be."""
    options = {"expireAfterSeconds": 3600} if natively else {}
    await store._collection.drop_indexes()
    await store._collection.create_index("ttl", name="theirs", **options)
    await store.close()
    with caplog.at_level(logging.WARNING):
        await store.open()
    found = await store._collection.index_information()
    ours = {"expires_at_1", "principal_1", "ended_at_1"}
    assert set(found) == {"_id_", "theirs", *ours}
    assert store.expires_natively is natively
    assert ("createIndex({ttl: 1}" in caplog.text) is not natively
    store.clock.advance(timedelta(days=2))
    assert await store.sweep(10) == 1


async def test_indexes_that_may_not_be_made(caplog):
    """R4, F3: a user without that right gets one warning, and sessions, and a sweeper."""
    with MongoServer(auth=True) as server:
        actions = ["find", "insert", "update", "remove"]
        right = {"resource": {"db": "web", "collection": ""}, "actions": actions}
        server.run("createRole", "few", privileges=[right], roles=[])
        server.run("createUser", "u", pwd="p", roles=["few"])
        url = f"mongodb://u:p@{server.address}/web?authSource=admin"
        clock = FakeClock()
        async with MongoStore(url, clock=clock) as store:
            assert not store.expires_natively
            assert await store.commit([new_record()]) == [APPLIED]
            assert await values(store) == {"k": b"v"}
            clock.advance(timedelta(days=2))
            assert (await store.count(), await store.sweep(10)) == (0, 1)
        assert len(caplog.records) == 1
        assert 'db.getCollection("tornado_sessions").createIndex' in caplog.text
        caplog.clear()
        async with MongoStore(url.replace("u:p", ":".join(ROOT))) as store:
            assert store.expires_natively  # an administrator made them
        right["actions"] = [*actions, "listIndexes"]
        server.run("updateRole", "few", privileges=[right])
        async with MongoStore(url) as store:
            assert store.expires_natively
        assert caplog.records == []


async def test_sweeping(store):
    """R4: at most so many are deleted as were asked for, and counted as they went."""
    await store.commit([new_record(f"h{n}") for n in range(4)])
    store.clock.advance(timedelta(days=2))
    for limit in (0, -1, -256):
        assert await store.sweep(limit) == 0
    assert await store._collection.count_documents({}) == 5
    assert await store.sweep(2) == 2
    collection = store._collection

    class Others:
        """A collection in which another sweeper is a moment faster."""

        async def delete_many(self, where):
            await collection.delete_one({"_id": where["_id"]["$in"][0]})
            return await collection.delete_many(where)

    store._collection = Others()
    assert await store.sweep(3) == 2
    store._collection = collection


@pytest.mark.parametrize("batch", [1, 0, -1, -256])
async def test_batches_of_none(store, batch):
    """R4: whatever the size of a batch, `iterate` comes to its end and leaves out nobody."""
    await store.commit([new_record("a"), new_record("b")])
    found = [one.handle async for one in store.iterate(batch)]
    assert found == ["a", "b", "h"]


BROKEN = {
    "a type": {"$set": {"epoch": "x"}},
    "a text for bytes": {"$set": {"token": "YWJj"}},
    "a field": {"$unset": {"token": ""}},
    "no values": {"$unset": {"values": ""}},
    "values of another type": {"$set": {"values": [b"v"]}},
    "a value of another type": {"$set": {"values.k": "text"}},
    "a name that was not escaped": {"$set": {"values.%zz": b"v"}},
    "a name cut off": {"$set": {"values.%00": b"v"}},
    "an expiry of another type": {"$set": {"expires_at": "never"}},
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN)
async def test_a_broken_document(store, damage):
    """S6, F3: it is a `CodecError` in its place, harms no neighbour, and can be deleted."""
    await store.commit([new_record(handle, principal="q") for handle in "abc"])
    await store._collection.update_one({"_id": "b"}, damage)
    first, broken, last = await store.load(["a", "b", "c"])
    assert isinstance(broken, CodecError)
    assert isinstance(first, Record)
    assert isinstance(last, Record)
    assert sorted(one.handle for one in await store.find("q")) == ["a", "c"]
    assert len([one async for one in store.iterate(1)]) == 3
    outcomes = await store.commit([Apply(handle, {"k": b"1"}) for handle in "abc"])
    assert (outcomes[0], outcomes[2]) == (APPLIED, APPLIED)
    await store.commit([Delete("b")])
    assert await store.load(["b"]) == [None]


async def test_a_date_of_a_far_future(store):
    """S6: a date that Python cannot hold harms nobody."""
    far = {"$set": {"ttl": DatetimeMS(1 << 62)}}
    await store._collection.update_one({"_id": "h"}, far)
    assert await values(store) == {"k": b"v"}
