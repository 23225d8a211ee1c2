"""The indexes of RedisStore: too much is allowed, too little is not (R4)."""

import asyncio
import secrets
from operator import gt, le

import pytest

from rediskit import RedisCluster, shared_redis
from tornado_sessions import StoreError, store_from_url
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome, Record
from tornado_sessions.stores.redis import RedisStore
from tornado_sessions.stores.redis_transport import Command
from tornado_sessions.testing import FakeClock

APPLIED, GONE = Outcome.APPLIED, Outcome.GONE
KINDS = ["standalone", "cluster"]
HOUR = 3600.0
DAY = 24 * HOUR


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=KINDS)
async def store(request, clock):
    """A store on one server, and on three where indexes are elsewhere."""
    namespace = f"t{secrets.token_hex(4)}"
    url = shared_redis(request.param)
    async with RedisStore(url, namespace=namespace, clock=clock) as store:
        yield store
        await store.clear()


def meta(clock, ttl=HOUR, **fields):
    now = clock()
    times = dict.fromkeys(("created_at", "last_seen_at", "epoch_at", "rotated_at"), now)
    return Meta(**{**times, "token": b"t", "expires_at": now + ttl, **fields})


def extension(clock, ttl):
    return {"last_seen_at": clock(), "expires_at": clock() + ttl}


async def did(store, *changes):
    assert await store.commit(changes) == [APPLIED] * len(changes)


async def ask(store, *command):
    words = [
        word if isinstance(word, bytes) else str(word).encode() for word in command
    ]
    (answer,) = await store._transport.send([Command(words, words[1])])
    if isinstance(answer, Exception):
        raise answer
    return answer


async def indexed(store, principal):
    """What the index of *principal* holds, right or wrong: handles and scores."""
    key = store._layout.principal(principal)
    handles = await ask(store, "ZRANGE", key, 0, -1)
    return {
        handle: float(await ask(store, "ZSCORE", key, handle)) for handle in handles
    }


async def found(store, principal):
    return sorted(record.handle for record in await store.find(principal))


@pytest.mark.parametrize("hint", ["alice", None, "somebody else"])
async def test_a_longer_life_is_indexed(store, clock, hint):
    """R4: whoever knows or does not know whose it is, the index follows."""
    await did(store, Create("h", meta(clock, principal="alice"), {}))
    clock.advance(1800)
    longer = extension(clock, 10 * HOUR)
    await did(store, Apply("h", meta=longer, principal=hint))
    (score,) = (await indexed(store, "alice")).values()
    assert score >= longer["expires_at"]
    clock.advance(9 * HOUR)
    assert await found(store, "alice") == ["h"]
    assert await found(store, "somebody else") == []


async def test_an_index_behind_its_records_loses_nothing(store, clock):
    """R4: even if it never heard of the longer life, the record is found."""
    await did(store, Create("h", meta(clock, principal="alice"), {}))
    key = store._layout.principal("alice")
    await did(store, Apply("h", meta=extension(clock, 10 * HOUR), principal="alice"))
    await ask(store, "ZADD", key, clock() + 60, b"h")
    clock.advance(2 * HOUR)
    assert await found(store, "alice") == ["h"]
    assert await indexed(store, "alice") != {}


@pytest.mark.parametrize("hint", ["alice", None])
async def test_what_ended_leaves_the_index(store, clock, hint):
    """R4: a delete takes it out, whether or not it says whose it was."""
    await did(store, Create("h", meta(clock, principal="alice"), {}))
    await did(store, Delete("h", principal=hint))
    assert await indexed(store, "alice") == {}
    assert await store.count() == 0


async def test_another_principal(store, clock):
    """R4: found under the new name at once; the old index asks the record."""
    await did(store, Create("h", meta(clock, principal="alice"), {}))
    moved = {"principal": "bob", **extension(clock, HOUR)}
    await did(store, Apply("h", meta=moved, principal="alice"))
    assert await found(store, "bob") == ["h"]
    assert await found(store, "alice") == []
    back = {"principal": "alice", **extension(clock, HOUR)}
    await did(store, Apply("h", meta=back, principal="bob"))
    assert await found(store, "alice") == ["h"]
    assert await found(store, "bob") == []


