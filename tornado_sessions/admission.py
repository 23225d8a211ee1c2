"""Which session a request gets, given the cookies that it carries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tornado_sessions.config import SessionConfig
from tornado_sessions.cookie import CookieDue, Ticket
from tornado_sessions.errors import CodecError
from tornado_sessions.events import Events
from tornado_sessions.link import StoreLink
from tornado_sessions.session import Session, SessionOwner
from tornado_sessions.stores.base import Delete, Record
from tornado_sessions.tokens import Verdict, judge, successor
from tornado_sessions.visit import Visit

log = logging.getLogger("tornado_sessions")

STALE_SECONDS = 60.0
"""For so long after a login, a cookie from before it writes nothing (C6)."""


class Admission:
    """Loads the records that tickets name, and lets in the first that holds good."""

    def __init__(
        self,
        config: SessionConfig,
        link: StoreLink,
        events: Events,
        owner: SessionOwner,
    ) -> None:
        self._config = config
        self._link = link
        self._events = events
        self._owner = owner

    async def admit(
        self, tickets: Sequence[Ticket], visit: Callable[[], Visit]
    ) -> Session:
        """Return the session of the first good ticket, or a new one.

        Raises:
            StoreError: The store failed.
        """
        if not tickets:
            return self._new(visit)
        loaded = await self._link.load([ticket.handle for ticket in tickets])
        stale_until = 0.0
        for ticket, record in zip(tickets, loaded, strict=True):
            if not isinstance(record, Record):
                self._refuse(ticket, record)
                continue
            verdict = self._verdict(ticket, record)
            if verdict is Verdict.REUSED:
                await self._end_reused(record)
            elif verdict is Verdict.OTHER_EPOCH:
                stale_until = record.meta.epoch_at + STALE_SECONDS
            elif verdict is not None:
                session = self._entered(visit, ticket, record, verdict)
                break
        else:
            session = self._new(visit)
        session.stale_until = stale_until
        return session

    def _new(self, visit: Callable[[], Visit]) -> Session:
        return Session(self._owner, self._config.codec, visit)

    def _entered(
        self,
        visit: Callable[[], Visit],
        ticket: Ticket,
        record: Record,
        verdict: Verdict,
    ) -> Session:
        owner, codec = self._owner, self._config.codec
        if verdict is Verdict.CURRENT:
            return Session(owner, codec, visit, record, ticket)
        # The answer that carried the successor may have been lost: hand it out again.
        assert record.meta.salt is not None
        ticket = ticket._replace(token=successor(ticket.token, record.meta.salt))
        session = Session(owner, codec, visit, record, ticket)
        session.cookie_due = CookieDue.SEND
        return session

    def _refuse(self, ticket: Ticket, error: CodecError | None) -> None:
        if error is None:
            self._events.emit("refused", ticket.handle, "unknown")
            return
        log.warning("dropped the session %s: %s", ticket.handle, error)
        self._events.emit("undecodable", ticket.handle, str(error))

    def _verdict(self, ticket: Ticket, record: Record) -> Verdict | None:
        """Judge *ticket*; None if its session is over."""
        now = self._owner.now()
        over = self._over(record, now)
        if over is not None:
            self._events.emit("ended", record.handle, over, record.meta.principal)
            return None
        verdict = judge(ticket, record.meta, now, self._config.rotate_grace)
        if verdict is Verdict.OTHER_EPOCH:
            self._events.emit("refused", record.handle, verdict.value)
        return verdict

    def _over(self, record: Record, now: float) -> str | None:
        """Return why the record is over by the clocks as configured now, or None."""
        if now >= record.meta.last_seen_at + self._config.idle_timeout:
            return "idle"
        if now >= record.meta.created_at + self._config.absolute_timeout:
            return "absolute"
        return None

    async def _end_reused(self, record: Record) -> None:
        """End a session whose replaced token came back: somebody has a copy (E5)."""
        log.warning("session %s: a replaced token was used again", record.handle)
        await self._link.commit([Delete(record.handle, "reuse")])
        self._events.emit("ended", record.handle, "reuse", record.meta.principal)
