"""What one request asks of the store, worked out before anything is sent.

`plan` looks at a session and the clocks and answers with a `Plan`: at most one change
of its record (and one to create what follows a `destroy`), and what the cookie has to
say once the store agreed. It does no I/O, so it can run in the middle of ``finish()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tornado_sessions.config import SessionConfig
from tornado_sessions.cookie import CookieDue, Ticket
from tornado_sessions.delivery import Delivery, expected_token
from tornado_sessions.recent import Recent
from tornado_sessions.renewal import confirms, new_epoch, rotation, rotation_due
from tornado_sessions.session import Session
from tornado_sessions.stores.base import Apply, Change, Create, Meta, Record
from tornado_sessions.tokens import digest
from tornado_sessions.values import Values

EXTEND_SHARE = 0.05
"""An extension is written when this share of the idle timeout has passed (E3)."""
EXTEND_AT_MOST = 3600.0

_KEEP = CookieDue.KEEP  # to look it up in the Enum costs more


class Plan(msgspec.Struct):
    """The changes of one commit, and what follows if the store carries them out."""

    session: Session
    changes: list[Change] = msgspec.field(default_factory=list)
    ticket: Ticket | None = None
    """What the cookie will carry, if it is to be sent."""
    carried: Ticket | None = None
    """What it carried when the plan was made; ``record``: what was known then."""
    record: Record | None = None
    generation: int = 0
    """Which of its lives the session was in."""
    due: CookieDue = CookieDue.KEEP
    has_data: bool = False
    """False if only an extension or a rotation would be lost with this commit."""
    login: bool = False
    renews: bool = False
    """A token with no way back was asked for, by a login or otherwise."""
    dropped: bool = False
    """Data were left out on purpose; `muted`: for the request is outdated (C6)."""
    muted: bool = False
    _shown_before: tuple[Values, Mapping[str, bytes]] | None = None

    @property
    def idle(self) -> bool:
        """True if there is nothing to carry out and nothing to tell."""
        quiet = self.due is CookieDue.KEEP and not self.muted
        return quiet and not self.changes

    def anticipate(self) -> None:
        """Have the session show what the store is about to hold."""
        stored = self.session.stored
        self._shown_before = (stored, stored.loaded)
        for change in self.changes:
            if isinstance(change, Create):
                stored.loaded = change.values
            elif isinstance(change, Apply):
                stored.loaded = stored.after(change.set, change.unset)

    def withdraw(self) -> None:
        """Have the session show what it did before: that is not what the store holds."""
        if self._shown_before is not None:
            stored, loaded = self._shown_before
            stored.loaded = loaded
            stored.close()


def _plan_of(session: Session, changes: list[Change]) -> Plan:
    ticket, record = session.ticket, session.record
    return Plan(session, changes, ticket, ticket, record, session.generation)


def expiry(config: SessionConfig, created_at: float, now: float) -> float:
    """Return the one value from which cookie, record and database TTL derive (E2)."""
    return min(now + config.idle_timeout, created_at + config.absolute_timeout)


class Planner:
    """Makes plans by the settings in *config*."""

    def __init__(self, config: SessionConfig, now: Callable[[], float]) -> None:
        self._config = config
        self._now = now
        self._delivery = Delivery(config)
        self._extend_after = min(EXTEND_SHARE * config.idle_timeout, EXTEND_AT_MOST)
        self._extended = Recent(self._extend_after)
        self._caught_up = Recent(self._extend_after)
        after = config.rotate_after
        # Before that, the token that is sent is the one to stay.
        self._keep_until = math.inf if after is None else after - config.rotate_grace

    def plan(self, session: Session, *, discard: bool = False) -> Plan:
        """Return the plan for *session* as it is now.

        Args:
            session: The session; it is not changed.
            discard: Leave out the data, as a response >= 500 does (S7).

        Raises:
            CodecError: A value cannot be stored, or the record would be too large.
            ResponseStarted: A cookie would have to be sent, too late.
        """
        ticket, record = session.ticket, session.record
        generation = session.generation  # by position, as that costs least
        plan = Plan(session, [], ticket, ticket, record, generation)
        plan.dropped = discard
        if session.sealed is not None or session.ended:
            return plan
        if (
            discard and session.waited_in_vain
        ):  # the error page need not wait again (F1)
            return plan
        if session.doomed is not None:
            plan.changes.append(session.doomed)
            plan.due, plan.has_data = CookieDue.CLEAR, True
        now = self._now()
        if record is None:
            self._plan_new(plan, now, discard)
        else:
            self._plan_known(plan, now, discard)
        return plan

    def _nothing_due(self, session: Session, meta: Meta, now: float) -> bool:
        """Tell in short if nothing but data can change; False decides nothing."""
        if session.login_pending or session.renewal_pending:
            return False
        ticket = session.ticket
        return (
            ticket is not None
            and not ticket.resign
            and session.cookie_due is _KEEP
            and meta.previous is None
            and meta.persistent == session.persistent
            and now - meta.last_seen_at < self._extend_after
            and now - meta.rotated_at < self._keep_until
            and (
                ticket.age < self._extend_after
                or not self._delivery.outlives_browser(session)
            )
        )

    def plan_one(self, session: Session, name: str, raw: bytes) -> tuple[Plan, Apply]:
        """Return the plan and the change that sets *name*, if nobody else did."""
        assert session.record is not None
        session.stored.check_size({name: raw}, (), self._config.max_record_bytes)
        now, record = self._now(), session.record
        due = self._extension_due(record, now)
        meta = self._extension(record.meta, now) if due else {}
        expect = {name: session.stored.loaded.get(name)}
        principal = record.meta.principal
        token = record.meta.token if session.outlives_request else None
        change = Apply(record.handle, {name: raw}, (), expect, token, meta, principal)
        plan = _plan_of(session, [change])
        plan.has_data = True
        if self._delivery.due(session, record.meta, meta, now):
            plan.due = CookieDue.SEND
        return plan, change

    def plan_touch(self, session: Session) -> Plan | None:
        """Return the plan that extends the life of *session*, if that is due (E3)."""
        record = session.record
        if record is None or session.sealed is not None or session.ended:
            return None
        now = self._now()
        if not self._extension_due(record, now):
            return None
        meta, principal = self._extension(record.meta, now), record.meta.principal
        token = record.meta.token
        change = Apply(record.handle, {}, (), {}, token, meta, principal)
        return _plan_of(session, [change])

    # -- a session that no store knows yet ---------------------------------------

    def _plan_new(self, plan: Plan, now: float, discard: bool) -> None:
        session = plan.session
        values = {} if discard else self._data(session)[0]
        if not values and session.principal is None:
            return
        if now < session.stale[1] and not session.login_pending:
            plan.muted = plan.dropped = True
            return
        if not self._delivery.possible(session.visit()):
            plan.dropped = True
            return
        self._create(plan, now, values)

    def _create(self, plan: Plan, now: float, values: dict[str, bytes]) -> None:
        session = plan.session
        ticket = session.first_ticket()
        meta = Meta(
            token=digest(ticket.token),
            created_at=now,
            last_seen_at=now,
            expires_at=expiry(self._config, now, now),
            epoch_at=now,
            rotated_at=now,
            principal=session.principal,
            persistent=session.persistent,
            authenticated_at=None if session.principal is None else now,
            **session.visit().device,
        )
        plan.login = session.principal is not None
        plan.changes.append(Create(session.handle, meta, values))
        plan.ticket, plan.due, plan.has_data = ticket, CookieDue.SEND, True

    # -- a session that was loaded -----------------------------------------------

    def _plan_known(self, plan: Plan, now: float, discard: bool) -> None:
        session, record = plan.session, plan.session.record
        assert record is not None
        changed, removed = ({}, frozenset()) if discard else self._data(session)
        if self._nothing_due(session, record.meta, now):
            if changed or removed:
                self._plan_data(plan, record, changed, removed, now)
            return
        meta: dict[str, Any] = {}
        if session.persistence_changed and not discard:
            meta["persistent"] = session.persistent
        plan.login = session.login_pending
        plan.renews = plan.login or session.renewal_pending
        plan.has_data |= bool(changed or removed or meta or plan.renews)
        if self._extension_due(record, now) or plan.has_data:
            meta.update(self._extension(record.meta, now))
        self._plan_cookie(plan, record, meta, now)
        if meta:
            expect = expected_token(session, record.meta, plan.due, meta)
            principal = record.meta.principal
            plan.changes.append(
                Apply(record.handle, changed, removed, {}, expect, meta, principal)
            )

    def _plan_data(
        self,
        plan: Plan,
        record: Record,
        changed: dict[str, bytes],
        removed: frozenset[str],
        now: float,
    ) -> None:
        """Plan what most requests that write come to."""
        session, known = plan.session, record.meta
        meta = self._extension(known, now)
        plan.has_data = True
        if self._delivery.outlives_browser(session):
            plan.due = CookieDue.SEND  # its end has moved
            self._caught_up.add(record.handle, now)
            expect = expected_token(session, known, plan.due, meta)
        else:
            expect = known.token if session.outlives_request else None
        plan.changes.append(
            Apply(record.handle, changed, removed, {}, expect, meta, known.principal)
        )

    def _data(self, session: Session) -> tuple[dict[str, bytes], frozenset[str]]:
        changed, removed = session.stored.changes()
        if changed:
            limit = self._config.max_record_bytes
            session.stored.check_size(changed, removed, limit)
        return changed, removed

    def _extension(self, meta: Meta, now: float) -> dict[str, float]:
        expires_at = expiry(self._config, meta.created_at, now)
        return {"last_seen_at": now, "expires_at": expires_at}

    def _extension_due(self, record: Record, now: float) -> bool:
        """Tell whether to write that the session was used (E3).

        Requests that run in parallel have loaded the same record: the first one to
        end extends it for all of them.
        """
        if now - record.meta.last_seen_at < self._extend_after:
            return False
        return self._extended.add(record.handle, now)

    def not_extended(self, handle: str) -> None:
        """Take back what `plan` assumed: the store did not carry it out."""
        self._extended.forget(handle)
        self._caught_up.forget(handle)

    def _plan_cookie(
        self, plan: Plan, record: Record, meta: dict[str, Any], now: float
    ) -> None:
        """Plan which token the cookie carries, and whether it is sent at all."""
        self._renew(plan, record, meta, now)
        if plan.due is CookieDue.KEEP:
            due = self._delivery.due(plan.session, record.meta, meta, now)
            if not (due or self._is_behind(plan.session, record.meta, now)):
                return
            # As with an extension, parallel requests have the same old cookie.
            if not self._caught_up.add(record.handle, now) and not due:
                return
            plan.due = CookieDue.SEND
        meta.update(self._extension(record.meta, now))  # the cookie says how long

    def _is_behind(self, session: Session, meta: Meta, now: float) -> bool:
        """Tell whether a cookie that stays would end too early, as by a socket (K3)."""
        return self._delivery.behind(session, meta, now) >= self._extend_after

    def _renew(
        self, plan: Plan, record: Record, meta: dict[str, Any], now: float
    ) -> None:
        """Put a new token into *plan* and *meta* if one is due, or that it arrived."""
        session = plan.session
        if plan.renews:
            visit = session.visit()
            if not self._delivery.possible(visit):
                return
            renewed, plan.ticket = new_epoch(record, now)
            if plan.login:
                renewed.update(principal=session.principal, **visit.device)
                renewed.update(authenticated_at=now)
        elif rotation_due(session, record.meta, now, self._config):
            renewed, plan.ticket = rotation(session, record, now)
        else:
            if confirms(session, record.meta):
                meta["confirmed_at"] = now
            return
        meta.update(renewed)
        plan.due = CookieDue.SEND
