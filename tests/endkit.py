"""Listeners that keep what they hear, and records to be ended."""

import asyncio
import time
from contextlib import asynccontextmanager

from httpkit_stores import until
from tornado_sessions.stores.base import Create, Meta


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
async def listening(store, heard=None):
    """Listen to *store*; yield what is heard, and the task, when it has begun."""
    heard = Heard() if heard is None else heard
    before = heard.connections
    task = asyncio.ensure_future(store.listen(heard))
    try:
        await until(lambda: heard.connections > before or task.done())
        yield heard, task
    finally:
        task.cancel()
        await asyncio.wait([task])


def create(handle):
    """Return what stores the session *handle* for an hour."""
    now = time.time()
    times = dict.fromkeys(("created_at", "last_seen_at", "epoch_at", "rotated_at"), now)
    meta = Meta(token=b"t", expires_at=now + 3600, principal="alice", **times)
    return Create(handle, meta, {"k": b"v"})
