"""What a response wants to do while its session is being stored.

`finish` and `flush` of a handler are queued here with a future each, and performed in
their order once the store agreed. Tornado does not wait for these futures, and a
handler need not either, so an exception in one counts as retrieved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeAlias

Sent: TypeAlias = "asyncio.Future[None]"
"""Resolves when the bytes are written, as Tornado's own do."""
Operation: TypeAlias = Callable[[], Sent]


class _Held(NamedTuple):
    operation: Operation
    sent: Sent
    finishing: bool


class HeldResponse:
    """The queue of one response. It ends with `perform` or `refuse`."""

    def __init__(self) -> None:
        self._queue: list[_Held] = []

    def add(self, operation: Operation, *, finishing: bool) -> Sent:
        """Queue *operation*; the future resolves with the one that it returns."""
        sent: Sent = asyncio.get_running_loop().create_future()
        self._queue.append(_Held(operation, sent, finishing))
        return sent

    def perform(self, on_error: Callable[[Exception], None]) -> None:
        """Perform what was queued; the first error ends it and goes to *on_error*."""
        try:
            for held in self._queue:
                _follow(held.operation(), held.sent)
        except Exception as error:
            on_error(error)
            for held in self._queue:
                if not held.sent.done():
                    held.sent.set_result(None)

    def refuse(self, error: Exception) -> None:
        """Fail the queued flushes; a finish has been answered in another way."""
        for held in self._queue:
            if held.sent.cancelled():
                continue
            if held.finishing:
                held.sent.set_result(None)
            else:
                held.sent.set_exception(error)
                held.sent.exception()


def already_sent() -> Sent:
    """Return a future for a response that was answered in another way."""
    sent: Sent = asyncio.get_running_loop().create_future()
    sent.set_result(None)
    return sent


def run_immediately(call: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not suspend, without the cost of a task."""
    try:
        call.send(None)
    except StopIteration:
        return
    call.close()
    raise RuntimeError("a store with immediate = True must not suspend")


def _follow(real: Sent, sent: Sent) -> None:
    if real.done():  # as a rule: the socket took it at once
        _copy(sent, real)
    else:
        real.add_done_callback(partial(_copy, sent))


def _copy(sent: Sent, real: Sent) -> None:
    if sent.done():
        return
    error = real.exception()
    if error is None:
        sent.set_result(None)
    else:
        sent.set_exception(error)
        sent.exception()
