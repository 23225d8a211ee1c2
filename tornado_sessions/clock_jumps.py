"""Notices that the time of day went on otherwise than the timers of the event loop.

A machine that slept, or whose clock was set, may be hours ahead; `call_later` counts
only the seconds in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_LOOK_EVERY = 1.0
"""Seconds between two comparisons: a whole process has one of them, not each socket."""
_TOLERANCE = 0.5
"""Seconds that the clocks may drift apart: clocks are always adjusted a little."""


class ClockJumps:
    """Compares the clocks, from `start` to `stop`.

    Args:
        clock: The time of day, in seconds; may be set, or stand still.
        on_jump: Called on the event loop, within a second.
    """

    def __init__(self, clock: Callable[[], float], on_jump: Callable[[], None]) -> None:
        self._clock = clock
        self._on_jump = on_jump
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ahead = 0.0

    def start(self) -> None:
        """Begin to compare, in the running loop, unless that was done."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.stop()
            self._loop = loop
            self._ahead = self._clock() - loop.time()
            self._timer = loop.call_later(_LOOK_EVERY, self._compare, loop)

    def stop(self) -> None:
        """Compare no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop = self._timer = None

    def _compare(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(_LOOK_EVERY, self._compare, loop)
        ahead = self._clock() - loop.time()
        if abs(ahead - self._ahead) > _TOLERANCE:
            self._ahead = ahead
            self._on_jump()
