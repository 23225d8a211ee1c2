"""MongoStore: what is in its documents, what makes them unreadable, what is refused."""

import base64
import itertools
import logging
import time
import traceback
from datetime import timedelta

import msgspec
import pytest
from bson.datetime_ms import DatetimeMS
from pymongo import WriteConcern
from pymongo.errors import OperationFailure

from mongokit import ROOT, MongoServer, apply, mongo_store, new_record, values
from tornado_sessions.errors import CodecError, StoreError
from tornado_sessions.stores.base import Apply, Delete, Outcome, Record
from tornado_sessions.stores.mongo import MongoStore
from tornado_sessions.stores.mongo_documents import escaped, unescaped
from tornado_sessions.stores.mongo_errors import answer_of
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
    assert await store.commit([Delete("h")]) == [GONE]
    assert await document(store) is None


async def test_nothing_is_upserted(store):
    """R2, C3: no apply of any form makes a document where there is none."""
    later = {"expires_at": store.clock() + 86400 * 9}
    forms = [
        Apply("none"),
        Apply("none", {"k": b"1"}),
        Apply("none", unset=["k"]),
        Apply("none", meta=later),
        Apply("none", {"k": b"1"}, expect={"k": None}),
        Apply("none", {"k": b"1"}, expect_token=b"t"),
    ]
    for form in forms:
        assert await store.commit([form]) == [GONE]
    several = [Apply(f"none{n}", one.set, one.unset) for n, one in enumerate(forms)]
    assert await store.commit(several) == [GONE] * len(several)
    assert await store._collection.count_documents({}) == 1


@pytest.mark.parametrize("expect", [{}, {"k": b"v"}], ids=["blind", "expecting"])
async def test_every_form_of_an_apply_does_the_same(store, expect):
    """C4, R2: fields are set, taken away and only moved forward, expecting or not."""
    before = (await store.load(["h"]))[0].meta
    later, fields = before.expires_at + 9, {"epoch": 7, "ip": "$ip", "principal": None}
    moves = {"expires_at": later, "last_seen_at": before.last_seen_at - 9}
    await store.commit([Apply("h", expect=expect, meta={**moves, **fields})])
    found = (await store.load(["h"]))[0].meta
    assert found == msgspec.structs.replace(before, expires_at=later, **fields)
    moves = {"expires_at": before.expires_at - 9, "last_seen_at": later}
    ttl = (await document(store))["ttl"]
    await store.commit([Apply("h", {"k": b"$k"}, expect=expect, meta=moves)])
    last = (await store.load(["h"]))[0]
    assert last.meta == msgspec.structs.replace(found, last_seen_at=later)
    assert last.values == {"k": b"$k"}
    assert (await document(store))["ttl"] == ttl
    assert await store.find("p") == []


async def test_indexes(store):
    """R4: a TTL index, one by principal and one by expiry, made once."""
    await store.close()
    await store.open()
    found = await store._collection.index_information()
    keys = {one["key"][0][0]: one for one in found.values()}
    assert set(keys) == {"_id", "ttl", "principal", "expires_at"}
    assert keys["ttl"]["expireAfterSeconds"] == 0
    assert store.expires_natively


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
    assert set(found) == {"_id_", "theirs", "expires_at_1", "principal_1"}
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


UNUSABLE = {
    "a value of another type": new_record("x", {"k": "text"}),
    "a key of another type": new_record("x", {5: b"v"}),
    "a principal": new_record("x", principal="\ud800"),
    "a handle": new_record("\ud800"),
    "a user agent": new_record("x", user_agent="\ud800"),
    "an epoch": new_record("x", epoch=1 << 70),
    "a date": apply(meta={"expires_at": float("nan")}),
    "no date": apply(meta={"expires_at": None}),
    "an unknown field": apply(meta={"nonsense": 1}),
    "an expectation": apply("h", {"k": b"x"}, (), {"k": "text"}),
    "a token": apply("h", {"k": b"x"}, expect_token="text"),
    "17 MB": new_record("x", {"k": bytes(17 << 20)}),
    "17 MB more": apply("h", {"k": bytes(17 << 20)}),
    "17 MB to expect": apply("h", {"k": b"x"}, (), {"k": bytes(17 << 20)}),
}


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE)
async def test_an_unusable_change(store, change):
    """R1: it gets a `StoreError` in its place; nothing of it is stored, all else is."""
    await store.commit([new_record("a"), new_record("z")])
    outcomes = await store.commit(
        [Apply("a", {"k": b"1"}), new_record("new"), change, Apply("z", {"k": b"1"})]
    )
    assert isinstance(outcomes[2], StoreError)
    assert [outcomes[0], outcomes[1], outcomes[3]] == [APPLIED] * 3
    assert await values(store, "z") == {"k": b"1"}
    assert await values(store) == {"k": b"v"}
    assert await store.load(["x"]) == [None]


