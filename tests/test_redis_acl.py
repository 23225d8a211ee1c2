"""The rights that the page about Redis lists: enough for everything, and not too many."""

import logging
import re
from importlib import metadata
from unittest import IsolatedAsyncioTestCase

import pytest
import redis.asyncio as redis_asyncio

from docpages import ROOT
from endskit import HearsReasons, listening
from httpkit_stores import until
from rediskit import RedisCluster, RedisSentinel, RedisServer
from tornado_sessions import StoreError
from tornado_sessions.stores import redis_ends
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome
from tornado_sessions.stores.redis import RedisStore
from tornado_sessions.testing import StoreConformance

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/stores/redis.md").read_text(encoding="utf-8")
[_COMMAND] = re.findall(r"^ACL SETUSER .+$", PAGE, re.MULTILINE)
ACL = _COMMAND.split()
MORE = {
    what: rights.replace("\\|", "|").split()
    for what, rights in re.findall(r"^\| (.+?) \| `(\+[^`]+)`", PAGE, re.MULTILINE)
}
TO_CLEAR = MORE["`store.clear()`"]
WHO = ("shop", "password")


def let_in(server, namespace, *more):
    """Make the user of the page for a namespace, with *more* rights; give its URL."""
    command = " ".join(ACL)
    assert command.count("shop") == len(["the user", "the keys", "the channel"])
    server.command(*command.replace("shop", namespace).split(), *more)
    return server.url_of(namespace, "password")


def changes():
    """Make a record of somebody, and the change that ends it."""
    meta = Meta(
        token=b"t" * 32,
        created_at=1.0,
        last_seen_at=1.0,
        expires_at=4e9,
        epoch_at=1.0,
        rotated_at=1.0,
        principal="ada",
    )
    return Create("handle", meta, {"key": b"1"}), Delete("handle")


def stats(server):
    return server.info("commandstats")


@pytest.fixture
def server():
    with RedisServer("--save", "") as running:
        yield running


async def used(store):
    """Create a session, find it and end it; say what became of that."""
    begin, end = changes()
    done = [*await store.commit([begin]), *await store.find("ada")]
    return [*done, *await store.commit([end])]


class TestLimitedUser(HearsReasons, StoreConformance, IsolatedAsyncioTestCase):
    """R1 to R5: the whole suite, by a user who may do what the page says."""

    @classmethod
    def setUpClass(cls):
        cls.server = RedisServer("--save", "").__enter__()
        cls.addClassCleanup(cls.server.end)

    async def make_store(self, clock, namespace):
        url = let_in(self.server, namespace, *TO_CLEAR)
        return RedisStore(url, namespace=namespace, clock=clock)

    async def corrupt(self, store, handle):
        _, key, _ = store._layout.place(handle)
        self.server.command("HSET", key, "epoch", '"x')


async def test_every_right_is_needed(server, monkeypatch):
    """There is no right on the page that sessions do not use."""
    monkeypatch.setattr(redis_ends, "_PING_EVERY", 0.05)
    url = let_in(server, "shop", *TO_CLEAR)
    begin, _ = changes()
    later = {"expires_at": 5e9, "principal": "bob"}
    change = Apply("handle", unset=["key"], expect={"key": b"1"}, meta=later)
    async with RedisStore(url, namespace="shop") as store:
        assert {*await store.commit([begin]), *await store.commit([change])} == {
            Outcome.APPLIED
        }
        assert len([one async for one in store.iterate()]) == await store.count() == 1
        assert await store.sweep(1) == 0
        await used(store)
        await store.commit([begin])
        await store.clear()
        async with listening(store):
            await until(lambda: "cmdstat_ping" in stats(server))
    called = {name.removeprefix("cmdstat_") for name in stats(server)}
    allowed = {word[1:] for word in [*ACL, *TO_CLEAR] if word.startswith("+")}
    assert allowed - called == set()


@pytest.mark.parametrize(
    "command",
    [
        "KEYS shop:*",
        "CONFIG GET *",
        "FLUSHALL",
        "GET shop:x",
        "HGET other:x y",
        "SCAN 0",
    ],
)
async def test_nothing_else_is_allowed(server, command):
    """With the rights of the page, every other command and every other key is denied."""
    async with redis_asyncio.Redis.from_url(let_in(server, "shop")) as client:
        with pytest.raises(redis_asyncio.RedisError, match="no permissions"):
            await client.execute_command(*command.split())


