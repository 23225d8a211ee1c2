"""RedisStore with a client of aioredis 2.0.1, which redis-py has replaced.

It imports on Python 3.10 at the latest: ``tox -e aioredis`` runs this.
"""

import importlib
import warnings
from typing import Any
from unittest import IsolatedAsyncioTestCase

import pytest

from endskit import HearsReasons
from httpkit import acting, serving
from parts import require_part
from rediskit import shared_redis
from tornado_sessions import ConfigurationError
from tornado_sessions.stores.redis import RedisStore
from tornado_sessions.stores.redis_transport import Command
from tornado_sessions.testing import StoreConformance

aioredis: Any
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports distutils
    try:
        aioredis = importlib.import_module("aioredis")
    except (ImportError, TypeError):  # TypeError: a newer Python
        aioredis = None


@pytest.fixture(autouse=True)
def _required():
    require_part("aioredis", aioredis is not None, "run tox -e aioredis")


class TestAioredis(HearsReasons, StoreConformance, IsolatedAsyncioTestCase):
    """R1 to R5, C1 to C4: the whole suite."""

    def client(self):
        return aioredis.from_url(shared_redis("standalone"))

    async def make_store(self, clock, namespace):
        client = self.client()
        self.addAsyncCleanup(client.connection_pool.disconnect)
        return RedisStore(client, namespace=namespace, clock=clock)

    async def corrupt(self, store, handle):
        _, key, _ = store._layout.place(handle)
        (answer,) = await store._transport.send(
            [Command((b"HSET", key, b"epoch", b'"x'), key)]
        )
        assert answer == 0  # it was there


class TestBlockingPool(TestAioredis):
    """R1 to R5: with a pool that makes others wait."""

    def client(self):
        url = shared_redis("standalone")
        pool = aioredis.BlockingConnectionPool.from_url(url, max_connections=2)
        return aioredis.Redis(connection_pool=pool)


class TestUnixSocket(TestAioredis):
    """R1 to R5: by the socket of this machine."""

    def client(self):
        return aioredis.from_url(shared_redis("unix"))


async def test_requests():
    """C1, S3: a visitor's session, over HTTP."""
    client = aioredis.from_url(shared_redis("standalone"))
    store = RedisStore(client, namespace="aioredis")
    async with serving(acting(), store=store) as site:
        visitor = site.visitor()
        await visitor.get("/?set=a:1")
        await visitor.get("/?set=b:2")
        assert (await visitor.get("/?touch=a")).body == b'{"a": "1", "b": "2"}'
        await store.clear()
    assert await client.ping()  # it is the application's
    await client.connection_pool.disconnect()


async def test_a_decoding_client_is_refused():
    """R4: it cannot be kept from decoding, so it is said at once."""
    client = aioredis.from_url("redis://localhost", decode_responses=True)
    with pytest.raises(ConfigurationError, match="without decode_responses"):
        RedisStore(client)
