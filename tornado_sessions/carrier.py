"""How a handler carries the session cookie: reads it, and puts it on the response."""

# ruff: noqa: SLF001  (see Handler._headers)

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from tornado.httputil import HTTPHeaders, HTTPServerRequest

from tornado_sessions import cookie
from tornado_sessions.cookie import CookieDue, Ticket
from tornado_sessions.cookie_secret import check_cookie_secret
from tornado_sessions.errors import ConfigurationError
from tornado_sessions.manager import HasSettings, SessionManager
from tornado_sessions.session import Session
from tornado_sessions.verified import VerifiedCookies
from tornado_sessions.visit import Visit

_ATTRIBUTE = "_tornado_sessions_carrier"


class Handler(Protocol):
    """What is asked of a `tornado.web.RequestHandler`."""

    request: HTTPServerRequest
    _headers: HTTPHeaders
    """Not public, but there is no other way to see what a response will say."""

    def _session_started(self) -> bool: ...

    @property
    def settings(self) -> dict[str, Any]: ...

    def get_signed_cookie(
        self, name: str, value: str | None, max_age_days: float, min_version: int | None
    ) -> bytes | None: ...

    def get_signed_cookie_key_version(
        self, name: str, value: str | None
    ) -> int | None: ...

    def set_signed_cookie(
        self,
        name: str,
        value: str | bytes,
        expires_days: float | None,
        version: int | None,
        **kwargs: Any,
    ) -> None: ...

    def clear_cookie(self, name: str, **kwargs: Any) -> None: ...

    def add_header(self, name: str, value: str) -> None: ...

    def set_header(self, name: str, value: str) -> None: ...


class CookieCarrier:
    """Reads and writes the cookie that the settings of *manager* describe."""

    def __init__(self, manager: SessionManager) -> None:
        config = manager.config
        self.manager = manager
        self._config = config
        self._now = manager.now
        self._name = config.full_cookie_name
        self._max_age_days = config.absolute_timeout / 86400
        self._verified = VerifiedCookies(config.absolute_timeout)

    @classmethod
    def of(cls, application: HasSettings) -> CookieCarrier:
        """Return the carrier of *application*, made on first use."""
        carrier: CookieCarrier | None = getattr(application, _ATTRIBUTE, None)
        if carrier is None:
            check_cookie_secret(application.settings)
            carrier = cls(SessionManager.of(application))
            carrier._check_xsrf(application.settings)
            setattr(application, _ATTRIBUTE, carrier)
        return carrier

    def _check_xsrf(self, settings: Mapping[str, Any]) -> None:
        if self._config.xsrf and not settings.get("xsrf_cookies"):
            raise ConfigurationError(
                "session_xsrf=True protects nothing unless Tornado checks: set "
                "xsrf_cookies=True as well"
            )

    def tickets(self, handler: Handler) -> list[Ticket]:
        """Return what the verified cookies of the request say, in their order (K2)."""
        try:
            header = handler.request.headers["Cookie"]
        except KeyError:
            return []
        return [
            ticket
            for value in cookie.candidates(header, self._name)
            if (ticket := self._ticket(handler, value)) is not None
        ]

    def _ticket(self, handler: Handler, value: str) -> Ticket | None:
        """Return what the signed *value* says, or None if it is not to be trusted."""
        settings = handler.settings
        secret = settings["cookie_secret"]
        ticket = self._verified.recall(value, secret)
        if ticket is None:
            # min_version=2: version 1 does not bind the name, and with a dict as
            # cookie_secret Tornado answers 500 to anything that looks like it (K1).
            name, days = self._name, self._max_age_days
            content = handler.get_signed_cookie(name, value, days, 2)
            ticket = cookie.decode(content) if content is not None else None
            if ticket is None:
                self.manager.refused(self._why_refused(handler, value, content))
                return None
            ticket = self._verified.remember(value, secret, ticket)
        newest = settings.get("key_version")
        if newest is not None and isinstance(secret, Mapping):
            key = handler.get_signed_cookie_key_version(self._name, value)
            ticket = ticket._replace(resign=key != newest)
        return ticket

    def _why_refused(self, handler: Handler, value: str, content: bytes | None) -> str:
        if content is not None:
            return "malformed"
        secret = handler.settings["cookie_secret"]
        if isinstance(secret, dict) and value.startswith("2|"):
            key = handler.get_signed_cookie_key_version(self._name, value)
            if key is not None and key not in secret:
                return "unknown key"
        return "signature"

    def visit_of(self, handler: Handler) -> Callable[[], Visit]:
        """Return what tells the manager about the request, as things are then."""
        # A session that kept the handler alive would make a cycle of each request,
        # and the garbage collector would have to look for it.
        return partial(self._visit, weakref.ref(handler))

    def _visit(self, known: weakref.ref[Handler]) -> Visit:
        handler = known()
        if handler is None:  # and its response has gone out
            return Visit(started=True)
        request = handler.request
        return Visit(
            ip=request.remote_ip or "",
            user_agent=request.headers.get("User-Agent", ""),
            started=handler._session_started(),
            insecure=self._config.secure is True and request.protocol != "https",
        )

    def put(self, handler: Handler, session: Session) -> None:
        """Set or clear the cookie, if *session* has it due. May be called again."""
        if session.cookie_due is CookieDue.KEEP:
            return
        vary(handler)
        if session.cookie_due is CookieDue.CLEAR:
            handler.clear_cookie(self._name, **self._attributes(handler))
        elif session.ticket is not None:
            handler.set_signed_cookie(
                self._name,
                cookie.encode(session.ticket),
                None,
                None,
                **self._attributes(handler),
                **self._lifetime(session),
            )
        if "Cache-Control" not in handler._headers:
            handler.set_header("Cache-Control", "no-store")

    def _attributes(self, handler: Handler) -> dict[str, Any]:
        secure = self._config.secure
        if secure == "auto":
            secure = handler.request.protocol == "https"
        return {"httponly": True, "secure": secure, **self._config.cookie_kwargs}

    def _lifetime(self, session: Session) -> dict[str, Any]:
        """Return what makes the cookie outlive the browser, if it should (K3)."""
        wanted, record = session.persistent, session.record
        if record is not None:
            wanted = record.meta.persistent  # the other may have been set too late
        if not (self._config.persistent if wanted is None else wanted):
            return {}
        ends = session.expires_at
        seconds = int(ends.timestamp() - self._now())
        return {"expires": ends, "max_age": max(1, seconds)}


def vary(handler: Handler) -> None:
    """Say that the response of *handler* depends on the cookie (T6)."""
    headers = handler._headers
    if "Vary" not in headers:
        headers["Vary"] = "Cookie"
        return
    known = headers["Vary"].lower()
    if known != "cookie":
        names = {name.strip() for name in known.split(",")}
        if not names & {"*", "cookie"}:
            handler.add_header("Vary", "Cookie")
