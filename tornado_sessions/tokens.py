"""Tokens: how they are made, kept and judged.

The cookie carries the token, the record only its SHA-256, so a stolen database opens no
session. A token that is replaced for its age has one successor that anyone who presents
it can be given again: HMAC-SHA256 of the token, keyed with a salt in the record. That
makes rotation safe under parallel requests and lost responses, though the store never
holds a token. (Grace for the previous token: SuperTokens; the chain is our own.)
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac
import secrets

from tornado_sessions.cookie import Ticket
from tornado_sessions.stores.base import Meta

TOKEN_BYTES = 16
"""128 random bits, as OWASP ASVS 5.0 §7.2.3 asks for."""


class Verdict(enum.Enum):
    """What a presented token is to its record."""

    CURRENT = "current"
    PREVIOUS = "previous"
    OTHER_EPOCH = "other epoch"
    REUSED = "reuse"


def random_id() -> str:
    """Return 128 fresh random bits as 22 URL-safe characters."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def digest(token: str) -> bytes:
    """Return what the store keeps of *token*."""
    return hashlib.sha256(token.encode()).digest()


def successor(token: str, salt: bytes) -> str:
    """Return the one token that follows *token* when it is replaced for its age."""
    mac = hmac.digest(salt, token.encode(), "sha256")[:TOKEN_BYTES]
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def handed_out(ticket: Ticket, meta: Meta) -> Ticket | None:
    """Return what the holder of the previous token gets; None for any other token."""
    if meta.previous is None or meta.salt is None:
        return None
    if not hmac.compare_digest(digest(ticket.token), meta.previous):
        return None
    token = successor(ticket.token, meta.salt)
    return ticket._replace(token=token, handed_out=True)


def judge(ticket: Ticket, meta: Meta, now: float, grace: float) -> Verdict:
    """Compare what the cookie carries with what the record knows."""
    if ticket.epoch != meta.epoch:
        # From before a login; or from after it, if an old backup was restored.
        return Verdict.OTHER_EPOCH
    presented = digest(ticket.token)
    if hmac.compare_digest(presented, meta.token):
        return Verdict.CURRENT
    if meta.previous is None or not hmac.compare_digest(presented, meta.previous):
        return Verdict.REUSED
    good = meta.confirmed_at is None or now < meta.confirmed_at + grace
    return Verdict.PREVIOUS if good else Verdict.REUSED
