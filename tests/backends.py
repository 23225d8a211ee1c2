"""Every place where sessions can be kept, by name: a new namespace for each use.

A server is started when a test first asks for it, and shared by the whole run.
"""

import importlib
import secrets
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mongokit import shared_mongo
from rediskit import shared_redis
from tornado_sessions.stores.base import Store
from tornado_sessions.stores.url import store_from_url

PLACES: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda folder: f"sqlite:///{folder}/sessions.db",
    "file": lambda folder: f"file://{folder}/sessions",
    "redis": lambda _: shared_redis("standalone"),
    "redis-unix": lambda _: shared_redis("unix"),
    "redis-tls": lambda _: shared_redis("tls"),
    "redis-cluster": lambda _: shared_redis("cluster"),
    "redis-sentinel": lambda _: shared_redis("sentinel"),
    "mongo": lambda _: shared_mongo("standalone"),
    "mongo-replica-set": lambda _: shared_mongo("replica set"),
}
"""What gives the URL of each backend, without a namespace."""
CLIENTS = {
    "mongo-motor-tornado": ("motor.motor_tornado", "MotorClient"),
    "mongo-motor-asyncio": ("motor.motor_asyncio", "AsyncIOMotorClient"),
}
"""Drivers of MongoDB that no URL names: a store is handed a client of theirs."""
BACKENDS = [name for name in PLACES if name != "redis-tls"]
"""What most tests run on: to them it is all the same whether TLS is in between."""
BACKENDS_AND_CLIENTS = [*BACKENDS, *CLIENTS]


def backend_url(name: str, folder: Path) -> str:
    """Return the URL of a backend, with a namespace that nobody has used yet.

    Args:
        name: One of PLACES.
        folder: Where a backend that is no server keeps its files.
    """
    place = PLACES[name](folder)
    return f"{place}{'&' if '?' in place else '?'}namespace={_namespace()}"


def backend_store(name: str, folder: Path, after: ExitStack) -> Store:
    """Return a new store on a backend, in a namespace of its own.

    Args:
        name: One of PLACES or CLIENTS.
        folder: As for `backend_url`.
        after: Closes the client that the store was handed, if it was.
    """
    if name in PLACES:
        return store_from_url(backend_url(name, folder))
    module, factory = CLIENTS[name]
    client = getattr(importlib.import_module(module), factory)(shared_mongo())
    after.callback(client.close)
    stores: Any = importlib.import_module("tornado_sessions.stores.mongo")
    return stores.MongoStore(client, namespace=_namespace())


def _namespace():
    return f"t{secrets.token_hex(6)}"
