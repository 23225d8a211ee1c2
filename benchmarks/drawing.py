"""Draws figures as SVG: bars and curves, small enough to be kept and compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.report import figure
from benchmarks.spread import Estimate

_WIDTH = 780
_LABEL = 230
_LEFT = 76
_ROW = 24
_TOP = 64
_HEIGHT = 320
_COLOURS = (
    "#0b6e4f",
    "#c8553d",
    "#33658a",
    "#8a6d1d",
    "#7b4b94",
    "#555555",
    "#b5408f",
    "#3f9c9c",
)
_OURS, _OTHERS, _BARE = "#0b6e4f", "#8f9aa3", "#dde2e6"
_STYLE = "text{font:13px system-ui,sans-serif;fill:#222}.title{font-size:16px}.small{font-size:11px;fill:#555}"


@dataclass(frozen=True)
class Bar:
    """One bar: what it stands on, and what it shows, with its spread."""

    label: str
    shown: Estimate
    base: float = 0.0
    ours: bool = False

    @property
    def end(self) -> float:
        return self.base + max(self.shown.value, self.shown.high)


@dataclass(frozen=True)
class Curve:
    """A name, and for each x a value with its spread."""

    name: str
    points: Sequence[tuple[float, Estimate]]


def bars(title: str, subtitle: str, unit: str, rows: Sequence[Bar]) -> str:
    """Draw horizontal bars; the line on each is its 95 % interval."""
    most = max((row.end for row in rows), default=1.0) or 1.0
    scale = (_WIDTH - _LABEL - 110) / most
    drawn = [
        _bar(row, _TOP + _ROW * number, scale, unit) for number, row in enumerate(rows)
    ]
    return _svg(title, subtitle, _TOP + _ROW * len(rows) + 12, drawn)


def _bar(row: Bar, top: float, scale: float, unit: str) -> str:
    start = _LABEL + scale * row.base
    width = max(0.0, scale * row.shown.value)
    middle = top + _ROW / 2 - 3
    low, high = (
        _LABEL + scale * (row.base + max(0.0, value))
        for value in (row.shown.low, row.shown.high)
    )
    text = f"{figure(row.base + row.shown.value)} {unit}"
    end = max(high, start + width)
    return "".join(
        (
            _text(_LABEL - 8, middle + 5, row.label, "end"),
            _box(_LABEL, top, scale * row.base, _BARE),
            _box(start, top, width, _OURS if row.ours else _OTHERS),
            _line([(low, middle), (high, middle)], "#222"),
            _text(end + 6, middle + 5, text),
        )
    )


def curves(title: str, subtitle: str, across: str, drawn: Sequence[Curve]) -> str:
    """Draw curves by what grows *across*; both axes are logarithmic.

    The upright line through a point is its 95 % interval.
    """
    xs = [x for curve in drawn for x, _ in curve.points]
    ys = [y.value for curve in drawn for _, y in curve.points]
    right = _axis(xs, _LEFT, _WIDTH - 210)
    up = _axis(ys, _TOP + _HEIGHT, _TOP + 10)
    parts = [*_grid(right, xs, up, ys)]
    parts += [_text(_WIDTH - 210, _TOP + _HEIGHT + 34, across, "end", css="small")]
    ends = _apart([up(curve.points[-1][1].value) for curve in drawn])
    for curve, colour, end in zip(drawn, _COLOURS * 2, ends, strict=False):
        parts += _curve(curve, colour, right, up)
        parts += [_text(_WIDTH - 200, end + 4, curve.name, colour=colour)]
    return _svg(title, subtitle, _TOP + _HEIGHT + 46, parts)


def _curve(
    curve: Curve,
    colour: str,
    right: Callable[[float], float],
    up: Callable[[float], float],
) -> Iterable[str]:
    yield _line([(right(x), up(y.value)) for x, y in curve.points], colour, 2)
    for x, y in curve.points:
        ends = (_within(up(y.low)), _within(up(y.high)))
        yield _line([(right(x), end) for end in ends], colour)
        yield _dot((right(x), up(y.value)), colour)


def _within(y: float) -> float:
    """Return *y*, or the edge of the picture that it is beyond."""
    return min(max(y, _TOP), _TOP + _HEIGHT)


def _axis(
    values: Sequence[float], start: float, end: float
) -> Callable[[float], float]:
    """Return what places a value on a logarithmic axis."""
    low, high = (math.log10(max(one, 1e-9)) for one in (min(values), max(values)))
    span = max(high - low, 0.5)

    def place(value: float) -> float:
        share = (math.log10(max(value, 1e-9)) - low) / span
        return start + (end - start) * share

    return place


def _grid(
    across: Callable[[float], float],
    xs: Sequence[float],
    up: Callable[[float], float],
    ys: Sequence[float],
) -> Iterable[str]:
    left, right, bottom = _LEFT, _WIDTH - 210, _TOP + _HEIGHT
    for value in _decades(ys):
        yield _line([(left, up(value)), (right, up(value))], "#e3e6e8")
        yield _text(left - 6, up(value) + 4, _short(value), "end", css="small")
    for value in _decades(xs):
        yield _line([(across(value), _TOP + 10), (across(value), bottom)], "#e3e6e8")
        yield _text(across(value), bottom + 18, _short(value), "middle", css="small")


def _decades(values: Sequence[float]) -> list[float]:
    """Return round numbers within *values*: powers of ten, or 1, 2, 5 of them if few."""
    low, high = min(values), max(values)
    powers = range(
        math.floor(math.log10(max(low, 1e-9))),
        math.ceil(math.log10(max(high, 1e-8))) + 1,
    )
    for steps in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        found = [step * 10.0**power for power in powers for step in steps]
        found = [one for one in found if low * 0.999 <= one <= high * 1.001]
        if len(found) > 2:
            break
    return found or [low]


def _short(value: float) -> str:
    for limit, unit in ((1e6, " M"), (1e3, " k")):
        if value >= limit:
            return f"{value / limit:g}{unit}"
    return f"{value:g}"


def _apart(places: Sequence[float]) -> list[float]:
    """Return *places* moved so that lines of text do not cover each other."""
    moved = dict.fromkeys(range(len(places)), 0.0)
    last = -math.inf
    for number in sorted(moved, key=lambda one: places[one]):
        last = moved[number] = max(places[number], last + 16)
    return list(moved.values())


def _text(
    x: float,
    y: float,
    text: str,
    anchor: str = "start",
    *,
    css: str = "",
    colour: str = "",
) -> str:
    more = f' class="{css}"' if css else ""
    more += f' style="fill:{colour}"' if colour else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{_ROW - 6}" fill="{colour}"/>'


def _line(points: Sequence[tuple[float, float]], colour: str, width: int = 1) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _dot(place: tuple[float, float], colour: str) -> str:
    return f'<circle cx="{place[0]:.1f}" cy="{place[1]:.1f}" r="3" fill="{colour}"/>'


def _svg(title: str, subtitle: str, height: float, parts: Iterable[str]) -> str:
    box = f"0 0 {_WIDTH} {height:.0f}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" role="img">'
    lines = (
        head,
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        _text(12, 24, title, css="title"),
        _text(12, 44, subtitle, css="small"),
        *parts,
        "</svg>",
    )
    return "\n".join(lines) + "\n"
