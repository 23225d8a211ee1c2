"""What a database server says it was asked: the server counts, not its client."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

Action: TypeAlias = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Seen:
    """What a server was asked while something was done."""

    commands: int
    round_trips: int


class Traffic(Protocol):
    """Counts what a server is asked."""

    async def round_trips(self) -> int:
        """Return how often the server was asked something, but for these calls."""

    async def during(self, action: Action) -> Seen:
        """Return what the server is asked while *action* runs."""


@asynccontextmanager
async def traffic(url: str) -> AsyncIterator[Traffic]:
    """Watch the server at *url*. A driver is imported only if it is needed."""
    module: Any = importlib.import_module(f"benchmarks.{url.partition(':')[0]}_traffic")
    async with module.watching(url) as found:
        yield found
