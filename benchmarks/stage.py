"""Where peers are measured: databases for all of them, and a core for their servers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from benchmarks.databases import Database, cores, running
from benchmarks.peers.catalogue import Peer
from benchmarks.process import Running, started


class Stage:
    """Starts servers, and before the first one of a database that database."""

    def __init__(
        self, stack: AsyncExitStack, folder: Path, core: Sequence[str]
    ) -> None:
        self._stack = stack
        self._folder = folder
        self._core = core
        self._urls: dict[str, str] = {}

    async def start(self, peer: Peer) -> Running:
        """Start the server of *peer*; it ends with the stage.

        Raises:
            NotThereError: A part is missing; says what to install.
            RuntimeError: It did not start.
        """
        url = await self._url(peer.database)
        command = peer.command(url, self._folder)
        pinned = ("taskset", "-c", self._core[1]) if self._core else ()
        return await self._stack.enter_async_context(
            started(*pinned, *command, environment=peer.surroundings())
        )

    async def _url(self, database: Database | str) -> str:
        """Return where the sessions are kept."""
        if isinstance(database, str):
            return database.format(folder=self._folder)
        if database.name not in self._urls:
            self._urls[database.name] = await self._stack.enter_async_context(
                running(database)
            )
        return self._urls[database.name]


@asynccontextmanager
async def staged(folder: Path) -> AsyncIterator[Stage]:
    """Keep everything but the servers off the core that they share."""
    with cores() as core:
        async with AsyncExitStack() as stack:
            yield Stage(stack, folder, core)
