"""What all pages of the shop share."""

from datetime import datetime, timezone
from http.client import responses
from typing import Any, cast

from tornado.web import RequestHandler

from tornado_sessions import SessionMixin

from . import basket
from .basket import Cart
from .catalog import money

# No script, no frame, nothing from elsewhere: the pages need none of it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def moment(when: datetime) -> str:
    """Write a time so that everybody reads the same."""
    return f"{when.astimezone(timezone.utc):%d %B %Y, %H:%M} UTC"


class Page(SessionMixin, RequestHandler):
    """A page of the shop: reads the cart, and renders errors in the shop's look."""

    @property
    def cart(self) -> Cart:
        """Read the cart of this visitor, empty until something is in it."""
        return cast(Cart, self.session.get("cart", {}))

    def set_default_headers(self) -> None:
        """Keep other sites from framing a page or loading anything into it."""
        self.set_header("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")

    def get_template_namespace(self) -> dict[str, Any]:
        """Give every template what the frame around a page shows."""
        namespace = super().get_template_namespace()
        namespace.update(
            cart=self.cart,
            item_count=basket.count(self.cart),
            money=money,
            moment=moment,
        )
        return namespace

    def leave_for(self, url: str) -> None:
        """Answer a form: reloading the next page must not send the form again.

        The redirect waits for the save, so that page always shows the change.
        """
        self.redirect(url, status=303)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Explain an error on a page of the shop, with the way back."""
        reason = responses.get(status_code, "Error")
        self.render("error.html", status=status_code, reason=reason)
