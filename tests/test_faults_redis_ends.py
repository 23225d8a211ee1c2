"""Sockets hear of ends although Redis hangs, dies, moves, or loses a connection."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import pytest
from tornado.httpclient import HTTPError

from faultkit import figure, in_namespace
from httpkit import serving, ticket_in
from httpkit_stores import AsyncStore, until
from rediskit import (
    RedisCluster,
    RedisSentinel,
    RedisServer,
    eventually,
    shared_redis,
    shared_server,
)
from socketkit import a_socket, connect, routes
from tornado_sessions import StoreError
from tornado_sessions.stores.url import store_from_url

pytestmark = pytest.mark.slow

POLICY_VIOLATION = 1008
NOTICED = 6.5
"""Seconds until a silent connection is given up."""
PATIENCE = 60.0


class Sites:
    """Two servers with one database: sessions end at the first, sockets are at the other.

    Args:
        ends: The first.
        hears: The other one.
        store: That of the other, an `AsyncStore`.
    """

    def __init__(self, ends, hears, store):
        self.ends, self.hears, self.store = ends, hears, store

    async def visitor(self):
        """Return somebody who is logged in at the first, and their socket."""
        give_up = time.monotonic() + PATIENCE
        while True:
            visitor = self.ends.visitor()
            if (await visitor.get("/acts?set=k:v&login=alice")).code == 200:
                with suppress(HTTPError):  # it may not know yet that a node is back
                    return visitor, await connect(self.hears.visitor(**visitor.cookies))
            assert time.monotonic() < give_up
            await asyncio.sleep(0.05)

    async def end(self, visitor, reason="lost"):
        """End a session at the first server, as soon as that can be done."""
        handle = ticket_in(visitor.cookie).handle
        give_up = time.monotonic() + PATIENCE
        while True:
            try:
                return await self.ends.manager.revoke(handle, reason)
            except StoreError:
                assert time.monotonic() < give_up
                await asyncio.sleep(0.05)

    async def listening(self, *servers):
        """Wait until the other server listens; return which one it listens to."""
        channel = self.channel

        def heard_at():
            return [s for s in servers if s.command("PUBSUB", "NUMSUB", channel)[1]]

        await until(heard_at)
        return heard_at()[0]

    @property
    def channel(self):
        return self.store.inner._layout.channel.decode()


@asynccontextmanager
async def two_sites(url):
    """Serve the same application twice."""
    url = in_namespace(url)
    store = AsyncStore(inner=store_from_url(url))
    async with (
        serving(routes(a_socket()), store_from_url(url)) as one,
        serving(routes(a_socket()), store) as two,
    ):
        yield Sites(one, two, store)


async def closes(socket, *reasons):
    """Wait until *socket* is closed; return the seconds that it took."""
    began = time.monotonic()
    code, reason = await socket.closed()
    assert code == POLICY_VIOLATION
    assert reason in (reasons or ("lost", "revoked"))
    return time.monotonic() - began


async def is_well(sites, *servers):
    """Ends are heard at once, with their reasons, by one connection."""
    visitor, socket = await sites.visitor()
    await sites.listening(*servers)
    await sites.end(visitor, "at last")
    await closes(socket, "at last")


def nobody_listens(channel, *servers):
    return not any(one.command("PUBSUB", "NUMSUB", channel)[1] for one in servers)


@pytest.mark.parametrize("kind", ["standalone", "unix", "tls", "cluster", "sentinel"])
async def test_what_ends_in_the_gap(kind):
    """W4: while nothing is heard a session ends: its socket is closed after that."""
    kept = shared_server("standalone" if kind == "unix" else kind)
    servers = getattr(kept, "nodes", None) or getattr(kept, "data", None) or [kept]
    async with two_sites(shared_redis(kind)) as sites:
        (visitor, socket), (_, stays) = [await sites.visitor() for _ in range(2)]
        node = await sites.listening(*servers)
        gap = sites.store.park("listen")
        assert node.command("CLIENT", "KILL", "TYPE", "pubsub") >= 1
        await gap.arrival()
        await sites.end(visitor)
        assert await socket.say("who") == "alice"
        gap.open()
        figure(f"a gap, {kind}", heard=await closes(socket, "revoked"))
        assert await stays.say("who") == "alice"
        await is_well(sites, *servers)
    await until(lambda: nobody_listens(sites.channel, *servers))


@pytest.mark.parametrize("seconds", [1.0, NOTICED + 1])
async def test_a_server_that_hangs(seconds):
    """W4: SIGSTOP, for a moment or until it is noticed; SIGCONT is all that it takes."""
    with RedisServer("--save", "") as server:
        async with two_sites(server.url) as sites:
            (visitor, socket), (_, stays) = [await sites.visitor() for _ in range(2)]
            await sites.listening(server)
            before = clients(server)
            server.pause()
            await asyncio.sleep(seconds)
            assert (sites.store.calls.count("listen") > 1) == (seconds > NOTICED)
            server.resume()
            await sites.end(visitor)
            figure(f"SIGSTOP {seconds}", heard=await closes(socket))
            assert await stays.say("who") == "alice"
            await is_well(sites, server)
            await until(lambda: clients(server) <= before)
        await until(lambda: clients(server) == 0)


def clients(server):
    """Return how many clients there are, but for who asks."""
    return len(server.command("CLIENT", "LIST").splitlines()) - 1


async def test_a_server_that_is_killed():
    """W4: kill -9 and a restart; what ended first of all then is not missed."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always") as server:
        async with two_sites(server.url) as sites:
            (visitor, socket), (_, stays) = [await sites.visitor() for _ in range(2)]
            await sites.listening(server)
            server.kill()
            await asyncio.sleep(2)
            await asyncio.to_thread(server.restart)
            await sites.end(visitor)
            figure("kill -9", heard=await closes(socket))
            assert await stays.say("who") == "alice"
            await is_well(sites, server)
        await until(lambda: clients(server) == 0)


