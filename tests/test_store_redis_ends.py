"""How RedisStore hears of ends: one connection, a PING now and then, nothing left behind."""

import asyncio
import gc
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis.asyncio as redis_asyncio

from endskit import Heard, listening
from httpkit_stores import soon, until
from proxykit import Proxy
from rediskit import RedisServer, shared_redis, shared_server
from test_store_redis_clients import META, with_option
from tornado_sessions import StoreError
from tornado_sessions.stores import redis_ends
from tornado_sessions.stores.base import Create, Delete
from tornado_sessions.stores.redis import RedisStore
from tornado_sessions.stores.redis_ends import end_message, end_of
from tornado_sessions.stores.url import store_from_url

EVERY_KIND = ["standalone", "unix", "tls", "cluster", "sentinel"]


@pytest.fixture
def server():
    with RedisServer("--save", "") as running:
        yield running


@pytest.fixture
async def store(server):
    async with store_from_url(server.url) as store:
        yield store


@pytest.fixture
def impatient(monkeypatch):
    """Ping every 50 ms."""
    monkeypatch.setattr(redis_ends, "_PING_EVERY", 0.05)


async def end(store, handle="h", reason="why"):
    """End a session that somebody has."""
    await store.commit([Create(handle, META, {}), Delete(handle, reason)])


def subscribers(*servers, channel="tornado_sessions:ended"):
    return sum(server.command("PUBSUB", "NUMSUB", channel)[1] for server in servers)


def clients(server):
    """Return how many clients there are, but for who asks."""
    return len(server.command("CLIENT", "LIST").splitlines()) - 1


@pytest.mark.parametrize("handle", ["h", "", "two words", "1 h", "é", "\ud800"])
@pytest.mark.parametrize("reason", ["r", "", " ", "two words", "\n"])
def test_messages(handle, reason):
    """W1: whatever handle and reason are, they come apart again."""
    assert end_of(end_message(handle, reason)) == (handle, reason)


@pytest.mark.parametrize(
    "message",
    [
        *(b"", b"h", b"h why", b"5 h why", b"1 h", b"-1 h why", b"x h why"),
        *(b"1 \xff why", b"-2 h why ", b"1_0 hhhhhhhhhh why", b" 1 h why"),
    ],
)
def test_what_is_no_message(message):
    """W1: what another program has published is told from an end."""
    with pytest.raises(ValueError, match=r"the size is wrong|invalid"):
        end_of(message)


async def test_a_message_that_is_not_understood(server, store, caplog):
    """W1: it may have been the end of any session, so each is looked at."""
    async with listening(store) as (heard, _):
        server.command("PUBLISH", "tornado_sessions:ended", "h why")
        await until(lambda: heard.connections == 2)
        await end(store)
        await until(lambda: heard.ends == [("h", "why")])
    assert "is no end of a session" in caplog.text


async def test_a_database_apart(server, store):
    """W1, R5: ends of another namespace are not heard."""
    other = store_from_url(with_option(server.url, "namespace=other"))
    async with other, listening(store) as (heard, _), listening(other) as (alike, _):
        await end(other, "other")
        await end(store)
        await until(lambda: heard.ends and alike.ends)
        assert (heard.ends, alike.ends) == ([("h", "why")], [("other", "why")])


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("blocking", [True, False])
async def test_a_small_pool(server, size, blocking):
    """W2: who listens takes no connection from those who ask, nor any place in the pool."""
    kind = "BlockingConnectionPool" if blocking else "ConnectionPool"
    pool = getattr(redis_asyncio, kind).from_url(server.url, max_connections=size)
    client = redis_asyncio.Redis.from_pool(pool)
    store = RedisStore(client)
    async with listening(store) as (heard, _), listening(store) as (alike, _):
        await soon(asyncio.gather(*(end(store, f"h{n}") for n in range(20))))
        await until(lambda: len(heard.ends) == len(alike.ends) == 20)
        assert clients(server) <= size + 2
    await until(lambda: clients(server) <= size)
    assert await client.ping()
    await client.aclose()


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_client_with_options(server, impatient, protocol, decode):
    """W1, W4: neither its protocol, nor its timeouts and retries make it miss anything."""
    options = {
        "socket_timeout": 0.05,
        "health_check_interval": 0.01,
        "retry_on_timeout": True,
        "retry_on_error": [ConnectionError],
    }
    client = redis_asyncio.Redis.from_url(
        server.url, protocol=protocol, decode_responses=decode, **options
    )
    store = RedisStore(client)
    async with listening(store) as (heard, task):
        await asyncio.sleep(0.2)
        await end(store, "h", "é")
        await until(lambda: heard.ends)
        assert (heard.ends, heard.connections) == ([("h", "é")], 1)
        server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await soon(asyncio.wait([task]))
    await client.aclose()


