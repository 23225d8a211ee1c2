"""Asking again for a proof of identity, where the last one is too old.

The idea, and what an age that is exactly the limit means, are those of ``max_age`` and
``auth_time`` in OpenID Connect Core 1.0 §3.1.2.1. OWASP ASVS 5.0 §7.5.1 and §7.5.3 ask
for it before sensitive changes.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias
from urllib.parse import urlencode, urlsplit

from tornado.web import HTTPError

from tornado_sessions.config import duration
from tornado_sessions.web import SessionMixin

Method: TypeAlias = Callable[..., Awaitable[None] | None]


def fresh_login_required(max_age: float | timedelta) -> Callable[[Method], Method]:
    """Decorate a method to require a login that is not older than *max_age*.

    It goes where `tornado.web.authenticated` goes, and does the same: who is not logged
    in, or logged in too long ago, is redirected to the
    `login url <tornado.web.RequestHandler.get_login_url>` with ``next`` if the request
    is a GET or HEAD, and gets a 403 otherwise. ``session.login()`` makes the login fresh
    again, for the same principal too; see `Session.authenticated_at`.

    ::

        class Password(SessionMixin, tornado.web.RequestHandler):
            @fresh_login_required(timedelta(minutes=5))
            async def get(self): ...

    The login page must ask whoever comes, also those who are logged in: one that sends
    them on would send them in a circle.

    Args:
        max_age: Seconds, or a `timedelta`.

    Raises:
        ConfigurationError: *max_age* is impossible; when the method is decorated.
    """
    limit = duration("max_age of fresh_login_required", max_age)

    def decorate(method: Method) -> Method:
        @functools.wraps(method)
        def wrapper(
            self: SessionMixin, *args: Any, **kwargs: Any
        ) -> Awaitable[None] | None:
            if not isinstance(self, SessionMixin):
                kind = type(self).__name__
                raise TypeError(f"fresh_login_required: {kind} has no SessionMixin")
            if self.current_user and _is_fresh(self, limit):
                return method(self, *args, **kwargs)
            if self.request.method not in ("GET", "HEAD"):
                raise HTTPError(403, "there is no login, or it is not fresh")
            self.redirect(_login_url(self))
            return None

        return wrapper

    return decorate


def _is_fresh(handler: SessionMixin, limit: float) -> bool:
    at = handler.session.authenticated_at
    return at is not None and handler.session_manager.now() - at.timestamp() <= limit


def _login_url(handler: SessionMixin) -> str:
    """Return what `tornado.web.authenticated` redirects to, which does not offer it."""
    url = handler.get_login_url()
    if "?" in url:
        return url
    request = handler.request
    there = request.full_url() if urlsplit(url).scheme else request.uri
    return f"{url}?{urlencode({'next': there})}"
