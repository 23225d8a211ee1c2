"""Starts the server that is measured, and ends it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def server(
    *arguments: str, module: str = "benchmarks.server"
) -> AsyncIterator[int]:
    """Run *module* with *arguments*; gives its port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = await process.stdout.readline()
        if not line:
            raise RuntimeError("the server did not start; see what it said above")
        yield int(line)
    finally:
        process.stdin.close()
        await process.wait()
