"""New tokens for a session that is known.

At login and on demand the token is replaced by a random one, with no way back. For its
age it is replaced by its successor, with the way back that parallel requests need (E4).
"""

from __future__ import annotations

import math
import secrets
from typing import Any, TypeAlias

from tornado_sessions.config import SessionConfig
from tornado_sessions.cookie import Ticket
from tornado_sessions.session import Session
from tornado_sessions.stores.base import Meta, Record
from tornado_sessions.tokens import digest, random_id, successor

Renewed: TypeAlias = "tuple[dict[str, Any], Ticket]"
"""The changed meta, and what the cookie is to carry."""


def new_epoch(record: Record, now: float) -> Renewed:
    """Return what a login or ``regenerate_id`` makes of *record*."""
    epoch = record.meta.epoch + 1
    ticket = Ticket(record.handle, random_id(), epoch, handed_out=True)
    meta: dict[str, Any] = {
        "token": digest(ticket.token),
        "epoch": ticket.epoch,
        "epoch_at": now,
        "rotated_at": now,
        "previous": None,
        "salt": None,
        "confirmed_at": None,
    }
    return meta, ticket


def rotation_due(
    session: Session, known: Meta, now: float, config: SessionConfig
) -> bool:
    """Tell whether the token is old enough, and can be replaced with this response."""
    if now < _earliest_rotation(known, now, config):
        return False
    if session.ticket is None or session.ticket.handed_out:
        # The visitor has yet to show that the last successor arrived.
        return False
    visit = session.visit()
    return not visit.started and not visit.insecure


def rotates_soon(known: Meta, now: float, config: SessionConfig) -> bool:
    """Tell whether the token may be replaced within the grace from now on.

    An answer that carries it as it is, and leaves now, may arrive after the one that
    carries its successor. The browser would be left with the outdated one.
    """
    return now < _earliest_rotation(known, now, config) < now + config.rotate_grace


def _earliest_rotation(known: Meta, now: float, config: SessionConfig) -> float:
    """Return when the token that is presented now may be replaced for its age.

    Not as long as the one before it is good: requests may be under way that carry that
    one in good faith, and answers that hand out this one. A new token would make the
    former a reuse, and the latter would put this one back into the browser (E4).
    """
    if config.rotate_after is None:
        return math.inf
    earliest = known.rotated_at + config.rotate_after
    if known.previous is None:
        return earliest
    confirmed_at = now if known.confirmed_at is None else known.confirmed_at
    return max(earliest, confirmed_at + config.rotate_grace)


def rotation(session: Session, record: Record, now: float) -> Renewed:
    """Return what the rotation of a token for its age makes of *record*."""
    assert session.ticket is not None
    salt = secrets.token_bytes(16)
    token = successor(session.ticket.token, salt)
    ticket = session.ticket._replace(token=token, handed_out=True)
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
    ticket = session.ticket
    if ticket is None or ticket.handed_out:
        return False
    if meta.previous is None or meta.confirmed_at is not None:
        return False
    return digest(ticket.token) == meta.token
