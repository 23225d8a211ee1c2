"""What a response wants to do while its session is being stored.

`finish` and `flush` of a handler are queued here with a future each, and performed in
their order once the store agreed. Tornado does not wait for these futures, and a
handler need not either, so an exception in one counts as retrieved.

What a handler does after `finish` changes nothing of its response in plain Tornado,
because that has left. So it is put aside here until it leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from tornado.httputil import HTTPHeaders

Sent: TypeAlias = "asyncio.Future[None]"
"""Resolves when the bytes are written, as Tornado's own do."""
Operation: TypeAlias = Callable[[], Sent]


LATE = (
    "the session was changed after the response had begun, and nothing stores that; "
    "change it before the first flush(), or await self.save_session()"
)


class _Held(NamedTuple):
    operation: Operation
    sent: Sent
    finishing: bool


class _Response(NamedTuple):
    """What a handler of Tornado's is about to send."""

    status: int
    reason: str
    headers: HTTPHeaders
    buffer: list[bytes]
    cookies: Any
    written: bool
    """Its headers have left."""


class _Left(HTTPHeaders):
    """Headers that have left: what is set or removed goes nowhere."""

    def __setitem__(self, name: str, value: str) -> None:
        pass

    def __delitem__(self, name: str) -> None:
        pass

    def add(self, name: str, value: str, *args: Any, **kwargs: Any) -> None:
        pass


_LEFT = _Left()


class HeldResponse:
    """The queue of one response. It ends with `perform` or `refuse`."""

    def __init__(self) -> None:
        self._queue: list[_Held] = []
        self._out: Sent | None = None
        self._ended = False
        self._aside: _Response | None = None

    def add(self, operation: Operation, *, finishing: bool) -> Sent:
        """Queue *operation*; the future resolves with the one that it returns."""
        sent: Sent = asyncio.get_running_loop().create_future()
        self._queue.append(_Held(operation, sent, finishing))
        return sent

    @property
    def streams(self) -> bool:
        """True if a flush is queued, and not a finish alone."""
        return not all(held.finishing for held in self._queue)

    def out(self) -> Sent:
        """Return a future for when all was performed or refused."""
        if self._out is None:
            self._out = asyncio.get_running_loop().create_future()
            if self._ended:
                self._out.set_result(None)
        return self._out

    def put_aside(self, state: dict[str, Any]) -> None:
        """Keep the finished response that is in *state*, the attributes of a handler.

        What the handler sets from now on is set for nobody, and it is told the headers
        have left. Nor does it hear of a client that leaves: Tornado's would have finished.
        """
        # This keeps the verb from running after prepare(), and write() out.
        state["_finished"] = True
        state["request"].connection.set_close_callback(None)
        self._aside = _Response(
            state["_status_code"],
            state["_reason"],
            state["_headers"],
            state["_write_buffer"],
            state.pop("_new_cookie", None),
            state["_headers_written"],
        )
        state["_headers"] = _LEFT
        state["_headers_written"] = True

    def started(self, state: dict[str, Any]) -> bool:
        """Tell whether headers have left, whatever the handler is told."""
        aside = self._aside
        return bool(state["_headers_written"] if aside is None else aside.written)

    def put_back(self, state: dict[str, Any]) -> None:
        """Put the response that was kept, if one was, back into *state*."""
        if self._aside is None:
            return
        status, reason, headers, buffer, cookies, written = self._aside
        state["_status_code"], state["_reason"] = status, reason
        state["_headers"], state["_write_buffer"] = headers, buffer
        state["_headers_written"] = written
        state.pop("_new_cookie", None)
        if cookies is not None:
            state["_new_cookie"] = cookies
        self._aside = None

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
        finally:
            self._end()

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
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._queue.clear()
        if self._out is not None and not self._out.done():
            self._out.set_result(None)


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


def _follow(real: Sent | None, sent: Sent) -> None:
    if real is None:  # of a base class that returns nothing; Tornado does not mind
        real = already_sent()
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
