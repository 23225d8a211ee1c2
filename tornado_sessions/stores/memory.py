"""Sessions in the memory of one process: for development, tests and single servers."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import msgspec

from tornado_sessions.stores.base import (
    Apply,
    Change,
    Clock,
    Create,
    Delete,
    EndListener,
    Loaded,
    Meta,
    Outcome,
    Record,
    Store,
    merged_record,
    unusable,
)

_SLOT = 64.0
"""Width in seconds of one slot of the expiry index."""
_LOOK = 4096
"""Live sessions of the current slot that one sweep looks at, at the most."""
_SHARDS = 256
"""Dicts of a million entries stall the loop when they grow; 256 small ones do not."""


class _Kept(msgspec.Struct, frozen=True, gc=False):
    """A record as it is kept: a small dict takes twice the memory of a tuple."""

    handle: str
    meta: Meta
    items: tuple[Any, ...]
    """The first key, its value, the second key, …"""

    def __repr__(self) -> str:
        return f"<_Kept {self.handle!r}>"

    def record(self) -> Record:
        each = iter(self.items)
        return Record(self.handle, self.meta, dict(zip(each, each, strict=True)))


class MemoryStore(Store):
    """Keeps sessions in a dict: nothing survives a restart, no other process sees them.

    Records are held in a form that Python's cyclic garbage collector need not visit, so
    a million sessions do not stall the loop when it runs.
    """

    immediate = True
    shared = False

    def __init__(self, *, clock: Clock = time.time) -> None:
        super().__init__(clock=clock)
        self._shards: list[dict[str, _Kept]] = [{} for _ in range(_SHARDS)]
        self._expiry = _ExpiryIndex()
        self._principals = _PrincipalIndex()
        self._listeners: list[EndListener] = []

    async def load(self, handles: Sequence[str]) -> list[Loaded]:
        now = self.clock()
        found = [self._live(handle, now) for handle in handles]
        return [kept.record() if kept is not None else None for kept in found]

    async def commit(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        now = self.clock()
        outcomes: list[Outcome | Exception] = []
        for change in changes:
            try:
                outcomes.append(self._commit_one(change, now))
            except (AttributeError, OverflowError, TypeError, ValueError) as error:
                outcomes.append(unusable(error))
        return outcomes

    async def find(self, principal: str) -> list[Record]:
        now = self.clock()
        handles = self._principals.handles(principal)
        found = (self._live(handle, now) for handle in handles)
        return [kept.record() for kept in found if kept is not None]

    async def sweep(self, limit: int) -> int:
        now = self.clock()
        expired = self._expiry.take_passed(now, limit)
        room = limit - len(expired)
        overdue = self._overdue(islice(self._expiry.current(now), room + _LOOK), now)
        expired += islice(overdue, room)
        for handle in expired:
            self._remove(self._shard(handle)[handle])
        return len(expired)

    async def iterate(self, batch: int = 256) -> AsyncIterator[Record]:
        for shard in self._shards:
            handles = list(shard)
            for start in range(0, len(handles), batch):
                for record in await self.load(handles[start : start + batch]):
                    if isinstance(record, Record):
                        yield record
                await asyncio.sleep(0)  # requests come first

    async def count(self) -> int:
        now = self.clock()
        overdue = self._overdue(self._expiry.current(now), now)
        expired = self._expiry.count_passed(now) + sum(1 for _ in overdue)
        return sum(map(len, self._shards)) - expired

    async def clear(self) -> None:
        for shard in self._shards:
            shard.clear()
        self._expiry = _ExpiryIndex()
        self._principals = _PrincipalIndex()

    async def listen(self, listener: EndListener) -> None:
        self._listeners.append(listener)
        try:
            listener.connected()
            await asyncio.get_running_loop().create_future()
        finally:
            self._listeners.remove(listener)

    def _shard(self, handle: str) -> dict[str, _Kept]:
        return self._shards[hash(handle) % _SHARDS]

    def _live(self, handle: str, now: float) -> _Kept | None:
        kept = self._shards[hash(handle) % _SHARDS].get(handle)
        if kept is None or kept.meta.expires_at <= now:
            return None
        return kept

    def _overdue(self, handles: Iterable[str], now: float) -> Iterator[str]:
        return (handle for handle in handles if self._live(handle, now) is None)

    def _commit_one(self, change: Change, now: float) -> Outcome:
        kept = self._live(change.handle, now)
        if isinstance(change, Create):
            if kept is not None:
                return Outcome.CONFLICT
            return self._put(change)
        if kept is None:
            return Outcome.GONE
        if isinstance(change, Delete):
            if change.expect_token not in (None, kept.meta.token):
                return Outcome.CONFLICT
            return self._end(kept, change.reason)
        return self._apply(kept.record(), change)

    def _apply(self, record: Record, change: Apply) -> Outcome:
        merged = merged_record(record, change)
        if merged is None:
            return Outcome.CONFLICT
        return self._put(merged)

    def _put(self, record: Record | Create) -> Outcome:
        shard = self._shard(record.handle)
        slot = _slot(record.meta.expires_at)  # what cannot be stored fails before
        items = tuple(chain.from_iterable(record.values.items()))
        previous = shard.get(record.handle)
        if previous is not None:
            self._unindex(previous)
        shard[record.handle] = _Kept(record.handle, record.meta, items)
        self._expiry.add(record.handle, slot)
        if record.meta.principal is not None:
            self._principals.add(record.meta.principal, record.handle)
        return Outcome.APPLIED

    def _end(self, kept: _Kept, reason: str) -> Outcome:
        self._remove(kept)
        for listener in tuple(self._listeners):
            listener.ended(kept.handle, reason)
        return Outcome.APPLIED

    def _remove(self, kept: _Kept) -> None:
        self._unindex(kept)
        del self._shard(kept.handle)[kept.handle]

    def _unindex(self, kept: _Kept) -> None:
        self._expiry.discard(kept.handle, kept.meta.expires_at)
        if kept.meta.principal is not None:
            self._principals.discard(kept.meta.principal, kept.handle)


def _slot(moment: float) -> int:
    return int(moment // _SLOT)


class _ExpiryIndex:
    """Handles by the time slot in which they expire: adding and removing are O(1)."""

    def __init__(self) -> None:
        self._slots: dict[int, dict[str, None]] = {}
        self._order: list[int] = []

    def add(self, handle: str, number: int) -> None:
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = {}
            insort(self._order, number)
        slot[handle] = None

    def discard(self, handle: str, expires_at: float) -> None:
        slot = self._slots.get(_slot(expires_at))
        if slot is not None:
            slot.pop(handle, None)

    def current(self, now: float) -> Iterable[str]:
        """Return the handles of the slot in which some expire later than *now*."""
        return self._slots.get(_slot(now), {})

    def count_passed(self, now: float) -> int:
        """Return the number of handles in the slots before the current one."""
        passed = bisect_left(self._order, _slot(now))
        return sum(len(self._slots[number]) for number in self._order[:passed])

    def take_passed(self, now: float, limit: int) -> list[str]:
        """Remove and return at most *limit* handles of those slots, oldest slot first.

        What is over is taken from the end of a slot, for dicts get slower at finding
        their first entry with every one that was removed before it.
        """
        taken: list[str] = []
        emptied = 0
        current = _slot(now)
        for number in self._order:
            if number >= current:
                break
            slot = self._slots[number]
            while slot and len(taken) < limit:
                taken.append(slot.popitem()[0])
            if slot:
                break
            del self._slots[number]
            emptied += 1
        del self._order[:emptied]
        return taken


class _PrincipalIndex:
    """Handles by principal: one as it is, since most have one, several in a dict."""

    def __init__(self) -> None:
        self._shards: list[dict[str, str | dict[str, None]]]
        self._shards = [{} for _ in range(_SHARDS)]

    def handles(self, principal: str) -> list[str]:
        theirs = self._shard(principal).get(principal, {})
        return [theirs] if isinstance(theirs, str) else list(theirs)

    def add(self, principal: str, handle: str) -> None:
        shard = self._shard(principal)
        theirs = shard.get(principal, handle)
        if isinstance(theirs, dict):
            theirs[handle] = None
        elif theirs == handle:
            shard[principal] = handle
        else:
            shard[principal] = {theirs: None, handle: None}

    def discard(self, principal: str, handle: str) -> None:
        shard = self._shard(principal)
        theirs = shard.get(principal)
        if isinstance(theirs, dict):
            theirs.pop(handle, None)
        if not theirs or theirs == handle:
            shard.pop(principal, None)

    def _shard(self, principal: str) -> dict[str, str | dict[str, None]]:
        return self._shards[hash(principal) % _SHARDS]
