"""What happened to which session, and who wants to know."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

log = logging.getLogger("tornado_sessions")

EventKind: TypeAlias = Literal[
    "created",  # a record was stored for the first time
    "login",  # a principal was attached; the token is new
    "rotated",  # the token is new, everything else as before
    "ended",  # the session is over; `reason` says why
    "dropped",  # a change came too late: the session had ended meanwhile
    "undecodable",  # a record could not be read; its visitor starts anew
    "refused",  # a cookie was not accepted; `reason` says why
]


@dataclass(frozen=True)
class SessionEvent:
    """One thing that happened in this process. Carries no token and no values."""

    kind: EventKind
    handle: str
    reason: str | None = None
    principal: str | None = None


Callback: TypeAlias = Callable[[SessionEvent], object]


class Events:
    """Calls every subscriber, in the order of their subscription, on the event loop."""

    def __init__(self) -> None:
        self._callbacks: list[Callback] = []

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call *callback* with each `SessionEvent` from now on.

        Returns:
            A function that ends the subscription; calling it again does nothing.
        """
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    def emit(
        self,
        kind: EventKind,
        handle: str,
        reason: str | None = None,
        principal: str | None = None,
    ) -> None:
        """Tell the subscribers. One that raises is logged and harms nobody."""
        if not self._callbacks:
            return
        event = SessionEvent(kind, handle, reason, principal)
        for callback in tuple(self._callbacks):
            try:
                callback(event)
            except Exception:
                log.exception("a subscriber failed on the event %r", kind)
