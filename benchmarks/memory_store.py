"""P6: runs `benchmarks.million_sessions` and puts what it found into rows."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from benchmarks.report import Progress, Row
from benchmarks.spread import Estimate

FULL = 1_000_000
QUICK = 10_000
RUNS = 2


async def measure(sessions: int, runs: int, progress: Progress) -> list[Row]:
    """Measure P6 with so many sessions, in a fresh process each time."""
    found = []
    for turn in range(runs):
        progress("P6", turn, runs)
        found.append(await _run(sessions))
    return _rows(found)


async def _run(sessions: int) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.million_sessions"),
        *("--sessions", str(sessions)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError("the sessions could not be made; see what it said above")
    found: dict[str, Any] = json.loads(output)
    return found


def _rows(found: list[dict[str, Any]]) -> list[Row]:
    def over(name: str) -> Estimate:
        """Return the median of the runs, between the best and the worst."""
        values = sorted(one[name] for one in found)
        return Estimate(values[len(values) // 2], values[0], values[-1])

    sessions = f"{found[0]['sessions']:,} sessions"
    return [
        Row("P6", f"{sessions}, memory of one", over("bytes_per_session"), "B", 1024),
        Row(
            "P6",
            "sweep of the expired half, longest stall, processor time",
            over("sweep_stall_processor_ms"),
            "ms",
            at_most=10,
        ),
        Row("P6", "the same by the wall clock", over("sweep_stall_ms"), "ms"),
        Row("P6", "the whole sweep takes", over("sweep_seconds"), "s"),
        Row(
            "P6",
            "beginning the sessions, longest stall, processor time",
            over("fill_stall_processor_ms"),
            "ms",
        ),
        Row(
            "P6", "one full gc.collect() before the sweep", over("gc_collect_ms"), "ms"
        ),
    ]
