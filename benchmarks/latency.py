"""L1: how long the slowest of 128 visitors wait, beside those of the bare handler.

They are measured twice. As fast as they can, each answer waits for all the others, so
what is seen is the processor time of 128 requests. At half of the rate that the server
sustains like that, fewer requests are under way at once, so fewer share a round trip.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TypeAlias

from benchmarks.databases import REDIS, NotThereError, cores, running
from benchmarks.load import Connection, connections, everybody
from benchmarks.process import server
from benchmarks.processor_time import middle, quotient
from benchmarks.report import Progress, Row, missing

_VISITORS = 128
_KINDS = {"/read": "read", "/write": "read and write"}
_PATHS = ("/bare", *_KINDS)
_TIMES_BARE = 1.2

Slowest: TypeAlias = "dict[str, float]"
"""Milliseconds within which 99 of 100 answers came, by path."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    servers: int
    rounds: int
    seconds: float
    """For each kind of request, at each pace."""

    @property
    def total(self) -> int:
        return self.servers * self.rounds


FULL = Size(servers=8, rounds=12, seconds=1.0)
QUICK = Size(servers=1, rounds=1, seconds=0.1)


@dataclass(frozen=True)
class Round:
    """What was seen in one round."""

    trip: float
    """Milliseconds that asking Redis by hand adds to a request, when nobody else asks."""
    rate: float
    """Requests a second, where they were paced."""
    paced: Slowest
    busy: Slowest
    in_use: dict[str, float]
    """Per cent of its core that the server used, where they were paced, by path."""


@dataclass(frozen=True)
class Crowd:
    """Who asks."""

    signed: Sequence[Connection]
    """One visitor with our cookie, and one with that of a session by hand."""
    by_hand: Sequence[Connection]
    busy: Sequence[Connection]
    paced: Sequence[Connection]


async def measure(size: Size, progress: Progress) -> list[Row]:
    """Measure the rule and return its rows."""
    rounds: list[Round] = []
    try:
        for number in range(size.servers):
            async with _crowd() as crowd:
                await _round(crowd, size.seconds / 4)  # warms up
                for turn in range(size.rounds):
                    progress("L1", number * size.rounds + turn, size.total)
                    rounds.append(await _round(crowd, size.seconds))
    except NotThereError as hint:
        return missing(["L1"], REDIS.name, hint)
    return _rows(rounds)


@asynccontextmanager
async def _crowd() -> AsyncIterator[Crowd]:
    with cores() as core:
        async with (
            running(REDIS) as url,
            server("--store", url, "--handwritten", url, *core) as port,
            connections(port, 1) as signed,
            connections(port, 1) as by_hand,
            connections(port, _VISITORS) as busy,
            connections(port, _VISITORS) as paced,
        ):
            await everybody(by_hand, "/handwritten", 1)
            for some in (signed, busy, paced):
                await everybody(some, "/write", 1)
            yield Crowd(signed, by_hand, busy, paced)


async def _round(crowd: Crowd, seconds: float) -> Round:
    without = await _asked(crowd.signed, "/signed-cookie", seconds / 4)
    with_trip = await _asked(crowd.by_hand, "/handwritten-read", seconds / 4)
    busy = {path: await _asked(crowd.busy, path, seconds) for path in _PATHS}
    rate = min(map(len, busy.values())) / seconds / 2
    for one in crowd.paced:
        one.interval = _VISITORS / rate
    paced: Slowest = {}
    in_use: dict[str, float] = {}
    for path in _PATHS:
        async with _in_use(crowd.signed[0], in_use, path):
            paced[path] = _slowest(await _in_their_time(crowd.paced, path, seconds))
    return Round(
        trip=1000 * (median(with_trip) - median(without)),
        rate=rate,
        paced=paced,
        busy={path: _slowest(took) for path, took in busy.items()},
        in_use=in_use,
    )


@asynccontextmanager
async def _in_use(
    visitor: Connection, shares: dict[str, float], path: str
) -> AsyncIterator[None]:
    """Note in *shares* how much of its core the server uses meanwhile."""
    used, began = int(await visitor.get("/processor-time")), time.perf_counter_ns()
    yield
    used = int(await visitor.get("/processor-time")) - used
    shares[path] = 100 * used / (time.perf_counter_ns() - began)


async def _asked(
    visitors: Sequence[Connection], path: str, seconds: float
) -> list[float]:
    end = time.perf_counter() + seconds
    await asyncio.gather(*(one.repeat_until(path, end) for one in visitors))
    return [took for one in visitors for took in one.took]


async def _in_their_time(
    visitors: Sequence[Connection], path: str, seconds: float
) -> list[float]:
    """Have them begin one after the other: they would go on all at once otherwise."""

    async def begin(number: int, one: Connection) -> None:
        await asyncio.sleep(one.interval * number / len(visitors))
        await one.repeat_until(path, time.perf_counter() + seconds)

    await asyncio.gather(*(begin(*each) for each in enumerate(visitors)))
    return [took for one in visitors for took in one.took]


def _slowest(took: Sequence[float]) -> float:
    return 1000 * quantiles(took, n=100)[98]


def _rows(rounds: Sequence[Round]) -> list[Row]:
    rate = middle(rounds, lambda one: one.rate)
    return [
        Row("L1", "one round trip to Redis", middle(rounds, _trip), "ms"),
        Row("L1", f"{_VISITORS} connections, paced", rate, "/s"),
        *(_row_of_use(rounds, path) for path in _PATHS),
        *_rows_of(rounds, "paced", lambda one: one.paced),
        *_rows_of(rounds, "as fast as they can", lambda one: one.busy),
    ]


def _trip(one: Round) -> float:
    return one.trip


def _row_of_use(rounds: Sequence[Round], path: str) -> Row:
    kind = f"redis://, {_KINDS[path]}" if path in _KINDS else "bare handler"
    in_use = middle(rounds, lambda one: one.in_use[path])
    return Row("L1", f"paced: {kind}, the server's core is in use", in_use, "%")


def _rows_of(
    rounds: Sequence[Round], pace: str, slowest: Callable[[Round], Slowest]
) -> list[Row]:
    def allowed(one: Round) -> float:
        return _TIMES_BARE * slowest(one)["/bare"] + one.trip

    bare = middle(rounds, lambda one: slowest(one)["/bare"])
    rows = [Row("L1", f"{pace}: bare handler, 99 % within", bare, "ms")]
    for path, kind in _KINDS.items():

        def ours(one: Round, path: str = path) -> float:
            return slowest(one)[path]

        what = f"{pace}: redis://, {kind}, "
        ratio = quotient(rounds, ours, allowed)
        against = f"{what}against {_TIMES_BARE} × bare and a round trip"
        rows += [
            Row("L1", f"{what}99 % within", middle(rounds, ours), "ms"),
            Row("L1", against, ratio, "×", at_most=1),
        ]
    return rows
