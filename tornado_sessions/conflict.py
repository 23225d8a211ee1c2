"""What becomes of a change if somebody else was faster to replace the token (C5, C6)."""

from __future__ import annotations

import msgspec

from tornado_sessions.cookie import CookieDue
from tornado_sessions.plan import Plan
from tornado_sessions.renewal import new_epoch
from tornado_sessions.stores.base import Apply, Record
from tornado_sessions.tokens import handed_out

_NOT_TOKEN = frozenset({"last_seen_at", "expires_at", "persistent"})
"""What is left of a change's meta when its new token gives way."""


def recognize(plan: Plan, record: Record) -> None:
    """See that *record* is what a save of this session made, which seemed to fail."""
    if record.meta.token in plan.session.attempts.tokens:
        plan.record = record
        _rebase_meta(plan, record)


def _rebase_meta(plan: Plan, record: Record) -> None:
    if plan.session.generation == plan.generation:
        plan.session.rebase_meta(record.meta)


def is_theirs(plan: Plan, record: Record) -> bool:
    """Tell whether *plan* logs in where another request has done so meanwhile.

    As the same user, too: after a double click the browser waits for the second answer
    alone, so that one has to carry a cookie.
    """
    return plan.login and not plan.session.admits(record)


def rebuilt(plan: Plan, change: Apply, record: Record) -> Apply:
    """Return *change* against the token that *record* holds by now.

    A token that was asked for goes on top of one that was only replaced for its
    age. Otherwise this change gives way to the one that was faster, whose response
    carries the new token (C5).
    """
    assert plan.record is not None
    same_epoch = record.meta.epoch == plan.record.meta.epoch
    if plan.renews and same_epoch:
        _rebase_meta(plan, record)
        meta, plan.ticket = new_epoch(record, change.meta["last_seen_at"])
        return msgspec.structs.replace(
            change, expect_token=record.meta.token, meta={**change.meta, **meta}
        )
    plan.due, plan.ticket = CookieDue.KEEP, plan.session.ticket
    if plan.ticket is plan.carried:
        plan.session.cookie_due = CookieDue.KEEP  # it would be an outdated one
    if same_epoch:
        _rebase_meta(plan, record)
        _follow_rotation(plan, record)
    kept = {k: v for k, v in change.meta.items() if k in _NOT_TOKEN}
    depends = plan.due is CookieDue.SEND or plan.session.outlives_request
    token = record.meta.token if depends else None
    return msgspec.structs.replace(change, expect_token=token, meta=kept)


def _follow_rotation(plan: Plan, record: Record) -> None:
    ticket = plan.session.ticket
    successor = handed_out(ticket, record.meta) if ticket is not None else None
    if successor is not None:
        plan.ticket, plan.due = successor, CookieDue.SEND