async def test_a_record_that_grows_too_large(store):
    """R1, F3: what only the server can know is too large is a `StoreError` as well."""
    await store.commit([new_record("a"), Apply("h", {"big": bytes(12 << 20)})])
    outcomes = await store.commit(
        [Apply("h", {"more": bytes(5 << 20)}), Apply("a", {"k": b"1"})]
    )
    assert isinstance(outcomes[0], StoreError)
    assert "16 MiB" in str(outcomes[0])
    assert outcomes[1] is APPLIED
    assert set(await values(store)) == {"k", "big"}


async def test_a_batch_of_256_with_everything_in_it(store):
    """R1: each outcome stands where its change stood, in one large mixed batch."""
    await store.commit([new_record(f"h{n}") for n in range(256)])
    kinds = [
        (APPLIED, lambda n: Apply(f"h{n}", {"k": b"1"})),
        (GONE, lambda n: Apply(f"no{n}", {"k": b"1"})),
        (CONFLICT, lambda n: Apply(f"h{n}", {"k": b"1"}, (), {"k": b"x"})),
        (APPLIED, lambda n: Apply(f"h{n}", {"k": b"1"}, (), {"k": b"v"})),
        (GONE, lambda n: Apply(f"no{n}", {"k": b"1"}, (), {"k": b"v"})),
        (APPLIED, lambda n: Delete(f"h{n}")),
        (GONE, lambda n: Delete(f"no{n}")),
        (CONFLICT, lambda n: new_record(f"h{n}")),
        (APPLIED, lambda n: new_record(f"new{n}")),
        (StoreError, lambda n: new_record(f"bad{n}", {"k": None})),
    ]
    chosen = [kinds[(n * 7) % len(kinds)] for n in range(256)]
    outcomes = await store.commit([make(n) for n, (_, make) in enumerate(chosen)])
    seen = [type(one) if isinstance(one, Exception) else one for one in outcomes]
    assert seen == [expected for expected, _ in chosen]


async def test_the_handle_of_an_expired_record_is_free(store):
    """R2, R3: also in a batch with handles that are taken, and with the same one twice."""
    await store.commit([new_record("old"), new_record("live", expires_at=9e9)])
    store.clock.advance(timedelta(days=2))
    again = new_record("old", {"n": b"1"}, expires_at=9e9)
    outcomes = await store.commit([new_record("live"), again, again])
    assert outcomes == [CONFLICT, APPLIED, CONFLICT]
    assert await values(store, "old") == {"n": b"1"}


async def test_a_write_that_too_few_confirmed():
    """F3: what the write concern asks for did not come about: not acknowledged."""
    async with mongo_store("replica set") as store:
        two = store._collection.with_options(write_concern=WriteConcern(2, 50))
        store._collection, usual = two, store._collection
        changes = [
            new_record(),
            Apply("h"),
            Apply("h", expect={"k": None}),
            Delete("h"),
        ]
        for change in changes:
            with pytest.raises(StoreError, match="more members than the replica set"):
                await store.commit([change])
        store._collection = usual


def quoted(error, secret):
    """Tell whether what a log shows of an error has *secret* in it, in some form."""
    shown = "".join(traceback.format_exception(error)).lower()
    forms = secret.decode(), secret.hex(), base64.b64encode(secret).decode()
    return any(form.lower() in shown for form in forms)


async def test_errors_of_one_change_quote_no_values(store):
    """S9: the server says what it found in the document; we do not."""
    secret = b"5ecret"
    damage = {"$set": {"values": secret.decode()}}
    await store._collection.update_one({"_id": "h"}, damage)
    (outcome,) = await store.commit([Apply("h", {"k": secret})])
    assert isinstance(outcome, StoreError)
    assert not quoted(outcome, secret)


async def test_errors_of_commands_quote_no_values():
    """S9: the server repeats the command that it refuses; we do not."""
    text = "not authorized on db to execute command { update: { k: 5ecret } }"
    details = {"codeName": "Unauthorized", "errmsg": text}

    async def refused():
        raise OperationFailure(text, 13, details)

    with pytest.raises(StoreError, match="Unauthorized, code 13") as info:
        await answer_of(refused())
    assert isinstance(info.value.__cause__, OperationFailure)
    assert not quoted(info.value.__cause__, b"5ecret")
    assert info.value.__context__ is None


async def test_a_user_who_may_only_read():
    """F3: a change is refused with what to ask for."""
    with MongoServer(auth=True) as server:
        server.run("createUser", "u", pwd="p", roles=["readAnyDatabase"])
        url = f"mongodb://u:p@{server.address}/?authSource=admin"
        async with MongoStore(url) as store:
            assert await store.load(["h"]) == [None]
            with pytest.raises(StoreError, match="grant readWrite"):
                await store.commit([Apply("h", {"k": b"1"})])
