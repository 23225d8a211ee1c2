"""The way to the store from the running event loop.

Opens the store on first use, because nothing may touch a loop, a socket or a thread
before (T8): Tornado applications are built without a running loop, and forked after.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from tornado.process import task_id

from tornado_sessions.coalescer import Callback, Coalescer, too_late
from tornado_sessions.deadline import within
from tornado_sessions.errors import (
    CodecError,
    ConfigurationError,
    SessionError,
    StoreError,
)
from tornado_sessions.stores.base import (
    Change,
    EndListener,
    Loaded,
    Outcome,
    Record,
    Store,
)

log = logging.getLogger("tornado_sessions")
T = TypeVar("T")

Answered: TypeAlias = "Outcome | Exception"
"""What became of a change, or its error: see `outcome_of`."""


class StoreLink:
    """Calls *store* in batches and with a deadline, from whichever loop is running.

    Args:
        store: Where the records are.
        timeout: Seconds after which a call fails with `StoreError`.
        on_open: Called each time the store was opened in a new event loop.
    """

    def __init__(
        self, store: Store, timeout: float, on_open: Callable[[], None]
    ) -> None:
        self.store = store
        self._timeout = timeout
        self._on_open = on_open
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening: asyncio.Task[None] | None = None
        self._warned = False

    async def open(self) -> None:
        """Open the store in the running loop, unless that was done.

        All who come meanwhile share one attempt, and its failure (F1).
        """
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self.store.immediate:
            await self._open(loop)
            return
        opening = self._opening
        if opening is None or opening.done() or opening.get_loop() is not loop:
            opening = self._opening = loop.create_task(self._open(loop))
            opening.add_done_callback(_retrieved)
        await asyncio.shield(opening)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._warn_if_forked()
        await self._within("open", self.store.open())
        self._attach()
        self._loop = loop

    async def close(self) -> None:
        """Let what is under way end, and close the store. The next use opens again."""
        await self.drain()
        self._loop = None
        await self.store.close()

    async def drain(self) -> None:
        """Wait until the store is open, if that has begun, and nothing is under way."""
        loop, opening = asyncio.get_running_loop(), self._opening
        if opening is not None and opening.get_loop() is loop:
            await asyncio.wait([opening])
        if self._loop is loop:
            await self._loads.drain()
            await self._commits.drain()

    async def load(self, handles: Sequence[str]) -> list[Record | CodecError | None]:
        """Return the record of each handle; loads of one turn leave together."""
        if len(handles) == 1:
            return [await self.load_one(handles[0])]
        if self._loop is not asyncio.get_running_loop():
            await self.open()
        if self.store.immediate:
            loaded = await self._within("load", self.store.load(handles))
            return [_readable(one) for one in loaded]
        answers = [self._loads.submit(handle) for handle in handles]
        done = await asyncio.gather(*answers, return_exceptions=True)
        return [_readable(one) for one in done]

    async def load_one(self, handle: str) -> Record | CodecError | None:
        """Return the record of *handle*; see `load`."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            await self.open()
        if self.store.immediate:
            try:  # as _within, without the cost of one coroutine more
                (loaded,) = await self.store.load([handle])
            except Exception as error:
                raise _as_store_error("load", error)  # noqa: B904
            return _readable(loaded)
        answer: asyncio.Future[Loaded] = loop.create_future()
        self._loads.put(handle, answer)
        try:
            return _readable(await answer)
        except CodecError as error:
            return error

    async def commit(self, changes: Sequence[Change]) -> list[Outcome]:
        """Carry out *changes*; the first that failed is raised."""
        if self._loop is not asyncio.get_running_loop():
            await self.open()
        if self.store.immediate:
            outcomes = await self._within("commit", self.store.commit(changes))
            return [outcome_of(one) for one in outcomes]
        if len(changes) > 1:
            return [outcome_of(one) for one in await self.attempt(changes)]
        try:
            return [await self._commits.submit(change) for change in changes]
        except Exception as error:
            return [outcome_of(error)]

    def commit_soon(self, change: Change, then: Callable[[Answered], None]) -> bool:
        """Have *then* called with the outcome of *change*; as `commit`, without a task.

        False if the store takes no batches, or is yet to be opened: then `commit` it.
        """
        if self.store.immediate or self._loop is not asyncio.get_running_loop():
            return False
        self._commits.put(change, Callback(then))
        return True

    async def attempt(
        self, changes: Sequence[Change]
    ) -> Sequence[Outcome | BaseException]:
        """Carry out *changes*; return what became of each, or its error."""
        if self._loop is not asyncio.get_running_loop():
            await self.open()
        if self.store.immediate:
            return await self._within("commit", self.store.commit(changes))
        answers = [self._commits.submit(change) for change in changes]
        return await asyncio.gather(*answers, return_exceptions=True)

    async def look(
        self, handles: Sequence[str]
    ) -> Sequence[Record | BaseException | None]:
        """Return the record of each handle, or why it could not be read."""
        await self.open()
        if self.store.immediate:
            return await self._within("load", self.store.load(handles))
        answers = [self._loads.submit(handle) for handle in handles]
        return await asyncio.gather(*answers, return_exceptions=True)

    async def listen(self, listener: EndListener) -> None:
        """Tell *listener* of all ends, until the store fails or it is cancelled."""
        await self.open()
        try:
            await self.store.listen(listener)
        except Exception as error:
            raise _as_store_error("listen", error)  # noqa: B904

    async def call(self, name: str, method: Callable[[Store], Awaitable[T]]) -> T:
        """Call *method* with the store, outside any batch."""
        await self.open()
        return await self._within(name, method(self.store))

    async def iterate(self) -> AsyncIterator[Record]:
        """Yield the live records; each has to come before the deadline."""
        await self.open()
        records = self.store.iterate()
        while True:
            record = await self._within("iterate", anext(records, None))
            if record is None:
                return
            yield record

    async def _within(self, name: str, call: Awaitable[T]) -> T:
        try:
            if self.store.immediate:
                return await call
            return await within(self._timeout, call)
        except asyncio.TimeoutError as error:
            raise too_late(name, self._timeout) from error
        except ConfigurationError:
            raise
        except Exception as error:
            raise _as_store_error(name, error)  # noqa: B904

    def _attach(self) -> None:
        timeout, parallel = self._timeout, self.store.parallel
        self._loads = Coalescer[str, Loaded](
            self.store.load, timeout=timeout, parallel=parallel, name="load"
        )
        self._commits = Coalescer[Change, Outcome](
            self.store.commit, timeout=timeout, parallel=parallel, name="commit"
        )
        self._on_open()

    def _warn_if_forked(self) -> None:
        if not self.store.shared and task_id() is not None and not self._warned:
            self._warned = True
            log.warning(
                "%s is used by one of several server processes: each has sessions of "
                "its own, so visitors will seem to be logged out at random. Use a "
                "store that processes share, such as sqlite:///sessions.db",
                type(self.store).__name__,
            )


def _retrieved(opening: asyncio.Task[None]) -> None:
    """Have no warning of an error that nobody waited for any more."""
    if not opening.cancelled():
        opening.exception()


def _as_store_error(name: str, error: Exception) -> StoreError:
    if isinstance(error, StoreError):
        return error
    failure = StoreError(f"{name}: the store failed: {error}")
    failure.__cause__ = error
    return failure


def _readable(loaded: Loaded | BaseException) -> Record | CodecError | None:
    if isinstance(loaded, BaseException) and not isinstance(loaded, CodecError):
        raise loaded
    return loaded


def outcome_of(outcome: Outcome | BaseException) -> Outcome:
    """Return *outcome*, or raise the error in its place as `StoreLink.commit` does."""
    if not isinstance(outcome, BaseException):
        return outcome
    if isinstance(outcome, Exception) and not isinstance(outcome, SessionError):
        raise StoreError(f"commit: the store failed: {outcome}") from outcome
    raise outcome
