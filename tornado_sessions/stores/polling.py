"""How a store hears of ends whose database does not tell of them: it keeps asking.

The store supplies the question, `Look`: what has ended since a **place**, which is
whatever the store remembers of its last answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.base import LOOK_EVERY, EndListener

RETENTION = 60.0
"""Seconds for which ends are kept on record, for processes that were paused or cut off.

They are seconds of the wall clock, as with everything here that processes have to agree
on: a clock that was handed to a store may stand still, or differ from the others'.
"""
PRUNE_EVERY = 5.0
"""Seconds between two times that one store removes what is older; it costs a query."""
LOOK_AGAIN = 0.1
"""Seconds until the look after one that may have missed ends: whoever finds meanwhile
that a session is gone waits only for a moment to hear why (W2)."""
AT_ONCE = 1000
"""Ends that one look takes, so that no long list holds up the event loop."""

P = TypeVar("P")


@dataclass(frozen=True)
class News(Generic[P]):
    """What one look found."""

    place: P
    """Where the next look begins."""
    ends: list[tuple[str, str]]
    """Handles and reasons, the oldest first."""
    missed: bool = False
    """True if there may have been others."""
    more: bool = False
    """True if others are known to be there already."""


Look: TypeAlias = Callable[[P | None], Awaitable[News[P]]]
"""Returns what came after a place; after None nothing does, and it is now."""


class EndPolling(Generic[P]):
    """Tells listeners of ends; each asks for itself, and only while it listens."""

    def __init__(self) -> None:
        self._interrupted: tuple[EndListener, P] | None = None
        """Who was cut off by a failure, and where: it goes on from there."""

    async def tell(self, listener: EndListener, look: Look[P]) -> None:
        """Look every `LOOK_EVERY` seconds and tell *listener*, until it is cancelled.

        Args:
            listener: See `Store.listen`. One that the last failure cut off also hears
                of what ended meanwhile.
            look: Asks the database.

        Raises:
            StoreError: A look failed.
        """
        place, missed = self._resumed(listener), True
        while True:
            try:
                news = await look(place)
            except StoreError:
                if place is not None:
                    self._interrupted = (listener, place)
                raise
            place, missed = news.place, missed or news.missed
            for handle, reason in news.ends:
                listener.ended(handle, reason)
            if news.more:
                continue
            if missed:  # last, so that the reasons that are known come first
                listener.connected()
            await asyncio.sleep(LOOK_AGAIN if missed else LOOK_EVERY)
            missed = False

    def _resumed(self, listener: EndListener) -> P | None:
        if self._interrupted is None or self._interrupted[0] is not listener:
            return None
        place, self._interrupted = self._interrupted[1], None
        return place
