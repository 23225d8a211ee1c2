"""The sweeper: periodic, bounded, and not easily discouraged."""

import asyncio
import logging

import pytest

from tornado_sessions import SessionManager, StoreError
from tornado_sessions.stores.memory import MemoryStore
from tornado_sessions.sweeper import SLICE, Sweeper
from tornado_sessions.testing import FakeClock

FAST = 0.002


class Sweeps:
    """Stands in for a store's `sweep`: answers, fails or hangs as it was told."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = self.under_way = self.most_under_way = 0
        self.enough = asyncio.Event()

    async def __call__(self, limit):
        assert limit == SLICE
        self.calls += 1
        self.under_way += 1
        self.most_under_way = max(self.under_way, self.most_under_way)
        try:
            return await self.answer()
        finally:
            self.under_way -= 1

    async def answer(self):
        if not self.answers:
            self.enough.set()
            return 0
        answer = self.answers.pop(0)
        await asyncio.sleep(0)
        if answer == "hang":
            await asyncio.Event().wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


def sweeper(sweep, *, interval=FAST, timeout=5.0):
    return Sweeper(sweep, interval=interval, timeout=timeout)


async def until_enough(sweep):
    await asyncio.wait_for(sweep.enough.wait(), 20)


async def test_slices_until_nothing_is_left():
    """F4, P6: a round is made of slices, and other tasks get their turn in between."""
    sweep = Sweeps(SLICE, SLICE, 7)
    turns = []

    async def others():
        while len(turns) < 100:
            turns.append(sweep.calls)
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    assert await sweeper(sweep).run_once() == 2 * SLICE + 7
    assert {1, 2, 3} <= set(turns)
    await other


async def test_it_outlives_errors(caplog):
    """F4: an error is logged, the next round comes later, and success resets that."""
    sweep = Sweeps(OSError("disk"), RuntimeError("driver"), 1, OSError("again"), 1)
    periodic = sweeper(sweep)
    with caplog.at_level(logging.ERROR, "tornado_sessions.sweeper"):
        periodic.start()
        await until_enough(sweep)
    await periodic.stop()
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "sweeping failed; next try in 2 intervals",
        "sweeping failed; next try in 4 intervals",
        "sweeping failed; next try in 2 intervals",
    ]
    assert all(record.exc_info for record in caplog.records)


async def test_it_backs_off_up_to_a_bound(caplog):
    """F4: however long the store is down, the pause is 16 intervals at the most."""
    sweep = Sweeps(*[OSError("down")] * 6)
    periodic = sweeper(sweep, interval=0.0005)
    periodic.start()
    await until_enough(sweep)
    await periodic.stop()
    tries = [record.args[0] for record in caplog.records]
    assert tries == [2, 4, 8, 16, 16, 16]


async def test_a_stalled_slice_blocks_nothing(caplog):
    """F4: it is given up after the timeout; the loop runs on and so do later rounds."""
    sweep = Sweeps("hang", "hang", 3)
    periodic = sweeper(sweep, timeout=0.02)
    periodic.start()
    await until_enough(sweep)
    await periodic.stop()
    assert sweep.under_way == 0
    assert len(caplog.records) == 2


async def test_never_twice_at_once():
    """F4: a sweep by hand waits for the periodic one, and for another by hand."""
    sweep = Sweeps(*[1] * 20)
    periodic = sweeper(sweep, interval=0.0001)
    periodic.start()
    await asyncio.gather(*(periodic.run_once() for _ in range(10)), until_enough(sweep))
    await periodic.stop()
    assert sweep.most_under_way == 1


async def test_it_stops_cleanly():
    """F4: stopped between two rounds or in the middle of one, nothing goes on."""
    sweep = Sweeps("hang")
    periodic = sweeper(sweep)
    periodic.start()
    periodic.start()  # already running: nothing happens
    while not sweep.under_way:
        await asyncio.sleep(FAST)
    await asyncio.wait_for(periodic.stop(), 5)
    assert (periodic.running, sweep.under_way, sweep.calls) == (False, 0, 1)
    await periodic.stop()
    await asyncio.sleep(5 * FAST)
    assert sweep.calls == 1


async def test_it_stops_at_the_moment_at_which_a_slice_ends():
    """F4: a task that forgot that it was cancelled would sweep on for ever."""
    stopped = []

    async def sweep(limit):
        if not stopped:
            stopped.append(asyncio.create_task(periodic.stop()))
        return 0

    periodic = sweeper(sweep)
    periodic.start()
    while not stopped:
        await asyncio.sleep(FAST)
    await asyncio.wait_for(stopped[0], 20)
    assert not periodic.running


async def test_it_can_be_started_again():
    """F4, T8: after a stop, a new start sweeps again."""
    sweep = Sweeps(1)
    periodic = sweeper(sweep)
    for _ in range(2):
        sweep.enough.clear()
        periodic.start()
        await until_enough(sweep)
        await periodic.stop()


def test_a_loop_that_was_closed_during_a_sweep():
    """T8, F4: the next loop does not wait for what will never end."""
    sweep = Sweeps("hang")
    sweeping = sweeper(sweep)
    first = asyncio.new_event_loop()
    left = first.create_task(sweeping.run_once())
    first.run_until_complete(asyncio.sleep(0.01))
    assert sweep.under_way == 1
    first.close()
    del left
    assert asyncio.run(asyncio.wait_for(sweeping.run_once(), 5)) == 0


async def test_a_sweep_by_hand_has_a_deadline():
    """F1, F4: it raises in time, says why, and the next one is not held up."""
    sweep = Sweeps("hang", 3)
    by_hand = sweeper(sweep, timeout=0.02)
    with pytest.raises(StoreError, match=r"did not answer within 0.02 s"):
        await asyncio.wait_for(by_hand.run_once(), 5)
    assert await by_hand.run_once() == 3


async def test_the_manager_sweeps():
    """F4, R4: the manager's sweeper deletes what has expired, while it is open."""
    clock = FakeClock()
    store = MemoryStore(clock=clock)
    async with SessionManager(store, sweep_interval=FAST) as manager:
        session = await manager.load([])
        session["n"] = 1
        await manager.commit(session)
        clock.advance(15 * 86400)
        while any(store._shards):
            await asyncio.sleep(FAST)
    assert not manager._sweeper.running


class Native(MemoryStore):
    expires_natively = True


async def test_no_sweeper_where_the_database_expires():
    """R4, F4: a store with a TTL of its own is not swept."""
    async with SessionManager(Native(), sweep_interval=FAST) as manager:
        assert not manager._sweeper.running
