"""How a cost grows with something: the curves of one question, and what they say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import Cells, figure, markdown, spread
from benchmarks.spread import Estimate


@dataclass(frozen=True)
class Point:
    """What was measured at one place of a curve."""

    at: float
    measured: Estimate


@dataclass(frozen=True)
class Line:
    """A curve and its name."""

    name: str
    points: tuple[Point, ...]

    def at(self, place: float) -> Estimate | None:
        return next((one.measured for one in self.points if one.at == place), None)


@dataclass(frozen=True)
class Growth:
    """The curves that answer one question."""

    name: str
    """Of its picture."""
    title: str
    measured: str
    """What the values are, with their unit in front: "µs of …"."""
    across: str
    """What grows, and in what it is counted."""
    says: str
    """What the limit is, and why."""
    lines: tuple[Line, ...]

    @property
    def places(self) -> list[float]:
        return sorted({point.at for line in self.lines for point in line.points})

    @property
    def table(self) -> str:
        """Return one row for each curve."""
        headings = (self.across, *(f"{place:,.0f}" for place in self.places))
        return markdown(headings, [self._cells(line) for line in self.lines])

    def _cells(self, line: Line) -> Cells:
        found = map(line.at, self.places)
        return (line.name, *(spread(one) if one else "" for one in found))

    @classmethod
    def loaded(cls, found: dict[str, Any]) -> Growth:
        """Return what was written to a file of results."""
        lines = tuple(_line(one) for one in found["lines"])
        return cls(**{**found, "lines": lines})


def _line(found: dict[str, Any]) -> Line:
    points = (Point(one["at"], Estimate(**one["measured"])) for one in found["points"])
    return Line(found["name"], tuple(points))


def grown(lines: Sequence[Line]) -> str:
    """Say by what factor each curve grew from its first to its last point."""
    return "; ".join(f"{line.name} {figure(_factor(line))} ×" for line in lines)


def _factor(line: Line) -> float:
    first, last = line.points[0].measured, line.points[-1].measured
    return last.value / max(first.value, 1e-9)
