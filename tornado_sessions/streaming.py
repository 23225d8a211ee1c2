"""A request body that is streamed, while the response to it is held.

In plain Tornado a response that is finished ends the reading of the body: no more of it
reaches the handler, the verb does not run, and no ``100 Continue`` asks for it. A held
response is not finished yet, so the connection waits until it has gone out (T5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from tornado_sessions.held import Sent


class StreamedBody:
    """Stands between the connection and a handler with ``@stream_request_body``.

    Args:
        receive: The handler's ``data_received``.
        until_out: Returns a future for when a finish that is held has gone out, or None.
    """

    def __init__(
        self,
        receive: Callable[[bytes], Awaitable[None] | None],
        until_out: Callable[[], Sent | None],
    ) -> None:
        self._receive = receive
        self._until_out = until_out

    def after_prepare(self, asked: asyncio.Future[None]) -> asyncio.Future[None]:
        """Return what is to be resolved in place of *asked*, when the body may come."""
        prepared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        prepared.add_done_callback(partial(self._let_it_come, asked))
        return prepared

    def _let_it_come(self, asked: asyncio.Future[None], _: Any) -> None:
        out = self._until_out()
        if out is None:
            _resolve(asked)
        else:
            out.add_done_callback(partial(_resolve, asked))

    def __call__(self, chunk: bytes) -> Awaitable[None] | None:
        """Give *chunk* to the handler, unless its response is finished."""
        if self._until_out() is not None:
            return self._received(None)
        received = self._receive(chunk)
        if received is None and self._until_out() is None:
            return None
        return self._received(received)

    async def _received(self, received: Awaitable[None] | None) -> None:
        if received is not None:
            await received
        out = self._until_out()
        if out is not None:
            await out


def _resolve(asked: asyncio.Future[None], _: Any = None) -> None:
    if not asked.done():
        asked.set_result(None)
