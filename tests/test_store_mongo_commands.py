"""P7: what the server is asked, as counted by the server."""

import asyncio

import pytest

from httpkit import Acts, Page, serving
from mongokit import mongo_store, new_record, shared_server
from tornado_sessions.stores.base import Apply, Delete, Outcome

KINDS = pytest.mark.parametrize("kind", ["standalone", "replica set"])


class Mutates(Page):
    """Counts up, atomically."""

    async def get(self):
        await self.session.mutate("n", lambda number: number + 1, 0)


@pytest.fixture
async def site():
    async with mongo_store() as store:
        routes = [("/mutate", Mutates), ("/.*", Acts)]
        async with serving(routes, store, session_idle_timeout=3600) as site:
            yield site


@pytest.fixture
async def visitor(site):
    """One who has a session."""
    visitor = site.visitor()
    await visitor.get("/?set=k:v")
    return visitor


@pytest.fixture
def counting(site):
    return shared_server("standalone").counting


@KINDS
async def test_a_batch_is_one_command(kind):
    """P7, R1: n creates, n loads and n applies are one command each, however many."""
    server = shared_server(kind)
    handles = [f"h{number}" for number in range(256)]
    async with mongo_store(kind) as store:
        # The first write of a driver's session makes a replica set look it up.
        await store.commit([new_record("first")])
        with server.counting() as creating:
            await store.commit([new_record(handle) for handle in handles])
        with server.counting() as loading:
            assert len(await store.load(handles)) == len(handles)
        with server.counting() as applying:
            blind = [Apply(one, {"k": b"1"}) for one in handles[::2]]
            expecting = [Apply(one, {"k": b"1"}, (), {"k": b"v"}) for one in handles]
            await store.commit([*blind, *expecting[1::2]])
        with server.counting() as counting_up:
            await store.commit([Apply(one, expect={"k": b"no"}) for one in handles])
    assert creating == {"insert": 1}
    assert loading == {"find": 1}
    assert applying == {"update": 1}
    assert counting_up == {"update": 1}


async def test_what_is_gone_costs_one_question():
    """P7, R1: which of a batch are gone is asked once, and of a single one never."""
    server = shared_server("standalone")
    async with mongo_store() as store:
        await store.commit([new_record("h")])
        with server.counting() as one:
            assert await store.commit([Apply("none")]) == [Outcome.GONE]
        with server.counting() as many:
            asked = [Apply("none"), Apply("h"), Apply("never")]
            outcomes = await store.commit(asked)
    assert outcomes == [Outcome.GONE, Outcome.APPLIED, Outcome.GONE]
    assert one == {"update": 1}
    assert many == {"update": 1, "find": 1}


async def test_a_mixed_batch():
    """P7, R1: creates and applies are one command each, deletes one for each."""
    server = shared_server("standalone")
    async with mongo_store() as store:
        await store.commit([new_record(handle) for handle in "abcd"])
        with server.counting() as mixed:
            await store.commit(
                [new_record("e"), Apply("a"), Delete("b"), Apply("c"), Delete("d")]
            )
    assert mixed == {"insert": 1, "update": 1, "findAndModify": 2}


async def test_find_is_one_command():
    """P7: the sessions of a principal are one command, if it has no thousand of them."""
    server = shared_server("standalone")
    async with mongo_store() as store:
        creates = [new_record(f"h{n}", principal="p") for n in range(300)]
        await store.commit(creates)
        with server.counting() as finding:
            assert len(await store.find("p")) == len(creates)
    assert finding == {"find": 1}


async def test_a_stranger_costs_nothing(site, counting):
    """P7, S1: a request without a cookie asks the server nothing."""
    with counting() as found:
        await site.visitor().get("/?touch=k")
    assert found == {}


async def test_a_new_session(site, counting):
    """P7: a first value is one insert."""
    with counting() as found:
        await site.visitor().get("/?set=k:v")
    assert found == {"insert": 1}


async def test_a_request_that_reads(visitor, counting):
    """P7, S2: a read-only request is one find."""
    with counting() as found:
        assert (await visitor.get("/?touch=k")).body == b'{"k": "v"}'
    assert found == {"find": 1}


@pytest.mark.parametrize("path", ["/?set=k:w", "/mutate", "/?login=ada", "/?renew=1"])
async def test_a_request_that_writes(visitor, counting, path):
    """P7: read, modify and write is one find and one update; so is a login."""
    with counting() as found:
        assert (await visitor.get(path)).code == 200
    assert found == {"find": 1, "update": 1}


async def test_a_logout(visitor, counting):
    """P7: load, and one command that ends the session."""
    with counting() as found:
        await visitor.get("/?destroy=1")
    assert found == {"find": 1, "findAndModify": 1}


async def test_an_extension(site, visitor, counting):
    """P7, E3: one update when it is due, which a write carries along; else none."""
    now = site.store.clock()
    site.store.clock = lambda: now + 600
    with counting() as due:
        await visitor.get("/?touch=k")
    with counting() as done:
        await visitor.get("/?touch=k")
    site.store.clock = lambda: now + 1200
    with counting() as with_a_write:
        await visitor.get("/?set=k:w")
    assert due == {"find": 1, "update": 1}
    assert done == {"find": 1}
    assert with_a_write == {"find": 1, "update": 1}


async def test_the_sessions_of_a_user(site, counting):
    """P7: `sessions_of` is one find."""
    for _ in range(3):
        await site.visitor().get("/?login=ada")
    with counting() as found:
        assert len(await site.manager.sessions_of("ada")) == 3
    assert found == {"find": 1}


async def test_requests_of_one_moment(site, counting):
    """P7, R1: sixteen requests at once ask far less often than sixteen times."""
    visitors = [site.visitor() for _ in range(16)]
    await asyncio.gather(*(one.get("/?set=k:v") for one in visitors))
    with counting() as found:
        await asyncio.gather(*(one.get("/?touch=k") for one in visitors))
    assert set(found) == {"find"}
    assert found["find"] < len(visitors)