async def test_reading_the_index_in_the_middle_of_a_login(store, clock):
    """R4: in a cluster it is there before the record is; a reader leaves it alone."""
    await did(store, Create("h", meta(clock), {}))
    perform, looked = store._calls.perform, []

    async def parked(operations, now):
        answers = await perform(operations, now)
        if operations and operations[0].kind == b"index" and not looked:
            looked.append(await found(store, "alice"))
        return answers

    store._calls.perform = parked
    login = {"principal": "alice", **extension(clock, HOUR)}
    await did(store, Apply("h", meta=login))
    store._calls.perform = perform
    assert looked == ([[]] if store._calls.by_slot else [])
    assert await found(store, "alice") == ["h"]


async def test_logins_while_others_look(store, clock):
    """R4: twenty log in while somebody asks for their sessions all the time."""
    handles = [f"h{n}" for n in range(20)]
    await did(store, *(Create(handle, meta(clock), {}) for handle in handles))
    over = asyncio.Event()

    async def look():
        while not over.is_set():
            await store.find("alice")

    looking = [asyncio.create_task(look()) for _ in range(2)]
    login = {"principal": "alice", **extension(clock, HOUR)}
    await asyncio.gather(*(did(store, Apply(h, meta=login)) for h in handles))
    over.set()
    await asyncio.gather(*looking)
    assert await found(store, "alice") == sorted(handles)


async def test_a_lost_extension_of_the_index(clock):
    """R4: the record lives longer, the index did not hear of it, and others log in."""
    url = f"{shared_redis('cluster')}?namespace=t{secrets.token_hex(4)}"
    async with store_from_url(url) as store:
        store.clock = clock
        await did(store, Create("h", meta(clock, 14 * DAY, principal="al"), {}))
        clock.advance(10 * DAY)
        longer = Apply("h", meta=extension(clock, 14 * DAY), principal="al")
        operation = store._operations.of(longer, clock())
        operation.index = None  # lost, with the server process for example
        (answer,) = await store._calls.perform([operation], clock())
        assert answer.letter == "A"
        clock.advance(4 * DAY + 2 * HOUR)
        await did(store, Create("new", meta(clock, 14 * DAY, principal="al"), {}))
        assert await found(store, "al") == ["h", "new"]
        await store.clear()


@pytest.mark.parametrize("hint", ["alice", None])
async def test_an_earlier_expiry_at_login(store, clock, hint):
    """R4, C4: a server whose clock is behind does not take the session out."""
    await did(store, Create("h", meta(clock, 10 * HOUR), {}))
    login = {"principal": "alice", **extension(clock, 60)}
    await did(store, Apply("h", meta=login, principal=hint))
    clock.advance(9 * HOUR)
    await did(store, Create("other", meta(clock, principal="alice"), {}))
    assert await found(store, "alice") == ["h", "other"]


async def test_clocks_that_differ(store, clock):
    """R4: who is ten minutes ahead does not take away what lives for others."""
    await did(store, Create("h", meta(clock, 300, principal="alice"), {}))
    clock.advance(600)
    assert await found(store, "alice") == []
    clock.advance(-600)
    assert await found(store, "alice") == ["h"]


async def test_a_malformed_principal(store, clock):
    """R1, S6: ending such a session harms no neighbour."""
    await did(store, Create("h", meta(clock, principal="alice"), {}))
    await did(store, Create("g", meta(clock), {}))
    await ask(store, "HSET", store._layout.place("h")[1], "principal", "garbage")
    await did(store, Delete("h"), Apply("g", set={"k": b"v"}))
    (record,) = await store.load(["g"])
    assert record.values == {"k": b"v"}


