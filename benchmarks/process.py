"""Starts the server that is measured, and ends it."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

_PATIENCE = 30.0
"""Seconds for a server to say its port, and to end."""


@dataclass(frozen=True)
class Running:
    """A server that was started."""

    port: int
    pid: int

    def processor_time(self) -> float:
        """Return the seconds of processor that all its threads and children took."""
        return sum(map(_processor_time, _family(self.pid)))


def _processor_time(pid: int) -> float:
    """Read the clock of a process, whose number is made as ``clock_getcpuclockid`` does.

    ``/proc/PID/stat`` says the same, but in hundredths of a second.
    """
    return time.clock_gettime((~pid << 3) | 2)


def _family(pid: int) -> list[int]:
    """Return the process and its children, theirs included."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    found = [pid]
    if children.exists():
        for child in children.read_text(encoding="ascii").split():
            found += _family(int(child))
    return found


@asynccontextmanager
async def started(
    *command: str, directory: Path | None = None, environment: Mapping[str, str] = {}
) -> AsyncIterator[Running]:
    """Run *command*, which says its port on the first line and ends with its input.

    Raises:
        RuntimeError: It ended, or said nothing for half a minute.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=directory,
        env=dict(environment) or None,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), _PATIENCE)
        if not line:
            raise RuntimeError("the server did not start; see what it said above")
        yield Running(int(line), process.pid)
    finally:
        process.stdin.close()
        await asyncio.wait_for(process.wait(), _PATIENCE)


@asynccontextmanager
async def server(
    *arguments: str, module: str = "benchmarks.server"
) -> AsyncIterator[int]:
    """Run *module* with *arguments*; gives its port."""
    async with started(sys.executable, "-m", module, *arguments) as running:
        yield running.port
