"""Which session a request gets, given the cookies that it carries."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable, Sequence

from tornado_sessions.config import SessionConfig
from tornado_sessions.cookie import CookieDue, Ticket
from tornado_sessions.errors import CodecError
from tornado_sessions.events import UNDECODABLE, Events, SessionEvent
from tornado_sessions.link import StoreLink
from tornado_sessions.session import Session, SessionOwner
from tornado_sessions.stale import NOT_STALE, stale_by
from tornado_sessions.stores.base import Delete, Loaded, Meta, Outcome, Record
from tornado_sessions.tokens import Verdict, digest, handed_out, judge
from tornado_sessions.visit import Visit

log = logging.getLogger("tornado_sessions")


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
        # Clocks are judged as of now: if the answer takes its time, what it says of a
        # session that was about to end may no longer be so when it arrives.
        now = self._owner.now()
        if len(tickets) > 1:
            loaded = await self._link.load([ticket.handle for ticket in tickets])
            return await self._first_good(tickets, loaded, now, visit)
        ticket, record = tickets[0], await self._link.load_one(tickets[0].handle)
        if isinstance(record, Record) and self._is_current(ticket, record.meta, now):
            return self._entered(visit, ticket, record)
        return await self._first_good(tickets, [record], now, visit)

    async def _first_good(
        self,
        tickets: Sequence[Ticket],
        loaded: Sequence[Record | CodecError | None],
        now: float,
        visit: Callable[[], Visit],
    ) -> Session:
        outdated: list[Record] = []
        doomed: Delete | None = None
        stale = NOT_STALE
        for ticket, record in zip(tickets, loaded, strict=True):
            judged = self._judged(ticket, record, now)
            if isinstance(judged, Delete):
                doomed = judged
            elif isinstance(record, Record):
                if judged is Verdict.REUSED:
                    outdated.append(record)
                elif judged is Verdict.OTHER_EPOCH:
                    stale = stale_by(record)
                else:
                    await self._reused(outdated, visit, spare=record.handle)
                    return self._entered(visit, ticket, record)
        await self._reused(outdated, visit)
        session = self._new(visit)
        session.stale = stale
        if stale is NOT_STALE:  # else this request writes nothing (C6)
            session.doomed = doomed
        return session

    def _new(self, visit: Callable[[], Visit]) -> Session:
        codec, keyring = self._config.codec, self._config.encryption_keys
        return Session(self._owner, codec, visit, keyring=keyring)

    def _judged(
        self, ticket: Ticket, record: Record | CodecError | None, now: float
    ) -> Verdict | Delete | None:
        """Return what *ticket* is to *record*, or the end that this one is due."""
        if record is None:
            self._events.emit("refused", ticket.handle, "unknown")
            return None
        if isinstance(record, CodecError):
            log.warning("dropped the session %s: %s", ticket.handle, record)
            self._events.emit("undecodable", ticket.handle, str(record))
            return Delete(ticket.handle, UNDECODABLE)
        over = self._over(record.meta, now)
        if over is not None:
            return Delete(record.handle, over, record.meta.principal)
        verdict = judge(ticket, record.meta, now, self._config.rotate_grace)
        if verdict is Verdict.OTHER_EPOCH:
            self._events.emit("refused", record.handle, verdict.value)
        return verdict

    def _is_current(self, ticket: Ticket, meta: Meta, now: float) -> bool:
        """Tell in short what holds for most requests; False decides nothing."""
        return (
            ticket.epoch == meta.epoch
            and self._over(meta, now) is None
            and hmac.compare_digest(digest(ticket.token), meta.token)
        )

    def _entered(
        self, visit: Callable[[], Visit], ticket: Ticket, record: Record
    ) -> Session:
        codec, keyring = self._config.codec, self._config.encryption_keys
        session = Session(self._owner, codec, visit, record, ticket, keyring=keyring)
        if record.meta.previous is not None:
            # The answer that carried the successor may have been lost.
            self.renew(session, record)
        return session

    def readmit(self, session: Session, record: Loaded) -> None:
        """Have *session* be what its *record* is by now, or a new one."""
        if not isinstance(record, Record):
            session.adopt(None, None)
        elif session.admits(record):
            self.renew(session, record)
        else:
            session.step_aside(record)
            session.ended |= session.outlives_request  # a socket cannot begin another

    def renew(self, session: Session, record: Record) -> None:
        """Have *session* go on as *record*, which was rotated meanwhile or not."""
        ticket = session.ticket
        successor = handed_out(ticket, record.meta) if ticket is not None else None
        session.adopt(record, successor or ticket)
        if successor is not None:
            session.cookie_due = CookieDue.SEND

    def _over(self, meta: Meta, now: float) -> str | None:
        """Return why a record is over by the clocks as configured now, or None."""
        if now >= meta.last_seen_at + self._config.idle_timeout:
            return "idle"
        if now >= meta.created_at + self._config.absolute_timeout:
            return "absolute"
        return None

    async def _reused(
        self, records: list[Record], visit: Callable[[], Visit], spare: str = ""
    ) -> None:
        """Do what is due to sessions whose replaced token came back (E5).

        Somebody has a copy of the cookie, and nobody can tell the thief from the owner.
        Unless the current token came along: then it is a duplicate in one browser.
        """
        for record in records:
            if record.handle == spare:
                continue
            self._alarm(record, visit())
            if self._config.on_reuse == "end":
                await self._end(Delete(record.handle, "reuse", record.meta.principal))

    def _alarm(self, record: Record, visit: Visit) -> None:
        handle, meta = record.handle, record.meta
        log.warning("session %s: a replaced token was used again", handle)
        age = self._owner.now() - meta.rotated_at
        self._events.tell(
            SessionEvent("reuse", handle, None, meta.principal, age=age, **visit.device)
        )

    async def _end(self, end: Delete) -> None:
        (outcome,) = await self._link.commit([end])
        if outcome is Outcome.APPLIED:
            self._events.emit("ended", end.handle, end.reason, end.principal)
