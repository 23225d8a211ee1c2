"""Counts a request, where others time it: ``python -m benchmarks.machine_instructions``.

Valgrind runs the server of the benchmarks and counts the instructions of the processor.
No other program changes the count: a second run gives the same to one per cent, for which
a clock needs hundreds of rounds. It knows nothing of the kernel, nor of how long an instruction
takes; ``python -m benchmarks`` tells what a request takes in all.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from benchmarks.databases import DATABASES, NotThereError, place_of
from benchmarks.load import connections, everybody
from benchmarks.process import started
from benchmarks.profile_requests import begins

_REFERENCES = re.compile(r"I +refs: +([\d,]+)")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.machine_instructions",
        description="Count the instructions of the processor that a request takes.",
    )
    add = parser.add_argument
    add("store", help="redis or mongodb, which is started; or a URL of session_store")
    add("paths", nargs="+", metavar="path", help="/bare, /read, /write, /handwritten …")
    add("--connections", type=int, default=16)
    add("--requests", type=int, default=640, help="of all connections together")
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> AsyncIterator[tuple[str, float]]:
    """Yield each path with the thousands of instructions of one request.

    Raises:
        NotThereError: A database or valgrind is missing; says what to install.
    """
    async with place_of(options.store) as url:
        for path in options.paths:
            number = options.connections
            each = max(1, options.requests // number)
            some = await _counted(url, path, number, each)
            more = await _counted(url, path, number, 3 * each)
            yield path, (more - some) / (2 * each * number) / 1000


async def _counted(url: str, path: str, visitors: int, requests: int) -> int:
    """Return the instructions of a server that answers so many *requests* of each."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "valgrind")
        command = [*_valgrind(log), *_server(url, path, folder)]
        # Another seed for the hashes of strings is another number of collisions.
        settings = {**os.environ, "PYTHONHASHSEED": "0"}
        async with (
            started(*command, environment=settings) as server,
            connections(server.port, visitors) as opened,
        ):
            await everybody(opened, begins(path), 3)
            await everybody(opened, path, requests)
        return _total(log)


def _total(log: Path) -> int:
    """Return what valgrind says at its end."""
    said = log.read_text(encoding="utf-8")
    found = _REFERENCES.search(said)
    if found is None:
        raise RuntimeError(f"valgrind did not say what it counted, but: {said}")
    return int(found[1].replace(",", ""))


def _valgrind(log: Path) -> Sequence[str]:
    program = shutil.which("valgrind")
    if program is None:
        raise NotThereError("valgrind (Debian package)")
    count = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
    return program, *count, f"--log-file={log}"


def _server(url: str, path: str, folder: str) -> Sequence[str]:
    command = [sys.executable, "-m", "benchmarks.server", "--store", url]
    if path.startswith("/handwritten"):
        scheme = url.partition(":")[0]
        by_hand = url if scheme in DATABASES else f"{folder}/by-hand.db"
        command += ["--handwritten", by_hand]
    if path.startswith("/encrypted"):
        command += ["--encrypted"]
    return command


async def _show(options: argparse.Namespace) -> None:
    try:
        async for path, thousands in measure(options):
            print(
                f"{path}: {thousands:.1f} thousand instructions a request", flush=True
            )
    except NotThereError as hint:
        sys.exit(f"install {hint}")


if __name__ == "__main__":
    asyncio.run(_show(arguments()))
