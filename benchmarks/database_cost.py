"""P1 and P2, and the same for MongoDB: our store against sessions written by hand.

A1 and A2 are what one visitor alone costs, with whom nobody shares a round trip.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.databases import (
    MONGO,
    REDIS,
    Database,
    NotThereError,
    cores,
    process_of,
)
from benchmarks.load import Connection, connections, everybody
from benchmarks.process import Running, server, started
from benchmarks.processor_time import CONNECTIONS, Size, cost, middle, quotient
from benchmarks.report import Progress, Row, missing

Round: TypeAlias = "dict[str, float]"
"""Microseconds above the bare handler by path, and those of the bare handler; and what
the database took itself, by path with `_ITSELF` before it."""
_ITSELF = "database "

AWAY = 0.0001
"""Seconds to a database that is not on this machine, each way: about as long as between
two machines of one data centre."""

# How many requests share a call changes for a while after a turn has begun.
FULL = Size(servers=12, rounds=3, requests=100)
QUICK = Size(servers=1, rounds=2, requests=5)


@dataclass(frozen=True)
class Kind:
    """A kind of request, where it is served, and what the rule demands."""

    rule: str
    what: str
    ours: str
    theirs: str
    at_most: float | None


def _reading(rule: str, at_most: float | None, who: str = "") -> Kind:
    return Kind(rule, f"{who}read", "/read", "/handwritten-read", at_most)


def _writing(rule: str, at_most: float, who: str = "") -> Kind:
    return Kind(rule, f"{who}read and write", "/write", "/handwritten", at_most)


@dataclass(frozen=True)
class Case:
    """What is measured together: by whom, on which database, and how far away that is."""

    database: Database
    kinds: tuple[Kind, ...]
    visitors: int = CONNECTIONS
    away: float = 0.0
    """Seconds each way; zero is on this machine."""

    def sized(self, size: Size) -> Size:
        """Return *size* for as many requests in each turn, whoever makes them."""
        if self.visitors == CONNECTIONS:
            return size
        requests = size.requests * CONNECTIONS // self.visitors
        return Size(size.servers, max(1, size.rounds // 2), requests)


def _alone(rule: str, away: float, where: str = "") -> Case:
    who = f"one visitor{where}, "
    kinds = (_reading(rule, 1, who), _writing(rule, 1, who))
    return Case(REDIS, kinds, visitors=1, away=away)


CASES = {
    "P1, P2": Case(REDIS, (_reading("P1", 0.55), _writing("P2", 0.45))),
    "M1, M2": Case(MONGO, (_reading("M1", None), _writing("M2", 0.7))),
    "A1": _alone("A1", 0.0),
    "A2": _alone("A2", AWAY, f", {1000 * AWAY:g} ms away"),
}
"""By the rules that are measured together."""


@dataclass(frozen=True)
class Visitors:
    """Those who visit our handlers, and those who visit the handwritten ones."""

    ours: Sequence[Connection]
    theirs: Sequence[Connection]
    database: Running

    async def count(self, times: int) -> None:
        """Let everyone be counted so many times."""
        await everybody(self.ours, "/write", times)
        await everybody(self.theirs, "/handwritten", times)

    async def check(self, visits: int) -> None:
        """A store that loses writes has no speed to speak of."""
        await self.count(1)
        found = {visitor.body for visitor in (*self.ours, *self.theirs)}
        if found != {str(visits + 1).encode()}:
            raise RuntimeError(f"{visits + 1} visits were counted as {found}")


async def measure(rules: str, size: Size, progress: Progress) -> list[Row]:
    """Measure *rules*, one of `CASES`, and return the rows."""
    case = CASES[rules]
    database, kinds, size = case.database, case.kinds, case.sized(size)
    rounds: list[Round] = []
    try:
        for number in range(size.servers):
            async with _served(case) as visitors:
                await visitors.count(1)
                await _round(visitors, kinds, size.requests)  # warms up
                for turn in range(size.rounds):
                    progress(rules, number * size.rounds + turn, size.total)
                    rounds.append(await _round(visitors, kinds, size.requests))
                await visitors.check(1 + (1 + size.rounds) * size.requests)
    except NotThereError as hint:
        return missing([kind.rule for kind in kinds], database.name, hint)
    bare = middle(rounds, _column("/bare"))
    rows = [Row(kinds[0].rule, "bare handler", bare, "µs")]
    return rows + [row for kind in kinds for row in _rows(database, kind, rounds)]


@asynccontextmanager
async def _served(case: Case) -> AsyncIterator[Visitors]:
    """Start the database and, on a core of its own, the server that is measured."""
    with cores() as core:
        async with (
            process_of(case.database) as process,
            _reached(process.port, case.away) as port,
            _server(case.database.url(port), *core) as port,
            connections(port, case.visitors) as ours,
            connections(port, case.visitors) as theirs,
        ):
            yield Visitors(ours, theirs, process)


@asynccontextmanager
async def _reached(port: int, away: float) -> AsyncIterator[int]:
    """Give where the database at *port* is so far away."""
    if not away:
        yield port
        return
    relay = (sys.executable, "-m", "benchmarks.relay", str(port), str(away))
    async with started(*relay) as running:
        yield running.port


def _server(url: str, *core: str) -> AbstractAsyncContextManager[int]:
    return server("--store", url, "--handwritten", url, *core)


async def _round(visitors: Visitors, kinds: Sequence[Kind], requests: int) -> Round:
    """Measure every variant once, in turns, each above the bare handler next to it."""
    costs: Round = {}
    for kind in kinds:
        sides = ((kind.theirs, visitors.theirs), (kind.ours, visitors.ours))
        for path, side in sides:
            costs["/bare"] = await cost(side, "/bare", requests)
            before = visitors.database.processor_time()
            costs[path] = await cost(side, path, requests) - costs["/bare"]
            took = visitors.database.processor_time() - before
            costs[_ITSELF + path] = 1_000_000 * took / (requests * len(side))
    return costs


def _column(path: str) -> Callable[[Round], float]:
    return lambda costs: costs[path]


def _rows(database: Database, kind: Kind, rounds: Sequence[Round]) -> list[Row]:
    ours, theirs = _column(kind.ours), _column(kind.theirs)
    by_hand = f"{database.name} by hand, {kind.what}, adds"
    store = f"{database.scheme}://, {kind.what}"
    ratio = quotient(rounds, ours, theirs)
    itself = f"{database.name} itself, {kind.what}"
    for_them = middle(rounds, _column(_ITSELF + kind.theirs))
    for_us = middle(rounds, _column(_ITSELF + kind.ours))
    return [
        Row(kind.rule, by_hand, middle(rounds, theirs), "µs"),
        Row(kind.rule, f"{store}, adds", middle(rounds, ours), "µs"),
        Row(kind.rule, f"{store}, against by hand", ratio, "×", at_most=kind.at_most),
        Row(kind.rule, f"{itself}, by hand", for_them, "µs"),
        Row(kind.rule, f"{itself}, {database.scheme}://", for_us, "µs"),
    ]
