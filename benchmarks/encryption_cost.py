"""S9: the processor time that encrypted values take, above values stored as they are."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import TypeAlias

from benchmarks.load import Connection, connections, everybody
from benchmarks.process import server
from benchmarks.processor_time import CONNECTIONS, Size, cost, middle
from benchmarks.report import Progress, Row, missing

_KINDS = {"/read": "memory://, read", "/write": "memory://, read and write"}
_ENCRYPTED = "/encrypted"

Round: TypeAlias = "dict[str, float]"
"""Microseconds per request, by path."""

FULL = Size(servers=6, rounds=40, requests=12)
QUICK = Size(servers=1, rounds=2, requests=5)


async def measure(size: Size, progress: Progress) -> list[Row]:
    """Measure what encryption adds to a read and to a write, and return the rows."""
    if importlib.util.find_spec("cryptography") is None:
        whats = [f"{kind}, encryption adds" for kind in _KINDS.values()]
        return [missing(["S9"], what, "cryptography")[0] for what in whats]
    rounds: list[Round] = []
    for number in range(size.servers):
        async with (
            server("--encrypted") as port,
            connections(port, CONNECTIONS) as plain,
            connections(port, CONNECTIONS) as encrypted,
        ):
            await everybody(plain, "/write", 1)
            await everybody(encrypted, f"{_ENCRYPTED}/write", 1)
            await _round(plain, encrypted, size.requests)  # warms up
            for turn in range(size.rounds):
                progress("S9", number * size.rounds + turn, size.total)
                rounds.append(await _round(plain, encrypted, size.requests))
    return [
        Row("S9", f"{kind}, encryption adds", middle(rounds, _added(path)), "µs")
        for path, kind in _KINDS.items()
    ]


async def _round(
    plain: Sequence[Connection], encrypted: Sequence[Connection], requests: int
) -> Round:
    """Measure every variant once, in turns."""
    costs = {}
    for path in _KINDS:
        costs[path] = await cost(plain, path, requests)
        costs[_ENCRYPTED + path] = await cost(encrypted, _ENCRYPTED + path, requests)
    return costs


def _added(path: str) -> Callable[[Round], float]:
    return lambda costs: costs[_ENCRYPTED + path] - costs[path]
