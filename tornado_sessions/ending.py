"""Ends several sessions of one principal at once: all of them, or those that are too many.

At most so many may be had (E7): a login ends the oldest beyond that. Nothing has to be
locked. A login is stored first and counted afterwards, so whoever counts last of those
that run in parallel sees all of them; and whatever is too old among some is too old
among more, so all end the same ones. Only a session with a login since then is younger
than it was: what is ended must have the token that it had when it was counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from tornado_sessions.coalescer import MAX_BATCH
from tornado_sessions.errors import StoreError
from tornado_sessions.events import Events
from tornado_sessions.link import StoreLink
from tornado_sessions.session import Session
from tornado_sessions.stores.base import Delete, Outcome, Record

COUNTS = 8
"""How often sessions are counted anew if some were renewed meanwhile."""


class Ending:
    """Ends sessions, many at a time.

    Args:
        link: The way to the store.
        events: Who is told.
        most: How many sessions a principal may have; None = any number.
    """

    def __init__(self, link: StoreLink, events: Events, most: int | None) -> None:
        self._link = link
        self._events = events
        self.most = most

    async def evict(self, principal: str) -> None:
        """End the oldest sessions of *principal* beyond the limit.

        The age is that of the login: since then the session is theirs. Of many logins at
        once, one that was overtaken by too many others is itself among the oldest.

        Raises:
            StoreError: Some could not be ended.
        """
        assert self.most is not None

        def too_many(found: list[Record]) -> list[Record]:
            return sorted(found, key=_newest_first)[self.most :]

        await self._end(principal, "evicted", too_many)

    async def end_all(self, principal: str, reason: str, keep: str | None) -> int:
        """End the sessions of *principal* but that of *keep*; return how many it were.

        Raises:
            StoreError: Some could not be ended; the others have.
        """

        def others(found: list[Record]) -> list[Record]:
            return [record for record in found if record.handle != keep]

        return await self._end(principal, reason, others)

    async def is_anothers(self, session: Session, doomed: Delete | None) -> bool:
        """Tell whether a socket is about to end what a login after it began (C6).

        A request is too short for that: of a logout and a login at the same moment,
        the logout holds.

        Raises:
            StoreError: The session could not be looked at.
        """
        if doomed is None or not session.outlives_request:
            return False
        (record,) = await self._link.load([doomed.handle])
        return isinstance(record, Record) and record.meta.epoch != session.doomed_epoch

    async def _end(
        self,
        principal: str,
        reason: str,
        chosen: Callable[[list[Record]], list[Record]],
    ) -> int:
        ended = 0
        for _ in range(COUNTS):
            found = await self._link.call("find", lambda store: store.find(principal))
            outcomes = await self._end_these(
                [
                    Delete(one.handle, reason, principal, one.meta.token)
                    for one in chosen(found)
                ]
            )
            ended += outcomes[Outcome.APPLIED]
            if not outcomes[Outcome.CONFLICT]:
                return ended
        raise StoreError(f"the sessions of {COUNTS} counts in a row were renewed")

    async def _end_these(self, ends: list[Delete]) -> Counter[Outcome]:
        """Carry out *ends*; return how many came to each outcome."""
        counted: Counter[Outcome] = Counter()
        errors = []
        for start in range(0, len(ends), MAX_BATCH):  # each with its deadline
            some = ends[start : start + MAX_BATCH]
            outcomes = await self._link.attempt(some)
            for end, outcome in zip(some, outcomes, strict=True):
                if isinstance(outcome, BaseException):
                    errors.append(outcome)
                    continue
                counted[outcome] += 1
                if outcome is Outcome.APPLIED:
                    self._events.emit("ended", end.handle, end.reason, end.principal)
        if errors:
            message = f"{len(errors)} of {len(ends)} sessions could not be ended"
            raise StoreError(message) from errors[0]
        return counted


def _newest_first(record: Record) -> tuple[float, str]:
    return -record.meta.epoch_at, record.handle
