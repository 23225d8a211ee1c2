"""Stores with one defect each, to prove that the conformance suite bites (R6).

Each is `MemoryStore` with the one mistake that its docstring tells, made where real
session stores were found to make it.
"""

import asyncio
from typing import ClassVar

import msgspec

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome, Record
from tornado_sessions.stores.memory import MemoryStore

NEVER = 4e9


class UpsertingStore(MemoryStore):
    """Has one verb "save": what was deleted comes back with the next slow request."""

    def _commit_one(self, change, now):
        if isinstance(change, Apply) and self._live(change.handle, now) is None:
            times = ("created_at", "last_seen_at", "epoch_at", "rotated_at")
            meta = {"expires_at": now + 60, "token": b"", **dict.fromkeys(times, now)}
            change = Create(change.handle, Meta(**{**meta, **change.meta}), change.set)
        return super()._commit_one(change, now)


class OverwritingStore(MemoryStore):
    """Lets a create replace a live record."""

    def _commit_one(self, change, now):
        if isinstance(change, Create):
            super()._commit_one(Delete(change.handle), now)
        return super()._commit_one(change, now)


class TrustingStore(MemoryStore):
    """Ignores what an apply expects to find."""

    def _apply(self, record, change):
        return super()._apply(record, msgspec.structs.replace(change, expect={}))


class TokenBlindStore(MemoryStore):
    """Ignores which token an apply expects to find."""

    def _apply(self, record, change):
        return super()._apply(
            record, msgspec.structs.replace(change, expect_token=None)
        )


class LazyStore(MemoryStore):
    """Serves expired records until a sweep comes along."""

    def _live(self, handle, now):
        return super()._live(handle, -NEVER)


class ShorteningStore(MemoryStore):
    """Takes the expiry from whoever commits last, even if it is earlier."""

    def _apply(self, record, change):
        outcome = super()._apply(record, change)
        if outcome is Outcome.APPLIED and change.meta:
            merged = self._shard(record.handle)[record.handle]
            meta = msgspec.structs.replace(merged.meta, **change.meta)
            self._put(Record(record.handle, meta, merged.record().values))
        return outcome


class BlobStore(MemoryStore):
    """Reads the whole session, thinks, and writes the whole session."""

    immediate = False

    async def commit(self, changes):
        now = self.clock()
        before = [self._live(change.handle, now) for change in changes]
        await asyncio.sleep(0)
        outcomes = []
        for change, record in zip(changes, before, strict=True):
            if isinstance(change, Apply) and record is not None:
                outcomes.append(self._apply(record.record(), change))
            else:
                outcomes.append(self._commit_one(change, now))
        return outcomes


class WipingStore(MemoryStore):
    """Replaces all values by those that an apply sets."""

    def _apply(self, record, change):
        return super()._apply(Record(record.handle, record.meta, {}), change)


class SweepingAllStore(MemoryStore):
    """Does not care about the limit of a sweep."""

    async def sweep(self, limit):
        return await super().sweep(10**6)


class SweepingLiveStore(MemoryStore):
    """Sweeps by the expiry that a record was created with."""

    def __init__(self, **options):
        super().__init__(**options)
        self._first = {}

    def _put(self, record):
        self._first.setdefault(record.handle, record.meta.expires_at)
        return super()._put(record)

    async def sweep(self, limit):
        now = self.clock()
        due = [handle for handle, expiry in self._first.items() if expiry <= now]
        for handle in due[:limit]:
            del self._first[handle]
            record = self._shard(handle).get(handle)
            if record is not None:
                self._remove(record)
        return len(due[:limit])


class SharingStore(MemoryStore):
    """Keeps every namespace in one place."""

    shared = True
    places: ClassVar[dict] = {}

    def __init__(self, place, **options):
        super().__init__(**options)
        mine = (self._shards, self._expiry, self._principals, self._listeners)
        shared = self.places.setdefault(place, mine)
        self._shards, self._expiry, self._principals, self._listeners = shared

    async def clear(self):
        for shard in self._shards:
            shard.clear()


class StaleIndexStore(MemoryStore):
    """Finds by what the index says, and never looks at the record."""

    def _unindex(self, record):
        self._expiry.discard(record.handle, record.meta.expires_at)

    async def find(self, principal):
        handles = self._principals.handles(principal)
        found = [self._shard(handle).get(handle) for handle in handles]
        return [kept.record() for kept in found if kept is not None]


class PagingStore(MemoryStore):
    """Iterates by offset, so that deletions make it skip records."""

    async def iterate(self, batch=256):
        start = 0
        while True:
            handles = sorted(handle for shard in self._shards for handle in shard)
            some = handles[start : start + batch]
            if not some:
                return
            for record in await self.load(some):
                if record is not None:
                    yield record
            start += batch


class AllOrNothingStore(MemoryStore):
    """Fails a whole batch for one item that it cannot store."""

    async def commit(self, changes):
        for change in changes:
            values = {} if isinstance(change, Delete) else _written(change)
            if not all(isinstance(raw, bytes) for raw in values.values()):
                raise StoreError("cannot store that")
        return await super().commit(changes)


class UnorderedStore(MemoryStore):
    """Carries out the deletes of a batch first."""

    async def commit(self, changes):
        order = sorted(
            range(len(changes)), key=lambda n: not isinstance(changes[n], Delete)
        )
        outcomes = await super().commit([changes[number] for number in order])
        by_place = dict(zip(order, outcomes, strict=True))
        return [by_place[number] for number in range(len(changes))]


class TextStore(MemoryStore):
    """Takes values for text."""

    async def load(self, handles):
        return [record and _as_text(record) for record in await super().load(handles)]


class DottedKeyStore(MemoryStore):
    """Takes a dot or a dollar in a key for something of its own."""

    def _put(self, record):
        values = {
            key.replace(".", "_").lstrip("$"): raw for key, raw in record.values.items()
        }
        return super()._put(Record(record.handle, record.meta, values))


class OneShotStore(MemoryStore):
    """Cannot be used again once it was closed."""

    closed = False

    async def close(self):
        if self.closed:
            raise RuntimeError("closed twice")
        self.closed = True


def _written(change):
    return change.values if isinstance(change, Create) else change.set


def _as_text(record):
    values = {
        key: raw.decode("utf-8", "ignore").encode()
        for key, raw in record.values.items()
    }
    return Record(record.handle, record.meta, values)


class ReassuringStore(MemoryStore):
    """Says that it ended what it left alone, since the token was another."""

    def _commit_one(self, change, now):
        live = self._live(change.handle, now)
        token = live and live.record().meta.token
        if isinstance(change, Delete) and change.expect_token not in (None, token):
            return Outcome.APPLIED if live else Outcome.GONE
        return super()._commit_one(change, now)


class GullibleStore(MemoryStore):
    """Takes the hint whose session it is for the truth."""

    def _apply(self, record, change):
        if change.principal is not None:
            meta = {"principal": change.principal, **change.meta}
            change = msgspec.structs.replace(change, meta=meta)
        return super()._apply(record, change)


class FirstPageStore(MemoryStore):
    """Finds no more of a principal than one page of its database."""

    async def find(self, principal):
        return (await super().find(principal))[:100]
