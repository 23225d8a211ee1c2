"""Measures all peers side by side: rounds in turns, each request beside a bare one."""

from __future__ import annotations

import resource
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.databases import NotThereError
from benchmarks.load import connections
from benchmarks.peers.catalogue import Contestant, Peer, peers
from benchmarks.process import Running
from benchmarks.report import Progress
from benchmarks.sampling import Sample, sampled
from benchmarks.stage import Stage, staged
from benchmarks.visitors import Visitors

CONNECTIONS = (1, 16, 128)
_USUAL = 16


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    starts: int
    """A process is lucky or unlucky for life (addresses, hash seed): take several."""
    rounds: int
    """With each start."""
    seconds: float
    """For each kind of request and number of connections."""
    warm_up: float
    """Seconds of each kind of request before that: V8 compiles what it has seen often,
    and needs thousands of requests for the last of it."""

    @property
    def total(self) -> int:
        return self.starts * (self.rounds + 1)


FULL = Size(starts=2, rounds=5, seconds=0.4, warm_up=1.0)
QUICK = Size(starts=1, rounds=2, seconds=0.05, warm_up=0.02)


@dataclass(frozen=True)
class Turn:
    """One contestant with one number of connections, in one round."""

    bare: Sample
    read: Sample
    write: Sample


@dataclass
class Result:
    """What was found of a contestant; or why it has no result."""

    peer: Peer
    contestant: Contestant
    turns: dict[int, list[Turn]] = field(default_factory=dict)
    """By number of connections."""
    error: str = ""


class Entry:
    """A server that runs, and the visitors of its contestants."""

    def __init__(self, server: Running, results: Sequence[Result]) -> None:
        self.server = server
        self.pairs = [
            (one, Visitors(one.contestant, max(CONNECTIONS))) for one in results
        ]

    async def check(self) -> None:
        for result, visitors in self.pairs:
            try:
                await visitors.check(self.server)
            except (ConnectionError, RuntimeError, ValueError) as error:
                result.error = str(error)

    async def warm_up(self, seconds: float, progress: Callable[[str], None]) -> None:
        for result, visitors in self.pairs:
            if not result.error:
                progress(f"{result.contestant.name} warms up")
                await self._turn(result, visitors, _USUAL, seconds, 0)

    async def round(
        self, seconds: float, number: int, progress: Callable[[str], None]
    ) -> None:
        """Measure each contestant once with each number of connections."""
        for result, visitors in self.pairs:
            for visiting in CONNECTIONS:
                if not result.error:
                    progress(f"{result.contestant.name}, {visiting} connections")
                    turn = await self._turn(result, visitors, visiting, seconds, number)
                    if turn is not None:
                        result.turns.setdefault(visiting, []).append(turn)

    async def _turn(
        self,
        result: Result,
        visitors: Visitors,
        visiting: int,
        seconds: float,
        number: int,
    ) -> Turn | None:
        """Measure each kind of request; which one is the first depends on *number*."""
        kinds = deque(
            (
                ("bare", visitors.bare),
                ("read", visitors.read),
                ("write", visitors.write),
            )
        )
        kinds.rotate(-number)
        try:
            async with connections(self.server.port, visiting) as opened:
                await visitors.write(opened, 0.0)  # each has a session from here on
                # V8 tidies up while others have their turn: now the server is awake.
                await visitors.write(opened, seconds / 2)
                samples = {
                    kind: await sampled(self.server, ask(opened, seconds))
                    for kind, ask in kinds
                }
        except (ConnectionError, RuntimeError, ValueError) as error:
            result.error = str(error)
            return None
        return Turn(**samples)


async def measure(
    only: Sequence[str], size: Size, directory: Path, progress: Progress
) -> list[Result]:
    """Let the peers compete; *only* names parts of those that shall.

    A contestant that does not do what it should has an error in place of a result.
    """
    _allow_files()
    results = [Result(one, who) for one in peers(only) for who in one.contestants]
    await _install(results, progress)
    for start in range(size.starts):
        with tempfile.TemporaryDirectory(prefix="peers-", dir=directory) as folder:
            async with entered(results, Path(folder)) as entries:
                await _rounds(entries, start, size, progress)
    return results


async def _rounds(
    entries: Sequence[Entry], start: int, size: Size, progress: Progress
) -> None:
    for turn in range(size.rounds + 1):
        done = start * (size.rounds + 1) + turn
        for entry in entries:

            def tell(what: str, done: int = done) -> None:
                progress(f"peers: {what}", done, size.total)

            if turn == 0:
                await entry.warm_up(size.warm_up, tell)
            else:
                await entry.round(size.seconds, done, tell)


def _allow_files() -> None:
    """Allow this process as many open sockets as it may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


async def _install(results: Sequence[Result], progress: Progress) -> None:
    for done, result in enumerate(results):
        environment = result.peer.environment
        if environment is not None:
            progress(f"peers: installing {environment.name}", done, len(results))
            try:
                await environment.install()
            except NotThereError as hint:
                result.error = f"install {hint}"


@asynccontextmanager
async def entered(
    results: Sequence[Result], folder: Path
) -> AsyncIterator[list[Entry]]:
    """Start all servers, and see that they do what they should."""
    async with staged(folder) as stage:
        entries = []
        for peer in {id(one.peer): one.peer for one in results}.values():
            those = [one for one in results if one.peer is peer and not one.error]
            if those:
                entries += await _entry(stage, peer, those)
        yield entries


async def _entry(stage: Stage, peer: Peer, results: Sequence[Result]) -> list[Entry]:
    """Start one server; where that fails, it is what is shown of its contestants."""
    try:
        server = await stage.start(peer)
    except (NotThereError, RuntimeError, TimeoutError) as error:
        hint = "install " if isinstance(error, NotThereError) else ""
        for result in results:
            result.error = f"{hint}{error}"
        return []
    entry = Entry(server, results)
    await entry.check()
    return [entry]
