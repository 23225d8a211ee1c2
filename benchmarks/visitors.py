"""The visitors of one contestant, who count their visits as well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from benchmarks.load import Connection, connections
from benchmarks.peers.catalogue import Contestant
from benchmarks.process import Running

BARE = "/bare"


class Visitors:
    """The visitors of one contestant, who remember their cookies and their visits."""

    def __init__(self, contestant: Contestant, number: int) -> None:
        self.contestant = contestant
        self.cookies = [b""] * number
        self.visits = [0] * number

    async def check(self, server: Running) -> None:
        """See that it is a session: a cookie is sent, and each visitor has a count.

        Raises:
            RuntimeError: It is not.
        """
        async with connections(server.port, 2) as opened:
            for one in (1, 2):
                await self.write(opened, 0.0)
                await self.read(opened, 0.0)
                if self.visits[:2] != [one, one]:
                    raise RuntimeError("the visitors were not counted one by one")
        if len(set(self.cookies[:2])) != 2 or not all(self.cookies[:2]):
            raise RuntimeError("the visitors did not get a cookie each")

    async def bare(self, opened: Sequence[Connection], seconds: float) -> list[float]:
        return await self._ask(opened, BARE, seconds)

    async def read(self, opened: Sequence[Connection], seconds: float) -> list[float]:
        return await self._ask(opened, self.contestant.read, seconds)

    async def write(self, opened: Sequence[Connection], seconds: float) -> list[float]:
        """Count visits; a store that loses some has no speed to speak of."""
        took = await self._ask(opened, self.contestant.write, seconds)
        for number, visitor in enumerate(opened):
            self.cookies[number] = visitor.cookie
            self.visits[number] += len(visitor.took)
            if int(visitor.body) != self.visits[number]:
                raise RuntimeError(
                    f"{self.visits[number]} visits were counted as {int(visitor.body)}"
                )
        return took

    async def fill(self, opened: Sequence[Connection], size: int) -> None:
        """Give each session *size* bytes besides its count."""
        path = self.contestant.write.replace("/write", "/fill")
        path = path.replace("/handwritten", "/handwritten-fill")
        await self._ask(opened, f"{path}?bytes={size}", 0.0)

    async def _ask(
        self, opened: Sequence[Connection], path: str, seconds: float
    ) -> list[float]:
        """Ask for *path* so long on all connections; return the seconds of each answer."""
        end = time.perf_counter() + seconds
        for visitor, cookie in zip(opened, self.cookies, strict=False):
            visitor.cookie = cookie
        await asyncio.gather(*(one.repeat_until(path, end) for one in opened))
        return [seconds for visitor in opened for seconds in visitor.took]
