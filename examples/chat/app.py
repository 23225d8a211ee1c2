"""The chat as a Tornado application, and every setting of its sessions."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from tornado.web import Application

from examples.shared.page import ROUTE, page_settings

from . import handlers, sockets
from .hub import Hub
from .messages import Messages

HERE = Path(__file__).parent

ROUTES: list[Any] = [
    (r"/", handlers.Home),
    (r"/login", handlers.Login),
    (r"/logout", handlers.Logout),
    (r"/rooms", handlers.OpenRoom),
    (r"/rooms/(\d{1,9})", handlers.ShowRoom),
    (r"/devices", handlers.Devices),
    (r"/devices/end", handlers.EndDevice),
    (r"/devices/end-others", handlers.EndOthers),
    (r"/devices/end-all", handlers.EndAll),
    (r"/live/room", sockets.RoomSocket),
    (r"/live/devices", sockets.DevicesSocket),
    ROUTE,
]

SESSIONS: dict[str, Any] = {
    "session_cookie_name": "chat",  # the shop on another port has a "session"
    "session_max_per_principal": 5,  # the sixth log-in ends the oldest
    "session_idle_timeout": timedelta(hours=12),
    "session_absolute_timeout": timedelta(days=14),
    "session_touch_on_message": True,  # who talks is not idle
}


def make_app(store: str, messages: str, cookie_secret: str) -> Application:
    """Build the chat.

    Args:
        store: Where sessions live, such as ``redis://localhost``.
        messages: The SQLite file for rooms, messages and who is where.
        cookie_secret: Signs the session cookie.
    """
    return Application(
        ROUTES,
        **SESSIONS,
        session_store=store,
        cookie_secret=cookie_secret,
        chat_hub=Hub(Messages(messages)),
        login_url="/login",
        default_handler_class=handlers.Missing,
        websocket_ping_interval=20,  # finds out who went without a word
        websocket_max_message_size=8192,
        **page_settings(HERE),
    )
