"""What a store has open in an event loop, closed at the latest when that loop ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from functools import partial

log = logging.getLogger("tornado_sessions")

_tasks: set[asyncio.Task[None]] = set()
"""A loop knows its tasks weakly: without this they could vanish before they end."""


class Keeper:
    """Keeps something open in the running event loop.

    Connections end with their loop, but nobody closes a store when Tornado's
    `AsyncHTTPTestCase` or `asyncio.run` ends one, or when it is dropped. The tasks of a
    loop are cancelled when it ends, and one of them closes what has to be closed.

    Args:
        close: Closes it; called once, in the loop that is running now. It must not
            refer to the keeper.
    """

    def __init__(self, close: Callable[[], Awaitable[None]]) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._task = self._loop.create_task(_keep(self._over, close))
        _tasks.add(self._task)
        self._task.add_done_callback(partial(_ended, self._over))

    def __del__(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._over.set)

    @property
    def over(self) -> bool:
        """True if it was closed, or is about to be."""
        return self._over.is_set()

    async def close(self) -> None:
        """Close it, unless its loop is another one, which does so or is over."""
        if self._loop is asyncio.get_running_loop():
            self._over.set()
            await asyncio.wait([self._task])


async def _keep(over: asyncio.Event, close: Callable[[], Awaitable[None]]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await over.wait()
    over.set()
    try:
        await close()
    except Exception:
        log.warning("a store did not close its connections", exc_info=True)


def _ended(over: asyncio.Event, task: asyncio.Task[None]) -> None:
    over.set()  # also if it was cancelled before it had begun
    _tasks.discard(task)
