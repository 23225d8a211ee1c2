"""Calls of the driver, which end with whoever waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from tornado_sessions.errors import StoreError
from tornado_sessions.stores.mongo_driver import BSONError, BulkWriteError, PyMongoError
from tornado_sessions.stores.mongo_errors import OTHER_LOOP, no_answer, store_error

T = TypeVar("T")

_PATIENCE = 0.1
"""Seconds until a call is cancelled again."""


async def answer_of(call: Awaitable[T], within: float | None = None) -> T:
    """Wait for *call*, which ends with whoever waits for it.

    Args:
        call: Of the driver.
        within: Seconds that it may take; None = whoever waits has a deadline.

    Raises:
        StoreError: The driver failed; what to do, and the driver's error as the cause.
        BulkWriteError: Some changes of a batch failed.
    """
    task = asyncio.ensure_future(call)
    if task.get_loop() is not asyncio.get_running_loop():  # a future of Motor
        raise StoreError(f"MongoDB: {OTHER_LOOP}")
    try:
        await asyncio.wait([task], timeout=within)
    except asyncio.CancelledError:
        await ended(task)
        raise
    if not task.done():
        await ended(task)
        raise no_answer()
    try:
        return task.result()
    except BulkWriteError:
        raise  # it tells of single changes
    except (PyMongoError, BSONError, RuntimeError) as error:
        failure = store_error(error)
    # Outside the handler: a traceback would show the driver's own error as context.
    raise failure


async def ended(task: asyncio.Future[Any]) -> None:
    """Cancel *task* until it is over.

    Up to Python 3.11 `asyncio.wait_for`, which PyMongo writes with, forgets that it was
    cancelled if the write ends at that moment: the driver would go on and wait for the
    answer of a server that hangs, for half a minute.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_PATIENCE)
    if not task.cancelled():
        task.exception()  # nobody asks for it any more, and it need not be logged
