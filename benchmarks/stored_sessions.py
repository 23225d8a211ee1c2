"""Fills a store step by step, and measures at each step what one session costs in it.

``python -m benchmarks.stored_sessions URL`` is run in a process of its own, so that the
memory it takes ends with it. It prints a line of JSON for each step, and at the end one
for the sweep of the expired half, where the store sweeps.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from benchmarks.million_sessions import Clock, LoopWatch
from tornado_sessions import store_from_url
from tornado_sessions.stores.base import Apply, Create, Meta, Outcome, Record, Store
from tornado_sessions.sweeper import Sweeper

_BATCH = 500
_ASKED = 300
"""Sessions that are asked for, one at a time, at each step."""
_LIFETIME = 14 * 86400.0
_VALUES = {
    "cart": b'[{"sku":"gale-kite","quantity":1}]',
    "theme": b'"dark"',
    "visits": b"1",
}


class Filled:
    """A store, and a few of the sessions in it."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self.store = store
        self.number = 0
        self._clock = clock
        self._known: list[str] = []
        self._draw = random.Random(0)

    async def fill(self, number: int) -> float:
        """Put sessions in until there are *number*; return the seconds of one.

        Every other one expires early, so that a sweep has half of them to delete.
        """
        began, before = time.perf_counter(), self.number
        while self.number < number:
            changes = [self._create() for _ in range(min(_BATCH, number - self.number))]
            outcomes = await self.store.commit(changes)
            if set(outcomes) != {Outcome.APPLIED}:
                raise RuntimeError(f"a session was not stored: {set(outcomes)}")
            self._known.append(self._draw.choice(changes).handle)
            self.number += len(changes)
        return (time.perf_counter() - began) / max(1, number - before)

    def _create(self) -> Create:
        now = self._clock.now
        lifetime = _LIFETIME * self._draw.choice((0.5, 1.0))
        meta = Meta(
            token=secrets.token_bytes(32),
            created_at=now,
            last_seen_at=now,
            expires_at=now + lifetime,
            epoch_at=now,
            rotated_at=now,
        )
        return Create(secrets.token_urlsafe(16), meta, _VALUES)

    async def load(self, handle: str) -> None:
        (record,) = await self.store.load([handle])
        if not isinstance(record, Record):
            raise TypeError(f"{handle} was stored, and now it is {record}")

    async def change(self, handle: str) -> None:
        (outcome,) = await self.store.commit([Apply(handle, set={"visits": b"2"})])
        if outcome is not Outcome.APPLIED:
            raise RuntimeError(f"{handle} was stored, and now it is {outcome}")

    async def each_takes(self, action: Callable[[str], Awaitable[None]]) -> list[float]:
        """Return the microseconds of *action* on some sessions, one at a time."""
        found = []
        for handle in self._draw.choices(self._known, k=_ASKED):
            began = time.perf_counter()
            await action(handle)
            found.append(1e6 * (time.perf_counter() - began))
        return found

    async def sweep(self) -> dict[str, float]:
        """Let the early half expire, and delete it as the sweeper does."""
        self._clock.now += 0.75 * _LIFETIME
        watch = LoopWatch()
        began = time.perf_counter()
        async with watch.watching():
            swept = await Sweeper(self.store.sweep, interval=1.0).run_once()
        return {
            "sessions": self.number,
            "swept": swept,
            "seconds": time.perf_counter() - began,
            "stall_ms": 1000 * watch.processor,
        }


async def run(url: str, steps: Sequence[int]) -> None:
    """Fill the store at *url* step by step, and say what is found."""
    clock = Clock()
    store = store_from_url(url)
    if store.expires_natively:  # by the clock of the database
        clock.now = time.time()
    else:
        store.clock = clock
    await store.open()
    filled = Filled(store, clock)
    for number in steps:
        found: dict[str, Any] = {"sessions": number}
        found["fill_seconds"] = await filled.fill(number)
        found["load"] = await filled.each_takes(filled.load)
        found["change"] = await filled.each_takes(filled.change)
        print(json.dumps(found), flush=True)
    if not store.expires_natively:
        print(json.dumps(await filled.sweep()), flush=True)
    await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stored_sessions")
    parser.add_argument("url")
    parser.add_argument("steps", type=int, nargs="+", help="numbers of sessions")
    options = parser.parse_args()
    asyncio.run(run(options.url, options.steps))


if __name__ == "__main__":
    main()
