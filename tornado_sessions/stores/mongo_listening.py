"""Hearing of the ends of sessions: from a change stream, or by looking for the notes.

A replica set tells of them by itself, as soon as a majority of its members knows. A
server without one has to be asked, and so has one that gives a user no change streams.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any, TypeVar

from tornado_sessions.deadline import ended
from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import LOOK_EVERY, EndListener
from tornado_sessions.stores.mongo_calls import answer_of
from tornado_sessions.stores.mongo_driver import ReadConcern, ReadPreference, Timestamp
from tornado_sessions.stores.mongo_ends import end_in
from tornado_sessions.stores.mongo_errors import (
    UNAUTHORIZED,
    code_of,
    no_answer,
    wants_user,
)
from tornado_sessions.stores.mongo_reads import fresh

log = logging.getLogger("tornado_sessions")

T = TypeVar("T")

_NO_STREAMS = {UNAUTHORIZED, 20, 59, 115, 148, 303, 40324, 40573}
"""What is answered to who wants a change stream where there are none: above all 40573,
"only supported on replica sets"."""
_DEADLINE = 5.0
"""Seconds that an answer may take, beyond those for which the server was asked to wait."""
_WAIT = 1.0
"""Seconds that the server waits for news before it answers that there are none."""
_GOODBYE = 0.25
"""Seconds to tell a server that may be hanging that nobody listens any more."""
_MARGIN = 10.0
"""Seconds that a note may take from getting its timestamp until it can be read."""
_PAGE = 1000
_NOTES = [
    # Nothing else of ours replaces a document: a server can leave out all the others
    # without looking inside of them.
    {
        "$match": {
            "operationType": "replace",
            "fullDocument.ended_at": {"$exists": True},
        }
    },
    {"$project": {"fullDocument._id": 1, "fullDocument.reason": 1}},
]


async def listen(collection: Any, listener: EndListener) -> None:
    """Tell *listener* of the ends in *collection*; see `Store.listen`."""
    while await _is_followed(collection, listener):
        pass  # what was missed in between is found, since it is connected again
    await _Looks(collection).go_on(listener)


async def _is_followed(collection: Any, listener: EndListener) -> bool:
    """Follow a change stream to its end; return False if there is none to be had."""
    stream = _Stream(collection)
    try:
        if not await stream.open():
            return False
        listener.connected()
        await stream.follow(listener)
    finally:
        await stream.close()
    return True


class _Stream:
    """A change stream, of PyMongo or of Motor.

    Whoever stops closes the cursor first. A call that comes to the server after that
    makes the driver open another cursor. So the call gets a moment to end: cancelled
    at once, it would leave that one open; and Motor's calls are made by threads,
    which cannot be cancelled at all.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = collection.with_options(
            read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
        )
        self._stream: Any = None
        self._call: asyncio.Future[Any] | None = None

    async def open(self) -> bool:
        """Open it; return False if there are none, or not for this user."""
        milliseconds = int(_WAIT * 1000)
        watch = self._collection.watch(_NOTES, max_await_time_ms=milliseconds)
        # PyMongo opens it here, Motor when it is entered.
        opening = watch if asyncio.iscoroutine(watch) else watch.__aenter__()
        try:
            self._stream = await self._answer(opening, _DEADLINE)
        except StoreError as error:
            if code_of(error) not in _NO_STREAMS or wants_user(error):
                raise
            log.debug("ends are looked for, since there is no change stream: %s", error)
            return False
        return True

    async def follow(self, listener: EndListener) -> None:
        """Tell *listener* of what comes, until it has to be opened anew.

        The driver itself resumes where the primary changes or a connection is lost.
        It cannot if the cursor was killed, or if the server knows the past no more.
        """
        answered = False
        while self._stream.alive:
            try:
                event = await self._answer(self._stream.try_next(), _WAIT + _DEADLINE)
            except StoreError as error:
                if not answered or code_of(error) is None:
                    raise
                log.debug("a change stream is opened anew: %s", error)
                return
            answered = True
            if event is not None:
                tell(listener, [event["fullDocument"]])

    async def close(self) -> None:
        """Close it on the server as well, if that answers."""
        await self._close()
        if self._call is None:
            return
        # It may be opening a cursor: the first, or one in place of that which was closed.
        await asyncio.wait([self._call], timeout=_GOODBYE)
        await ended(self._call)
        failed = self._call.cancelled() or self._call.exception()
        if self._stream is None and not failed:
            self._stream = self._call.result()
        await self._close()  # it may just have been opened, or resumed

    async def _close(self) -> None:
        if self._stream is not None:
            closing = asyncio.ensure_future(self._stream.close())
            await asyncio.wait([closing], timeout=_GOODBYE)
            await ended(closing)

    async def _answer(self, call: Awaitable[T], seconds: float) -> T:
        self._call = asyncio.ensure_future(call)
        await asyncio.wait([self._call], timeout=seconds)
        if not self._call.done():
            raise no_answer()
        return await answer_of(self._call)


class _Looks:
    """Looks for notes, again and again.

    The timestamps are the server's and grow, so the clocks of those who write do not
    matter. But a note can be read only some time after it got its own: each look goes
    back to what was the latest `_MARGIN` seconds ago, and leaves out what it has seen.
    """

    def __init__(self, collection: Any) -> None:
        self._collection = fresh(collection)
        self._since = Timestamp(0, 0)
        self._latest: deque[tuple[float, Any]] = deque()
        """What was the latest timestamp, and when; back to `_MARGIN` seconds ago."""
        self._seen: set[tuple[Any, Any]] = set()

    async def go_on(self, listener: EndListener) -> None:
        """Tell *listener* of all ends from now on."""
        await self._begin()
        listener.connected()
        looked = _clocks()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            began = _clocks()
            tell(listener, await self._look())
            passed = (now - then for now, then in zip(_clocks(), looked, strict=True))
            if max(passed) > _MARGIN:  # somebody stopped: it or the server
                listener.connected()
            looked = began

    async def _begin(self) -> None:
        """Find out from which note on, and see those that are there."""
        [*latest] = await self._notes(sort=[("ended_at", -1)], limit=1)
        for note in latest:
            seconds = max(0, note["ended_at"].time - int(_MARGIN))
            self._since = Timestamp(seconds, 0)
        await self._look()

    async def _look(self) -> list[dict[str, Any]]:
        """Return the notes that were not seen yet."""
        notes = await self._notes(batch_size=_PAGE)
        seen = {(note["_id"], note["ended_at"]): note for note in notes}
        new = [note for one, note in seen.items() if one not in self._seen]
        self._seen = set(seen)
        now = asyncio.get_running_loop().time()
        if seen:
            self._latest.append((now, max(at for _, at in seen)))
        while self._latest and self._latest[0][0] < now - _MARGIN:
            self._since = max(self._since, self._latest.popleft()[1])
        return new

    async def _notes(self, **options: Any) -> list[dict[str, Any]]:
        where = {"ended_at": {"$gte": self._since}}
        found = self._collection.find(where, {"ended_at": 1, "reason": 1}, **options)
        return list(await answer_of(found.to_list(None), seconds=_DEADLINE))


def _clocks() -> tuple[float, float]:
    """Return what both clocks say: that of the loop stands still while a machine sleeps."""
    return asyncio.get_running_loop().time(), time.time()


def tell(listener: EndListener, documents: list[dict[str, Any]]) -> None:
    """Tell *listener* of each end that one of *documents* is the note of."""
    for document in documents:
        end = end_in(document)
        if end is not None:
            listener.ended(*end)
