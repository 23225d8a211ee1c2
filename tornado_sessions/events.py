"""What happened to which session, and who wants to know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

log = logging.getLogger("tornado_sessions")

DESTROYED = "destroyed"
"""The reason for which a session ends that was told to."""
UNDECODABLE = "undecodable"
"""The reason for which a session ends whose record cannot be read, and that event."""

EventKind: TypeAlias = Literal[
    "created",  # a record was stored for the first time
    "login",  # a principal was attached; the token is new
    "rotated",  # the token is new, everything else as before
    "ended",  # the session is over; `reason` says why
    "dropped",  # a change came too late: the session had ended meanwhile
    "undecodable",  # a record could not be read; its visitor starts anew
    "refused",  # a cookie was not accepted; `reason` says why
    "reuse",  # a replaced token came back: somebody has a copy of a cookie (E5)
]


@dataclass(frozen=True)
class SessionEvent:
    """One thing that happened in this process. Carries no token and no values.

    With "reuse" it says who came with the replaced token.
    """

    kind: EventKind
    handle: str
    reason: str | None = None
    principal: str | None = None
    ip: str = ""
    """With "reuse": the address that the request came from, thief's or owner's."""
    user_agent: str = ""
    """With "reuse": what the request says of its browser, 256 characters at most."""
    age: float | None = None
    """With "reuse": seconds since the token was replaced, or longer."""


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
        subscribed = [callback]
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if subscribed:
                self._callbacks.remove(subscribed.pop())

        return unsubscribe

    def emit(
        self,
        kind: EventKind,
        handle: str,
        reason: str | None = None,
        principal: str | None = None,
    ) -> None:
        """Tell the subscribers what `SessionEvent` has fields for."""
        if self._callbacks:
            self.tell(SessionEvent(kind, handle, reason, principal))

    def tell(self, event: SessionEvent) -> None:
        """Tell the subscribers. One that raises is logged and harms nobody."""
        for callback in tuple(self._callbacks):
            try:
                callback(event)
            except (Exception, asyncio.CancelledError):  # of a future that it looked at
                log.exception("a subscriber failed on the event %r", event.kind)
