"""P6: a million sessions in memory, half of them expired.

``python -m benchmarks.million_sessions`` is run in a process of its own, so that the
memory it takes is that of the sessions. It prints what it found as JSON.

The sessions are made as requests make them: three keys, a principal, one of a few
hundred browsers. They began evenly over 28 days, and the idle timeout is 14 days.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from tornado_sessions import SessionManager
from tornado_sessions.stores.memory import MemoryStore
from tornado_sessions.visit import Visit

Sweep: TypeAlias = "Callable[[int], Coroutine[Any, Any, int]]"

DAY = 86400.0
IDLE = 14 * DAY
_BEGIN = 1_700_000_000.0
_TURN = 20
"""Sessions that are made in one turn of the loop, as if by so many requests."""


class Clock:
    """A clock that is set, not waited for."""

    def __init__(self) -> None:
        self.now = _BEGIN

    def __call__(self) -> float:
        return self.now


class LoopWatch:
    """Measures the turns of the event loop; the longest is the longest stall.

    Once by the clock on the wall, which also runs while another program has the core,
    and once by the processor time of this thread, which does not.
    """

    def __init__(self) -> None:
        self.wall = self.processor = 0.0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        yield
        await asyncio.sleep(0)
        task.cancel()

    async def _watch(self) -> None:
        while True:
            wall, processor = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0)
            self.wall = max(self.wall, time.perf_counter() - wall)
            self.processor = max(self.processor, time.thread_time() - processor)


def browser(number: int) -> Visit:
    name = f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/{number % 300}.0"
    return Visit(ip=f"10.{number >> 16 & 255}.{number >> 8 & 255}.7", user_agent=name)


async def begin_one(manager: SessionManager, number: int) -> None:
    """Begin a session as the first request of a visitor does."""
    session = await manager.load([], lambda: browser(number))
    session.login(f"user-{number}")
    session["cart"] = [{"sku": "gale-kite", "quantity": 1}]
    session["theme"] = "dark"
    session["visits"] = number
    await manager.commit(session)


async def fill(manager: SessionManager, clock: Clock, sessions: int) -> None:
    for number in range(sessions):
        clock.now = _BEGIN + 2 * IDLE * number / sessions
        await begin_one(manager, number)
        if number % _TURN == 0:
            await asyncio.sleep(0)


def timed(sweep: Sweep, slices: list[float]) -> Sweep:
    async def sweep_some(limit: int) -> int:
        begin = time.perf_counter()
        swept = await sweep(limit)
        slices.append(time.perf_counter() - begin)
        return swept

    return sweep_some


def resident_bytes() -> int:
    """Return the memory that this process has in use."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except OSError:  # not Linux: the peak, which is the same before the sweep
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(pages) * resource.getpagesize()


def milliseconds(seconds: Iterable[float]) -> float:
    return 1000 * max(seconds)


async def run(sessions: int) -> dict[str, Any]:
    """Fill a store, sweep it, and return what was found."""
    clock, slices = Clock(), list[float]()
    filling, sweeping = LoopWatch(), LoopWatch()
    store = MemoryStore(clock=clock)
    manager = SessionManager(store, idle_timeout=IDLE, sweep_interval=DAY)
    await begin_one(manager, 0)
    before = resident_bytes()
    async with filling.watching():
        await fill(manager, clock, sessions)
    taken = resident_bytes() - before
    begin = time.perf_counter()
    gc.collect()
    collected = time.perf_counter() - begin
    store.sweep = timed(store.sweep, slices)  # type: ignore[method-assign, assignment]
    begin = time.perf_counter()
    async with sweeping.watching():
        swept = await manager.sweep()
    return {
        "sessions": sessions,
        "swept": swept,
        "bytes_per_session": taken / sessions,
        "sweep_seconds": time.perf_counter() - begin,
        "longest_slice_ms": milliseconds(slices),
        "sweep_stall_ms": 1000 * sweeping.wall,
        "sweep_stall_processor_ms": 1000 * sweeping.processor,
        "fill_stall_ms": 1000 * filling.wall,
        "fill_stall_processor_ms": 1000 * filling.processor,
        "gc_collect_ms": 1000 * collected,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.million_sessions")
    parser.add_argument("--sessions", type=int, default=1_000_000)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(run(options.sessions))))


if __name__ == "__main__":
    main()
