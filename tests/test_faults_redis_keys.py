"""Keys that hold something else: WRONGTYPE is the trouble of those concerned only."""

from contextlib import ExitStack, closing

import pytest

from faultkit import Browser, all_fine, in_namespace, under_load
from httpkit import ticket_in
from rediskit import shared_redis, shared_server
from tornado_sessions import StoreError
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome
from tornado_sessions.stores.url import store_from_url

pytestmark = pytest.mark.slow


async def test_a_key_that_holds_something_else(caplog):
    """F3 R1: a WRONGTYPE key is one visitor's 503; the others of the batch are fine."""
    server = shared_server("standalone")
    stack = ExitStack()
    async with under_load(server.url) as load:
        victim = stack.enter_context(closing(Browser(load.port)))
        await victim.fetch("/set", "who=victim")
        store = load.site.store
        handle = ticket_in(victim.cookie.partition("=")[2]).handle
        _, key, _ = store._layout.place(handle)
        server.command("DEL", key)
        server.command("SET", key, "something else")
        meanwhile = load.phase()
        for request in (("/",), ("/set", "a=1"), ("/logout", "")):
            assert (await victim.fetch(*request))[0] == 503
        handles = [load.people[0].handle, handle, load.people[1].handle]
        first, wrong, second = await store.load(handles)
        assert (first.handle, second.handle) == (handles[0], handles[2])
        assert isinstance(wrong, StoreError)
        outcomes = await store.commit([Apply(one, {"x": b"1"}) for one in handles])
        assert outcomes[::2] == [Outcome.APPLIED, Outcome.APPLIED]
        assert "WRONGTYPE" in str(outcomes[1])
        await load.served()
        server.command("DEL", key)
        assert (await victim.fetch("/"))[0] == 200
        stack.close()
    all_fine(meanwhile)
    assert "delete it, or change the namespace" in caplog.text


def meta(now, principal=None):
    return Meta(
        token=b"t",
        created_at=now,
        last_seen_at=now,
        epoch_at=now,
        rotated_at=now,
        expires_at=now + 600,
        principal=principal,
    )


@pytest.fixture(params=["standalone", "cluster"])
async def spoilt(request):
    """A store, and a function that makes a key of it a string."""
    store = store_from_url(in_namespace(shared_redis(request.param)))
    server = shared_server(request.param)

    def spoil(key):
        node = server.owner(key) if request.param == "cluster" else server
        node.command("DEL", key)
        node.command("SET", key, "something else")

    async with store:
        yield store, spoil
        await store.clear()


async def test_an_index_by_principal_that_is_something_else(spoilt):
    """F3 R2: whose index is broken can neither begin nor log in, clearly; others can."""
    store, spoil = spoilt
    now = store.clock()
    assert await store.commit([Create("old", meta(now), {"a": b"1"})]) == [
        Outcome.APPLIED
    ]
    before = await store.load(["old", "new"])
    login = {"principal": "ada", "token": b"u", "expires_at": now + 900.0}
    spoil(store._layout.principal("ada"))
    outcomes = await store.commit(
        [
            Create("new", meta(now, "ada"), {"a": b"1"}),
            Apply("old", {"a": b"2"}, meta=login),
            Create("other", meta(now, "bob"), {"a": b"1"}),
        ]
    )
    assert [type(one) for one in outcomes] == [StoreError, StoreError, Outcome]
    assert all("WRONGTYPE" in str(one) for one in outcomes[:2])
    assert await store.load(["old", "new"]) == before
    assert [one.handle for one in await store.find("bob")] == ["other"]
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.find("ada")


async def test_an_index_of_the_live_that_is_something_else(spoilt):
    """F3 R2: what cannot be indexed is not stored; what can be read still is."""
    store, spoil = spoilt
    now = store.clock()
    old = Create("old", meta(now, "ada"), {"a": b"1"})
    assert await store.commit([old]) == [Outcome.APPLIED]
    before = await store.load(["old", "new"])
    for handle in ("old", "new"):
        spoil(store._layout.live[store._layout.place(handle)[0]])
    later = {"expires_at": now + 900.0}
    changes = [
        Create("new", meta(now, "ada"), {"a": b"1"}),
        Apply("old", {"a": b"2"}, meta=later, principal="ada"),
    ]
    outcomes = await store.commit(changes)
    assert [type(one) for one in outcomes] == [StoreError, StoreError]
    assert all("WRONGTYPE" in str(one) for one in outcomes)
    assert await store.load(["old", "new"]) == before
    assert [one.handle for one in await store.find("ada")] == ["old"]
    with pytest.raises(StoreError, match="WRONGTYPE"):
        await store.count()


async def test_an_end_whose_index_is_something_else(spoilt):
    """F3 R2: an end is carried out and told, or it is an error and nothing happened."""
    store, spoil = spoilt
    old = Create("old", meta(store.clock()), {"a": b"1"})
    assert await store.commit([old]) == [Outcome.APPLIED]
    spoil(store._layout.live[store._layout.place("old")[0]])
    (outcome,) = await store.commit([Delete("old")])
    (left,) = await store.load(["old"])
    assert (left is None) == (outcome is Outcome.APPLIED)
