"""The pictures of the page: one for each claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.drawing import Bar, Curve, bars, curves
from benchmarks.growth import Growth
from benchmarks.standings import Standing

_FOLDER = "images"
_ALONE, _USUAL, _MANY = 1, 16, 128
_HOW_WHOLE = (
    f"processor time of the server, {_USUAL} connections; "
    "light: the same framework's bare handler"
)
_HOW = "processor time of the server, {}; the line is the 95 % interval"


def keep(place: Path, name: str, alternative: str, svg: str) -> str:
    """Write a picture into the folder of *place*; return what shows it in Markdown."""
    (place / _FOLDER).mkdir(parents=True, exist_ok=True)
    (place / _FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
    return f"![{alternative}]({_FOLDER}/{name}.svg)"


def of_peers(rows: Sequence[Standing], place: Path) -> list[str]:
    """Draw what the contest found."""
    measured = [one for one in rows if not one.error]
    alone = [one for one in measured if one.connections == _ALONE]
    usual = [one for one in measured if one.connections == _USUAL]
    many = [one for one in measured if one.connections == _MANY]
    return [
        keep(place, f"costs-{name}", title, bars(title, subtitle, unit, drawn))
        for name, title, subtitle, unit, drawn in (
            (
                "added",
                "What reading and writing a session adds to a request",
                _HOW.format(f"{_USUAL} connections"),
                "µs",
                _sorted(usual, "write"),
            ),
            (
                "alone",
                "The same with one visitor at a time, when no round trip is shared",
                _HOW.format("1 connection"),
                "µs",
                _sorted(alone, "write"),
            ),
            (
                "read",
                "What reading a session adds to a request",
                _HOW.format(f"{_USUAL} connections"),
                "µs",
                _sorted(usual, "read"),
            ),
            (
                "total",
                "A whole request that reads and writes a session",
                _HOW_WHOLE,
                "µs",
                _stacked(usual),
            ),
            (
                "p99",
                f"99 of 100 answers at {_MANY} connections come within",
                "read and write; time on the wall clock, the load generator's included",
                "ms",
                _sorted(many, "p99"),
            ),
        )
    ]


def of_growth(growth: Growth, place: Path) -> str:
    """Draw the curves of one question; bars if nothing grows."""
    if len(growth.places) > 1 and max(len(one.points) for one in growth.lines) > 1:
        drawn = [
            Curve(line.name, [(one.at, one.measured) for one in line.points])
            for line in growth.lines
        ]
        svg = curves(growth.title, growth.measured, growth.across, drawn)
    else:
        rows = [
            Bar(f"{line.name}, {one.at:,.0f}", one.measured, ours=True)
            for line in growth.lines
            for one in line.points
        ]
        unit = growth.measured.partition(" ")[0]
        svg = bars(growth.title, f"{growth.measured}, by {growth.across}", unit, rows)
    return keep(place, f"costs-{growth.name}", growth.title, svg)


def _sorted(rows: Iterable[Standing], name: str) -> list[Bar]:
    """Return a bar for each row, by what keeps the sessions and then by length."""
    return [
        Bar(one.name, one.figures[name], ours=one.ours)
        for one in sorted(rows, key=lambda one: (one.keeps, one.figures[name].value))
    ]


def _stacked(rows: Iterable[Standing]) -> list[Bar]:
    return [
        _stack(one)
        for one in sorted(rows, key=lambda one: (one.keeps, one.figures["total"].value))
    ]


def _stack(one: Standing) -> Bar:
    total, added = one.figures["total"], one.figures["write"]
    return Bar(one.name, added, total.value - added.value, one.ours)
