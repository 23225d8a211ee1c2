"""The coalescer: many calls become few, and nobody pays for a neighbour."""

import asyncio
import contextlib
import time
from contextvars import ContextVar

import pytest

from tornado_sessions.coalescer import (
    MAX_BATCH,
    Callback,
    Coalescer,
    TooLateError,
)
from tornado_sessions.errors import CodecError, StoreError


class Backend:
    """Answers each number with its double; notes the batches; can be held back."""

    def __init__(self, *, open_gate=True):
        self.batches = []
        self.under_way = self.most_under_way = 0
        self.gate = asyncio.Event()
        if open_gate:
            self.gate.set()

    async def __call__(self, items):
        self.batches.append(list(items))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        return [item if isinstance(item, Exception) else 2 * item for item in items]


def coalescer(backend, **options):
    return Coalescer(backend, **{"timeout": 5.0, "name": "load", **options})


async def turns(count=3):
    for _ in range(count):
        await asyncio.sleep(0)


async def bounded(awaitable):
    return await asyncio.wait_for(awaitable, 5)


async def test_one_turn_is_one_batch():
    """P7, F5: what is asked for in one turn of the loop leaves together, in order."""
    backend = Backend()
    calls = coalescer(backend)
    answers = await bounded(asyncio.gather(*map(calls.submit, [3, 1, 2])))
    assert answers == [6, 2, 4]
    assert backend.batches == [[3, 1, 2]]


async def test_what_comes_meanwhile_waits_and_leaves_together():
    """P5, F5: while a batch is under way, the next one gathers."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend)
    first = calls.submit(1)
    await turns()
    rest = []
    for number in range(2, 6):
        rest.append(calls.submit(number))
        await turns()
    assert backend.batches == [[1]]
    backend.gate.set()
    assert await bounded(asyncio.gather(first, *rest)) == [2, 4, 6, 8, 10]
    assert backend.batches == [[1], [2, 3, 4, 5]]


async def test_batches_are_bounded():
    """F5: a thousand calls leave in batches of 256 at the most, in their order."""
    backend = Backend()
    calls = coalescer(backend)
    answers = await bounded(asyncio.gather(*map(calls.submit, range(1000))))
    assert answers == [2 * number for number in range(1000)]
    assert [len(batch) for batch in backend.batches] == [MAX_BATCH] * 3 + [232]
    assert MAX_BATCH == 256
    assert backend.most_under_way == 1


@pytest.mark.parametrize("parallel", [1, 2, 4])
async def test_no_more_at_once_than_the_store_can_use(parallel):
    """F5: *parallel* batches are under way, and no more."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend, parallel=parallel)
    answers = []
    for number in range(10):
        answers.append(calls.submit(number))
        await turns()
    assert backend.under_way == parallel
    backend.gate.set()
    await bounded(asyncio.gather(*answers))
    assert backend.most_under_way == parallel


async def test_a_cancelled_request_leaves_its_neighbours_alone():
    """F5: cancelled before or while its batch is under way, it is the only one."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend)
    before, one, two = map(calls.submit, [0, 1, 2])
    before.cancel()
    await turns()
    one.cancel()
    await turns()
    assert backend.under_way == 1
    backend.gate.set()
    assert await bounded(two) == 4
    assert backend.batches == [[1, 2]]
    assert await bounded(calls.submit(3)) == 6


async def test_a_batch_of_cancelled_requests_is_not_sent():
    """F5: nothing is asked of the store for nobody."""
    backend = Backend()
    calls = coalescer(backend)
    for answer in map(calls.submit, range(3)):
        answer.cancel()
    await bounded(calls.drain())
    assert backend.batches == []


async def test_an_error_in_place_is_one_callers_own():
    """R1: an exception among the answers is raised to its caller alone."""
    broken = CodecError("cannot be read")
    calls = coalescer(Backend())
    submitted = asyncio.gather(
        *map(calls.submit, [1, broken, 2]), return_exceptions=True
    )
    assert await bounded(submitted) == [2, broken, 4]


async def test_a_failing_store_fails_each_caller_apart():
    """F1, R1: each gets a `StoreError` of its own, whose cause is the driver's error."""
    cause = OSError("connection lost")

    async def fail(items):
        raise cause

    calls = coalescer(fail)
    submitted = asyncio.gather(*map(calls.submit, [1, 2]), return_exceptions=True)
    first, second = await bounded(submitted)
    assert type(first) is type(second) is StoreError
    assert first is not second
    assert first.__cause__ is second.__cause__ is cause


@pytest.mark.parametrize("answers", [[], [1], [1, 2, 3]])
async def test_a_store_that_miscounts(answers):
    """R1, F1: with too few or too many answers everybody gets an error, nobody hangs."""

    async def miscount(items):
        return answers

    calls = coalescer(miscount)
    submitted = asyncio.gather(*map(calls.submit, [1, 2]), return_exceptions=True)
    for error in await bounded(submitted):
        assert isinstance(error, StoreError)
        assert f"{len(answers)} answers for 2 items" in str(error)


