"""A client that leaves while its request waits for the session.

Tornado tells a handler of it by ``on_connection_close()``, in the middle of whatever it is
waiting for. But a handler whose session is yet to be loaded has not begun: it would be told
too early, and never again (T1, T5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol


class Beginner(Protocol):
    """What is asked of a `tornado.web.RequestHandler`."""

    request: Any
    _finished: bool

    @property
    def on_connection_close(self) -> Callable[[], None]: ...


class Departure:
    """Keeps it from *handler* that its client has left, until `tell`."""

    __slots__ = ("_connection", "_gone", "_handler")

    def __init__(self, handler: Beginner) -> None:
        self._handler = handler
        self._connection = handler.request.connection
        self._gone = False
        self._connection.set_close_callback(self._note)

    def _note(self) -> None:
        self._gone = True

    def tell(self) -> None:
        """Have the handler hear of it from now on; also of what was kept from it."""
        heard = None if self._gone else self._handler.on_connection_close
        self._connection.set_close_callback(heard)
        # A socket finds its connection closed by itself, as soon as it is open.
        if self._gone and not hasattr(self._handler, "ws_connection"):
            asyncio.get_running_loop().call_soon(self._tell_late)

    def _tell_late(self) -> None:
        if not self._handler._finished:  # noqa: SLF001
            self._handler.on_connection_close()
