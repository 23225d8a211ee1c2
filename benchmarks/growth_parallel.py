"""What parallel requests on one session do to each other."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contest import Entry, Result, entered
from benchmarks.growth import Growth, Line, Point, grown
from benchmarks.load import Connection, connections
from benchmarks.peers.catalogue import peers
from benchmarks.processor_time import middle
from benchmarks.report import Progress
from benchmarks.sampling import Sample, sampled

PARALLEL = (1, 2, 4, 8, 16, 32, 64)
_PATHS = {"/write": "changes", "/mutate": "mutate"}


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float
    parallel: tuple[int, ...]


FULL = Size(4, 0.25, PARALLEL)
QUICK = Size(1, 0.05, (1, 16))


async def measure(size: Size, directory: Path, progress: Progress) -> list[Growth]:
    """Let ever more visitors with the same cookie count their visits at the same time."""
    everyone = [one for one in peers(["Tornado"]) if one.environment is None]
    results = [Result(one, one.contestants[0]) for one in everyone]
    rate: dict[str, list[Point]] = {}
    p99: dict[str, list[Point]] = {}
    with tempfile.TemporaryDirectory(prefix="parallel-", dir=directory) as folder:
        async with entered(results, Path(folder)) as entries:
            for done, number in enumerate(size.parallel):
                for entry, path in _asked(entries):
                    progress(f"parallel: {number} requests", done, len(size.parallel))
                    name = f"{entry.pairs[0][0].peer.keeps}, {_PATHS[path]}"
                    found = await _sample(entry, path, number, size)
                    rate.setdefault(name, []).append(
                        Point(number, middle(found, lambda one: one.rate))
                    )
                    p99.setdefault(name, []).append(
                        Point(number, middle(found, lambda one: one.p99))
                    )
    return [_rates(_lines(rate)), _latencies(_lines(p99))] if rate else []


def _asked(entries: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    for entry in entries:
        if not entry.pairs[0][0].error:
            for path in _PATHS:
                yield entry, path


async def _sample(entry: Entry, path: str, number: int, size: Size) -> list[Sample]:
    """Measure so many parallel requests on one new session."""
    async with connections(entry.server.port, number) as opened:
        first = opened[0]
        first.cookie = b""
        await first.get("/write")
        for visitor in opened:
            visitor.cookie = first.cookie
        await _ask(opened, path, 0.0)
        found, asked = [], 1 + number
        for _ in range(size.rounds):
            found.append(await sampled(entry.server, _ask(opened, path, size.seconds)))
            asked += sum(len(one.took) for one in opened)
        counted = int(await first.get(path))
        if path == "/mutate" and counted != asked + 1:
            raise RuntimeError(f"{asked + 1} visits were counted as {counted}")
    return found


async def _ask(opened: Sequence[Connection], path: str, seconds: float) -> list[float]:
    end = time.perf_counter() + seconds
    await asyncio.gather(*(one.repeat_until(path, end) for one in opened))
    return [took for one in opened for took in one.took]


def _lines(found: dict[str, list[Point]]) -> tuple[Line, ...]:
    return tuple(Line(name, tuple(points)) for name, points in found.items())


def _rates(lines: tuple[Line, ...]) -> Growth:
    last = max(point.at for line in lines for point in line.points)
    return Growth(
        name="parallel",
        title="Parallel requests on one session",
        measured="answers per second, all on the same session",
        across="requests under way at once",
        says=(
            f"From one to {last:g} at once the rate becomes: {grown(lines)}. "
            "Requests that change a session do not wait for each other (C1), so what "
            "limits them is the core of the server, as if each had a session of its "
            "own; what they ask of the database in one turn of the event loop leaves "
            "together. `mutate` loses nothing (C2, checked here: every visit was "
            "counted), and for that the mutations of one key take turns, so their rate "
            "is bounded by one round trip to the database after another."
        ),
        lines=lines,
    )


def _latencies(lines: tuple[Line, ...]) -> Growth:
    return Growth(
        name="parallel-p99",
        title="Parallel requests on one session: the slow ones",
        measured="ms within which 99 of 100 answers came",
        across="requests under way at once",
        says=(
            "Each answer waits for those before it on the same core, so the time grows "
            "with their number; `mutate` adds its place in the queue of the key."
        ),
        lines=lines,
    )
