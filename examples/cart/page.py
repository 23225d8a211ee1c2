"""What all pages of the shop share."""

from datetime import datetime, timezone
from typing import Any, cast

from examples.shared.page import ExamplePage

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


class Page(ExamplePage):
    """A page of the shop: reads the cart, and tells every template of it."""

    content_security_policy = CONTENT_SECURITY_POLICY

    @property
    def cart(self) -> Cart:
        """Read the cart of this visitor, empty until something is in it."""
        return cast(Cart, self.session.get("cart", {}))

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
