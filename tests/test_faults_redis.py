"""Redis hangs, dies, restarts and fails over under load: visitors lose nothing."""

import asyncio
from contextlib import closing

import pytest

from endkit import create
from faultkit import (
    ROUTES,
    Browser,
    all_fine,
    assert_strangers_served,
    figure,
    in_namespace,
    refused_in_time,
    under_load,
    unlogged,
)
from httpkit import serving
from httpkit_stores import until
from rediskit import (
    DURABLE,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    eventually,
    shared_redis,
    shared_server,
)
from tornado_sessions.stores.base import Outcome
from tornado_sessions.stores.redis import RedisStore
from tornado_sessions.stores.redis_transport import Command

pytestmark = pytest.mark.slow

HANG = 4.5
"""Seconds that Redis is stopped: more than two deadlines. The issue asks for 10."""
A_FEW = 2 * RedisStore.parallel
"""Connections to a server that may be there afterwards and were not before: one for
each batch that may be under way, of loads and of commits."""
TIMES = 15
CANCELLED = 300
"""Objects that may be there or not: asyncio lets up to a hundred timers that were
cancelled lie, with what belongs to them."""
IN_CONNECTION = 60
"""Objects that redis-py needs for a connection, at most."""


def connections(*servers):
    return sum(int(one.info("clients")["connected_clients"]) for one in servers)


async def recovered(load):
    """Wait until everybody is served; from then on nobody is refused."""
    load.phase()
    recovery = await load.served()
    fine = load.phase()
    await load.served()
    all_fine(fine)
    return recovery


async def test_a_redis_that_hangs():
    """F1 C2 S1: SIGSTOP for 10 s is 503 at the deadline; SIGCONT is all that it takes."""
    with RedisServer("--save", "") as server:
        async with under_load(server.url) as load:
            before = connections(server)
            server.pause()
            hung = load.phase()
            await asyncio.sleep(10)
            server.resume()
            recovery = await recovered(load)
            after = connections(server)
    figure("SIGSTOP", hung=hung, recovery=recovery, before=before, after=after)
    refused_in_time(hung)
    assert after <= before + A_FEW


async def test_a_redis_that_is_killed():
    """F1 F2 C2: kill -9 and a restart under load lose nothing that was acknowledged."""
    with RedisServer(*DURABLE) as server:
        async with under_load(server.url) as load:
            before = connections(server)
            down = load.phase()
            server.kill()
            await load.until(lambda: down.known[503] > 100)
            await asyncio.to_thread(server.restart)
            recovery = await recovered(load)
            after = connections(server)
    figure("kill -9", down=down, recovery=recovery, before=before, after=after)
    refused_in_time(down)
    assert after <= before + A_FEW


@pytest.fixture(scope="module")
def cluster():
    config = ("--cluster-require-full-coverage", "no", *DURABLE)
    with RedisCluster(*config) as cluster:
        yield cluster


def spread_over(cluster):
    """Have the sessions evenly on all masters: the first, the fourth … on the first."""

    def suits(site, person):
        _, key, _ = site.store._layout.place(person.handle)
        return cluster.owner(key) is cluster.nodes[person.number % 3]

    return suits


@pytest.mark.parametrize(("fault", "number"), [("kill", 1), ("pause", 0)])
async def test_one_master_of_three(cluster, fault, number):
    """F1 F2 R1 C2: sessions of the other masters go on; its own are back with it."""
    async with under_load(cluster.url, suits=spread_over(cluster)) as load:
        node = cluster.nodes[number]
        hit = [one for one in load.people if one.number % 3 == number]
        others = [one for one in load.people if one.number % 3 != number]
        before = connections(*cluster.nodes)
        getattr(node, fault)()
        await load.until(lambda: load.tally.of(hit).known[503] >= len(hit))
        down = load.phase()
        await asyncio.sleep(HANG if fault == "pause" else 1)
        load.phase()
        if fault == "kill":
            await asyncio.to_thread(node.restart)
        node.resume()
        await load.served()
        await asyncio.to_thread(cluster.wait)
        recovery = await recovered(load)
        after = connections(*cluster.nodes)
    figure(
        f"one master of three: {fault} {number}",
        hit=down.of(hit),
        others=down.of(others),
        recovery=recovery,
        before=before,
        after=after,
    )
    assert set(down.of(others).known) == {200}
    refused_in_time(down)
    assert after <= before + 3 * A_FEW


def replicated(sentinels):
    """Wait until the replica has what the master had when this was called."""
    goal = int(sentinels.master().info("replication")["master_repl_offset"])
    replica = sentinels.replica()

    def has_it():
        return int(replica.info("replication")["slave_repl_offset"]) >= goal

    eventually(has_it, "it is replicated")


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_a_master_that_is_replaced(fault):
    """F1 C2: the replica takes over; lost is at most what it was not sent yet."""
    with RedisSentinel() as sentinels:
        async with under_load(sentinels.url) as load:
            old = sentinels.master()
            before = connections(*sentinels.data)
            down = load.phase()
            await load.served()  # so what is under way belongs to it
            certain = {one: one.acknowledged for one in load.people}
            await asyncio.to_thread(replicated, sentinels)
            getattr(old, fault)()
            # Who is refused at once soon is again; who waits may be the only one.
            enough = 16 if fault == "kill" else 1
            await load.until(lambda: down.known[503] >= enough)
            load.forgive(certain)  # nobody can acknowledge anything now
            await asyncio.to_thread(sentinels.promoted, old)
            recovery = await recovered(load)
            if fault == "kill":
                await asyncio.to_thread(old.restart)
            old.resume()
            await recovered(load)
            after = connections(*sentinels.data)
            lost = sum([load.lost(one) for one in load.people])
    figure(
        f"Sentinel: {fault} the master",
        down=down,
        recovery=recovery,
        before=before,
        after=after,
        lost=lost,
    )
    refused_in_time(down)
    assert after <= before + A_FEW


