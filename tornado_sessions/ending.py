"""Ends several sessions of one principal at once: all of them, or those that are too many.

At most so many may be had (E7): a login ends the oldest beyond that. Nothing has to be
locked. A login is stored first and counted afterwards, so whoever counts last of those
that run in parallel sees all of them; and whatever is too old among some is too old
among more, so all end the same ones.
"""

from __future__ import annotations

from tornado_sessions.coalescer import MAX_BATCH
from tornado_sessions.errors import StoreError
from tornado_sessions.events import Events
from tornado_sessions.link import StoreLink
from tornado_sessions.session import Session
from tornado_sessions.stores.base import Delete, Outcome, Record


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
        found = await self._link.call("find", lambda store: store.find(principal))
        ranked = sorted(found, key=_newest_first)
        handles = [record.handle for record in ranked[self.most :]]
        await self.end_all(handles, "evicted", principal)

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

    async def end_all(self, handles: list[str], reason: str, principal: str) -> int:
        """End the sessions *handles* of *principal*; return how many were alive.

        Raises:
            StoreError: Some could not be ended; the others have.
        """
        ended, errors = 0, []
        for start in range(0, len(handles), MAX_BATCH):  # each with its deadline
            some = handles[start : start + MAX_BATCH]
            ends = [Delete(handle, reason, principal) for handle in some]
            outcomes = await self._link.attempt(ends)
            for handle, outcome in zip(some, outcomes, strict=True):
                if outcome is Outcome.APPLIED:
                    ended += 1
                    self._events.emit("ended", handle, reason, principal)
                elif isinstance(outcome, BaseException):
                    errors.append(outcome)
        if errors:
            message = f"{len(errors)} of {len(handles)} sessions could not be ended"
            raise StoreError(message) from errors[0]
        return ended


def _newest_first(record: Record) -> tuple[float, str]:
    return -record.meta.epoch_at, record.handle
