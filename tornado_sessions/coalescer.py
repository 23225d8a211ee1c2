"""Gathers what the requests of one turn of the event loop ask for into one batch.

While as many batches are under way as the store can use, new items wait and leave
together with the next: under load, a hundred commits become one transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import copy_context
from itertools import islice
from typing import Generic, Protocol, TypeVar

import msgspec

from tornado_sessions.errors import StoreError

MAX_BATCH = 256
"""Items in one batch at the most (F5)."""

T = TypeVar("T")
R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)


class Answer(Protocol[R_contra]):
    """What an answer is put into: a future, or a `Callback`."""

    def done(self) -> bool:
        """Tell whether nobody waits for it any more."""

    def set_result(self, result: R_contra, /) -> None:
        """Take the answer."""

    def set_exception(self, error: Exception, /) -> None:
        """Take the error in its place."""


class Callback(Generic[R]):
    """Has an answer go to a function, for less than a future with a callback costs.

    It is called in a turn of its own, as with a future: who is told may ask for more, or
    fail. (Told at once, 16 visitors would ask at different times, and share fewer batches:
    it was 5 % slower.)

    Args:
        then: Called with the answer or the error, in the context of who made this.
    """

    __slots__ = ("_context", "_done", "_then")

    def __init__(self, then: Callable[[R | Exception], None]) -> None:
        self._then = then
        self._context = copy_context()
        self._done = False

    def done(self) -> bool:
        return self._done

    def set_result(self, result: R | Exception, /) -> None:
        self._done = True
        loop = asyncio.get_running_loop()
        loop.call_soon(self._then, result, context=self._context)

    set_exception = set_result


class _Waiting(msgspec.Struct, Generic[T, R]):  # made in C: one for each call
    item: T
    answer: Answer[R]
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
        self._running: dict[asyncio.Task[None], list[_Waiting[T, R]]] = {}
        """The batches under way; that of a task that is about to start is empty."""
        self._starting: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def submit(self, item: T) -> asyncio.Future[R]:
        """Return a future for the answer to *item*; cancelling it harms nobody else."""
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.put(item, answer)
        return answer

    def put(self, item: T, answer: Answer[R]) -> None:
        """Have *answer* take what comes of *item*, in a later turn."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        self._queue.append(_Waiting(item, answer, deadline))
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._on_deadline)
        if self._starting is None or self._starting.done():
            self._start(loop)

    async def drain(self) -> None:
        """Wait until nothing is queued or under way, and all are told.

        What was there when this began is over by its deadline. What keeps coming in
        meanwhile is not waited for beyond that.
        """
        await asyncio.sleep(0)  # who is told this turn may ask for more
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout
        while (self._queue or self._running) and loop.time() <= until:
            if self._starting is not None and self._starting.done():  # see `_start`
                self._start(loop)
            await asyncio.wait([*self._running])
        if self._timer is not None and not (self._queue or self._running):
            self._timer.cancel()
            self._timer = None

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have a batch leave in the next turn, with all that is there by then."""
        if self._starting is not None:  # and was cancelled before it could start
            self._running.pop(self._starting, None)
            self._starting = None
        if len(self._running) < self._parallel:
            # Not create_task(): an eager one would leave with what is there by now.
            self._starting = asyncio.Task(self._run(), loop=loop)
            self._running[self._starting] = []

    def _next_batch(self, now: float) -> list[_Waiting[T, R]]:
        batch: list[_Waiting[T, R]] = []
        queue = self._queue
        while queue and len(batch) < MAX_BATCH:
            one = queue.popleft()
            if one.deadline > now and not one.answer.done():
                batch.append(one)
            else:
                self._is_over(one, now)
        return batch

    def _on_deadline(self) -> None:
        """Fail what is too late, and give up a batch for which nobody waits any more.

        There is one timer for all, since the deadlines come in the order of `submit`.
        """
        loop, self._timer = asyncio.get_running_loop(), None
        now = loop.time()
        while self._queue and self._is_over(self._queue[0], now):
            self._queue.popleft()
        ahead = [one.deadline for one in islice(self._queue, 1)]
        for task, batch in self._running.items():
            waiting = [one.deadline for one in batch if not self._is_over(one, now)]
            last = [one.deadline for one in batch[-1:]]
            if last and last[0] <= now:
                task.cancel()
            else:
                ahead += waiting[:1] or last
        if ahead:
            self._timer = loop.call_at(min(ahead), self._on_deadline)

    def _is_over(self, one: _Waiting[T, R], now: float) -> bool:
        """Tell whether *one* has its answer or was cancelled; fail it if it is late."""
        if one.deadline <= now and not one.answer.done():
            one.answer.set_exception(too_late(self._name, self._timeout))
        return one.answer.done()

    async def _run(self) -> None:
        loop, task, self._starting = asyncio.get_running_loop(), self._starting, None
        assert task is not None
        batch = self._running[task] = self._next_batch(loop.time())
        if self._queue:  # more than one batch may hold
            self._start(loop)
        try:
            if batch:
                await self._carry_out(batch)
        finally:
            del self._running[task]
            if self._queue and self._starting is None:
                self._start(loop)

    async def _carry_out(self, batch: list[_Waiting[T, R]]) -> None:
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


class TooLateError(StoreError):
    """The store did not answer in time."""


def too_late(name: str, seconds: float) -> TooLateError:
    """Return the error of a call that the store did not answer within *seconds*."""
    return TooLateError(
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
