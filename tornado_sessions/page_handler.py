"""Handlers whose pages know the session: templates, and ``@authenticated``."""

from __future__ import annotations

from typing import Any

from tornado_sessions.flashes import TemplateFlashes
from tornado_sessions.session import Session
from tornado_sessions.xsrf_handler import XsrfHandler


class PageHandler(XsrfHandler):
    """Gives the session to those in Tornado who ask a handler."""

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
