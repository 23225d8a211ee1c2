"""What RedisStore takes as URL or client, and what it does with it."""

import asyncio
import secrets
import traceback
from urllib.parse import urlsplit

import pytest
import redis
import redis.asyncio as redis_asyncio

from httpkit_stores import soon
from rediskit import shared_redis, shared_server
from tornado_sessions import ConfigurationError, StoreError, store_from_url
from tornado_sessions.stores import redis_client
from tornado_sessions.stores import url as url_module
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome, Record
from tornado_sessions.stores.redis import RedisStore
from tornado_sessions.stores.redis_transport import Command

APPLIED = [Outcome.APPLIED]
META = Meta(
    token=b"t", created_at=1, last_seen_at=1, expires_at=4e9, epoch_at=1, rotated_at=1
)


@pytest.fixture
def namespace():
    return f"t{secrets.token_hex(4)}"


@pytest.fixture
async def client():
    async with redis_asyncio.Redis.from_url(shared_redis("standalone")) as client:
        yield client


@pytest.fixture
async def store(client, namespace):
    store = RedisStore(client, namespace=namespace)
    yield store
    await store.clear()


def connection_of(url):
    """What a store would connect to, and how."""
    pool = store_from_url(url)._transport._pool
    return pool.make_connection()


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://", ("localhost", 6379, 0, None, None)),
        ("redis://db.example", ("db.example", 6379, 0, None, None)),
        ("redis://db:7000/3", ("db", 7000, 3, None, None)),
        ("redis://db?db=4", ("db", 6379, 4, None, None)),
        ("redis://:p%40ss@db", ("db", 6379, 0, None, "p@ss")),
        ("redis://me:secret@[::1]:7000/1", ("::1", 7000, 1, "me", "secret")),
        ("valkey://db:7000/3", ("db", 7000, 3, None, None)),
    ],
)
def test_urls_of_servers(url, place):
    """R4: redis-py's own forms, with the number of the database as the path."""
    found = connection_of(url)
    who = (found.username, found.password)
    assert (found.host, found.port, found.db, *who) == place


def test_other_urls():
    """R4: sockets, TLS, options for the driver, and the namespace, which is ours."""
    found = connection_of("unix:///run/redis.sock?db=2&namespace=shop")
    assert (found.path, found.db) == ("/run/redis.sock", 2)
    for scheme in ("rediss", "valkeys"):
        assert isinstance(connection_of(f"{scheme}://db"), redis_asyncio.SSLConnection)
    found = connection_of("redis://db?socket_timeout=1.5&client_name=shop")
    assert (found.socket_timeout, found.client_name) == (1.5, "shop")
    store = store_from_url("redis://db?namespace=shop")
    assert store._layout.everything == b"shop:*"


SEVERAL = {"redis+sentinel": "/main", "redis+cluster": "", "mongodb": "/web"}


def test_no_urlsplit_sees_several_hosts(monkeypatch):
    """R4: some Pythons refuse brackets then, around any but the first of them."""

    def strict(url):
        assert "," not in url
        return urlsplit(url)

    monkeypatch.setattr(url_module, "urlsplit", strict)
    monkeypatch.setattr(redis_client, "urlsplit", strict)
    for start, end in SEVERAL.items():
        store_from_url(f"{start}://me:pw@one,two:7,[::1]:8{end}")


def test_urls_of_sentinels():
    """R4: hosts with a default port, a service, and who asks whom by which password."""
    url = "redis+sentinel://me:pw@one,two:7,[::1]:8/main?db=2&sentinel_password=spw"
    transport = store_from_url(url)._transport
    pool = transport._pool
    assert (pool.service_name, pool.connection_kwargs["db"]) == ("main", 2)
    assert pool.connection_kwargs["password"] == "pw"
    asked = [one.connection_pool.connection_kwargs for one in transport._sentinels]
    assert [(one["host"], one["port"]) for one in asked] == [
        ("one", 26379),
        ("two", 7),
        ("::1", 8),
    ]
    assert {one["password"] for one in asked} == {"spw"}
    url = "rediss+sentinel://one/main?ssl_cert_reqs=none"
    transport = store_from_url(url)._transport
    (sentinel,) = transport._sentinels
    for pool in (transport._pool, sentinel.connection_pool):
        assert isinstance(pool.make_connection(), redis_asyncio.SSLConnection)


class ASentinel:
    """One that knows the master "main", or none at all."""

    def __init__(self, *, knows):
        self.knows = knows

    async def sentinel_masters(self):
        await asyncio.sleep(0)
        fine = {"is_master": True, "is_sdown": False, "is_odown": False}
        fine |= {"num-other-sentinels": 2, "ip": "db", "port": 6379}
        return {"main": fine} if self.knows else {}


