"""P3 and P4: the processor time that one request takes, with and without a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from benchmarks.load import Connection, connections, everybody
from benchmarks.process import server
from benchmarks.processor_time import CONNECTIONS, Size, cost, middle, quotient
from benchmarks.report import Progress, Row

_WITHOUT_COOKIE = ("/bare", "/untouched")
_WITH_COOKIE = ("/bare", "/signed-cookie", "/read", "/write")

Round: TypeAlias = "dict[tuple[str, bool], float]"
"""Microseconds per request, by path and whether a cookie was sent."""

FULL = Size(servers=6, rounds=40, requests=12)
QUICK = Size(servers=1, rounds=2, requests=5)


async def measure(size: Size, progress: Progress) -> list[Row]:
    """Measure P3 and P4 and return their rows."""
    rounds: list[Round] = []
    for number in range(size.servers):
        async with (
            server() as port,
            connections(port, CONNECTIONS) as plain,
            connections(port, CONNECTIONS) as known,
        ):
            await everybody(known, "/write", 1)
            await _round(plain, known, size.requests)  # warms up
            for turn in range(size.rounds):
                progress("P3, P4", number * size.rounds + turn, size.total)
                rounds.append(await _round(plain, known, size.requests))
    return _rows(rounds)


async def _round(
    plain: Sequence[Connection], known: Sequence[Connection], requests: int
) -> Round:
    """Measure every variant once, in turns."""
    costs = {}
    for path in _WITHOUT_COOKIE:
        costs[path, False] = await cost(plain, path, requests)
    for path in _WITH_COOKIE:
        costs[path, True] = await cost(known, path, requests)
    return costs


def _added(path: str, *, cookie: bool = True) -> Callable[[Round], float]:
    """Return what tells how much *path* takes above the bare handler."""
    return lambda costs: costs[path, cookie] - costs["/bare", cookie]


def _rows(rounds: Sequence[Round]) -> list[Row]:
    untouched = _added("/untouched", cookie=False)
    signed, read, write = _added("/signed-cookie"), _added("/read"), _added("/write")

    def bare(costs: Round) -> float:
        return costs["/bare", False]

    def percent(costs: Round) -> float:
        return 100 * untouched(costs)

    return [
        Row("P4", "bare handler", middle(rounds, bare), "µs"),
        Row(
            "P4",
            "no cookie, session not touched, adds",
            middle(rounds, untouched),
            "µs",
        ),
        Row(
            "P4",
            "no cookie, session not touched, of the bare handler",
            quotient(rounds, percent, bare),
            "%",
            at_most=5,
        ),
        Row("P3", "one get_signed_cookie, adds", middle(rounds, signed), "µs"),
        Row("P3", "memory://, read, adds", middle(rounds, read), "µs"),
        Row(
            "P3",
            "memory://, read, against one get_signed_cookie",
            quotient(rounds, read, signed),
            "×",
            at_most=2,
        ),
        Row("P3", "memory://, read and write, adds", middle(rounds, write), "µs"),
    ]
