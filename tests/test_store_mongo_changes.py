"""MongoStore: what becomes of changes, one by one and in batches."""

import base64
import traceback
from datetime import timedelta

import msgspec
import pytest
from pymongo import DeleteOne, WriteConcern
from pymongo.errors import OperationFailure

from mongokit import MongoServer, apply, mongo_store, new_record, values
from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import Apply, Delete, Outcome
from tornado_sessions.stores.mongo import MongoStore
from tornado_sessions.stores.mongo_calls import answer_of
from tornado_sessions.stores.mongo_changes import Changes
from tornado_sessions.testing import FakeClock

APPLIED, GONE, CONFLICT = Outcome.APPLIED, Outcome.GONE, Outcome.CONFLICT


@pytest.fixture
async def store():
    async with mongo_store(clock=FakeClock()) as opened:
        await opened.commit([new_record("h", principal="p")])
        yield opened


async def document(store, handle="h"):
    return await store._collection.find_one({"_id": handle})


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
    "a handle of a KiB": new_record("x" * 1025),
    "a handle of 17 MB": new_record("x" * (17 << 20)),
    "17 MB to take away": apply("h", {"k": b"x"}, ["u" * (17 << 20)]),
    "17 MB to take away, if": apply("h", {}, ["u" * (17 << 20)], {"k": b"v"}),
    "a key of 17 MB": new_record("x", {"." * (4 << 20): b""}),
    "a user agent of 17 MB": new_record("x", user_agent="u" * (17 << 20)),
    "a principal of 17 MB": apply(meta={"principal": "u" * (17 << 20)}),
    "a token of 17 MB": apply("h", {"k": b"x"}, expect_token=bytes(17 << 20)),
    "many to expect": apply("h", {}, (), {f"{n:x}": b"" for n in range(300_000)}),
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


async def test_a_handle_that_is_too_long(store):
    """R1, R2: there is none of it, and its neighbours are as they are."""
    assert await store.commit([new_record("é" * 512)]) == [APPLIED]
    for handle in ["x" * 1025, "é" * 513, "x" * (17 << 20)]:
        asked = [Apply(handle, {"k": b"1"}), Delete(handle), Apply("h", {"k": b"1"})]
        assert await store.commit(asked) == [GONE, GONE, APPLIED]
        none, there, edge = await store.load([handle, "h", "é" * 512])
        assert none is None
        assert (there.handle, edge.handle) == ("h", "é" * 512)


async def test_a_principal_that_is_too_long(store):
    """F3, S9: what the driver refuses to send is a `StoreError`, which quotes none of it."""
    secret = b"5ecret"
    with pytest.raises(StoreError, match="too large") as info:
        await store.find(secret.decode() * (17 << 18))
    assert not quoted(info.value, secret)


@pytest.mark.parametrize("expect", [{}, {"k": b"v"}], ids=["blind", "expecting"])
async def test_a_key_that_is_set_and_taken_away(store, expect):
    """R2: it is set, as on every store."""
    change = Apply("h", {"a": b"1", "k": b"2"}, ["a", "k", "none"], expect)
    assert await store.commit([change]) == [APPLIED]
    assert await values(store) == {"a": b"1", "k": b"2"}


async def test_a_unique_index_of_somebody_else(store):
    """R2, F3: CONFLICT is for handles that are taken; else an administrator is asked."""
    await store._collection.create_index("ip", unique=True, name="theirs")
    batch = [new_record("a", ip="1"), new_record("b", ip="1"), new_record("h", ip="2")]
    first, second, taken = await store.commit(batch)
    assert (first, taken) == (APPLIED, CONFLICT)
    assert isinstance(second, StoreError)
    assert "unique index" in str(second)
    (outcome,) = await store.commit([Apply("h", meta={"ip": "1"})])
    assert isinstance(outcome, StoreError)
    assert "unique index" in str(outcome)


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


@pytest.fixture
def meanwhile(monkeypatch):
    """Do something between a batch of updates and the question which of them are gone."""
    live = Changes._live

    def do(act):
        async def late(changes, handles, now):
            await act()
            return await live(changes, handles, now)

        monkeypatch.setattr(Changes, "_live", late)

    return do


async def test_what_ends_while_a_batch_is_under_way(store, meanwhile):
    """C3, R1: a record that ended since it was changed is gone, its neighbour is not."""
    await store.commit([new_record("a"), new_record("b")])
    meanwhile(lambda: store._collection.delete_one({"_id": "a"}))
    batch = [Apply("a", {"k": b"1"}), Apply("none"), Apply("b", {"k": b"1"})]
    assert await store.commit(batch) == [GONE, GONE, APPLIED]


async def test_clocks_that_differ(store, meanwhile):
    """C3, R1: where something came back since, each is sent again by itself."""
    await store.commit([new_record("old", expires_at=store.clock() - 1)])
    later = {"$set": {"expires_at": store.clock() + 10}}
    meanwhile(lambda: store._collection.update_one({"_id": "old"}, later))
    outcomes = await store.commit([Apply("h"), Apply("old"), Apply("none")])
    assert outcomes == [APPLIED, APPLIED, GONE]


async def test_clocks_that_differ_where_something_is_expected(store, meanwhile):
    """C2, C3, R1: what cannot be sent again is an error, rather than a guess."""
    await store.commit([new_record("old", expires_at=store.clock() - 1)])
    await store.commit([new_record("a"), new_record("b")])
    later = {"$set": {"expires_at": store.clock() + 10}}
    meanwhile(lambda: store._collection.update_one({"_id": "old"}, later))
    expecting = [
        Apply("h", {"k": b"1"}, (), {"k": b"v"}),
        Apply("b", {"k": b"1"}, expect_token=b"t"),
    ]
    batch = [Apply("a", {"k": b"1"}), *expecting, Apply("old"), Apply("none")]
    outcomes = await store.commit(batch)
    for outcome in outcomes[1:3]:
        assert isinstance(outcome, StoreError)
        assert "clocks" in str(outcome)
    assert [outcomes[0], *outcomes[3:]] == [APPLIED, APPLIED, GONE]
    assert await values(store, "a") == {"k": b"1"}


async def test_the_handle_of_an_expired_record_is_free(store):
    """R2, R3: also in a batch with handles that are taken, and with the same one twice."""
    await store.commit([new_record("old"), new_record("live", expires_at=9e9)])
    store.clock.advance(timedelta(days=2))
    again = new_record("old", {"n": b"1"}, expires_at=9e9)
    outcomes = await store.commit([new_record("live"), again, again])
    assert outcomes == [CONFLICT, APPLIED, CONFLICT]
    assert await values(store, "old") == {"n": b"1"}


async def test_an_expired_record_that_the_server_deletes_meanwhile(store, monkeypatch):
    """R2, R3: a handle that is free by then is free, whoever deleted what was there."""
    await store.commit([new_record("old", expires_at=store.clock() - 1)])
    bulk = Changes._bulk

    async def late(changes, requests):
        if isinstance(requests[0], DeleteOne):
            await store._collection.delete_one({"_id": "old"})
        return await bulk(changes, requests)

    monkeypatch.setattr(Changes, "_bulk", late)
    assert await store.commit([new_record("old", {"n": b"1"})]) == [APPLIED]
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
