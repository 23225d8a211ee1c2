"""What follows from what the store said: retries, events, and the cookie."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

from tornado_sessions import conflict
from tornado_sessions.coalescer import TooLateError
from tornado_sessions.cookie import CookieDue
from tornado_sessions.ending import Ending
from tornado_sessions.errors import CodecError, StoreError
from tornado_sessions.events import DESTROYED, UNDECODABLE, Events
from tornado_sessions.link import Answered, StoreLink, outcome_of
from tornado_sessions.plan import Plan, Planner
from tornado_sessions.session import NO_INTENTS, Session
from tornado_sessions.stores.base import (
    Apply,
    Change,
    Create,
    Delete,
    Outcome,
    Record,
    merged_meta,
)

log = logging.getLogger("tornado_sessions")

Told: TypeAlias = Callable[[Exception | None], None]
"""Is called with None when all went well, or with the error. It may not raise."""

RENEWALS = 8
"""How often a login is tried again when others replace the token at the same time."""


class Settlement:
    """Has plans carried out, and tells their session and the subscribers the result."""

    def __init__(
        self, link: StoreLink, planner: Planner, events: Events, ending: Ending
    ) -> None:
        self._link = link
        self._planner = planner
        self._events = events
        self._ending = ending
        self.tasks: set[asyncio.Task[None]] = set()
        """What goes on in the background; the loop forgets them otherwise."""

    async def commit(self, session: Session, *, discard: bool = False) -> None:
        """Plan and perform what *session* asks for; see `Planner.plan` and `perform`."""
        session.waited_in_vain = False
        plan = self._planner.plan(session, discard=discard)
        intents, session.intents = session.intents, NO_INTENTS
        try:
            if await self._ending.is_anothers(session, intents[2]):
                self.outdated(session)
            else:
                await self.perform(plan)
        except BaseException as error:
            session.resume(intents, plan.generation)
            session.waited_in_vain = isinstance(error, TooLateError)
            raise

    async def perform(self, plan: Plan) -> None:
        """Carry out *plan*.

        Raises:
            StoreError: The store failed, and something that matters was to be saved.
        """
        if plan.muted:
            self._events.emit("dropped", plan.session.stale[0], "earlier epoch")
        if not plan.changes:
            plan.session.note_cookie(plan.due, plan.ticket)
            return
        try:
            answers = await self._link.attempt(plan.changes)
        except BaseException as error:
            self._failed(plan, error)
            return
        for change, answer in zip(plan.changes, answers, strict=True):
            try:
                outcome = outcome_of(answer)
            except BaseException as error:
                self._failed(plan, error)  # what came before it stands
                return
            rest = self._settle(plan, change, outcome)
            if rest is not None:
                await rest
        if self._may_be_too_many(plan) and plan.session.principal is not None:
            await self._ending.evict(plan.session.principal)

    def perform_soon(self, plan: Plan, then: Told) -> None:
        """Carry out *plan*, and call *then* later: never before this returns.

        A task for each response would cost more than all that follows from most
        answers, so there is one only for what has to ask the store again.
        """
        alone = len(plan.changes) == 1 and not self._may_be_too_many(plan)
        if alone and not plan.muted:
            answered = partial(self._answered, plan, then)
            if self._link.commit_soon(plan.changes[0], answered):
                return
        self._in_task(self.perform(plan), then)

    def _may_be_too_many(self, plan: Plan) -> bool:
        """Tell whether somebody logs in, and the number of their sessions is limited."""
        return plan.login and self._ending.most is not None

    def _answered(self, plan: Plan, then: Told, answer: Answered) -> None:
        rest = None
        try:
            try:
                outcome = outcome_of(answer)
            except Exception as error:
                self._failed(plan, error)
            else:
                rest = self._settle(plan, plan.changes[0], outcome)
        except Exception as error:
            then(error)
            return
        if rest is None:
            then(None)
        else:
            self._in_task(rest, then)

    def _in_task(self, rest: Coroutine[Any, Any, None], then: Told) -> None:
        # Not create_task(): an eager one could be over before its caller is ready.
        task = asyncio.Task(_completed(rest, then), loop=asyncio.get_running_loop())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _failed(self, plan: Plan, error: BaseException) -> None:
        """Raise *error* if something is lost with it."""
        session = plan.session
        self._planner.not_extended(session.handle)
        session.attempts = session.attempts.and_of(plan.changes)
        if session.cookie_due is CookieDue.SEND and not began_epoch(session):
            # Others may have replaced it, and the store cannot be asked. If it is still
            # good, another answer will carry it.
            session.cookie_due = CookieDue.KEEP
        if plan.has_data or not isinstance(error, StoreError):
            plan.withdraw()
            raise error
        # What the visitor sees is true anyway, and the next request tries again.
        log.warning("a session was not extended or rotated", exc_info=error)

    def _settle(
        self, plan: Plan, change: Change, outcome: Outcome
    ) -> Coroutine[Any, Any, None] | None:
        """Do what follows from *outcome*; return what has to ask the store for more."""
        if isinstance(change, Delete):
            if outcome is Outcome.APPLIED and change.reason != UNDECODABLE:
                end = change.handle, change.reason, change.principal
                self._events.emit("ended", *end)
            if outcome is Outcome.APPLIED or change.reason == DESTROYED:
                # Else another request ended it, and may have begun the next one.
                plan.session.note_cookie(CookieDue.CLEAR, None)
        elif isinstance(change, Create):
            if outcome is not Outcome.APPLIED:
                return self._create_again(plan, change)
            self._created(plan, change)
        elif outcome is Outcome.APPLIED:
            self.applied(plan, change)
        elif outcome is Outcome.GONE:
            self.dropped(plan)
        else:
            return self._apply_again(plan, change)
        return None

    def _created(self, plan: Plan, change: Create) -> None:
        record = Record(change.handle, change.meta, dict(change.values))
        self._enter(plan, record)
        principal = change.meta.principal
        self._events.emit("created", change.handle, None, principal)
        if principal is not None:
            self._events.emit("login", change.handle, None, principal)

    def _enter(self, plan: Plan, record: Record) -> None:
        """Have the session be what the store holds, unless it is another by now."""
        if plan.session.generation == plan.generation:
            plan.session.rebase(record, plan.ticket)
        plan.session.note_cookie(plan.due, plan.ticket)

    async def _create_again(self, plan: Plan, change: Create) -> None:
        """The handle is taken, by a save of this very session that seemed to fail."""
        (record,) = await self._link.load([change.handle])
        if not isinstance(record, Record) or record.meta.token != change.meta.token:
            raise StoreError(f"a new session met the live handle {change.handle}")
        meta: dict[str, Any] = {}
        if change.meta.principal is not None:
            meta["principal"] = change.meta.principal
            meta["authenticated_at"] = change.meta.authenticated_at
        attempted = plan.session.attempts.names
        if attempted is not None:
            meta["persistent"] = change.meta.persistent
        gone = (attempted or frozenset()) - change.values.keys()
        rest = Apply(change.handle, change.values, gone, meta=meta)
        (outcome,) = await self._link.commit([rest])
        if outcome is not Outcome.APPLIED:
            self.dropped(plan)
            return
        self._enter(plan, record)
        self.applied(plan, rest)

    def applied(self, plan: Plan, change: Apply) -> None:
        """The store holds what *change* says: so does the session from now on."""
        session = plan.session
        if session.record is not None and session.generation == plan.generation:
            meta = merged_meta(session.record.meta, change.meta)
            values = session.stored.after(change.set, change.unset)
            sends = plan.due is CookieDue.SEND
            ticket = plan.ticket if sends else session.ticket
            record = Record(change.handle, meta, values)
            session.rebase(record, ticket, dropped=plan.dropped)
            session.note_cookie(plan.due, ticket)
        if "principal" in change.meta:
            principal = change.meta["principal"]
            self._events.emit("login", change.handle, None, principal)
        elif "token" in change.meta:
            self._events.emit("rotated", change.handle, None, session.principal)

    def dropped(self, plan: Plan) -> None:
        """The session ended while this request ran: nothing of it may come back (C3)."""
        if plan.session.generation == plan.generation:
            plan.session.ended = True
            plan.session.cookie_due = CookieDue.KEEP
        plan.withdraw()
        if plan.has_data:
            log.info("session %s ended; a change was dropped", plan.session.handle)
            self._events.emit("dropped", plan.session.handle, "ended meanwhile")

    def outdated(self, session: Session) -> None:
        """Somebody logged in while this request ran: it sees nothing of that (C6)."""
        session.ended = True
        session.cookie_due = CookieDue.KEEP
        self._events.emit("dropped", session.handle, "earlier epoch")

    # -- somebody else replaced the token first ----------------------------------

    async def _apply_again(self, plan: Plan, change: Apply) -> None:
        try:
            await self._try_again(plan, change)
        except BaseException as error:
            self._failed(plan, error)

    async def _try_again(self, plan: Plan, change: Apply) -> None:
        for _ in range(RENEWALS):
            (record,) = await self._link.load([change.handle])
            if record is None or isinstance(record, CodecError):
                self.dropped(plan)
                return
            conflict.recognize(plan, record)
            if plan.session.outlives_request and not plan.session.admits(record):
                self.outdated(plan.session)
                return
            if conflict.is_theirs(plan, record):
                await self._begin_apart(plan, change)
                return
            change = conflict.rebuilt(plan, change, record)
            plan.changes = [change]  # what is known to have been attempted, if it fails
            (outcome,) = await self._link.commit([change])
            if outcome is Outcome.APPLIED:
                self.applied(plan, change)
                return
            if outcome is Outcome.GONE:
                self.dropped(plan)
                return
        raise StoreError("the session's token was replaced too often; try again")

    async def _begin_apart(self, plan: Plan, change: Apply) -> None:
        """Log in on a session of its own, with what this request knows (C6).

        Who planted a session in somebody's browser could otherwise be handed what that
        person has stored in it since, by a login that was on its way all the time.
        """
        stored = plan.session.stored.after(change.set, change.unset)
        plan.session.begin_apart(stored)
        await self.perform(self._planner.plan(plan.session))


def began_epoch(session: Session) -> bool:
    """Tell whether the token that is due was made by this very request, or a login in it."""
    first, ticket = session.presented, session.ticket
    if first is None or ticket is None:
        return True
    return session.began_here or ticket.epoch != first.epoch


async def _completed(rest: Coroutine[Any, Any, None], then: Told) -> None:
    try:
        await rest
    except Exception as error:
        then(error)
    except asyncio.CancelledError:
        then(StoreError("the server stopped during the commit"))
        raise
    else:
        then(None)