@pytest.mark.parametrize("kind", EVERY_KIND)
async def test_nobody_listens_any_more(kind):
    """W2: nobody is subscribed who does not listen; and no task, no connection is left."""
    name = f"listens-{time.monotonic_ns()}"
    kept = shared_server("standalone" if kind == "unix" else kind)
    servers = getattr(kept, "nodes", None) or getattr(kept, "data", None) or [kept]
    channel = f"{name}:ended"
    url = with_option(shared_redis(kind), f"namespace={name}&client_name={name}")

    def connections():
        return sum(one.command("CLIENT", "LIST").count(name) for one in servers)

    async with store_from_url(url) as store:
        await store.load(["h"])
        before, tasks = connections(), asyncio.all_tasks()
        assert subscribers(*servers, channel=channel) == 0
        for _ in range(3):
            async with listening(store) as (heard, _):
                await end(store)
                await until(lambda heard=heard: heard.ends)
                assert subscribers(*servers, channel=channel) == 1
            await until(lambda: subscribers(*servers, channel=channel) == 0)
        assert asyncio.all_tasks() == tasks
        # A cluster has a connection to each node that was asked for a handle.
        await until(lambda: connections() <= before + 1)
        await store.clear()
    await until(lambda: connections() == 0)


async def test_cancelled_at_any_moment(server, store):
    """W2: who stops while the connection is being made leaves nothing either."""
    await store.load(["h"])
    before = clients(server)
    for turns in range(60):
        task = asyncio.create_task(store.listen(Heard()))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await soon(asyncio.wait([task]))
        assert task.cancelled()
    await until(lambda: clients(server) == before)
    assert len(asyncio.all_tasks()) == 2  # this one, and the keeper of the store


def test_a_loop_that_ends(server):
    """W2, T8: where nobody stops it, the end of the loop does."""
    store = store_from_url(server.url)

    async def leave():
        heard = Heard()
        task = asyncio.create_task(store.listen(heard))
        await until(lambda: heard.connections or task.done())
        return task

    for _ in range(3):
        task = asyncio.run(leave())
        assert task.cancelled()
        gc.collect()  # what was left open would warn
        assert clients(server) == 0


@pytest.mark.parametrize("how", ["killed", "restarted"])
async def test_a_connection_that_is_lost(server, store, how):
    """W4: it fails as one that was refused does; the next one hears again."""
    async with listening(store) as (_, task):
        if how == "killed":
            assert server.command("CLIENT", "KILL", "TYPE", "pubsub") == 1
        else:
            await asyncio.to_thread(server.restart)
        await soon(asyncio.wait([task]))
    with pytest.raises(StoreError, match="check that Redis is running"):
        task.result()
    async with listening(store) as (heard, _):
        await end(store)
        await until(lambda: heard.ends)


async def test_a_server_that_hangs(server, store, impatient):
    """W4: PING tells; while it hangs, every attempt fails, and leaves nothing open."""
    async with listening(store) as (_, task):
        server.pause()
        await soon(asyncio.wait([task]))
    with pytest.raises(StoreError, match="no answer"):
        task.result()
    for _ in range(3):
        with pytest.raises(StoreError, match="no answer"):
            await soon(store.listen(Heard()))
    server.resume()
    await until(lambda: subscribers(server) == 0)
    async with listening(store) as (heard, _):
        await end(store)
        await until(lambda: heard.ends)


async def test_a_server_that_hangs_behind_tls(impatient):
    """W4: its goodbye is not waited for; a socket that was given up is closed."""
    with RedisServer("--save", "", tls=True) as server:
        async with store_from_url(server.tls_url) as store:
            before = sockets()
            async with listening(store) as (_, task):
                assert sockets() == before + 1
                server.pause()
                await soon(asyncio.wait([task]))
                await until(lambda: sockets() == before)
            server.resume()


def sockets():
    """Return how many sockets this process has."""
    number = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one by which they are listed
            number += str(descriptor.readlink()).startswith("socket:")
    return number


async def test_a_connection_that_is_half_open(server, impatient):
    """W4: where nothing comes through any more, the silence is noticed."""

    async def swallow(asked, answer):
        return b"" if swallows else answer

    async with Proxy(server.port) as proxy:
        swallows, proxy.spoil = False, swallow
        async with store_from_url(proxy.url) as store:
            async with listening(store) as (_, task):
                await asyncio.sleep(0.5)
                assert not task.done()
                swallows = True
                await soon(asyncio.wait([task]))
            with pytest.raises(StoreError, match="no answer"):
                task.result()