async def test_several_ask_the_sentinels_at_once():
    """F1: redis-py swaps them by number meanwhile; all of them are kept nevertheless."""
    pool = store_from_url("redis+sentinel://one,two,three/main")._transport._pool
    sentinels = pool.sentinel_manager.sentinels
    sentinels[:] = [ASentinel(knows=number > 0) for number in range(3)]
    several = (pool.get_master_address() for _ in range(2))
    assert await asyncio.gather(*several) == [("db", 6379)] * 2
    assert len(set(sentinels)) == 3


def test_urls_of_clusters():
    """R4: some of the nodes, and options for all connections."""
    client = store_from_url("rediss+cluster://me:pw@one,two:7000")._transport._client
    names = {node.name for node in client.get_nodes()} | set(
        client.nodes_manager.startup_nodes
    )
    assert names == {"one:6379", "two:7000"}
    assert client.connection_kwargs["password"] == "pw"
    assert client.connection_kwargs["connection_class"] is redis_asyncio.SSLConnection


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("redis://db/shop", "number of the database"),
        ("redis://db:port", "[Pp]ort"),
        ("redis://db?colour=red", "colour"),
        ("redis://db?socket_timeout=long", "socket_timeout"),
        ("redis+sentinel://one,two", "name of the service"),
        ("redis+sentinel://one/main?colour=red", "colour"),
        ("redis+cluster://one?colour=red", "colour"),
        ("redis+magic://one", "unknown|use a Store or a URL"),
        ("redis://db?namespace=a:b", "letters, digits"),
    ],
)
def test_urls_that_make_no_sense(url, says):
    """R4: said at once, without the password that a URL may hold."""
    with pytest.raises(ConfigurationError, match=says):
        store_from_url(url)
    with pytest.raises(ConfigurationError) as raised:
        store_from_url(url.replace("://", "://me:pass-word@"))
    assert "pass-word" not in str(raised.value)


SECRETS = [
    "redis://:s3cr#et@host:6379/0",
    "redis://user:s3cr/et@host:6379/0",
    "redis+cluster://:s3cr/et@a:1,b:2",
    "redis+sentinel://:s3cr#et@a:1,b:2/main",
    "redis://:s3cr?et@host/0",
    "redis://:s3cr[et@host/0",
    "redis://user:s3cret@host/name",
    "redis://host?username=u&passwd=s3cret",
    "redis+sentinel://host/name?sentinel_password=s3cret&colour=red",
    "redis+magic://host?password=s3cret",
]


@pytest.mark.parametrize("url", SECRETS)
def test_urls_are_not_shown_with_their_passwords(url):
    """S9: nor a piece of one that was not escaped, nor in a traceback."""
    with pytest.raises(ConfigurationError) as raised:
        store_from_url(url)
    shown = "".join(traceback.format_exception(raised.value))
    assert "s3cr" not in shown.replace(repr(url), "").replace(url, "")
    assert "s3cr" not in str(raised.value)


async def test_fewer_connections_than_batches(namespace):
    """F1: with a pool that allows two, the others wait for their turn."""
    url = f"{shared_redis('standalone')}?namespace={namespace}&max_connections=2"
    async with store_from_url(url) as store:
        new = [store.commit([Create(f"h{n}", META, {})]) for n in range(50)]
        assert await soon(asyncio.gather(*new)) == [APPLIED] * 50
        await store.clear()


@pytest.mark.parametrize("client", [redis.Redis(), object(), 7, None])
def test_clients_that_cannot_be_used(client):
    """R4: a synchronous client would stop the event loop."""
    with pytest.raises(ConfigurationError, match=r"client of redis\.asyncio, not a"):
        RedisStore(client)


def test_the_driver_is_missing(monkeypatch):
    """R4: how to get it; a client of aioredis does without it."""
    monkeypatch.setattr(redis_client, "redis", None)
    with pytest.raises(ConfigurationError, match=r"pip install .*\[redis\]"):
        store_from_url("redis://localhost")
    RedisStore(redis_asyncio.Redis())


async def test_a_client_of_yours_stays_open(client, namespace):
    """R4: whoever made it closes it."""
    async with RedisStore(client, namespace=namespace) as store:
        assert await store.load(["h"]) == [None]
    assert await client.ping()
    assert await store.load(["h"]) == [None]  # and the store can go on


async def test_a_client_of_ours_is_closed(namespace):
    """R4: no connection is left behind."""
    name = f"sessions-{namespace}"
    url = f"{shared_redis('standalone')}?namespace={namespace}&client_name={name}"
    store = store_from_url(url)
    server = shared_server("standalone")
    for _ in range(2):
        assert await store.load(["h"]) == [None]
        assert server.command("CLIENT", "LIST").count(f"name={name}") == 1
        await store.close()
        await store.close()
        await soon(asyncio.to_thread(_gone, server, name))


