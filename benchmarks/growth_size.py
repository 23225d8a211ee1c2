"""How the cost of a request grows with the size of the session it changes one key of."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contest import Entry, Result, entered
from benchmarks.growth import Growth, Line, Point, grown
from benchmarks.load import connections
from benchmarks.peers.catalogue import peers
from benchmarks.processor_time import middle
from benchmarks.report import Progress
from benchmarks.sampling import sampled
from benchmarks.spread import Estimate

CONNECTIONS = 16


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float
    bytes: tuple[int, ...]
    """The last one is as much as a session may hold (S8), less what it needs itself."""


FULL = Size(5, 0.2, (100, 1000, 4000, 16_000, 64_000, 128_000, 250_000))
QUICK = Size(1, 0.05, (100, 16_000))


async def measure(size: Size, directory: Path, progress: Progress) -> list[Growth]:
    """Change one key of ever larger sessions."""
    everyone = [one for one in peers(["Tornado"]) if one.environment is None]
    results = [Result(one, who) for one in everyone for who in one.contestants]
    with tempfile.TemporaryDirectory(prefix="size-", dir=directory) as folder:
        async with entered(results, Path(folder)) as entries:
            found: dict[str, list[Point]] = {}
            for done, number in enumerate(size.bytes):
                for entry in entries:
                    progress(f"size: {number:,} bytes", done, len(size.bytes))
                    for name, measured in (await _added(entry, size, number)).items():
                        found.setdefault(name, []).append(Point(number, measured))
    lines = tuple(Line(name, tuple(points)) for name, points in found.items())
    return [_growth(lines)] if lines else []


async def _added(entry: Entry, size: Size, number: int) -> dict[str, Estimate]:
    """Return what a change adds to a request, by contestant."""
    found: dict[str, Estimate] = {}
    async with connections(entry.server.port, CONNECTIONS) as opened:
        for result, visitors in entry.pairs:
            if result.error:
                continue
            await visitors.write(opened, 0.0)
            await visitors.fill(opened, number)
            rounds = []
            for _ in range(size.rounds):
                bare = await sampled(
                    entry.server, visitors.bare(opened, size.seconds / 2)
                )
                write = await sampled(
                    entry.server, visitors.write(opened, size.seconds)
                )
                rounds.append(write.processor - bare.processor)
            found[result.contestant.name] = middle(rounds, lambda one: one)
    return found


def _growth(lines: Sequence[Line]) -> Growth:
    return Growth(
        name="size",
        title="How the cost grows with the size of a session",
        measured="µs of the server's processor that reading and writing one key adds",
        across="bytes in the session, in sixteen keys",
        says=_says(lines),
        lines=tuple(lines),
    )


def _says(lines: Sequence[Line]) -> str:
    last = max(point.at for line in lines for point in line.points)
    return (
        f"From the smallest to {last:,.0f} bytes it becomes: {grown(lines)}. "
        "A request that changes one key encodes and sends that key alone, but it loads "
        "the whole session, so what is left to grow is the transport of bytes that "
        "nobody decodes; by hand, all of them are parsed and written back as well. "
        "The limit is `max_record_bytes`, 256 KiB: a larger session is refused (S8), "
        "because every request would carry it."
    )
