"""Server-side sessions for Tornado."""

from tornado_sessions.config import SessionConfig
from tornado_sessions.errors import (
    CodecError,
    ConfigurationError,
    ResponseStarted,
    SessionConflict,
    SessionError,
    StoreError,
)
from tornado_sessions.events import SessionEvent
from tornado_sessions.flashes import Flash
from tornado_sessions.freshness import fresh_login_required
from tornado_sessions.manager import SessionInfo, SessionManager
from tornado_sessions.session import Session
from tornado_sessions.stores.base import Store
from tornado_sessions.stores.url import store_from_url
from tornado_sessions.web import SessionMixin
from tornado_sessions.websocket import WebSocketSessionMixin

__all__ = [
    "CodecError",
    "ConfigurationError",
    "Flash",
    "ResponseStarted",
    "Session",
    "SessionConfig",
    "SessionConflict",
    "SessionError",
    "SessionEvent",
    "SessionInfo",
    "SessionManager",
    "SessionMixin",
    "Store",
    "StoreError",
    "WebSocketSessionMixin",
    "fresh_login_required",
    "store_from_url",
]
