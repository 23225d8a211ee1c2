"""X1: a whole request that reads and writes a session in Redis, beside that of Express."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

from benchmarks import contest
from benchmarks.contest import CONNECTIONS, Result, Turn
from benchmarks.processor_time import middle, quotient
from benchmarks.report import Progress, Row

_OURS = "tornado_sessions, Redis"
_THEIRS = "express-session, connect-redis"

Pair: TypeAlias = "tuple[Turn, Turn]"

FULL = contest.Size(starts=4, rounds=8, seconds=0.25)
QUICK = contest.QUICK


async def measure(size: contest.Size, directory: Path, progress: Progress) -> list[Row]:
    """Measure the rule and return its rows."""
    results = await contest.measure((_OURS, _THEIRS), size, directory, progress)
    return rows({one.contestant.name: one for one in results})


def rows(found: Mapping[str, Result]) -> list[Row]:
    """Return what was found of both, by number of connections."""
    ours, theirs = found[_OURS], found[_THEIRS]
    error = ours.error or theirs.error
    if error:
        return [Row("X1", f"{_THEIRS}: {error}", None)]
    return [
        row
        for number in CONNECTIONS
        for row in _rows(
            number, zip(ours.turns[number], theirs.turns[number], strict=False)
        )
    ]


def _rows(connections: int, turns: Iterable[Pair]) -> list[Row]:
    pairs = list(turns)

    def total(pair: Pair) -> float:
        return pair[0].write.processor

    def of_theirs(pair: Pair) -> float:
        return pair[1].write.processor

    where = "1 connection" if connections == 1 else f"{connections} connections"
    kind = f"{where}, read and write"
    bare = middle(pairs, lambda pair: pair[0].bare.processor)
    ratio = quotient(pairs, total, of_theirs)
    return [
        Row("X1", f"{where}, Tornado's bare handler", bare, "µs"),
        Row("X1", f"{kind}, {_OURS}, in all", middle(pairs, total), "µs"),
        Row("X1", f"{kind}, {_THEIRS}, in all", middle(pairs, of_theirs), "µs"),
        Row("X1", f"{kind}, ours against theirs", ratio, "×", at_most=1),
    ]
