"""The contest in a few rows: what a session adds, by where it is kept.

Beside it is what the same adds by hand, and with the best known of the peers.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.report import Cells, figure, markdown
from benchmarks.standings import Standing

_SHOWN = (16, 1)
_BEST_KNOWN = "Express"
_HEADINGS = (
    "visitors at once",
    "sessions in",
    "read",
    "by hand",
    "read and write",
    "by hand",
    f"{_BEST_KNOWN}, the same",
)


def summary(found: Sequence[Standing]) -> str:
    """Return the table, empty without a contestant of ours."""
    rows = [
        _row(one, [other for other in found if _beside(one, other)])
        for number in _SHOWN
        for one in found
        if one.connections == number and _is_usual(one)
    ]
    return markdown(_HEADINGS, rows) if rows else ""


def _is_usual(one: Standing) -> bool:
    return one.ours and one.framework == "Tornado" and not one.error


def _beside(one: Standing, other: Standing) -> bool:
    return (
        other.connections == one.connections
        and other.keeps == one.keeps
        and not (other.ours or other.error)
    )


def _row(ours: Standing, others: Sequence[Standing]) -> Cells:
    by_hand = [one for one in others if one.framework == ours.framework]
    known = [one for one in others if one.framework == _BEST_KNOWN]
    return (
        f"{ours.connections}",
        ours.keeps,
        _cell([ours], "read"),
        _cell(by_hand, "read"),
        _cell([ours], "write"),
        _cell(by_hand, "write"),
        _cell(known, "write"),
    )


def _cell(found: Sequence[Standing], name: str) -> str:
    return f"{figure(found[0].figures[name].value)} µs" if found else ""
