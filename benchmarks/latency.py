"""L1: how long the slowest of 128 visitors wait, beside those of the bare handler.

Beside them are also those of a handler that verifies one signed cookie and does nothing
else, of one that calls the driver once and does nothing else, and of sessions by hand.

They are measured twice. As fast as they can, each answer waits for all the others, so
what is seen is the processor time of 128 requests. At half of the rate that the server
sustains like that, fewer requests are under way at once, so fewer share a round trip.

Now and then Python's garbage collector looks at all objects, and 128 visitors wait. As
fast as they can, a turn is long enough to have that several times, with a bare handler
too. Paced, it would be there or not by luck, so that server is one that has called
``gc.freeze()``: the collector passes over what was there when it began.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from typing import NamedTuple, TypeAlias

from benchmarks.databases import REDIS, NotThereError, cores, running
from benchmarks.load import Connection, connections, everybody
from benchmarks.process import server
from benchmarks.processor_time import middle, quotient
from benchmarks.report import Progress, Row, missing

_VISITORS = 128
_KINDS = {
    "/bare": "bare handler",
    "/signed-cookie": "one get_signed_cookie",
    "/driver": "one call of redis-py",
    "/read": "redis://, read",
    "/write": "redis://, read and write",
    "/handwritten-read": "Redis by hand, read",
    "/handwritten": "Redis by hand, read and write",
}
_WITH_GOAL = ("/read", "/write")
_SUSTAINED = ("/bare", *_WITH_GOAL)
"""What sets the pace: the slowest of these."""
_TIMES_BARE = 1.2

Slowest: TypeAlias = "dict[str, float]"
"""Milliseconds within which 99 of 100 answers came, by path."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    servers: int
    rounds: int
    seconds: float
    """For each kind of request, at each pace: some full garbage collections."""

    @property
    def total(self) -> int:
        return self.servers * self.rounds


FULL = Size(servers=4, rounds=2, seconds=4.0)
QUICK = Size(servers=1, rounds=1, seconds=0.1)


@dataclass(frozen=True)
class Round:
    """What was seen in one round."""

    trip: float
    """Milliseconds that asking Redis by hand adds to a request, when nobody else asks."""
    rate: float
    """Requests a second, where they were paced."""
    busy: Slowest
    frozen: Slowest
    """As *busy*, of the server that called ``gc.freeze()``; so is *paced*."""
    paced: Slowest
    in_use: dict[str, float]
    """Per cent of its core that the server used, where they were paced, by path."""


@dataclass(frozen=True)
class Crowd:
    """Visitors with sessions of one kind."""

    single: Sequence[Connection]
    """One, who asks while nobody else does."""
    busy: Sequence[Connection]
    paced: Sequence[Connection]


class Crowds(NamedTuple):
    """Visitors of one server: with our sessions, and with sessions by hand."""

    ours: Crowd
    by_hand: Crowd

    def asking(self, path: str) -> Crowd:
        return self.by_hand if path.startswith("/handwritten") else self.ours


async def measure(size: Size, progress: Progress) -> list[Row]:
    """Measure the rule and return its rows."""
    rounds: list[Round] = []
    try:
        for number in range(size.servers):
            async with _served() as (usual, freezing):
                await _round(usual, freezing, size.seconds / 4)  # warms up
                for turn in range(size.rounds):
                    progress("L1", number * size.rounds + turn, size.total)
                    rounds.append(await _round(usual, freezing, size.seconds))
    except NotThereError as hint:
        return missing(["L1"], REDIS.name, hint)
    return _rows(rounds)


@asynccontextmanager
async def _served() -> AsyncIterator[tuple[Crowds, Crowds]]:
    """Start two servers, the second of which calls ``gc.freeze()``."""
    with cores() as core:
        async with (
            running(REDIS) as url,
            _crowds(url, *core) as usual,
            _crowds(url, "--freeze", *core) as freezing,
        ):
            yield usual, freezing


@asynccontextmanager
async def _crowds(url: str, *options: str) -> AsyncIterator[Crowds]:
    async with (
        server("--store", url, "--handwritten", url, *options) as port,
        _crowd(port, "/write") as ours,
        _crowd(port, "/handwritten") as by_hand,
    ):
        yield Crowds(ours, by_hand)


