"""Time, patience, and stores that can be watched, failed, slowed and parked."""

import asyncio
import time
from collections import defaultdict

import pytest

from tornado_sessions import StoreError
from tornado_sessions.stores.memory import MemoryStore

PATIENCE = 10.0
"""Seconds after which a test gives up on what should happen at once."""


async def soon(awaitable):
    """Wait for something that is about to happen."""
    return await asyncio.wait_for(awaitable, PATIENCE)


async def until(condition):
    """Give the event loop its turn until the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.001)


class FakeClock:
    """Time that stands still unless told to move."""

    def __init__(self):
        self.now = float(int(time.time()))

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


class Gate:
    """Holds whoever passes until it is opened, and tells when somebody has come."""

    def __init__(self):
        self._arrived = asyncio.Event()
        self._opened = asyncio.Event()

    async def pass_through(self):
        self._arrived.set()
        await self._opened.wait()

    async def arrival(self):
        await soon(self._arrived.wait())

    def open(self):
        self._opened.set()


class AsyncStore(MemoryStore):
    """Memory behind a suspension point, which notes what it is asked for."""

    immediate = False
    parallel = 16

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []
        self.changes = []

    async def load(self, handles):
        self.calls.append("load")
        await self.before("load")
        return await super().load(handles)

    async def commit(self, changes):
        self.calls.append("commit")
        self.changes.extend(changes)
        await self.before("commit")
        return await super().commit(changes)

    async def before(self, call):
        await asyncio.sleep(0)

    def forget(self):
        """Start counting anew."""
        self.calls.clear()
        self.changes.clear()

    @property
    def records(self):
        """Every record, expired or not."""
        return [kept.record() for shard in self._shards for kept in shard.values()]

    @property
    def record(self):
        (only,) = self.records
        return only


class ImmediateStore(AsyncStore):
    """The same without the suspension point: commits run inside ``finish()``."""

    immediate = True

    async def before(self, call):
        pass


class FailingStore(AsyncStore):
    """Fails the calls named in ``failing``, as a database that is down."""

    def __init__(self, *failing, **kwargs):
        super().__init__(**kwargs)
        self.failing = set(failing)

    async def before(self, call):
        await asyncio.sleep(0)
        if call in self.failing:
            raise StoreError(f"no {call} today") from ConnectionError("refused")


class FailingImmediateStore(FailingStore):
    immediate = True

    async def before(self, call):
        if call in self.failing:
            raise StoreError(f"no {call} today") from ConnectionError("refused")


class SlowStore(AsyncStore):
    """Takes its time with each commit."""

    def __init__(self, delay, **kwargs):
        super().__init__(**kwargs)
        self.delay = delay

    async def before(self, call):
        await asyncio.sleep(self.delay if call == "commit" else 0)


class ParkedStore(AsyncStore):
    """Holds calls at gates: ``park(call)`` makes one for the next such call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._gates = defaultdict(list)

    def park(self, call):
        gate = Gate()
        self._gates[call].append(gate)
        return gate

    async def before(self, call):
        await asyncio.sleep(0)
        if self._gates[call]:
            await self._gates[call].pop(0).pass_through()


STORES = [ImmediateStore, AsyncStore]
on_both_paths = pytest.mark.parametrize(
    "make_store", STORES, ids=["immediate", "asynchronous"]
)
"""Commits run inside ``finish()``, or in a task that the response waits for."""