async def test_the_deadline():
    """F1: a store that hangs gives an error in time, and then is asked again."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend, timeout=0.2)
    began = time.monotonic()
    first = calls.submit(1)
    await turns()
    second = calls.submit(2)
    for answer in (first, second):
        with pytest.raises(StoreError, match=r"did not answer within 0.2 s"):
            await bounded(answer)
    assert time.monotonic() - began < 2
    await bounded(calls.drain())
    assert backend.under_way == 0
    backend.gate.set()
    assert await bounded(calls.submit(3)) == 6


@pytest.fixture
async def advance(monkeypatch):
    """Give a function that moves the clock of the loop, which stands still else."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)

    async def forward(seconds):
        nonlocal now
        now += seconds
        await turns(10)

    return forward


async def test_a_late_call_does_not_pay_for_an_early_one(advance):
    """R1, F1: in one batch each fails by its own deadline, and not earlier."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend, timeout=0.5)
    stuck = calls.submit(1)
    await advance(0.1)
    early = calls.submit(2)
    await advance(0.35)
    late = [calls.submit(3), calls.submit(4)]
    await advance(0.06)
    assert isinstance(stuck.exception(), StoreError)
    assert backend.batches == [[1], [2, 3, 4]]
    await advance(0.1)
    assert "within 0.5 s" in str(early.exception())
    assert not any(answer.done() for answer in late)
    backend.gate.set()
    await turns(10)
    assert [answer.result() for answer in late] == [6, 8]


async def test_each_has_a_deadline_of_its_own(advance):
    """F1: in a batch that hangs they fail one after the other, and then it ends."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend, timeout=0.5)
    answers = [calls.submit(0)]
    for number in range(1, 5):
        await advance(0.1)
        answers.append(calls.submit(number))
    await advance(0.11)
    answers[2].cancel()
    failed = [[0, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]]
    for done in failed:
        assert [n for n in range(5) if answers[n].done()] == done
        assert backend.under_way == (len(done) < 5)
        await advance(0.1)
    errors = [answers[n].exception() for n in (0, 1, 3, 4)]
    assert [type(error) for error in errors] == [TooLateError] * 4
    assert len(set(map(id, errors))) == 4
    assert backend.batches == [[0], [1, 2, 3, 4]]
    backend.gate.set()
    again = calls.submit(5)
    await turns(10)
    assert again.result() == 10


async def test_what_is_too_late_is_not_sent(advance):
    """F1, F5: while the store does not even let go, they fail, and are not sent."""
    held, sent = asyncio.Event(), []

    async def stubborn(items):
        sent.append(list(items))
        with contextlib.suppress(asyncio.CancelledError):
            await held.wait()
        await held.wait()
        return items

    calls = coalescer(stubborn, timeout=0.5)
    first = calls.submit(1)
    await advance(0.1)
    queued = calls.submit(2)
    await advance(0.45)
    assert [first.done(), queued.done()] == [True, False]
    await advance(0.1)
    fresh = calls.submit(3)
    assert isinstance(queued.exception(), StoreError)
    held.set()
    await turns(10)
    assert fresh.result() == 3
    assert sent == [[1], [3]]


async def test_a_hung_batch_without_callers_ends():
    """F1, F5: it is given up though its last caller had gone already."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend, timeout=0.05)
    first, last = calls.submit(1), calls.submit(2)
    await turns()
    last.cancel()
    with pytest.raises(StoreError, match="did not answer"):
        await bounded(first)
    backend.gate.set()
    assert await bounded(calls.submit(3)) == 6
    assert backend.under_way == 0


async def test_no_timer_is_left():
    """F4, F5: a drained coalescer holds neither answers nor a timer of the loop."""
    calls = coalescer(Backend())
    for _ in range(3):
        await bounded(asyncio.gather(*map(calls.submit, range(3))))
    cancelled = calls.submit(4)
    cancelled.cancel()
    await bounded(calls.drain())
    assert calls._timer is None
    assert not calls._queue
    assert not calls._running


async def test_the_timer_of_an_idle_coalescer_ends(advance):
    """F4, F5: it is one for all that was asked, and not set again for nothing."""
    calls = coalescer(Backend(), timeout=0.5)
    for _ in range(3):
        answer = calls.submit(1)
        await turns(10)
        assert answer.result() == 2
    assert not calls._running
    await advance(0.51)
    assert calls._timer is None


async def test_a_batch_that_was_cancelled_before_it_began():
    """F5: somebody who cancels every task there is does not stop it for good."""
    backend = Backend()
    calls = coalescer(backend)
    first = calls.submit(1)
    (about_to_start,) = calls._running
    about_to_start.cancel()
    await turns()
    second = calls.submit(2)
    assert await bounded(asyncio.gather(first, second)) == [2, 4]
    assert backend.batches == [[1, 2]]


async def test_drain_does_what_such_a_batch_would_have_done():
    """F4, F5: what is left in the queue is carried out, not waited for."""
    backend = Backend()
    calls = coalescer(backend)
    answer = calls.submit(1)
    (about_to_start,) = calls._running
    about_to_start.cancel()
    await turns()
    await bounded(calls.drain())
    assert answer.result() == 2


async def test_drain_waits_until_all_are_told():
    """F4: whoever is about to be told may ask for more, and that belongs to it."""
    told, drained = [], []

    async def drain():
        await calls.drain()
        return list(told)

    async def call(items):
        if not drained:  # it begins before anybody is told
            drained.append(asyncio.create_task(drain()))
        return items

    def then(answer):
        told.append(answer)
        calls.put("more", Callback(told.append))

    calls = coalescer(call)
    calls.put("first", Callback(then))
    await turns()
    assert await bounded(drained[0]) == ["first", "more"]


async def test_drain_has_an_end_though_more_keeps_coming():
    """F4: what was there is waited for, and not all that is asked for meanwhile."""
    open_door = True

    async def call(items):
        if open_door:
            calls.submit("more").add_done_callback(lambda _: None)
        await asyncio.sleep(0)
        return items

    calls = coalescer(call, timeout=0.5)
    first = calls.submit("first")
    await bounded(calls.drain())
    assert first.result() == "first"
    open_door = False
    await bounded(calls.drain())
    assert not calls._running


async def test_drain_waits_for_everything():
    """F4, F5: after `drain` nothing is queued or under way."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend)
    answers = [*map(calls.submit, range(300))]
    answers[299].cancel()
    drained = asyncio.create_task(calls.drain())
    await turns(10)
    assert not drained.done()
    backend.gate.set()
    await bounded(drained)
    assert all(answer.done() for answer in answers)
    assert len(backend.batches) == 2


