"""How the cost of one session grows with the number of those in the store."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.databases import MONGO, REDIS, Database, NotThereError, cores, running
from benchmarks.growth import Growth, Line, Point, grown
from benchmarks.processor_time import middle
from benchmarks.report import Progress, figure
from benchmarks.spread import exactly

_BYTES = 1400
"""Of memory that one session may take, with what the allocator leaves unused."""


@dataclass(frozen=True)
class Place:
    """A store, and how many sessions it is filled with."""

    name: str
    url: Database | str
    """{folder} is an empty directory."""
    most: int


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    most: int = 1_000_000
    files: int = 100_000
    """In the file store, where a million takes minutes to write."""
    memory: int = 1_000_000


FULL = Size()
LONG = Size(files=1_000_000, memory=10_000_000)
QUICK = Size(10_000, 1000, 10_000)


@dataclass
class Found:
    """What was found in all stores, by store."""

    load: dict[str, list[Point]] = field(default_factory=dict)
    change: dict[str, list[Point]] = field(default_factory=dict)
    sweeps: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, name: str, step: dict[str, Any]) -> None:
        """Add what one step of `benchmarks.stored_sessions` said."""
        if "swept" in step:
            self.sweeps[name] = step
            return
        for kind, lines in (("load", self.load), ("change", self.change)):
            measured = middle(step[kind], lambda one: one)
            lines.setdefault(name, []).append(Point(step["sessions"], measured))


def places(size: Size) -> list[Place]:
    """Return all stores; memory no further than there is room."""
    memory = size.memory
    while memory > size.most and memory * _BYTES > _free_memory():
        memory //= 10
    return [
        Place("memory", "memory://", memory),
        Place("file", "file://{folder}/sessions", size.files),
        Place("SQLite", "sqlite:///{folder}/sessions.db", size.most),
        Place("Redis", REDIS, size.most),
        Place("MongoDB", MONGO, size.most),
    ]


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


async def measure(size: Size, directory: Path, progress: Progress) -> list[Growth]:
    """Fill each store in turn, and at each power of ten use some of its sessions."""
    found = Found()
    everywhere = places(size)
    for done, place in enumerate(everywhere):
        progress(f"stored: {place.name}", done, len(everywhere))
        try:
            async with _url(place.url, directory) as url:
                async for step in _steps(url, place.most):
                    found.add(place.name, step)
                    number = step.get("sessions", place.most)
                    what = f"stored: {place.name}, {number:,} sessions"
                    progress(what, done, len(everywhere))
        except NotThereError:
            continue  # the page has no curve for it
    return [
        _loads(_lines(found.load)),
        _changes(_lines(found.change)),
        *([_sweeps(found.sweeps)] if found.sweeps else []),
    ]


@asynccontextmanager
async def _url(url: Database | str, directory: Path) -> AsyncIterator[str]:
    """Start what is needed, on the core that the measured process has not."""
    if isinstance(url, Database):
        with cores():
            async with running(url) as found:
                yield f"{found}/sessions" if url is MONGO else found
    else:
        with tempfile.TemporaryDirectory(prefix="stored-", dir=directory) as folder:
            yield url.format(folder=folder)


async def _steps(url: str, most: int) -> AsyncIterator[dict[str, Any]]:
    steps = [10**power for power in range(3, 9) if 10**power <= most]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.stored_sessions", url, *map(str, steps)),
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,
    )
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)
    if await process.wait() != 0:
        raise RuntimeError("the store could not be filled; see what it said above")


def _lines(found: dict[str, list[Point]]) -> tuple[Line, ...]:
    return tuple(Line(name, tuple(points)) for name, points in found.items())


def _loads(lines: tuple[Line, ...]) -> Growth:
    return Growth(
        name="stored-load",
        title="Loading one session out of many",
        measured="µs on the clock, one load at a time",
        across="sessions in the store",
        says=(
            f"From the fewest to the most sessions it becomes: {grown(lines)}. "
            "Each store finds a session by its handle: a dict, a name in one of many "
            "directories, the primary key of a table, a key, `_id`. What grows is what "
            "no longer fits into a cache, of the processor or of the database. "
            "The limit is room: about a kilobyte each in memory, or a disk."
        ),
        lines=lines,
    )


def _changes(lines: tuple[Line, ...]) -> Growth:
    return Growth(
        name="stored-change",
        title="Changing one session among many",
        measured="µs on the clock, one change at a time",
        across="sessions in the store",
        says=(
            f"From the fewest to the most sessions it becomes: {grown(lines)}. "
            "SQLite and files wait for the disk (`fsync`), however many there are; "
            "requests that arrive together share that wait, which one at a time cannot "
            "show. SQLite's first figure is of a WAL file that has yet to grow to its "
            "4 MB, so `fsync` has its length to store as well."
        ),
        lines=lines,
    )


def _sweeps(sweeps: dict[str, dict[str, float]]) -> Growth:
    parts = [
        f"{name}: {found['swept']:,.0f} in {figure(found['seconds'])} s, and no turn "
        f"of the event loop took more than {figure(found['stall_ms'])} ms of its thread"
        for name, found in sweeps.items()
    ]
    return Growth(
        name="sweep",
        title="Sweeping the expired half",
        measured="µs on the clock for each deleted session",
        across="sessions in the store",
        says=(
            f"{'; '.join(parts)}. Memory and SQLite look at the index of expiry alone, "
            "so what is alive costs nothing. Files have no such index: each has its time "
            "looked at, and what is over is read and removed, which is the work of the "
            "file system, and more of it once its caches are too small. The sweeper "
            "deletes in slices and gives way between two of them. Redis and MongoDB "
            "delete by their own clock."
        ),
        lines=tuple(
            Line(name, (Point(found["sessions"], exactly(_each(found))),))
            for name, found in sweeps.items()
        ),
    )


def _each(found: dict[str, float]) -> float:
    return 1e6 * found["seconds"] / max(1.0, found["swept"])
