"""Who listens to what a store tells of ends."""

import asyncio
from contextlib import asynccontextmanager

from httpkit_stores import until


class HearsReasons:
    """A part of a `StoreConformance`: to look at sessions instead will not do."""

    async def _heard_of(self, heard, *ends):
        await heard.until(lambda: set(ends) <= set(heard.ends))
        assert heard.connections == 1


class Heard:
    """An `EndListener` that remembers."""

    def __init__(self):
        self.ends = []
        self.connections = 0

    def ended(self, handle, reason):
        self.ends.append((handle, reason))

    def connected(self):
        self.connections += 1


@asynccontextmanager
async def listening(store):
    """Listen to *store*; give what is heard, and the task that may fail."""
    heard = Heard()
    task = asyncio.create_task(store.listen(heard))
    try:
        await until(lambda: heard.connections or task.done())
        yield heard, task
    finally:
        task.cancel()
        await asyncio.wait([task])