async def test_a_cluster_that_says_nothing(server, impatient):
    """W4: to be told which nodes there are may take no longer than a connection."""

    async def swallow(asked, answer):
        return b""

    async with Proxy(server.port) as proxy:
        proxy.spoil = swallow
        client = redis_asyncio.RedisCluster(
            host="127.0.0.1", port=proxy.port, socket_timeout=None
        )
        with pytest.raises(StoreError, match="no answer"):
            await soon(RedisStore(client).listen(Heard()))
        await client.aclose()


async def test_nothing_but_pings(server, store, impatient):
    """W2: while nothing ends, a PING is all that is sent, one in each interval."""
    async with listening(store) as (heard, _):
        server.command("CONFIG", "RESETSTAT")
        await asyncio.sleep(1)
        stats = server.info("commandstats")
        del stats["cmdstat_config|resetstat"]
        assert stats.keys() == {"cmdstat_ping"}
        assert 5 < int(stats["cmdstat_ping"].split(",")[0].removeprefix("calls=")) < 21
        assert (heard.ends, heard.connections) == ([], 1)


class Node:
    """Answers a subscriber, each PING as late as is said."""

    def __init__(self, *late):
        self.late = list(late)
        self.connected_by_then = []
        self.heard = Heard()
        self._answers = asyncio.Queue()

    async def connect(self):
        pass

    async def disconnect(self):
        pass

    async def send_command(self, name, *arguments):
        if name == b"SUBSCRIBE":
            self._answers.put_nowait([b"subscribe", *arguments, 1])
        elif name == b"PING":
            self._answers.put_nowait([b"pong", b""])

    async def read_response(self):
        answer = await self._answers.get()
        if answer[0] == b"pong":
            self.connected_by_then.append(self.heard.connections)
            late = self.late.pop(0) if self.late else False
            redis_ends._LATE = -1.0 if late else 60.0
        return answer


@pytest.mark.parametrize(
    ("by_slot", "connections"), [(True, [1, 1, 2, 3, 4, 4]), (False, [1] * 6)]
)
async def test_a_node_that_paused(impatient, monkeypatch, by_slot, connections):
    """W4: in a cluster a late answer is an interruption, and so is the next one.

    The other nodes drop what they have for it. A server by itself tells of all later.
    """
    monkeypatch.setattr(redis_ends, "_LATE", 60.0)
    node = Node(False, True, True, False, False)

    async def source():
        return None

    monkeypatch.setattr(redis_ends, "_connection", lambda source: node)
    transport = SimpleNamespace(by_slot=by_slot, source=source, lost=lambda: None)
    task = asyncio.create_task(redis_ends.Ends(transport, b"ends").tell(node.heard))
    await until(lambda: len(node.connected_by_then) >= 6 or task.done())
    task.cancel()
    await asyncio.wait([task])
    assert node.connected_by_then[:6] == connections


async def test_one_after_the_other(server, store):
    """W1: each end is heard of once, in order; how soon is printed."""
    seconds = []
    async with listening(store) as (heard, _):
        for number in range(200):
            await store.commit([Create(f"h{number}", META, {})])
            began = time.perf_counter()
            await store.commit([Delete(f"h{number}")])
            while len(heard.ends) <= number:
                await asyncio.sleep(0)
            seconds.append(time.perf_counter() - began)
    seconds.sort()
    print(f"median {seconds[100] * 1e3:.2f} ms, 99 % {seconds[198] * 1e3:.2f} ms")
    assert [handle for handle, _ in heard.ends] == [f"h{n}" for n in range(200)]


@pytest.mark.parametrize("kind", ["standalone", "cluster", "sentinel"])
async def test_many_listeners(kind):
    """W1: twenty processes hear all ends, whichever nodes they listen to."""
    url = with_option(shared_redis(kind), f"namespace=many{time.monotonic_ns()}")
    stores = [store_from_url(url) for _ in range(20)]
    ends = {f"h{number}" for number in range(50)}
    told = asyncio.Event()

    async def hear(store, ready):
        async with listening(store) as (heard, _):
            ready.set()
            await told.wait()
            await until(lambda: {handle for handle, _ in heard.ends} == ends)
            assert len(heard.ends) == 50
            # In a cluster whoever is kept from listening for half a second says so.
            assert heard.connections == 1 or kind == "cluster"
        await store.close()

    flags = [asyncio.Event() for _ in stores]
    hearing = asyncio.gather(*map(hear, stores, flags))
    for flag in flags:
        await soon(flag.wait())
    async with store_from_url(url) as store:
        for handle in ends:
            await end(store, handle)
        told.set()
        await hearing
        await store.clear()
