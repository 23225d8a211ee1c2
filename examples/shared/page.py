"""What the pages of every example share: headers, redirects, errors, and a stylesheet."""

from functools import partial
from http.client import responses
from pathlib import Path
from typing import Any

from tornado.web import RequestHandler, StaticFileHandler

from tornado_sessions import SessionMixin

MAX_NAME = 40
FILES = {
    "static_path": str(Path(__file__).parent / "static"),
    "static_url_prefix": "/shared/",
}
ROUTE = (r"/shared/(.*)", StaticFileHandler, {"path": FILES["static_path"]})
"""Where an application serves the stylesheet."""


def page_settings(folder: Path) -> dict[str, Any]:
    """Return the settings for pages whose templates and static files are in *folder*."""
    return {
        "xsrf_cookies": True,
        "xsrf_cookie_kwargs": {"httponly": True, "samesite": "Lax"},
        "template_path": str(folder / "templates"),
        "static_path": str(folder / "static"),
    }


def name_in(text: str, most: int = MAX_NAME) -> str | None:
    """Return the name that somebody typed, or None if it is none."""
    name = " ".join(text.split())
    return name if 0 < len(name) <= most and name.isprintable() else None


class ExamplePage(SessionMixin, RequestHandler):
    """A page of an example: guarded by headers, and with errors in its own look."""

    content_security_policy = ""

    def set_default_headers(self) -> None:
        """Keep other sites from framing a page or loading anything into it."""
        self.set_header("Content-Security-Policy", self.content_security_policy)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")

    def get_template_namespace(self) -> dict[str, Any]:
        """Tell every template where the shared stylesheet is."""
        namespace = super().get_template_namespace()
        namespace["shared_url"] = partial(StaticFileHandler.make_static_url, FILES)
        return namespace

    def leave_for(self, url: str) -> None:
        """Answer a form: reloading the next page must not send the form again.

        The redirect waits for the save, so that page always shows the change.
        """
        self.redirect(url, status=303)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Explain an error on a page in the look of the others, with the way back."""
        reason = responses.get(status_code, "Error")
        self.render("error.html", status=status_code, reason=reason)
