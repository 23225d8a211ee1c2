"""The shop as a Tornado application."""

from pathlib import Path
from typing import Any

from tornado.web import Application

from examples.shared.page import ROUTE, page_settings

from . import handlers

HERE = Path(__file__).parent

ROUTES: list[Any] = [
    (r"/", handlers.Shop),
    (r"/cart", handlers.ShowCart),
    (r"/cart/add", handlers.Add),
    (r"/cart/quantity", handlers.SetQuantity),
    (r"/cart/step", handlers.Step),
    (r"/cart/remove", handlers.Remove),
    (r"/cart/empty", handlers.Empty),
    (r"/checkout", handlers.Checkout),
    (r"/order", handlers.ShowOrder),
    (r"/login", handlers.Login),
    (r"/logout", handlers.Logout),
    ROUTE,
]


def make_app(store: str, cookie_secret: str) -> Application:
    """Build the shop; all that sessions need are these two settings.

    Args:
        store: Where sessions live, such as ``sqlite:///cart.db``.
        cookie_secret: Signs the session cookie. Whoever knows it can forge one,
            and changing it logs everybody out.
    """
    return Application(
        ROUTES,
        session_store=store,
        cookie_secret=cookie_secret,
        default_handler_class=handlers.Missing,
        **page_settings(HERE),
    )
