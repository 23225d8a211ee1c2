"""A request body that is streamed, while the response to it is held.

In plain Tornado a response that is finished ends the reading of the body: no more of it
reaches the handler, the verb does not run, and no ``100 Continue`` asks for it. A held
response is not finished yet, so the connection waits until it has gone out (T5).
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from tornado_sessions.held import Sent


class Receiving(Protocol):
    """What is asked of a `tornado.web.RequestHandler`."""

    def data_received(self, chunk: bytes) -> Awaitable[None] | None: ...


H = TypeVar("H", bound=Receiving)


class StreamedBody(Generic[H]):
    """Stands between the connection and a handler with ``@stream_request_body``.

    Args:
        handler: It will know this, so this knows it weakly: else they were a cycle.
        until_out: Returns a future for when a finish that is held has gone out, or None.
    """

    def __init__(self, handler: H, until_out: Callable[[H], Sent | None]) -> None:
        self._known = weakref.ref(handler)
        own = vars(handler).get("data_received")  # set by the handler itself
        self._receive = (
            (lambda _, chunk: own(chunk)) if own else type(handler).data_received
        )
        self._until_out = until_out

    def after_prepare(self, asked: asyncio.Future[None]) -> asyncio.Future[None]:
        """Return what is to be resolved in place of *asked*, when the body may come."""
        prepared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        prepared.add_done_callback(partial(self._let_it_come, asked))
        return prepared

    def _let_it_come(self, asked: asyncio.Future[None], _: Any) -> None:
        out = self._out()
        if out is None:
            _resolve(asked)
        else:
            out.add_done_callback(partial(_resolve, asked))

    def __call__(self, chunk: bytes) -> Awaitable[None] | None:
        """Give *chunk* to the handler, unless its response is finished."""
        handler = self._known()
        if handler is None or self._out() is not None:
            return self._received(None, None)
        try:
            received = self._receive(handler, chunk)
        except Exception as error:
            if self._out() is None:
                raise
            return self._received(None, error)
        if received is None and self._out() is None:
            return None
        return self._received(received, None)

    async def _received(
        self, received: Awaitable[None] | None, error: Exception | None
    ) -> None:
        """Wait for *received*, and until what was finished has gone out."""
        try:
            if error is not None:
                raise error
            if received is not None:
                await received
        finally:
            out = self._out()
            if out is not None:
                await out

    def _out(self) -> Sent | None:
        handler = self._known()
        return self._until_out(handler) if handler is not None else None


def _resolve(asked: asyncio.Future[None], _: Any = None) -> None:
    if not asked.done():
        asked.set_result(None)
