"""What follows from what the store said: retries, events, and the cookie."""

from __future__ import annotations

import logging

import msgspec

from tornado_sessions.cookie import CookieDue
from tornado_sessions.errors import CodecError, StoreError
from tornado_sessions.events import Events
from tornado_sessions.link import StoreLink
from tornado_sessions.plan import Plan, Planner
from tornado_sessions.renewal import new_epoch
from tornado_sessions.stores.base import (
    Apply,
    Change,
    Create,
    Delete,
    Outcome,
    Record,
    merged_record,
)
from tornado_sessions.tokens import digest, successor

log = logging.getLogger("tornado_sessions")

RENEWALS = 8
"""How often a login is tried again when others replace the token at the same time."""


class Settlement:
    """Has plans carried out, and tells their session and the subscribers the result."""

    def __init__(self, link: StoreLink, planner: Planner, events: Events) -> None:
        self._link = link
        self._planner = planner
        self._events = events

    async def perform(self, plan: Plan) -> None:
        """Carry out *plan*.

        Raises:
            StoreError: The store failed, and something that matters was to be saved.
        """
        if plan.muted:
            self._events.emit("dropped", plan.session.handle, "earlier epoch")
        if not plan.changes:
            plan.session.note_cookie(plan.due, plan.ticket)
            return
        try:
            outcomes = await self._link.commit(plan.changes)
        except StoreError:
            self._planner.not_extended(plan.session.handle)
            if plan.has_data:
                raise
            # What the visitor sees is true anyway, and the next request tries again.
            log.warning("a session was not extended or rotated", exc_info=True)
            return
        for change, outcome in zip(plan.changes, outcomes, strict=True):
            await self._settle(plan, change, outcome)

    async def _settle(self, plan: Plan, change: Change, outcome: Outcome) -> None:
        if isinstance(change, Delete):
            plan.session.doomed = None
            if outcome is Outcome.APPLIED:
                self._events.emit("ended", change.handle, change.reason)
            plan.session.note_cookie(CookieDue.CLEAR, None)
        elif isinstance(change, Create):
            self._created(plan, change, outcome)
        elif outcome is Outcome.APPLIED:
            self.applied(plan, change)
        elif outcome is Outcome.GONE:
            self.dropped(plan)
        else:
            await self._apply_again(plan, change)

    def _created(self, plan: Plan, change: Create, outcome: Outcome) -> None:
        if outcome is not Outcome.APPLIED:
            raise StoreError(f"a new session met the live handle {change.handle}")
        record = Record(change.handle, change.meta, dict(change.values))
        plan.session.rebase(record, plan.ticket)
        plan.session.note_cookie(plan.due, plan.ticket)
        principal = change.meta.principal
        self._events.emit("created", change.handle, None, principal)
        if principal is not None:
            self._events.emit("login", change.handle, None, principal)

    def applied(self, plan: Plan, change: Apply) -> None:
        """The store holds what *change* says: so does the session from now on."""
        session = plan.session
        assert session.record is not None
        known = Record(change.handle, session.record.meta, dict(session.stored.loaded))
        agreed = msgspec.structs.replace(change, expect_token=None, expect={})
        record = merged_record(known, agreed)
        assert record is not None
        session.rebase(record, plan.ticket)
        session.note_cookie(plan.due, plan.ticket)
        if "principal" in change.meta:
            self._events.emit("login", record.handle, None, record.meta.principal)
        elif "token" in change.meta:
            self._events.emit("rotated", record.handle, None, record.meta.principal)

    def dropped(self, plan: Plan) -> None:
        """The session ended while this request ran: nothing of it may come back (C3)."""
        plan.session.ended = True
        plan.session.cookie_due = CookieDue.KEEP
        if plan.has_data:
            log.info("session %s ended; a change was dropped", plan.session.handle)
            self._events.emit("dropped", plan.session.handle, "ended meanwhile")

    # -- somebody else replaced the token first ----------------------------------

    async def _apply_again(self, plan: Plan, change: Apply) -> None:
        for _ in range(RENEWALS):
            (record,) = await self._link.load([change.handle])
            if record is None or isinstance(record, CodecError):
                self.dropped(plan)
                return
            change = self._rebuilt(plan, change, record)
            (outcome,) = await self._link.commit([change])
            if outcome is Outcome.APPLIED:
                self.applied(plan, change)
                return
            if outcome is Outcome.GONE:
                self.dropped(plan)
                return
        raise StoreError("the session's token was replaced too often; try again")

    def _rebuilt(self, plan: Plan, change: Apply, record: Record) -> Apply:
        """Return *change* against the token that *record* holds by now.

        A login as somebody else is made anew, on top of the other one. Every other new
        token gives way to the one that was faster, whose response carries it (C5).
        """
        session = plan.session
        session.rebase_meta(record.meta)
        if session.login_pending and session.principal != record.meta.principal:
            now = change.meta["last_seen_at"]
            meta, ticket = new_epoch(session, record, now)
            plan.ticket = ticket
            return msgspec.structs.replace(
                change, expect_token=record.meta.token, meta={**change.meta, **meta}
            )
        plan.due, plan.ticket = CookieDue.KEEP, session.ticket
        self._follow_rotation(plan, record)
        kept = {k: v for k, v in change.meta.items() if k in _NOT_TOKEN}
        return msgspec.structs.replace(change, expect_token=None, meta=kept)

    def _follow_rotation(self, plan: Plan, record: Record) -> None:
        ticket, salt = plan.session.ticket, record.meta.salt
        if ticket is None or salt is None:
            return
        if digest(ticket.token) == record.meta.previous:
            plan.ticket = ticket._replace(token=successor(ticket.token, salt))
            plan.due = CookieDue.SEND


_NOT_TOKEN = frozenset({"last_seen_at", "expires_at", "persistent"})
"""What is left of a change's meta when its new token gives way."""
