"""S9: the processor time that encrypted values take, above values stored as they are."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import TypeAlias

from benchmarks.load import Connection, connections, everybody
from benchmarks.process import server
from benchmarks.processor_time import CONNECTIONS, Size, cost, middle, quotient
from benchmarks.report import Progress, Row, missing

_PATHS = {
    "": "a number",
    "/1024": "1 KiB",
    "/65536": "64 KiB",
}
_KINDS = {
    f"{verb}{size}": f"memory://, {does} {what}"
    for size, what in _PATHS.items()
    for verb, does in (("/read", "read"), ("/write", "read and write"))
}
_ENCRYPTED = "/encrypted"

Round: TypeAlias = "dict[str, float]"
"""Microseconds per request, by path."""

FULL = Size(servers=3, rounds=16, requests=12)
QUICK = Size(servers=1, rounds=2, requests=5)


async def measure(size: Size, progress: Progress) -> list[Row]:
    """Measure what encryption adds to reads and to writes, and return the rows."""
    if importlib.util.find_spec("cryptography") is None:
        whats = [f"{kind}, encryption adds" for kind in _KINDS.values()]
        return [row for what in whats for row in missing(["S9"], what, "cryptography")]
    rounds: list[Round] = []
    for number in range(size.servers):
        async with (
            server("--encrypted") as port,
            connections(port, CONNECTIONS) as plain,
            connections(port, CONNECTIONS) as encrypted,
        ):
            await _begin(plain, "")
            await _begin(encrypted, _ENCRYPTED)
            await _round(plain, encrypted, size.requests)  # warms up
            for turn in range(size.rounds):
                progress("S9", number * size.rounds + turn, size.total)
                rounds.append(await _round(plain, encrypted, size.requests))
    return [row for path, kind in _KINDS.items() for row in _rows(rounds, path, kind)]


def _rows(rounds: Sequence[Round], path: str, kind: str) -> list[Row]:
    plain, encrypted = _of(path), _of(_ENCRYPTED + path)
    added = middle(rounds, lambda costs: encrypted(costs) - plain(costs))
    ratio = quotient(rounds, encrypted, plain)
    return [
        Row("S9", f"{kind}, encryption adds", added, "µs"),
        Row("S9", f"{kind}, encrypted against plain", ratio, "×"),
    ]


def _of(path: str) -> Callable[[Round], float]:
    return lambda costs: costs[path]


async def _begin(visitors: Sequence[Connection], prefix: str) -> None:
    for path in _KINDS:
        if path.startswith("/write"):
            await everybody(visitors, prefix + path, 1)


async def _round(
    plain: Sequence[Connection], encrypted: Sequence[Connection], requests: int
) -> Round:
    """Measure every variant once, in turns."""
    costs = {}
    for path in _KINDS:
        costs[path] = await cost(plain, path, requests)
        costs[_ENCRYPTED + path] = await cost(encrypted, _ENCRYPTED + path, requests)
    return costs