@asynccontextmanager
async def _crowd(port: int, path: str) -> AsyncIterator[Crowd]:
    """Open connections of visitors, each with a session that *path* begins."""
    async with (
        connections(port, 1) as single,
        connections(port, _VISITORS) as busy,
        connections(port, _VISITORS) as paced,
    ):
        for some in (single, busy, paced):
            await everybody(some, path, 1)
        yield Crowd(single, busy, paced)


async def _round(usual: Crowds, freezing: Crowds, seconds: float) -> Round:
    without = await _asked(usual.ours.single, "/signed-cookie", seconds / 4)
    with_trip = await _asked(usual.by_hand.single, "/handwritten-read", seconds / 4)
    busy = await _busy(usual, _KINDS, seconds)
    frozen = await _busy(freezing, _SUSTAINED, seconds)
    rate = min(map(len, frozen.values())) / seconds / 2
    paced: Slowest = {}
    in_use: dict[str, float] = {}
    for path in _KINDS:
        visitors = freezing.asking(path).paced
        async with _in_use(freezing.ours.single[0], in_use, path):
            took = await _in_their_time(visitors, path, seconds, _VISITORS / rate)
        paced[path] = _slowest(took)
    return Round(
        trip=1000 * (median(with_trip) - median(without)),
        rate=rate,
        busy={path: _slowest(took) for path, took in busy.items()},
        frozen={path: _slowest(took) for path, took in frozen.items()},
        paced=paced,
        in_use=in_use,
    )


async def _busy(
    crowds: Crowds, paths: Iterable[str], seconds: float
) -> dict[str, list[float]]:
    return {
        path: await _asked(crowds.asking(path).busy, path, seconds) for path in paths
    }


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
    visitors: Sequence[Connection], path: str, seconds: float, interval: float
) -> list[float]:
    """Have them begin one after the other: they would go on all at once otherwise."""

    async def begin(number: int, one: Connection) -> None:
        one.interval = interval
        await asyncio.sleep(interval * number / len(visitors))
        await one.repeat_until(path, time.perf_counter() + seconds)

    await asyncio.gather(*(begin(*each) for each in enumerate(visitors)))
    return [took for one in visitors for took in one.took]


def _slowest(took: Sequence[float]) -> float:
    return 1000 * quantiles(took, n=100)[98]


def _rows(rounds: Sequence[Round]) -> list[Row]:
    rate = middle(rounds, lambda one: one.rate)
    return [
        Row("L1", "one round trip to Redis", middle(rounds, _trip), "ms"),
        *_rows_of(rounds, "as fast as they can", lambda one: one.busy),
        *_rows_of(rounds, "the same after gc.freeze()", lambda one: one.frozen),
        Row("L1", f"{_VISITORS} connections, paced", rate, "/s"),
        *(_row_of_use(rounds, path) for path in _KINDS),
        *_rows_of(rounds, "paced", lambda one: one.paced),
    ]


def _trip(one: Round) -> float:
    return one.trip


def _row_of_use(rounds: Sequence[Round], path: str) -> Row:
    what = f"paced: {_KINDS[path]}, the server's core is in use"
    return Row("L1", what, middle(rounds, lambda one: one.in_use[path]), "%")


def _rows_of(
    rounds: Sequence[Round], pace: str, slowest: Callable[[Round], Slowest]
) -> list[Row]:
    def allowed(one: Round) -> float:
        return _TIMES_BARE * slowest(one)["/bare"] + one.trip

    rows = []
    for path in slowest(rounds[0]):

        def waits(one: Round, path: str = path) -> float:
            return slowest(one)[path]

        what = f"{pace}: {_KINDS[path]}, "
        rows.append(Row("L1", f"{what}99 % within", middle(rounds, waits), "ms"))
        if path != "/bare":
            against = f"{what}against {_TIMES_BARE} × bare and a round trip"
            goal = 1 if path in _WITH_GOAL else None
            ratio = quotient(rounds, waits, allowed)
            rows.append(Row("L1", against, ratio, "×", at_most=goal))
    return rows
