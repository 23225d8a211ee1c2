"""P5: durable writes to SQLite per second, against one commit for each request."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple

from benchmarks.load import Connection, connections, everybody
from benchmarks.process import server
from benchmarks.report import Progress, Row
from benchmarks.spread import estimate, median_of

CONNECTIONS = 64
SLOWER = 0.004
"""Seconds that a commit takes longer on the slower disk that is simulated."""
_PAGE = 4096


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    requests: int
    """Of each connection, in each round."""


FULL = Size(rounds=16, requests=16)
QUICK = Size(rounds=2, requests=2)


class Round(NamedTuple):
    """Answers per second, and how long the disk took for one ``fsync`` meanwhile."""

    ours: float
    handwritten: float
    bare: float
    fsync: float


async def measure(size: Size, directory: Path, progress: Progress) -> list[Row]:
    """Measure P5 with databases in *directory*, and return its rows."""
    rounds = await _rounds(size, directory, progress, "P5", 0.0)
    size = Size(max(2, size.rounds // 2), max(1, size.requests // 2))
    slow = await _rounds(size, directory, progress, "P5, slower disk", SLOWER)
    return [*_rows(rounds), *_slow_rows(slow)]


async def _rounds(
    size: Size, directory: Path, progress: Progress, what: str, slower: float
) -> list[Round]:
    rounds = []
    with tempfile.TemporaryDirectory(prefix="sqlite-", dir=directory) as folder:
        files = ["--store", f"sqlite:///{folder}/ours.db"]
        files += ["--handwritten", f"{folder}/handwritten.db"]
        async with (
            server(*files, "--slower-disk", str(slower)) as port,
            connections(port, CONNECTIONS) as ours,
            connections(port, CONNECTIONS) as theirs,
        ):
            await everybody(ours, "/write", 1)
            await everybody(theirs, "/handwritten", 1)
            for turn in range(size.rounds):
                progress(what, turn, size.rounds)
                rounds.append(await _round(ours, theirs, size, Path(folder)))
            for path, visitors in (("/write", ours), ("/handwritten", theirs)):
                await everybody(visitors, path, 1)
            _check(ours + theirs, 2 + size.rounds * size.requests)
    return rounds


async def _round(
    ours: Sequence[Connection], theirs: Sequence[Connection], size: Size, folder: Path
) -> Round:
    return Round(
        await _per_second(ours, "/write", size.requests),
        await _per_second(theirs, "/handwritten", size.requests),
        await _per_second(theirs, "/bare", size.requests),
        fsync_seconds(folder),
    )


async def _per_second(
    visitors: Sequence[Connection], path: str, requests: int
) -> float:
    begin = time.perf_counter()
    await everybody(visitors, path, requests)
    return len(visitors) * requests / (time.perf_counter() - begin)


def _check(visitors: Sequence[Connection], visits: int) -> None:
    """A store that loses writes has no speed to speak of."""
    wrong = {visitor.body for visitor in visitors} - {str(visits).encode()}
    if wrong:
        raise RuntimeError(f"{visits} visits were counted as {wrong}")


def fsync_seconds(folder: Path, times: int = 15) -> float:
    """Return how long the disk takes to write one page for good, by the median."""
    descriptor = os.open(folder / "fsync", os.O_CREAT | os.O_WRONLY)
    try:
        took = []
        for _ in range(times):
            os.write(descriptor, os.urandom(_PAGE))
            begin = time.perf_counter()
            os.fsync(descriptor)
            took.append(time.perf_counter() - begin)
        return median(took)
    finally:
        os.close(descriptor)


def _ratio(rounds: Sequence[Round], above: str, what: str) -> Row:
    def figure(one: Round) -> float:
        return float(getattr(one, above) / one.handwritten)

    ratio = estimate(rounds, lambda some: median_of(some, figure))
    return Row("P5", what, ratio, "×", at_least=5 if above == "ours" else None)


def _column(
    rounds: Sequence[Round], name: str, what: str, unit: str = "/s", factor: float = 1
) -> Row:
    def figure(one: Round) -> float:
        return factor * float(getattr(one, name))

    return Row("P5", what, estimate(rounds, lambda some: median_of(some, figure)), unit)


def _rows(rounds: Sequence[Round]) -> list[Row]:
    return [
        _column(rounds, "fsync", "one fsync of this disk takes", "ms", 1000),
        _column(rounds, "bare", "bare handler, which stores nothing"),
        _column(rounds, "handwritten", "one commit for each request"),
        _column(rounds, "ours", "sqlite://, read and write"),
        _ratio(rounds, "bare", "bare handler, against one commit for each request"),
        _ratio(rounds, "ours", "sqlite://, against one commit for each request"),
    ]


def _slow_rows(rounds: Sequence[Round]) -> list[Row]:
    disk = f"each commit {1000 * SLOWER:g} ms slower: "
    return [
        _column(rounds, "handwritten", disk + "one commit for each request"),
        _column(rounds, "ours", disk + "sqlite://, read and write"),
        _ratio(rounds, "ours", disk + "sqlite://, against one commit each"),
    ]
