"""Handlers whose XSRF tokens belong to the session, with ``session_xsrf=True``."""

from __future__ import annotations

from tornado.web import ErrorHandler, HTTPError, RequestHandler

from tornado_sessions import xsrf
from tornado_sessions.cookie import Ticket
from tornado_sessions.manager import SessionManager
from tornado_sessions.session import Session


class XsrfHandler(RequestHandler):
    """Makes the tokens of forms, and checks them, as Tornado does elsewhere."""

    session_autoload: bool

    @property
    def xsrf_token(self) -> bytes:
        """The token for forms, which belongs to the session with ``session_xsrf``.

        Render a form after `Session.login`, not before it in the same request.
        """
        binding = None
        if SessionManager.of(self.application).config.xsrf:
            known = self._session_as_known()
            binding = xsrf.binding_of(*known, by_hand=not self.session_autoload)
        if binding is None:
            return super().xsrf_token
        return xsrf.token_of(self.settings, binding)

    def check_xsrf_cookie(self) -> None:
        """Refuse a request whose token is missing or wrong, as Tornado does (403)."""
        if isinstance(self, ErrorHandler):
            return  # it answers whatever comes with its error, and checks nothing
        if SessionManager.of(self.application).config.xsrf:
            wanted = xsrf.acceptable(*self._session_as_known())
            given = (
                self.get_argument("_xsrf", None)
                or self.request.headers.get("X-Xsrftoken")
                or self.request.headers.get("X-Csrftoken")
            )
            if xsrf.belongs(given, self.settings, wanted.bindings):
                return
            if not wanted.cookie:
                what = "belongs to another session or login" if given else "is missing"
                raise HTTPError(403, f"the '_xsrf' argument {what}")
        super().check_xsrf_cookie()

    def _session_as_known(self) -> tuple[Session | None, list[Ticket]]:
        """Return the session, unless it is not loaded, and what the cookies say."""
        raise NotImplementedError