async def test_answers_told_to_functions():
    """F5: one that fails is reported to the event loop, and harms no neighbour."""
    visitor = ContextVar("visitor", default=None)
    told, reported = [], []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def tell(answer):
        told.append((visitor.get(), answer))
        if answer == 2:
            raise RuntimeError("a handler failed")

    calls = coalescer(Backend())
    broken = CodecError("cannot be read")
    for item in (1, broken, 3):
        visitor.set(item)
        calls.put(item, Callback(tell))
    visitor.set(None)
    assert told == []
    assert await bounded(calls.submit(4)) == 8
    assert told == [(1, 2), (broken, broken), (3, 6)]
    assert [str(error) for error in reported] == ["a handler failed"]


async def test_an_answer_told_to_a_function_comes_once(advance):
    """F1, F5: what is too late is told so by its deadline, and not what comes after it."""
    backend = Backend(open_gate=False)
    calls = coalescer(backend)
    told = []
    calls.put(1, Callback(told.append))
    await turns()
    calls.put(2, Callback(told.append))
    await advance(6)
    backend.gate.set()
    await bounded(calls.drain())
    assert [type(answer) for answer in told] == [TooLateError, TooLateError]
    assert backend.batches == [[1]]


async def test_a_function_that_meets_a_cancelled_future(advance):
    """F5: its error is nobody else's, whether it is told in time or too late."""
    reported = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def look_at_a_cancelled_future(_):
        future = loop.create_future()
        future.cancel()
        future.result()

    calls = coalescer(Backend(), timeout=0.5)
    calls.put(1, Callback(look_at_a_cancelled_future))
    assert await bounded(calls.submit(2)) == 4
    calls.put(3, Callback(look_at_a_cancelled_future))
    late = calls.submit(4)
    await advance(0.6)
    assert isinstance(late.exception(), StoreError)
    assert [type(error) for error in reported] == [asyncio.CancelledError] * 2
    assert not calls._running
    answer = calls.submit(5)
    await turns(10)
    assert answer.result() == 10


async def test_who_is_told_of_a_deadline_may_ask_for_more(advance):
    """F1, F5: the others are told at their own time, and no timer or task is left."""
    reported, told = [], []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    backend = Backend(open_gate=False)
    calls = coalescer(backend, parallel=4, timeout=0.5)
    calls.put(1, Callback(lambda _: calls.put(9, Callback(told.append))))
    await turns()
    late = calls.submit(2)
    await turns()
    await advance(0.3)
    later = calls.submit(3)
    await advance(0.25)
    assert late.done()
    assert not later.done()
    backend.gate.set()
    await turns(10)
    assert (later.result(), told) == (6, [18])
    await bounded(calls.drain())
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]
    assert not [handle for handle in timers if handle._callback == calls._on_deadline]
    assert (reported, calls._running) == ([], {})


async def test_who_is_told_while_a_batch_is_put_together_may_ask_for_more(advance):
    """F5: a loop that was held up tells who is late, and sends the rest in their order."""
    reported, told = [], []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    backend = Backend()
    calls = coalescer(backend, parallel=4, timeout=0.5)
    calls.put(0, Callback(lambda _: calls.put(1000, Callback(told.append))))
    calls._queue[0].deadline = loop.time() - 1  # late when its batch begins
    answers = [calls.submit(number) for number in range(1, 300)]
    await turns(20)
    assert [answer.result() for answer in answers] == [2 * n for n in range(1, 300)]
    assert (told, reported, calls._running) == ([2000], [], {})
