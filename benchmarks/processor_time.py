"""The processor time that a request takes the server, and figures made of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.load import Connection, everybody
from benchmarks.spread import Estimate, estimate, median_of

CONNECTIONS = 16

Round = TypeVar("Round")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    servers: int
    """A process is lucky or unlucky for life (addresses, hash seed): take several."""
    rounds: int
    requests: int
    """Of each connection, for each variant and in each round."""

    @property
    def total(self) -> int:
        """Return the number of rounds with all servers."""
        return self.servers * self.rounds


async def cost(visitors: Sequence[Connection], path: str, requests: int) -> float:
    """Return the microseconds of one request while all *visitors* ask for *path*."""
    before = int(await visitors[0].get("/processor-time"))
    await everybody(visitors, path, requests)
    after = int(await visitors[0].get("/processor-time"))
    return (after - before) / 1000 / (requests * len(visitors))


def middle(rounds: Sequence[Round], figure: Callable[[Round], float]) -> Estimate:
    """Return the median of what *figure* says of each round."""
    return estimate(rounds, lambda some: median_of(some, figure))


def quotient(
    rounds: Sequence[Round],
    above: Callable[[Round], float],
    below: Callable[[Round], float],
) -> Estimate:
    """Return the median of *above* divided by that of *below*."""

    def ratio(some: Sequence[Round]) -> float:
        divisor = median_of(some, below)
        return median_of(some, above) / divisor if divisor > 0 else math.inf

    return estimate(rounds, ratio)
