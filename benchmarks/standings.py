"""What the contest found, as figures with their spread, and the table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from benchmarks.contest import CONNECTIONS, Result, Turn
from benchmarks.processor_time import middle, quotient
from benchmarks.report import Cells, markdown, spread
from benchmarks.spread import Estimate

Pair: TypeAlias = "tuple[Turn, Turn]"

_HEADINGS = (
    "sessions",
    "bare handler",
    "read adds",
    "read and write adds",
    "in all",
    "against ours",
    "answers",
    "half within",
    "99 % within",
)


def added(turn: Turn) -> float:
    """Return what reading and writing takes above the bare handler next to it."""
    return turn.write.processor - turn.bare.processor


_FIGURES: dict[str, Callable[[Turn], float]] = {
    "bare": lambda turn: turn.bare.processor,
    "read": lambda turn: turn.read.processor - turn.bare.processor,
    "write": added,
    "total": lambda turn: turn.write.processor,
    "bare_p99": lambda turn: turn.bare.p99,
    "rate": lambda turn: turn.write.rate,
    "p50": lambda turn: turn.write.median,
    "p99": lambda turn: turn.write.p99,
    "busy": lambda turn: turn.write.busy,
}


@dataclass(frozen=True)
class Standing:
    """One contestant with one number of connections."""

    name: str
    framework: str
    keeps: str
    """The database, or "memory"."""
    ours: bool
    connections: int
    error: str = ""
    figures: dict[str, Estimate] = field(default_factory=dict)
    """Processor time in microseconds, rates per second, latencies in milliseconds."""

    @property
    def verdict(self) -> str:
        """Say how much what it adds is of what ours adds, on the same database."""
        ratio = self.figures.get("against")
        if ratio is None:
            return ""
        if ratio.low <= 1 <= ratio.high:
            return "the spread hides it"
        return spread(ratio, "×")

    def cells(self) -> Cells:
        if self.error:
            return (self.name, f"not measured: {self.error}", *("",) * 7)
        get = self.figures
        return (
            f"**{self.name}**" if self.ours else self.name,
            *(spread(get[name], "µs") for name in ("bare", "read", "write", "total")),
            self.verdict,
            spread(get["rate"], "/s"),
            *(spread(get[name], "ms") for name in ("p50", "p99")),
        )

    @classmethod
    def loaded(cls, found: dict[str, Any]) -> Standing:
        """Return what was written to a file of results."""
        figures = {name: Estimate(**one) for name, one in found["figures"].items()}
        return cls(**{**found, "figures": figures})


def standings(results: Sequence[Result]) -> list[Standing]:
    """Return the standings, by number of connections."""
    return [
        _standing(result, number, _of_the_house(results, result))
        for number in CONNECTIONS
        for result in results
    ]


def _standing(result: Result, number: int, ours: Result | None) -> Standing:
    contestant, turns = result.contestant, result.turns.get(number, [])
    error = result.error or ("" if turns else "no round was complete")
    found = {} if error else {name: middle(turns, of) for name, of in _FIGURES.items()}
    if found and ours is not None and ours is not result:
        pairs = list(zip(turns, ours.turns.get(number, ()), strict=False))
        if pairs:
            found["against"] = quotient(
                pairs, lambda pair: added(pair[0]), lambda pair: added(pair[1])
            )
    return Standing(
        name=contestant.name,
        framework=result.peer.framework,
        keeps=result.peer.keeps,
        ours=contestant.ours,
        connections=number,
        error=error,
        figures=found,
    )


def _of_the_house(results: Iterable[Result], other: Result) -> Result | None:
    """Return our own contestant on the database of *other*."""
    return next(
        (
            one
            for one in results
            if one.contestant.ours
            and one.peer.keeps == other.peer.keeps
            and one.peer.environment is None
            and not one.error
        ),
        None,
    )


def table(found: Sequence[Standing], connections: int) -> str:
    """Return the table of one number of connections."""
    rows = [one.cells() for one in found if one.connections == connections]
    return markdown(_HEADINGS, rows)
