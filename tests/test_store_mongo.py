"""MongoStore against the contract: each driver, on each kind of server."""

import asyncio
from unittest import IsolatedAsyncioTestCase

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from motor.motor_tornado import MotorClient

from mongokit import shared_mongo
from tornado_sessions.stores.mongo import MongoStore
from tornado_sessions.testing import StoreConformance


class MongoConformance(StoreConformance):
    """What the suite needs to know of MongoDB; a peer has a client of its own."""

    kind = "standalone"

    async def asyncSetUp(self):
        # unittest turns it on, and a driver is three times as slow with it.
        asyncio.get_running_loop().set_debug(False)
        await super().asyncSetUp()

    async def make_store(self, clock, namespace):
        client = self.make_client(shared_mongo(self.kind))
        return MongoStore(client, namespace=namespace, clock=clock)

    def make_client(self, url):
        return url

    async def corrupt(self, store, handle):
        await store._collection.update_one({"_id": handle}, {"$set": {"epoch": "x"}})


class MotorConformance(MongoConformance):
    """The same with a client of Motor, which the store leaves open."""

    motor: type

    def make_client(self, url):
        client = self.motor(url)
        self.addCleanup(client.close)
        return client


class TestAsyncPyMongo(MongoConformance, IsolatedAsyncioTestCase):
    """R6: PyMongo's asyncio API on a standalone server."""


@pytest.mark.slow
class TestAsyncPyMongoOnAReplicaSet(MongoConformance, IsolatedAsyncioTestCase):
    """R6: PyMongo's asyncio API on a replica set, where it repeats lost writes."""

    kind = "replica set"


@pytest.mark.slow
class TestMotorTornado(MotorConformance, IsolatedAsyncioTestCase):
    """R6: Motor as Tornado applications use it."""

    motor = MotorClient


@pytest.mark.slow
class TestMotorAsyncio(MotorConformance, IsolatedAsyncioTestCase):
    """R6: Motor as asyncio applications use it."""

    motor = AsyncIOMotorClient


@pytest.mark.slow
class TestMotorOnAReplicaSet(MotorConformance, IsolatedAsyncioTestCase):
    """R6: Motor on a replica set."""

    kind = "replica set"
    motor = MotorClient
