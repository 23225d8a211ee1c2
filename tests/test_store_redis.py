"""RedisStore keeps the contract: on every kind of Redis, by every kind of client."""

from unittest import IsolatedAsyncioTestCase

import pytest
import redis.asyncio as redis_asyncio

from endskit import HearsReasons
from rediskit import shared_redis, shared_server
from tornado_sessions.stores.base import Outcome
from tornado_sessions.stores.redis import RedisStore
from tornado_sessions.stores.redis_transport import Command
from tornado_sessions.testing import StoreConformance

APPLIED = Outcome.APPLIED


class RedisConformance(HearsReasons, StoreConformance):
    """R1 to R5, C1 to C4: the whole suite, on one kind of server."""

    kind = "standalone"

    async def make_store(self, clock, namespace):
        return RedisStore(shared_redis(self.kind), namespace=namespace, clock=clock)

    async def corrupt(self, store, handle):
        _, key, _ = store._layout.place(handle)
        (answer,) = await store._transport.send(
            [Command((b"HSET", key, b"epoch", b'"x'), key)]
        )
        assert answer == 0  # it was there


class TestServer(RedisConformance, IsolatedAsyncioTestCase):
    pass


@pytest.mark.slow
class TestUnixSocket(RedisConformance, IsolatedAsyncioTestCase):
    kind = "unix"


@pytest.mark.slow
class TestTLS(RedisConformance, IsolatedAsyncioTestCase):
    kind = "tls"


class TestCluster(RedisConformance, IsolatedAsyncioTestCase):
    kind = "cluster"


@pytest.mark.slow
class TestSentinel(RedisConformance, IsolatedAsyncioTestCase):
    kind = "sentinel"


class ClientConformance(RedisConformance):
    """The whole suite, by a client that the application made."""

    def client(self):
        return redis_asyncio.Redis.from_url(shared_redis("standalone"))

    async def make_store(self, clock, namespace):
        client = self.client()
        self.addAsyncCleanup(client.aclose)
        return RedisStore(client, namespace=namespace, clock=clock)


class TestClient(ClientConformance, IsolatedAsyncioTestCase):
    pass


@pytest.mark.slow
class TestDecodingClient(ClientConformance, IsolatedAsyncioTestCase):
    def client(self):
        url = shared_redis("standalone")
        return redis_asyncio.Redis.from_url(url, decode_responses=True)


@pytest.mark.slow
class TestNewProtocolClient(ClientConformance, IsolatedAsyncioTestCase):
    """RESP3, with a decoding client, and a pool that makes others wait."""

    def client(self):
        url = shared_redis("standalone")
        pool = redis_asyncio.BlockingConnectionPool.from_url(
            url, protocol=3, decode_responses=True, max_connections=1
        )
        return redis_asyncio.Redis.from_pool(pool)


@pytest.mark.slow
class TestClusterClient(ClientConformance, IsolatedAsyncioTestCase):
    kind = "cluster"

    def client(self):
        node = shared_server("cluster").nodes[0]
        return redis_asyncio.RedisCluster(
            host="127.0.0.1", port=node.port, decode_responses=True
        )


@pytest.mark.slow
class TestSentinelClient(ClientConformance, IsolatedAsyncioTestCase):
    kind = "sentinel"

    def client(self):
        sentinels = shared_server("sentinel").sentinels
        places = [("127.0.0.1", one.port) for one in sentinels]
        self.sentinel = redis_asyncio.Sentinel(places)
        for one in self.sentinel.sentinels:
            self.addAsyncCleanup(one.aclose)
        return self.sentinel.master_for("mymaster")