async def test_a_failover_that_was_asked_for():
    """F1 C2: with min-replicas-to-write, lost is at most what had yet to be replicated.

    Without it, Redis goes on acknowledging what it will forget, until the Sentinels
    tell the old master; they take ten seconds. Here it is told at once.
    """
    with RedisSentinel("--min-replicas-to-write", "1") as sentinels:
        async with under_load(sentinels.url) as load:
            before = connections(*sentinels.data)
            certain = {one: one.acknowledged for one in load.people}
            await asyncio.to_thread(replicated, sentinels)
            old, down = sentinels.master(), load.phase()
            new = await asyncio.to_thread(sentinels.failover)
            await load.until(lambda: down.known[503] >= 32)
            load.forgive(certain)
            old.command("REPLICAOF", "127.0.0.1", new.port)
            recovery = await recovered(load)
            after = connections(*sentinels.data)
            lost = sum([load.lost(one) for one in load.people])
    figure(
        "SENTINEL FAILOVER",
        down=down,
        recovery=recovery,
        before=before,
        after=after,
        lost=lost,
    )
    refused_in_time(down)
    assert after <= before + A_FEW


async def test_a_connection_that_was_busy_during_a_failover():
    """F1 C2: whoever knows the new master says nothing to the old one any more."""
    with RedisSentinel() as sentinels:
        old = sentinels.master()
        store = RedisStore(sentinels.url)
        await store.open()
        waiting = Command((b"BLPOP", b"bell", b"0"))
        busy = asyncio.create_task(store._transport.send([waiting]))
        await until(lambda: old.info("clients")["blocked_clients"] == "1")
        new = await asyncio.to_thread(sentinels.failover)
        await store.commit([create("first")])
        old.command("RPUSH", "bell", "ring")
        await busy
        several = (store.commit([create(f"{number}")]) for number in range(4))
        assert await asyncio.gather(*several) == [[Outcome.APPLIED]] * 4
        await store.close()
        there = RedisStore(new.url)
        assert await there.count() == 5
        await there.close()


@pytest.mark.parametrize("kind", ["standalone", "cluster", "sentinel"])
async def test_connections_that_were_closed_while_idle(kind):
    """F1: who comes after Redis hung up on idle clients, or restarted, is served."""
    server = shared_server(kind)
    servers = {"cluster": "nodes", "sentinel": "data"}
    nodes = getattr(server, servers[kind]) if kind in servers else [server]
    async with serving(ROUTES, in_namespace(shared_redis(kind))) as site:
        statuses = []
        with closing(Browser(site.port)) as browser:
            assert (await browser.fetch("/set", "a=1"))[0] == 200
            for request in (("/",), ("/set", "a=2"), ("/count/n", "")):
                for node in nodes:
                    node.command("CLIENT", "KILL", "TYPE", "normal")
                await asyncio.sleep(0.05)  # whatever was said has arrived
                statuses.append((await browser.fetch(*request))[0])
    assert statuses == [200, 200, 200]


async def test_scripts_that_are_flushed():
    """F1: SCRIPT FLUSH under load is not noticed by anybody."""
    with RedisServer("--save", "") as server:
        async with under_load(server.url) as load:
            meanwhile = load.phase()
            for _ in range(50):
                server.command("SCRIPT", "FLUSH")
                seen = sum(meanwhile.known.values())
                await until(lambda seen=seen: sum(meanwhile.known.values()) > seen)
            await load.served()
    all_fine(meanwhile)
    assert_strangers_served(meanwhile)


@pytest.mark.parametrize("kind", ["standalone", "cluster"])
async def test_a_fault_again_and_again(request, kind):
    """F1 F5: fifteen of them leave no connection, task or memory behind."""
    with RedisServer("--save", "") as server:
        whole = request.getfixturevalue("cluster") if kind == "cluster" else server
        nodes = whole.nodes if kind == "cluster" else [server]
        async with unlogged(), under_load(whole.url, 0.5) as load:
            before = connections(*nodes)
            for number in range(TIMES):
                if number == TIMES // 4:
                    early, some = await load.objects(), connections(*nodes)
                load.phase()
                nodes[0].pause()
                await load.until(lambda: load.tally.known[503] >= 16)
                nodes[0].resume()
                load.phase()
                await load.until(lambda: load.tally.known[200] >= 16)
            await recovered(load)
            late, after = await load.objects(), connections(*nodes)
    figure(
        f"{TIMES} times SIGSTOP: {kind}",
        objects=f"{early[0]} then {late[0]}",
        KiB=f"{early[1]} then {late[1]}",
        connections=f"{before}, {some} then {after}",
    )
    assert after <= before + A_FEW * len(nodes)
    assert late[0] < early[0] + CANCELLED + IN_CONNECTION * max(0, after - some)
    assert late[1] < early[1] + 4096
