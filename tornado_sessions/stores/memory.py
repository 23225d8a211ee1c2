"""Sessions in the memory of one process: for development, tests and single servers."""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import islice

from tornado_sessions.errors import CodecError
from tornado_sessions.stores.base import (
    Apply,
    Change,
    Clock,
    Create,
    Delete,
    Outcome,
    Record,
    Store,
    merged_record,
)

_SLOT = 8.0
"""Width in seconds of one slot of the expiry index."""
_LOOK = 4096
"""Live sessions of the current slot that one sweep looks at, at the most."""
_SHARDS = 256
"""Dicts of a million entries stall the loop when they grow; 256 small ones do not."""


class MemoryStore(Store):
    """Keeps sessions in a dict: nothing survives a restart, no other process sees them.

    Records are held in a form that Python's cyclic garbage collector need not visit, so
    a million sessions do not stall the loop when it runs.
    """

    immediate = True
    shared = False

    def __init__(self, *, clock: Clock = time.time) -> None:
        super().__init__(clock=clock)
        self._shards: list[dict[str, Record]] = [{} for _ in range(_SHARDS)]
        self._expiry = _ExpiryIndex()
        self._principals: dict[str, dict[str, None]] = {}

    async def load(self, handles: Sequence[str]) -> list[Record | CodecError | None]:
        now = self.clock()
        return [self._live(handle, now) for handle in handles]

    async def commit(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        now = self.clock()
        return [self._commit_one(change, now) for change in changes]

    async def find(self, principal: str) -> list[Record]:
        now = self.clock()
        handles = self._principals.get(principal, {})
        found = (self._live(handle, now) for handle in handles)
        return [record for record in found if record is not None]

    async def sweep(self, limit: int) -> int:
        now = self.clock()
        due = islice(self._expiry.due(now), limit + _LOOK)
        expired = (handle for handle in due if self._live(handle, now) is None)
        some = list(islice(expired, limit))
        for handle in some:
            self._remove(self._shard(handle)[handle])
        self._expiry.trim(now)
        return len(some)

    async def iterate(self, batch: int = 256) -> AsyncIterator[Record]:
        for shard in self._shards:
            handles = list(shard)
            for start in range(0, len(handles), batch):
                for record in await self.load(handles[start : start + batch]):
                    if isinstance(record, Record):
                        yield record

    async def count(self) -> int:
        now = self.clock()
        overdue = (h for h in self._expiry.due(now) if self._live(h, now) is None)
        return sum(map(len, self._shards)) - sum(1 for _ in overdue)

    async def clear(self) -> None:
        for shard in self._shards:
            shard.clear()
        self._expiry = _ExpiryIndex()
        self._principals.clear()

    def _shard(self, handle: str) -> dict[str, Record]:
        return self._shards[hash(handle) % _SHARDS]

    def _live(self, handle: str, now: float) -> Record | None:
        record = self._shards[hash(handle) % _SHARDS].get(handle)
        if record is None or record.meta.expires_at <= now:
            return None
        return record

    def _commit_one(self, change: Change, now: float) -> Outcome:
        record = self._live(change.handle, now)
        if isinstance(change, Create):
            if record is not None:
                return Outcome.CONFLICT
            return self._put(Record(change.handle, change.meta, dict(change.values)))
        if record is None:
            return Outcome.GONE
        if isinstance(change, Delete):
            return self._remove(record)
        return self._apply(record, change)

    def _apply(self, record: Record, change: Apply) -> Outcome:
        merged = merged_record(record, change)
        if merged is None:
            return Outcome.CONFLICT
        return self._put(merged)

    def _put(self, record: Record) -> Outcome:
        shard = self._shard(record.handle)
        previous = shard.get(record.handle)
        if previous is not None:
            self._unindex(previous)
        shard[record.handle] = record
        self._expiry.add(record.handle, record.meta.expires_at)
        if record.meta.principal is not None:
            theirs = self._principals.setdefault(record.meta.principal, {})
            theirs[record.handle] = None
        return Outcome.APPLIED

    def _remove(self, record: Record) -> Outcome:
        self._unindex(record)
        del self._shard(record.handle)[record.handle]
        return Outcome.APPLIED

    def _unindex(self, record: Record) -> None:
        self._expiry.discard(record.handle, record.meta.expires_at)
        principal = record.meta.principal
        if principal is not None:
            theirs = self._principals[principal]
            del theirs[record.handle]
            if not theirs:
                del self._principals[principal]


class _ExpiryIndex:
    """Handles by the time slot in which they expire: adding and removing are O(1)."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[str, None]] = {}
        self._order: list[int] = []

    def add(self, handle: str, expires_at: float) -> None:
        number = int(expires_at // _SLOT)
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            insort(self._order, number)
        slot[handle] = None

    def discard(self, handle: str, expires_at: float) -> None:
        self._slots[int(expires_at // _SLOT)].pop(handle, None)

    def due(self, now: float) -> Iterator[str]:
        """Yield what has expired, oldest slot first, and some that soon will."""
        current = int(now // _SLOT)
        for number in self._order[: bisect_right(self._order, current)]:
            yield from self._slots[number]

    def trim(self, now: float) -> None:
        """Forget the slots that have passed and are empty."""
        current = int(now // _SLOT)
        passed = 0
        for number in self._order:
            if number >= current or self._slots[number]:
                break
            del self._slots[number]
            passed += 1
        del self._order[:passed]
