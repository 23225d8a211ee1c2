"""Waiting for at most so long, by tasks that may be cancelled at any moment.

Up to Python 3.11 `asyncio.wait_for` forgets that it was cancelled if what it waits for
ends at that moment. A task that goes round in circles, such as the sweeper's, would then
never end, nor would whoever waits for that, such as ``asyncio.run``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

T = TypeVar("T")

_PATIENCE = 0.1
"""Seconds until a task is cancelled again."""


async def within(seconds: float | None, call: Awaitable[T]) -> T:
    """Return what *call* returns, in time; it ends with whoever waits for it.

    Args:
        seconds: None = without a limit.
        call: Runs in a task of its own, unless it is one.

    Raises:
        asyncio.TimeoutError: It did not end in time, and was cancelled.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait([task], timeout=seconds)
    except asyncio.CancelledError:
        await ended(task)
        raise
    if not task.done():
        await ended(task)
        raise asyncio.TimeoutError
    return task.result()


async def ended(task: asyncio.Future[Any]) -> None:
    """Cancel *task* until it is over; drivers wait with `asyncio.wait_for`, too."""
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_PATIENCE)
    if not task.cancelled():
        task.exception()  # nobody asks for it any more, and it need not be logged
