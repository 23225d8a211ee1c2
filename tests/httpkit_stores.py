"""Time, patience, and stores that can be watched, failed, slowed and parked.

Whichever store a test is about stands behind them: memory, or any of `backends`.
"""

import asyncio
import time
from collections import defaultdict
from contextlib import ExitStack, asynccontextmanager

import pytest

from backends import BACKENDS_AND_CLIENTS, backend_store
from tornado_sessions import CodecError, StoreError
from tornado_sessions.stores.base import Store
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


class AsyncStore(Store):
    """A store behind a suspension point: watched, and failed or parked when asked.

    Args:
        *failing: Calls that fail as with a database that is down; see ``failing``.
        inner: Where the records are; memory by default.
        delay: Seconds that each commit takes its time.
        clock: See `Store`; the inner store gets it, too.
    """

    immediate = False
    parallel = 16  # so that a parked call does not hold up the others

    def __init__(self, *failing, inner=None, delay=0.0, clock=time.time):
        self.inner = MemoryStore() if inner is None else inner
        super().__init__(clock=clock)
        self.shared = self.inner.shared
        self.failing = set(failing)
        self.unreadable = set()
        self.calls = []
        self.changes = []
        self._delay = delay
        self._gates = defaultdict(list)
        self._turns = defaultdict(lambda: asyncio.Semaphore(self.inner.parallel))
        self._opened = False

    @property
    def expires_natively(self):
        return self.inner.expires_natively  # some know only once they are open

    @property
    def clock(self):
        return self.inner.clock

    @clock.setter
    def clock(self, clock):
        self.inner.clock = clock

    async def open(self):
        await self.inner.open()
        self._opened = True

    async def close(self):
        self._opened = False
        await self.inner.close()

    async def load(self, handles):
        self.calls.append("load")
        await self.before("load")
        async with self._turns["load"]:
            loaded = await self.inner.load(handles)
        bad = [handle in self.unreadable for handle in handles]
        truncated = CodecError("truncated")
        return [truncated if b else r for b, r in zip(bad, loaded, strict=True)]

    async def commit(self, changes):
        self.calls.append("commit")
        self.changes.extend(changes)
        await self.before("commit")
        async with self._turns["commit"]:
            return await self.inner.commit(changes)

    async def before(self, call):
        """Wait and fail as the test has asked for."""
        await asyncio.sleep(self._delay if call == "commit" else 0)
        if self._gates[call]:
            await self._gates[call].pop(0).pass_through()
        self._fail(call)

    def _fail(self, call):
        if call in self.failing:
            raise StoreError(f"no {call} today") from ConnectionError("refused")

    def park(self, call):
        """Return a gate at which the next such call will wait."""
        gate = Gate()
        self._gates[call].append(gate)
        return gate

    async def find(self, principal):
        return await self.inner.find(principal)

    async def sweep(self, limit):
        return await self.inner.sweep(limit)

    async def iterate(self, batch=256):
        async for record in self.inner.iterate(batch):
            yield record

    async def count(self):
        return await self.inner.count()

    async def listen(self, listener):
        self.calls.append("listen")
        await self.before("listen")
        await self.inner.listen(listener)

    async def clear(self):
        await self.inner.clear()

    def forget(self):
        """Start counting anew."""
        self.calls.clear()
        self.changes.clear()

    async def kept(self):
        """Return every live record, from wherever it is kept; open or closed."""
        if self._opened:
            return [record async for record in self.inner.iterate()]
        async with self.inner:
            return [record async for record in self.inner.iterate()]

    async def cleaned_up(self):
        """Leave nothing on a backend that others use, too."""
        async with self.inner:
            await self.inner.clear()

    @property
    def records(self):
        """Every record, expired or not, of a store in memory."""
        shards = self.inner._shards
        return [kept.record() for shard in shards for kept in shard.values()]

    @property
    def record(self):
        (only,) = self.records
        return only


class ImmediateStore(AsyncStore):
    """Memory without the suspension point: commits run inside ``finish()``."""

    immediate = True

    async def before(self, call):
        self._fail(call)


BOTH = {"immediate": ImmediateStore, "asynchronous": AsyncStore}


@asynccontextmanager
async def making_stores(kind, folder):
    """Yield what makes stores to be watched, and clean up after them.

    Args:
        kind: One of BOTH, for memory, or the name of a backend.
        folder: Where a backend may keep files.
    """
    made = []
    with ExitStack() as after:

        def make(*failing, **options):
            if kind not in BOTH:
                options["inner"] = backend_store(kind, folder, after)
            made.append(BOTH.get(kind, AsyncStore)(*failing, **options))
            return made[-1]

        yield make
        for store in made:
            await store.cleaned_up()


def marked_slow(kinds):
    """Return *kinds* as parameters, of which those that are not QUICK are slow."""
    slow = pytest.mark.slow
    return [k if k in QUICK else pytest.param(k, marks=slow) for k in kinds]


QUICK = {*BOTH, "redis"}
"""With the others the tests run once, by the command of the README."""


def on_stores(*kinds):
    """Run a test with stores of each kind, which its fixture ``make_store`` makes.

    Args:
        *kinds: See `making_stores`.
    """
    return pytest.mark.parametrize("make_store", marked_slow(kinds), indirect=True)


on_both_paths = on_stores(*BOTH)
"""Commits run inside ``finish()``, or in a task that the response waits for."""
on_every_store = on_stores(*BOTH, *BACKENDS_AND_CLIENTS)
"""The same, and with every backend there is."""
on_waiting_stores = on_stores("asynchronous", *BACKENDS_AND_CLIENTS)
"""With every store whose calls can be parked."""