@pytest.mark.parametrize("fault", ["kill", "pause", "failover"])
async def test_a_master_that_is_replaced(fault):
    """W4: the new master is listened to, whatever becomes of the old one."""
    with RedisSentinel() as sentinels:
        async with two_sites(sentinels.url) as sites:
            (visitor, socket), (_, stays) = [await sites.visitor() for _ in range(2)]
            await sites.listening(*sentinels.data)
            old = sentinels.master()
            assert old.command("WAIT", 1, 10_000) == 1
            if fault == "failover":
                await asyncio.to_thread(sentinels.failover)
                # Until then both are masters, and what is written at the old one is lost.
                await asyncio.to_thread(
                    eventually, lambda: is_replica(old), "it is one"
                )
            else:
                getattr(old, fault)()
            new = await asyncio.to_thread(sentinels.promoted, old)
            await sites.end(visitor)
            figure(f"a new master: {fault}", heard=await closes(socket))
            assert await stays.say("who") == "alice"
            await is_well(sites, new)
            old.resume()


async def test_an_old_master_that_has_not_been_told():
    """W4: whoever knows the new master does not go on listening to the old one."""
    with RedisSentinel() as sentinels:
        async with two_sites(sentinels.url) as sites:
            _, stays = await sites.visitor()
            old = await sites.listening(*sentinels.data)
            assert old.command("WAIT", 1, 10_000) == 1
            new = await asyncio.to_thread(sentinels.failover)
            assert old.command("CLIENT", "KILL", "TYPE", "normal") >= 1
            visitor, socket = await sites.visitor()  # for whom both look for the master
            assert await sites.listening(new) is new
            assert not is_replica(old)
            await sites.end(visitor)
            figure("a new master, the old one not told", heard=await closes(socket))
            assert await stays.say("who") == "alice"


def is_replica(server):
    return server.command("ROLE")[0] == "slave"


async def test_a_user_who_may_not_listen(caplog):
    """W1: sockets are closed all the same, by looking at sessions."""
    with RedisServer("--save", "", password="secret") as server:
        rules = ("on", ">p", "allkeys", "resetchannels", "+@all")
        server.command("ACL", "SETUSER", "quiet", *rules)
        async with two_sites(server.url_of("quiet", "p")) as sites:
            (visitor, socket), (_, stays) = [await sites.visitor() for _ in range(2)]
            await sites.end(visitor)
            figure("looking", heard=await closes(socket, "revoked"))
            assert await stays.say("who") == "alice"
        assert caplog.text.count("&" + sites.channel) == 1


@pytest.fixture(scope="module")
def cluster():
    # More than the session needs to be served by the others while one of them is down.
    with RedisCluster("--cluster-require-full-coverage", "no") as cluster:
        yield cluster


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_a_node_that_was_listened_to(cluster, fault):
    """W4: another one is taken; what ends on the other nodes is heard."""
    async with two_sites(cluster.url) as sites:
        visitors = [await sites.visitor() for _ in range(12)]
        node = await sites.listening(*cluster.nodes)
        others = [one for one in cluster.nodes if one is not node]
        apart = [v for v in visitors if owner(sites, cluster, v[0]) is not node]
        (visitor, socket), (_, stays), (next_one, alike) = apart[:3]
        getattr(node, fault)()
        began = time.monotonic()
        await sites.end(visitor)
        figure(f"one node of three: {fault}", heard=await closes(socket))
        await sites.listening(*others)
        await sites.end(next_one)
        await closes(alike)
        assert await stays.say("who") == "alice"
        if fault == "kill":
            await asyncio.to_thread(node.restart)
        node.resume()
        await asyncio.to_thread(cluster.wait)
        figure("back", after=time.monotonic() - began)
        await is_well(sites, *cluster.nodes)
    await until(lambda: nobody_listens(sites.channel, *cluster.nodes))


def owner(sites, cluster, visitor):
    """Return the node that has the session."""
    _, key, _ = sites.store.inner._layout.place(ticket_in(visitor.cookie).handle)
    return cluster.owner(key)
