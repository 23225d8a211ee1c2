"""X1: a whole request that reads and writes a session in Redis, beside that of Express."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import contest
from benchmarks.contest import CONNECTIONS, Result, Turn
from benchmarks.processor_time import middle, quotient
from benchmarks.report import Progress, Row

_OURS = ("tornado_sessions, Redis", "tornado_sessions, Redis, uvloop")
_THEIRS = "express-session, connect-redis"

FULL = contest.Size(starts=5, rounds=5, seconds=0.5, warm_up=2.0)
QUICK = contest.QUICK


async def measure(size: contest.Size, directory: Path, progress: Progress) -> list[Row]:
    """Measure the rule and return its rows."""
    results = await contest.measure((*_OURS, _THEIRS), size, directory, progress)
    return rows({one.contestant.name: one for one in results})


def rows(found: Mapping[str, Result]) -> list[Row]:
    """Return what was found, by number of connections; or why nothing was."""
    wrong = [
        Row("X1", f"{name}: {found[name].error}", None)
        for name in (*_OURS, _THEIRS)
        if found[name].error
    ]
    if found[_THEIRS].error:
        return wrong
    measured = [found[name] for name in _OURS if not found[name].error]
    return wrong + [
        row for number in CONNECTIONS for row in _rows(number, measured, found[_THEIRS])
    ]


def _rows(number: int, ours: Sequence[Result], theirs: Result) -> list[Row]:
    where = "1 connection" if number == 1 else f"{number} connections"
    total = middle(theirs.turns[number], _total)
    rows = [Row("X1", f"{where}, {_THEIRS}", total, "µs")]
    for one in ours:
        turns, name = one.turns[number], one.contestant.name
        pairs = list(zip(turns, theirs.turns[number], strict=False))
        against = quotient(
            pairs, lambda pair: _total(pair[0]), lambda pair: _total(pair[1])
        )
        bare = middle(turns, lambda turn: turn.bare.processor)
        rows += [
            Row("X1", f"{where}, {one.peer.framework}, bare handler", bare, "µs"),
            Row("X1", f"{where}, {name}", middle(turns, _total), "µs"),
            Row("X1", f"{where}, {name}, against Express", against, "×", at_most=1),
        ]
    return rows


def _total(turn: Turn) -> float:
    return turn.write.processor
