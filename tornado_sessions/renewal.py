"""New tokens for a session that is known.

At login and on demand the token is replaced by a random one, with no way back. For its
age it is replaced by its successor, with the way back that parallel requests need (E4).
"""

from __future__ import annotations

import secrets
from typing import Any, TypeAlias

from tornado_sessions.cookie import CookieDue, Ticket
from tornado_sessions.session import Session
from tornado_sessions.stores.base import Meta, Record
from tornado_sessions.tokens import digest, random_id, successor

Renewed: TypeAlias = "tuple[dict[str, Any], Ticket]"
"""The changed meta, and what the cookie is to carry."""


def new_epoch(session: Session, record: Record, now: float) -> Renewed:
    """Return what a login or ``regenerate_id`` makes of *record*."""
    ticket = Ticket(record.handle, random_id(), record.meta.epoch + 1)
    meta: dict[str, Any] = {
        "token": digest(ticket.token),
        "epoch": ticket.epoch,
        "epoch_at": now,
        "rotated_at": now,
        "previous": None,
        "salt": None,
        "confirmed_at": None,
    }
    if session.login_pending:
        meta.update(principal=session.principal, **session.visit().device)
    return meta, ticket


def rotation_due(
    session: Session, meta: Meta, now: float, rotate_after: float | None
) -> bool:
    """Tell whether the token is old enough, and can be replaced with this response."""
    if rotate_after is None or now - meta.rotated_at < rotate_after:
        return False
    if session.ticket is None or session.cookie_due is not CookieDue.KEEP:
        # The visitor has yet to show that the last successor arrived.
        return False
    visit = session.visit()
    return not visit.started and not visit.insecure


def rotation(session: Session, record: Record, now: float) -> Renewed:
    """Return what the rotation of a token for its age makes of *record*."""
    assert session.ticket is not None
    salt = secrets.token_bytes(16)
    ticket = session.ticket._replace(token=successor(session.ticket.token, salt))
    meta = {
        "token": digest(ticket.token),
        "previous": record.meta.token,
        "salt": salt,
        "rotated_at": now,
        "confirmed_at": None,
    }
    return meta, ticket


def confirms(session: Session, meta: Meta) -> bool:
    """Tell whether this request is the first to present a successor."""
    presented = session.cookie_due is CookieDue.KEEP and session.ticket is not None
    return presented and meta.previous is not None and meta.confirmed_at is None
