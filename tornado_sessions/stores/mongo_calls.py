"""Calls of the driver, which end with whoever waits for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from tornado_sessions.deadline import within
from tornado_sessions.errors import StoreError
from tornado_sessions.stores.mongo_driver import BSONError, BulkWriteError, PyMongoError
from tornado_sessions.stores.mongo_errors import OTHER_LOOP, no_answer, store_error

T = TypeVar("T")


async def answer_of(call: Awaitable[T], seconds: float | None = None) -> T:
    """Wait for *call*, which ends with whoever waits for it.

    Args:
        call: Of the driver.
        seconds: That it may take; None = whoever waits has a deadline.

    Raises:
        StoreError: The driver failed; what to do, and the driver's error as the cause.
        BulkWriteError: Some changes of a batch failed.
    """
    task = asyncio.ensure_future(call)
    if task.get_loop() is not asyncio.get_running_loop():  # a future of Motor
        raise StoreError(f"MongoDB: {OTHER_LOOP}")
    try:
        return await within(seconds, task)
    except BulkWriteError:
        raise  # it tells of single changes
    except asyncio.TimeoutError:
        failure = no_answer()
    except (PyMongoError, BSONError, RuntimeError) as error:
        failure = store_error(error)
    # Outside the handler: a traceback would show the driver's own error as context.
    raise failure
