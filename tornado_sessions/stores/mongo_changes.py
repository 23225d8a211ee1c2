"""A batch of changes, carried out in one round trip, with what became of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import (
    Apply,
    Change,
    Clock,
    Create,
    Delete,
    Outcome,
    unusable,
)
from tornado_sessions.stores.mongo_calls import answer_of
from tornado_sessions.stores.mongo_documents import document_of, is_handle
from tornado_sessions.stores.mongo_driver import (
    BSONError,
    BulkWriteError,
    DeleteOne,
    InsertOne,
    UpdateOne,
)
from tornado_sessions.stores.mongo_ends import Ends, note_of
from tornado_sessions.stores.mongo_errors import item_error, unconfirmed
from tornado_sessions.stores.mongo_reads import fresh
from tornado_sessions.stores.mongo_updates import NOT_AS_EXPECTED, update_of

T = TypeVar("T")
Outcomes: TypeAlias = dict[int, "Outcome | Exception"]
"""What became of the changes at some positions of a batch."""

Updates: TypeAlias = dict[int, tuple[Apply, UpdateOne]]
Deletes: TypeAlias = dict[int, tuple[Delete, dict[str, Any]]]
"""Ends, and the note that each is to leave."""

_CLOCKS = "the clocks of the servers that write sessions differ; set them"
_CONFLICT = Outcome.CONFLICT
_DUPLICATE = 11000
_ID = {"_id": 1}
_DELETES_AT_ONCE = 16
_ITEM_ERRORS = (AttributeError, BSONError, OverflowError, TypeError, ValueError)
"""What an unusable item raises, before anything is sent."""


class _Requests:
    """What changes ask of the server, and the outcomes of those that ask for nothing.

    Args:
        changes: By their positions in the batch, as everything here is.
        now: What expires until then has expired.
        clock: See `Store`.
    """

    def __init__(self, changes: Mapping[int, Change], now: float, clock: Clock) -> None:
        self.creates: dict[int, dict[str, Any]] = {}
        self.updates: Updates = {}
        self.deletes: Deletes = {}
        self.outcomes: Outcomes = {}
        for at, change in changes.items():
            try:
                self._add(at, change, now, clock)
            except _ITEM_ERRORS as error:
                self.outcomes[at] = unusable(error)

    def _add(self, at: int, change: Change, now: float, clock: Clock) -> None:
        if isinstance(change, Create):
            self.creates[at] = document_of(change, clock)
        elif not is_handle(change.handle):
            self.outcomes[at] = Outcome.GONE
        elif isinstance(change, Delete):
            self.deletes[at] = change, note_of(change, clock)
        else:
            self.updates[at] = change, update_of(change, now, clock)


class Changes:
    """Carries out changes in one collection.

    Args:
        collection: Of PyMongo or of Motor: what is used of them is the same.
        clock: Tells what has expired.
        ends: Ends sessions.
    """

    def __init__(self, collection: Any, clock: Clock, ends: Ends) -> None:
        self._collection = collection
        self._clock = clock
        self._ends = ends

    async def carry_out(self, changes: Sequence[Change]) -> list[Outcome | Exception]:
        """Return what became of each of *changes*, as `Store.commit` does."""
        outcomes: Outcomes = {}
        for positions in waves(changes):
            outcomes |= await self._wave({at: changes[at] for at in positions})
        return [outcomes[at] for at in range(len(changes))]

    async def _wave(self, changes: Mapping[int, Change]) -> Outcomes:
        """Carry out changes of different handles, all at the same time."""
        now = self._clock()
        asked = _Requests(changes, now, self._clock)
        calls = []
        if asked.creates:
            calls.append(self._create(asked.creates, now))
        if asked.updates:
            calls.append(self._update(asked.updates, now))
        if asked.deletes:
            calls.append(self._delete(asked.deletes, now))
        outcomes = asked.outcomes
        for answer in await all_of(calls):
            outcomes |= answer
        return outcomes

    # -- create ----------------------------------------------------------------------

    async def _create(
        self, documents: dict[int, dict[str, Any]], now: float
    ) -> Outcomes:
        outcomes = await self._insert(documents)
        taken = {at: documents[at] for at, o in outcomes.items() if o is _CONFLICT}
        if taken:
            expired = [
                DeleteOne({"_id": one["_id"], "expires_at": {"$lte": now}})
                for one in taken.values()
            ]
            await self._bulk(expired)
            # The server itself may have deleted one meanwhile: it counts for nothing.
            outcomes |= await self._insert(taken)
        return outcomes

    async def _insert(self, documents: dict[int, dict[str, Any]]) -> Outcomes:
        positions = list(documents)
        _, errors = await self._bulk([InsertOne(one) for one in documents.values()])
        outcomes: Outcomes = dict.fromkeys(positions, Outcome.APPLIED)
        for error in errors:
            # A unique index that somebody else made knows nothing of handles.
            which = error.get("keyPattern", _ID)
            taken = error["code"] == _DUPLICATE and which == _ID
            outcomes[positions[error["index"]]] = (
                _CONFLICT if taken else item_error(error)
            )
        return outcomes

    # -- apply -----------------------------------------------------------------------

    async def _update(self, updates: Updates, now: float) -> Outcomes:
        positions = list(updates)
        details, errors = await self._bulk([one for _, one in updates.values()])
        outcomes: Outcomes = {}
        for error in errors:
            unmet = error["code"] == NOT_AS_EXPECTED
            outcomes[positions[error["index"]]] = (
                _CONFLICT if unmet else item_error(error)
            )
        unknown = {at: updates[at] for at in positions if at not in outcomes}
        unmatched = len(unknown) - details["nMatched"]
        if unmatched:
            return outcomes | await self._unmatched(unknown, unmatched, now)
        return outcomes | dict.fromkeys(unknown, Outcome.APPLIED)

    async def _unmatched(self, updates: Updates, count: int, now: float) -> Outcomes:
        """Find out which of *updates* had no live record; the server counts them only.

        What is not there now may have been there when it was changed, and ended since:
        it is GONE all the same, as if it had ended before.
        """
        handles = {at: change.handle for at, (change, _) in updates.items()}
        live: set[str] = set()
        if count < len(handles):
            live = await self._live(list(handles.values()), now)
        gone = [at for at, handle in handles.items() if handle not in live]
        outcomes: Outcomes = dict.fromkeys(handles, Outcome.APPLIED)
        if len(gone) < count:  # one that had expired lives: another clock is behind
            there = {at: updates[at] for at in handles.keys() - {*gone}}
            outcomes = await self._one_by_one(there, now)
        return outcomes | dict.fromkeys(gone, Outcome.GONE)

    async def _one_by_one(self, updates: Updates, now: float) -> Outcomes:
        """Carry out *updates* again, each by itself, if that does no more than once."""
        outcomes: Outcomes = {}
        for at, (change, update) in updates.items():
            if change.expect or change.expect_token is not None:
                outcomes[at] = StoreError(_CLOCKS)
            else:
                outcomes |= await self._update({at: (change, update)}, now)
        return outcomes

    async def _live(self, handles: list[str], now: float) -> set[str]:
        primary = fresh(self._collection)
        where = {"_id": {"$in": handles}, "expires_at": {"$gt": now}}
        found = primary.find(where, {"_id": 1}, batch_size=len(handles) + 1)
        return {one["_id"] for one in await answer_of(found.to_list(None))}

    # -- delete ----------------------------------------------------------------------

    async def _delete(self, deletes: Deletes, now: float) -> Outcomes:
        # One command each, since the answer to many at once is a mere number.
        free = asyncio.Semaphore(_DELETES_AT_ONCE)

        async def delete(change: Delete, note: dict[str, Any]) -> Outcome:
            async with free:
                return await self._ends.end(self._collection, change, note, now)

        done = await all_of([delete(*one) for one in deletes.values()])
        outcomes: Outcomes = dict(zip(deletes, done, strict=True))
        return outcomes | await self._spared(deletes, outcomes, now)

    async def _spared(
        self, deletes: Deletes, outcomes: Outcomes, now: float
    ) -> Outcomes:
        """Return which of *deletes* found nothing because the token is another one."""
        unmet = {
            at: change.handle
            for at, (change, _) in deletes.items()
            if outcomes[at] is Outcome.GONE and change.expect_token is not None
        }
        live = await self._live(list(unmet.values()), now) if unmet else set()
        return {at: _CONFLICT for at, handle in unmet.items() if handle in live}

    async def _bulk(
        self, requests: Sequence[Any]
    ) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
        """Return the counts of one bulk write, and its errors, each with an index."""
        try:
            write = self._collection.bulk_write(requests, ordered=False)
            result = await answer_of(write)
        except BulkWriteError as error:
            details: Mapping[str, Any] = error.details
        else:
            return result.bulk_api_result, []
        if details["writeConcernErrors"]:
            raise unconfirmed(details["writeConcernErrors"])
        return details, details["writeErrors"]


def waves(changes: Sequence[Change]) -> list[list[int]]:
    """Return the positions of *changes* so that no handle is twice in one list.

    Changes of one handle take effect in their order then, one wave after the other.
    """
    if len({change.handle for change in changes}) == len(changes):
        return [list(range(len(changes)))]
    found: list[list[int]] = []
    seen: Counter[str] = Counter()
    for at, change in enumerate(changes):
        if seen[change.handle] == len(found):
            found.append([])
        found[seen[change.handle]].append(at)
        seen[change.handle] += 1
    return found


async def all_of(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Return what each of *calls* does; none is still under way if one has failed."""
    if len(calls) == 1:
        return [await calls[0]]
    done = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[T] = []
    for one in done:
        if isinstance(one, BaseException):
            raise one
        answers.append(one)
    return answers