async def test_clear_needs_more(server):
    """Who may not SCAN is told so, and everything else works."""
    async with RedisStore(let_in(server, "shop"), namespace="shop") as store:
        assert (await used(store))[-1] is Outcome.APPLIED
        with pytest.raises(StoreError, match="'scan' command; the Redis user lacks"):
            await store.clear()


async def test_another_namespace_is_out_of_reach(server):
    """R5: the rights end where the namespace does, and the error says what is wrong."""
    async with RedisStore(let_in(server, "shop"), namespace="other") as store:
        for asked in (store.load(["handle"]), store.commit(changes()), store.count()):
            with pytest.raises(StoreError, match="the Redis user lacks a permission"):
                await asked


async def test_without_publish_sessions_end_all_the_same(server, caplog):
    """A user who may not publish gets one warning, and the session ends."""
    url = let_in(server, "shop", "-publish")
    async with RedisStore(url, namespace="shop") as store:
        with caplog.at_level(logging.WARNING, "tornado_sessions"):
            assert (await used(store))[-1] is Outcome.APPLIED
            assert (await used(store))[-1] is Outcome.APPLIED
    [message] = caplog.messages
    assert "did not publish it on shop:ended" in message


@pytest.mark.parametrize("lacks", ["-subscribe", "-publish", "-ping", "resetchannels"])
async def test_without_the_rights_to_listen(server, caplog, monkeypatch, lacks):
    """W1: one warning says what to grant; until then sessions are looked at."""
    monkeypatch.setattr(redis_ends, "_PING_EVERY", 0.05)
    async with RedisStore(let_in(server, "shop", lacks), namespace="shop") as store:
        for _ in range(2):
            async with listening(store) as (heard, task):
                await until(lambda heard=heard: heard.connections >= 3)
                assert not task.done()
            assert server.command("PUBSUB", "NUMSUB", "shop:ended")[1] == 0
    [message] = caplog.messages
    assert "Grant the user +publish +subscribe +ping &shop:ended" in message
    assert WHO[1] not in message


async def test_rights_that_are_taken_away(server, caplog):
    """W4: whoever listens meanwhile is cut off, and told what is missing next time."""
    async with RedisStore(let_in(server, "shop"), namespace="shop") as store:
        async with listening(store) as (_, task):
            let_in(server, "shop", "resetchannels")
            await until(task.done)
        with pytest.raises(StoreError):
            task.result()
        async with listening(store) as (heard, _):
            await until(lambda: heard.connections >= 2)
    assert "&shop:ended" in caplog.text


async def test_another_database(server):
    """A database other than 0 takes the right that the page adds for it."""
    url = let_in(server, "shop").removesuffix("/0") + "/1"
    async with RedisStore(url, namespace="shop") as store:
        with pytest.raises(StoreError, match="'select' command"):
            await store.count()
        let_in(server, "shop", *MORE["another database than 0"])
        assert (await used(store))[-1] is Outcome.APPLIED


async def test_cluster():
    """On a cluster the user takes the rights that the page adds for one."""
    rights = MORE["a cluster"]
    if metadata.version("redis").startswith("5.0."):
        rights = rights + MORE["a cluster with redis-py 5.0"]
    with RedisCluster() as cluster:
        for node in cluster.nodes:
            let_in(node, "shop", *rights)
        url = cluster.url.replace("://", f"://{':'.join(WHO)}@")
        async with RedisStore(url, namespace="shop") as store:
            assert (await used(store))[-1] is Outcome.APPLIED
            assert await store.count() == 0


async def test_sentinel():
    """The Sentinels may have users of their own, with the right that the page names."""
    [right] = re.findall(r"^A user of the Sentinels needs `(.+?)`", PAGE, re.MULTILINE)
    with RedisSentinel(down_after=15_000) as running:
        for one in running.data:
            let_in(one, "shop")
        for one in running.sentinels:
            one.command("ACL", "SETUSER", "finder", "on", ">secret", "-@all", right)
            one.command("ACL", "SETUSER", "default", "-@all", "+sentinel", "+acl")
        url = running.url.replace("://", f"://{':'.join(WHO)}@")
        url += "&sentinel_username=finder&sentinel_password=secret"
        async with RedisStore(url, namespace="shop") as store:
            assert (await used(store))[-1] is Outcome.APPLIED
