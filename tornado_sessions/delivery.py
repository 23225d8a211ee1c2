"""Whether an answer carries the cookie, and what that depends on.

Answers overtake each other. One that sends the cookie must not put an outdated token
into the browser, over a newer one that came faster. So it leaves only if the store
confirms that the token is still the current one, and will be for a while.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tornado_sessions.config import SessionConfig
from tornado_sessions.cookie import CookieDue
from tornado_sessions.errors import ResponseStarted
from tornado_sessions.renewal import rotates_soon
from tornado_sessions.session import Session
from tornado_sessions.stores.base import Meta
from tornado_sessions.tokens import digest
from tornado_sessions.visit import Visit

log = logging.getLogger("tornado_sessions")


class Delivery:
    """Tells when the cookie is to be sent, and when it cannot be."""

    def __init__(self, config: SessionConfig) -> None:
        self._config = config
        self._warned_insecure = False

    def outlives_browser(self, session: Session) -> bool:
        """Tell whether the cookie is one that stays when the browser is closed."""
        persistent = session.persistent
        return self._config.persistent if persistent is None else persistent

    def due(
        self, session: Session, known: Meta, meta: Mapping[str, Any], now: float
    ) -> bool:
        """Tell whether the token as it is has to be sent, if *meta* is to be stored.

        What can wait does so if there will be another token in a moment.
        """
        if "persistent" in meta or _decided_before(session):
            return True
        resign = session.ticket is not None and session.ticket.resign
        moved = "expires_at" in meta and self.outlives_browser(session)
        return (resign or moved) and not rotates_soon(known, now, self._config)

    def behind(self, session: Session, known: Meta, now: float) -> float:
        """Return how many seconds a cookie that stays will end too early.

        It follows each extension by a response. By a socket it cannot.
        """
        ticket = session.ticket
        if ticket is None or not self.outlives_browser(session):
            return 0.0
        if session.outlives_request or session.visit().started:
            return 0.0  # none can leave
        if rotates_soon(known, now, self._config):
            return 0.0
        return known.last_seen_at - (now - ticket.age)

    def possible(self, visit: Visit) -> bool:
        """Tell whether a new token can be sent; log why not, once.

        Raises:
            ResponseStarted: The headers have left.
        """
        if visit.started:
            raise ResponseStarted(
                "a new session or token needs a cookie, but the headers have left; "
                "write to the session or log in before the first flush()"
            )
        if visit.insecure and not self._warned_insecure:
            self._warned_insecure = True
            log.warning(
                "session_secure=True, but a request came over plain http: no session "
                "is stored, since its cookie could not be sent. Use https, give the "
                "HTTPServer xheaders=True behind a TLS proxy, or set "
                'session_secure="auto"'
            )
        return not visit.insecure


def expected_token(
    session: Session, known: Meta, due: CookieDue, meta: Mapping[str, Any]
) -> bytes | None:
    """Return the token that a change of *meta* depends on, if it does.

    The data of a request do not: a token that is replaced meanwhile is no reason to
    lose them. An answer that sends the cookie, or what follows from it, depends on the
    token that the request has, whatever it has read since; and so does a confirmation.
    A new epoch goes on top of any token. A socket may be much older than a login, which
    it must not write into (C6).
    """
    if session.outlives_request or "epoch" in meta:
        return known.token
    if session.ticket is not None and (due is CookieDue.SEND or "confirmed_at" in meta):
        return digest(session.ticket.token)
    return None


def _decided_before(session: Session) -> bool:
    """Tell whether a cookie is to be sent that others may have replaced by now.

    It was decided at the load, or by a commit earlier in this request. Nobody else can
    know a session that this request began.
    """
    if session.cookie_due is not CookieDue.SEND:
        return False
    return not session.outlives_request and not session.began_here
