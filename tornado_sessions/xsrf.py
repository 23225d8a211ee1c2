"""XSRF tokens that belong to a session, in the place of Tornado's (``session_xsrf``).

Tornado compares a form with a cookie, which holds the same random number for years and
for whoever is logged in. Here a form is compared with the session itself: its token is
an HMAC of the handle and the epoch, keyed with ``cookie_secret``. So it is no use in
another session, it changes at login and ``regenerate_id``, it outlives a rotation by
age, and nothing has to be stored. (The HMAC based token pattern of OWASP's Cross-Site
Request Forgery Prevention Cheat Sheet.)

Where there is no session yet, such as on the first page with a login form, Tornado's
cookie does it: no visitor gets a session for looking at a page.
"""

from __future__ import annotations

import binascii
import hmac
import re
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tornado_sessions.cookie import Ticket
from tornado_sessions.cookie_secret import all_secrets
from tornado_sessions.session import Session

_PURPOSE = b"tornado_sessions xsrf 1|"
"""Nothing else that is signed with ``cookie_secret`` begins like this."""
_TOKEN_BYTES = 16
"""128 bits, as many as Tornado's have."""
_FORM = re.compile(r"2\|([0-9a-f]{32})\|([0-9a-f]{32})\|[0-9]{1,20}", re.ASCII)


class Binding(NamedTuple):
    """What a form belongs to: a session, since its last login."""

    handle: str
    epoch: int


class Acceptable(NamedTuple):
    """What the forms may belong to that a request may send."""

    bindings: frozenset[Binding]
    cookie: bool
    """Whether Tornado's cookie will do as well."""


def binding_of(
    session: Session | None, tickets: Sequence[Ticket], *, by_hand: bool = False
) -> Binding | None:
    """Return what a form on this response belongs to; None if there is no session.

    Args:
        session: None if it was not loaded.
        tickets: What the cookies of the request say.
        by_hand: The handler loads the session itself, after the check of the form. That
            goes by the cookie alone, then, also if its session has ended.
    """
    if session is not None and session.record is not None:
        renewed = session.login_pending or session.renewal_pending
        meta = session.record.meta
        return Binding(session.record.handle, meta.epoch + renewed)
    if session is not None and session.principal is not None:
        return Binding(session.handle, 0)
    unknown = session is None or session.sealed is not None
    over = (
        by_hand and len(tickets) == 1 and not (session is not None and session.modified)
    )
    if tickets and (unknown or over):
        return Binding(tickets[0].handle, tickets[0].epoch)
    return None


def acceptable(session: Session | None, tickets: Sequence[Ticket]) -> Acceptable:
    """Return what a form must belong to; for the arguments see `binding_of`.

    Before the first login, Tornado's cookie is accepted beside the session: a form that
    was opened before the session began still works. Nobody has any rights then.
    """
    if session is not None and session.record is not None:
        # Not what any cookie says: one that was planted beside it opens nothing, but
        # whoever planted it knows the token that belongs to it.
        meta = session.record.meta
        own = Binding(session.record.handle, meta.epoch)
        no_login_yet = meta.epoch == 0 and meta.principal is None
        return Acceptable(frozenset({own}), cookie=no_login_yet)
    bindings = frozenset(Binding(ticket.handle, ticket.epoch) for ticket in tickets)
    if session is not None or not tickets:
        return Acceptable(bindings, cookie=True)
    if len(bindings) > 1:  # and which of them will be let in, nobody knows yet
        return Acceptable(frozenset(), cookie=False)
    return Acceptable(bindings, cookie=False)


def token_of(settings: Mapping[str, Any], binding: Binding) -> bytes:
    """Return the token for a form, masked anew each time (BREACH, as Tornado does).

    Its form is that of Tornado's: ``2|mask|masked token|time``, in hex and decimal.
    """
    mask = secrets.token_bytes(_TOKEN_BYTES)
    masked = _xor(mask, _raw(all_secrets(settings)[0], binding))
    parts = (b"2", mask.hex().encode(), masked.hex().encode())
    return b"|".join((*parts, b"%d" % time.time()))


def belongs(
    given: str | None, settings: Mapping[str, Any], bindings: Iterable[Binding]
) -> bool:
    """Tell whether the token *given* is one of *bindings*, by any of the secrets."""
    raw = _unmasked(given or "")
    if raw is None:
        return False
    return any(
        hmac.compare_digest(raw, _raw(secret, one))
        for secret in all_secrets(settings)
        for one in bindings
    )


def _raw(secret: bytes, binding: Binding) -> bytes:
    text = f"{binding.handle}|{binding.epoch}".encode()
    return hmac.digest(secret, _PURPOSE + text, "sha256")[:_TOKEN_BYTES]


def _unmasked(given: str) -> bytes | None:
    """Undo `token_of`; None for anything else, a token of Tornado's cookie too."""
    found = _FORM.fullmatch(given)
    if found is None:
        return None
    return _xor(binascii.a2b_hex(found[1]), binascii.a2b_hex(found[2]))


def _xor(mask: bytes, content: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(mask, content, strict=True))
