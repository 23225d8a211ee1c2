"""What a store has open in an event loop, closed at the latest when that loop ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable


class Keeper:
    """Keeps something open in the running event loop.

    Connections end with their loop, but nobody closes a store when Tornado's
    `AsyncHTTPTestCase` or `asyncio.run` ends one. Its tasks are cancelled then, and one
    of them closes what has to be closed.

    Args:
        close: Closes it; called once, in the loop that is running now.
    """

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._close = close
        self._over = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def close(self) -> None:
        """Close it, unless its loop is another one, which does so or is over."""
        if self._task.get_loop() is asyncio.get_running_loop():
            self._over.set()
            await asyncio.wait([self._task])

    async def _keep(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self._over.wait()
        await self._close()
