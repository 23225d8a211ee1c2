"""The periodic task that deletes expired records where the database does not.

It works in slices of a bounded number of records and gives the event loop its turn
between two of them. Several processes on one store may each have one: deleting is
idempotent, and jitter keeps them apart.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from tornado_sessions.deadline import within
from tornado_sessions.errors import StoreError

log = logging.getLogger("tornado_sessions.sweeper")

SLICE = 256
"""Records that one call to the store may delete."""
_JITTER = 0.1
_MAX_BACKOFF = 16


class Sweeper:
    """Calls *sweep* every *interval* seconds, give or take 10 %.

    Args:
        sweep: ``await sweep(limit)`` deletes at most *limit* records and returns how
            many; fewer than *limit* ends the round.
        interval: Seconds between two rounds; after errors it is doubled, up to 16 times.
        timeout: Seconds that one slice may take. Walking a large directory takes its
            time, so this is not the deadline of a request.
    """

    def __init__(
        self,
        sweep: Callable[[int], Awaitable[int]],
        *,
        interval: float,
        timeout: float = 60.0,
    ) -> None:
        self._sweep = sweep
        self._interval = interval
        self._timeout = timeout
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        """That of the lock: in one that is gone, somebody may hold it for ever."""
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """True between `start` and `stop`."""
        return self._task is not None and not self._task.done() and self._here()

    def start(self) -> None:
        """Begin in the running event loop; the first round comes after one interval."""
        if self.running:
            return
        self._task = asyncio.get_running_loop().create_task(self._periodically())

    async def stop(self) -> None:
        """End the task and wait until it is over."""
        running, task, self._task = self.running, self._task, None
        if running and task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _here(self) -> bool:
        """Tell whether the task belongs to the running loop; others are gone by now."""
        assert self._task is not None
        return self._task.get_loop() is asyncio.get_running_loop()

    async def run_once(self) -> int:
        """Sweep until nothing is left and return how many records were deleted."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._lock = loop, asyncio.Lock()
        async with self._lock:
            total = 0
            while True:
                swept = await self._slice()
                total += swept
                if swept < SLICE:
                    return total
                await asyncio.sleep(0)

    async def _slice(self) -> int:
        try:
            return await within(self._timeout, self._sweep(SLICE))
        except asyncio.TimeoutError as error:
            message = f"sweep: the store did not answer within {self._timeout:g} s"
            raise StoreError(message) from error

    async def _periodically(self) -> None:
        backoff = 1
        while True:
            jitter = random.uniform(1 - _JITTER, 1 + _JITTER)
            await asyncio.sleep(self._interval * backoff * jitter)
            try:
                swept = await self.run_once()
                backoff = 1
                log.debug("swept %d expired sessions", swept)
            except Exception:
                backoff = min(2 * backoff, _MAX_BACKOFF)
                log.exception("sweeping failed; next try in %d intervals", backoff)
