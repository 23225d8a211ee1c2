"""Handlers whose pages know the session: templates, and ``@authenticated``."""

from __future__ import annotations

from typing import Any

from tornado_sessions.flashes import TemplateFlashes
from tornado_sessions.session import Session
from tornado_sessions.settlement import began_epoch
from tornado_sessions.xsrf_handler import XsrfHandler

_SWITCHING_PROTOCOLS = 101


class PageHandler(XsrfHandler):
    """Gives the session to those in Tornado who ask a handler."""

    _visitor_session: Session | None = None
    _session_settled = False

    def _session_is_confirmed(self, session: Session) -> bool:
        """Tell whether the store holds what the cookie of *session* would say.

        Before a 101 that is no business of ours, only a login that the handler has saved.
        """
        return self._session_settled or (
            self.get_status() == _SWITCHING_PROTOCOLS and began_epoch(session)
        )

    def _session_found(self, session: Session | None) -> None:
        """Take *session*, if there is one. Who asked for `current_user` was told nobody."""
        if session is not None:
            self._visitor_session = session
            if vars(self).get("_current_user", session) is None:
                del self._current_user

    @property
    def session(self) -> Session:
        """The visitor's session."""
        raise NotImplementedError

    def get_current_user(self) -> Any:
        """Return the session's principal, so that ``@authenticated`` works."""
        return self.session.principal

    def get_template_namespace(self) -> dict[str, Any]:
        """Add ``session`` and ``flashes()`` to what templates see."""
        namespace = super().get_template_namespace()
        namespace["session"] = self.session
        namespace["flashes"] = TemplateFlashes(self.session.flashes)
        return namespace