def _gone(server, name):
    while f"name={name}" in server.command("CLIENT", "LIST"):
        pass


@pytest.mark.parametrize("kind", ["standalone", "unix", "cluster", "sentinel"])
def test_one_loop_after_another(kind, namespace):
    """T8: a store that is closed in each loop works in the next."""
    store = store_from_url(with_option(shared_redis(kind), f"namespace={namespace}"))

    async def turn(number):
        async with store:
            await store.commit([Create(f"h{number}", META, {})])
            return await store.count()

    async def clear():
        async with store:
            await store.clear()

    assert [asyncio.run(turn(number)) for number in range(3)] == [1, 2, 3]
    asyncio.run(clear())


def with_option(url, option):
    return f"{url}{'&' if '?' in url else '?'}{option}"


@pytest.mark.parametrize("kind", ["standalone", "cluster"])
async def test_scripts_are_forgotten(kind, namespace):
    """R1: after SCRIPT FLUSH or on a new server the source is sent again (NOSCRIPT)."""
    url = with_option(shared_redis(kind), f"namespace={namespace}")
    server = shared_server(kind)
    async with store_from_url(url) as store:
        for number in range(2):
            for node in getattr(server, "nodes", [server]):
                node.command("SCRIPT", "FLUSH")
            values = {"k": b"%d" % number}
            many = [Create(f"h{number}.{n}", META, values) for n in range(20)]
            assert await store.commit(many) == APPLIED * 20
            for node in getattr(server, "nodes", [server]):
                node.command("SCRIPT", "FLUSH")
            loaded = await store.load([f"h{number}.{n}" for n in range(20)])
            assert [one.values for one in loaded] == [values] * 20
        assert await store.count() == 40
        await store.clear()


async def test_large_batches_and_records(store):
    """R1, S8: more than one call, and more arguments than Lua's stack holds."""
    values = {f"key{n}": b"%d" % n for n in range(9000)}
    assert await store.commit([Create("large", META, values)]) == APPLIED
    (record,) = await store.load(["large"])
    assert record.values == values
    cleared = Apply("large", unset=list(values)[1:], set={"new": b"n"})
    assert await store.commit([cleared]) == APPLIED
    (record,) = await store.load(["large"])
    assert record.values == {"key0": b"0", "new": b"n"}
    blob = {"blob": secrets.token_bytes(256 * 1024)}
    many = [Create(f"h{n}", META, blob) for n in range(100)]
    assert await store.commit(many) == APPLIED * 100
    loaded = await store.load([f"h{n}" for n in range(100)])
    assert all(isinstance(one, Record) and one.values == blob for one in loaded)


async def test_only_what_changed_is_written(store):
    """S3: one field is sent for one key, whatever else the session holds."""
    await store.commit([Create("h", META, {"big": b"x" * 10_000, "n": b"1"})])
    server = shared_server("standalone")
    before = received(server)
    assert await store.commit([Apply("h", set={"n": b"2"})]) == APPLIED
    assert received(server) - before < 1000


def received(server):
    return int(server.info("stats")["total_net_input_bytes"])


async def test_the_end_is_published(store, client):
    """C3: in the same script that deletes; what was not there ends nothing."""
    async with client.pubsub() as listener:
        await listener.subscribe(store._layout.channel)
        await soon(listener.get_message(timeout=5))
        await store.commit([Create("h", META, {}), Delete("h", "revoked"), Delete("h")])
        await store.commit([Create("h", META, {}), Delete("h", "idle")])
        said = [await soon(listener.get_message(timeout=5)) for _ in range(2)]
        assert [one["data"] for one in said] == [b"1 h revoked", b"1 h idle"]


async def test_a_malformed_name_of_a_value(store):
    """S6: what is no text spoils one record, not the batch."""
    await store.commit([Create("h", META, {}), Create("fine", META, {"k": b"v"})])
    _, key, _ = store._layout.place("h")
    await store._transport.send([Command((b"HSET", key, b":\xff", b"v"), key)])
    broken, fine = await store.load(["h", "fine"])
    assert "malformed" in str(broken)
    assert fine.values == {"k": b"v"}


async def test_errors_keep_their_cause(namespace):
    """F3: what the driver said is the cause, what to do is in the text."""
    async with store_from_url("redis://127.0.0.1:1") as store:
        with pytest.raises(StoreError, match="check that Redis is running") as raised:
            await store.load(["h"])
    assert isinstance(raised.value.__cause__, redis.ConnectionError)