async def test_many_malformed_records_are_read_in_one_go(store, clock):
    """R1, S6: one by one, but all in one round trip."""
    await did(store, *(Create(f"h{n}", meta(clock), {}) for n in range(30)))
    await ask(store, "HSET", store._layout.place("h7")[1], "epoch", "x")
    send, sent = store._transport.send, []

    async def counted(commands):
        sent.append(len(commands))
        return await send(commands)

    store._transport.send = counted
    loaded = await store.load([f"h{n}" for n in range(30)])
    assert [n for n, one in enumerate(loaded) if not isinstance(one, Record)] == [7]
    assert len(sent) <= 2


async def test_an_entry_that_waits_for_its_record_is_left(store, clock):
    """R4: in a cluster the index comes first; reading it must not undo that."""
    wait = store._operations.index("alice", b"h", b"%r" % (clock() + HOUR))
    await store._calls.perform([wait], clock())
    assert await found(store, "alice") == []
    await did(store, Create("h", meta(clock), {}))
    await did(store, Apply("h", meta={"principal": "alice"}))
    assert await found(store, "alice") == ["h"]


async def test_what_is_long_over_leaves_the_index(store, clock):
    """R4: the index of somebody who comes every day does not grow for ever."""
    for day in range(5):
        await did(store, Create(f"h{day}", meta(clock, principal="alice"), {}))
        clock.advance(DAY)
        # The clock of Redis goes on by itself.
        await ask(store, "PEXPIRE", store._layout.principal("alice"), 60_000)
    assert list(await indexed(store, "alice")) == [b"h4"]
    assert await found(store, "alice") == []
    assert await indexed(store, "alice") == {}


async def test_indexes_expire(store, clock):
    """R4: Redis forgets an index when its last session is over, not before."""
    await did(store, Create("h", meta(clock, 100, principal="alice"), {}))
    await did(store, Apply("h", meta=extension(clock, 5000), principal="alice"))
    number, record, _ = store._layout.place("h")
    left = [
        await ask(store, "PTTL", key)
        for key in (
            record,
            store._layout.live[number],
            store._layout.principal("alice"),
        )
    ]
    assert 4900_000 < left[0] <= 5000_000
    assert left[0] < left[1] <= 12200_000
    assert left[0] < left[2] <= 17200_000


async def test_a_login_without_a_clock_is_indexed_while_it_lives(store, clock):
    """R4: the script tells how long that is, if nobody else does."""
    await did(store, Create("h", meta(clock, 10 * HOUR), {}))
    await did(store, Apply("h", meta={"principal": "alice"}))
    assert float((await indexed(store, "alice"))[b"h"]) >= clock() + 10 * HOUR


async def test_nobodys_session_is_not_indexed(store, clock):
    """R4, P7: a change that takes the principal away has no index to follow."""
    await did(store, Create("h", meta(clock, HOUR, principal="alice"), {}))
    gone = {"principal": None, **extension(clock, 5 * HOUR)}
    await did(store, Apply("h", meta=gone))
    score = (await indexed(store, "alice"))[b"h"]
    assert float(score) < clock() + 5 * HOUR


async def test_a_change_leaves_the_life_of_an_index_as_a_rule(store, clock):
    """R4, P7: it was given more than it needs, so that few changes have to see to it."""
    keys = store._layout.live[store._layout.place("h")[0]], store._layout.principal("a")

    async def lives(*seconds):
        for each in seconds:
            await did(store, Apply("h", meta=extension(clock, each), principal="a"))
        return [await ask(store, "PTTL", key) for key in keys]

    await did(store, Create("h", meta(clock, HOUR, principal="a"), {}))
    first = await lives()
    assert all(map(le, await lives(HOUR + 300, HOUR + 600), first))
    assert all(map(gt, await lives(5 * HOUR), first))


