"""Gathers what the requests of one turn of the event loop ask for into one batch.

While as many batches are under way as the store can use, new items wait and leave
together with the next: under load, a hundred commits become one transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

import msgspec

from tornado_sessions.errors import StoreError

MAX_BATCH = 256
"""Items in one batch at the most (F5)."""

T = TypeVar("T")
R = TypeVar("R")


class _Waiting(msgspec.Struct, Generic[T, R]):  # made in C: one for each call
    item: T
    answer: asyncio.Future[R]
    deadline: float


class Coalescer(Generic[T, R]):
    """Turns calls with one item into calls with many.

    Args:
        call: Takes the items of a batch and returns an answer for each, in order; an
            exception in an answer's place is raised to that caller alone.
        timeout: Seconds after which a caller gets a `StoreError`, counted for each
            from its own `submit`.
        parallel: How many batches may be under way at once.
        name: What is being done, for the error message.
    """

    def __init__(
        self,
        call: Callable[[Sequence[T]], Awaitable[Sequence[R | Exception]]],
        *,
        timeout: float,
        parallel: int = 1,
        name: str = "call",
    ) -> None:
        self._call = call
        self._timeout = timeout
        self._parallel = parallel
        self._name = name
        self._queue: deque[_Waiting[T, R]] = deque()
        self._unanswered: deque[_Waiting[T, R]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[asyncio.Task[None], float] = {}
        """The batches under way, and when the last of their callers gives up."""
        self._scheduled = False

    def submit(self, item: T) -> asyncio.Future[R]:
        """Return a future for the answer to *item*; cancelling it harms nobody else."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        waiting = _Waiting(item, answer, loop.time() + self._timeout)
        self._queue.append(waiting)
        self._unanswered.append(waiting)
        if self._timer is None:
            self._timer = loop.call_at(waiting.deadline, self._on_deadline)
        if not self._scheduled and len(self._running) < self._parallel:
            self._scheduled = True
            loop.call_soon(self._dispatch)
        return answer

    async def drain(self) -> None:
        """Wait until nothing is queued or under way."""
        while self._queue or self._running:
            queued = [one.answer for one in self._queue]
            await asyncio.wait([*self._running] or queued)

    def _dispatch(self) -> None:
        self._scheduled = False
        while self._queue and len(self._running) < self._parallel:
            batch = self._next_batch()
            if batch:
                task = asyncio.get_running_loop().create_task(self._run(batch))
                self._running[task] = batch[-1].deadline
                task.add_done_callback(self._finished)
        if not self._running and self._timer is not None:  # all have their answers
            self._timer.cancel()
            self._timer = None
            self._unanswered.clear()

    def _next_batch(self) -> list[_Waiting[T, R]]:
        self._fail_overdue()
        batch: list[_Waiting[T, R]] = []
        while self._queue and len(batch) < MAX_BATCH:
            one = self._queue.popleft()
            if not one.answer.done():  # cancelled, or too late
                batch.append(one)
        return batch

    def _finished(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._dispatch()

    def _on_deadline(self) -> None:
        """Fail what is too late, and give up a batch for which nobody waits any more.

        There is one timer for all, since the deadlines come in the order of `submit`.
        """
        self._timer = None
        self._fail_overdue()
        loop = asyncio.get_running_loop()
        ahead = [one.deadline for one in islice(self._unanswered, 1)]
        for task, deadline in self._running.items():
            if deadline > loop.time():
                ahead.append(deadline)
            else:
                task.cancel()
        if ahead:
            self._timer = loop.call_at(min(ahead), self._on_deadline)

    def _fail_overdue(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._unanswered:
            oldest = self._unanswered[0]
            if not oldest.answer.done():
                if oldest.deadline > now:
                    break
                oldest.answer.set_exception(too_late(self._name, self._timeout))
            self._unanswered.popleft()

    async def _run(self, batch: list[_Waiting[T, R]]) -> None:
        try:
            answers = await self._call([one.item for one in batch])
            if len(answers) != len(batch):  # nobody is left waiting for an answer
                counts = f"{len(answers)} answers for {len(batch)} items"
                raise StoreError(f"{self._name}: the store gave {counts}")  # noqa: TRY301
        except Exception as error:
            answers = [self._failure(error) for _ in batch]
        except asyncio.CancelledError:
            cancelled = StoreError(f"{self._name} was cancelled: the loop is closing")
            _answer(batch, [self._failure(cancelled) for _ in batch])
            raise
        _answer(batch, answers)

    def _failure(self, error: Exception) -> StoreError:
        """Return an error of its own for each caller: tracebacks are not shared."""
        if isinstance(error, StoreError):
            failure, cause = StoreError(*error.args), error.__cause__
        else:
            failure = StoreError(f"{self._name}: the store failed: {error}")
            cause = error
        failure.__cause__ = cause
        return failure


def too_late(name: str, seconds: float) -> StoreError:
    """Return the error of a call that the store did not answer within *seconds*."""
    return StoreError(
        f"{name}: the store did not answer within {seconds:g} s; "
        "check that it is reachable, or raise session_store_timeout"
    )


def _answer(batch: Sequence[_Waiting[T, R]], answers: Sequence[R | Exception]) -> None:
    for one, answer in zip(batch, answers, strict=True):
        if one.answer.done():
            continue
        if isinstance(answer, Exception):
            one.answer.set_exception(answer)
        else:
            one.answer.set_result(answer)
