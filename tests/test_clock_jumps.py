"""That the clock was set is noticed once, and looked for only while somebody cares."""

import asyncio
from types import SimpleNamespace

import pytest

from httpkit_stores import soon, until
from tornado_sessions import clock_jumps
from tornado_sessions.clock_jumps import ClockJumps


@pytest.fixture
async def wall(monkeypatch):
    """A clock that goes like that of the loop, unless it is set, and counts its readers."""
    monkeypatch.setattr(clock_jumps, "_LOOK_EVERY", 0.001)
    loop = asyncio.get_running_loop()
    clock = SimpleNamespace(ahead=1_000_000.0, read=0)

    def now():
        clock.read += 1
        return loop.time() + clock.ahead

    clock.now = now
    return clock


@pytest.fixture
async def jumps(wall):
    """When the clock was set, as it was noticed."""
    noticed = []
    comparing = ClockJumps(wall.now, lambda: noticed.append(wall.ahead))
    comparing.start()
    yield SimpleNamespace(noticed=noticed, comparing=comparing)
    comparing.stop()


async def compared(wall, times=3):
    """Wait until the clocks were compared some more times."""
    read = wall.read
    await until(lambda: wall.read >= read + times)


@pytest.mark.parametrize("seconds", [0.6, 36_000, -0.6, -36_000])
async def test_a_clock_that_was_set(wall, jumps, seconds):
    """W1: forward or back, by more than half a second, it is noticed, once."""
    await compared(wall)
    assert jumps.noticed == []
    wall.ahead += seconds
    await compared(wall)
    assert jumps.noticed == [wall.ahead]


async def test_a_clock_that_is_adjusted(wall, jumps):
    """W1, W2: small corrections set no timers anew, until they have come to half a second."""
    before = wall.ahead
    while not jumps.noticed:
        wall.ahead += 0.2
        await compared(wall)
    assert wall.ahead - before == pytest.approx(0.6)


async def test_nobody_compares_any_more(wall, jumps):
    """W2: it is started once, however often that is asked, and stopped for good."""
    jumps.comparing.start()
    jumps.comparing.stop()
    jumps.comparing.stop()
    read = wall.read
    await asyncio.sleep(0.05)
    assert wall.read == read


async def test_whoever_stops_when_it_is_noticed(wall):
    """W2: nothing goes on behind one that has no use for it from then on."""
    stopped = asyncio.Event()

    def stop():
        comparing.stop()
        stopped.set()

    comparing = ClockJumps(wall.now, stop)
    comparing.start()
    wall.ahead += 10
    await soon(stopped.wait())
    read = wall.read
    await asyncio.sleep(0.05)
    assert wall.read == read


def test_another_loop():
    """T8: what a loop left behind that has ended is started anew in the next one."""
    comparing = ClockJumps(lambda: 0.0, lambda: None)

    async def start():
        comparing.start()
        return comparing._timer

    first, second = asyncio.run(start()), asyncio.run(start())
    assert first is not second
    assert first.cancelled()