async def test_a_change_that_cannot_be_indexed_is_not_stored(store, clock):
    """R4, F3: rather no session than one that `revoke_all` cannot find."""
    key = store._layout.principal("alice")
    await ask(store, "SET", key, "something else")
    new, known = (
        Create("new", meta(clock, principal="alice"), {}),
        Create("h", meta(clock), {}),
    )
    failed, fine = await store.commit([new, known])
    assert isinstance(failed, StoreError)
    assert "holds something else" in str(failed)
    assert fine is APPLIED
    login = {"principal": "alice", **extension(clock, HOUR)}
    (failed,) = await store.commit([Apply("h", meta=login, set={"k": b"v"})])
    assert isinstance(failed, StoreError)
    absent, record = await store.load(["new", "h"])
    assert absent is None
    assert isinstance(record, Record)
    assert (record.meta.principal, record.values) == (None, {})
    with pytest.raises(StoreError, match="holds something else"):
        await store.find("alice")


async def test_fifty_logins_at_once(store, clock):
    """R4, F5: batches of parallel logins leave nobody out."""
    new = [Create(f"h{n}", meta(clock, principal="alice"), {}) for n in range(50)]
    await asyncio.gather(*(did(store, one) for one in new))
    assert len(await found(store, "alice")) == 50
    assert await store.count() == 50


async def test_the_live_are_counted_and_swept(store, clock):
    """R3, R4: what Redis deleted by itself is neither counted nor in the way."""
    many = [Create(f"h{n}", meta(clock, 10), {}) for n in range(20)]
    await did(store, *many, Create("stays", meta(clock), {}))
    for n in range(10):
        await ask(store, "DEL", store._layout.place(f"h{n}")[1])
    clock.advance(10)
    assert await store.count() == 1
    assert [await store.sweep(8), await store.sweep(8)] == [8, 2]
    clock.advance(-10)
    assert await store.count() == 1


async def test_clear_is_thorough(store, clock):
    """R5: records, indexes and what lost its index go; a neighbour's keys do not."""
    url, namespace = store._url, store._layout.everything[:-2].decode()
    await did(store, Create("h", meta(clock, principal="alice"), {}))
    await ask(store, "DEL", store._layout.live[store._layout.place("h")[0]])
    async with RedisStore(url, namespace=namespace + "x", clock=clock) as neighbour:
        await did(neighbour, Create("h", meta(clock, principal="alice"), {}))
        await store.clear()
        foreign = namespace.encode() + b":users"
        await ask(store, "SET", foreign, "of another program")
        await store.clear()
        assert await ask(store, "GETDEL", foreign) == b"of another program"
        keys = [k async for some in store._transport.scan(b"*") for k in some]
        prefix = namespace.encode() + b":"
        assert [key for key in keys if key.startswith(prefix)] == []
        assert await found(neighbour, "alice") == ["h"]
        await neighbour.clear()


async def test_slots_that_move(clock):
    """R1: records whose slot went to another node are found there, by index too."""
    with RedisCluster() as cluster:
        async with RedisStore(cluster.url, clock=clock) as store:
            new = [Create(f"h{n}", meta(clock, principal="al"), {}) for n in range(40)]
            await did(store, *new)
            source, target = cluster.nodes[:2]
            _, key, _ = store._layout.place("h1")
            slot = source.command("CLUSTER", "KEYSLOT", key.decode())
            source = cluster.owner(key.decode())
            target = next(node for node in cluster.nodes if node is not source)
            move(slot, source, target, cluster)
            records = await store.load([f"h{n}" for n in range(40)])
            assert all(isinstance(one, Record) for one in records)
            done = await store.commit(
                [Apply(f"h{n}", set={"k": b"v"}) for n in range(40)]
            )
            assert done == [APPLIED] * 40
            assert len(await found(store, "al")) == 40


def move(slot, source, target, cluster):
    """Move a slot from one node to another, as redis-cli would."""
    names = {node: node.command("CLUSTER", "MYID") for node in (source, target)}
    target.command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[source])
    source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[target])
    while keys := source.command("CLUSTER", "GETKEYSINSLOT", slot, 100):
        place = ("127.0.0.1", target.port, "", 0, 5000)
        source.command("MIGRATE", *place, "KEYS", *keys)
    for node in (target, source, *cluster.nodes):
        node.command("CLUSTER", "SETSLOT", slot, "NODE", names[target])
