"""How memory and the reach of an end grow with the number of open WebSockets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.databases import cores
from benchmarks.growth import Growth, Line, Point
from benchmarks.open_sockets import THEIRS, Found, with_sockets
from benchmarks.report import Progress, figure
from benchmarks.spread import exactly

_KINDS = {"/plain": "Tornado alone", "/with-session": "with its session"}


@dataclass(frozen=True)
class Size:
    """How many sockets are open."""

    sockets: tuple[int, ...]


FULL = Size((100, 1000, 10_000))
QUICK = Size((100, 300))


async def measure(size: Size, _directory: Path, progress: Progress) -> list[Growth]:
    """Open ever more sockets, each with a session of its own."""
    found: dict[tuple[str, int], Found] = {}
    with cores() as core:
        for done, number in enumerate(size.sockets):
            for path, kind in _KINDS.items():
                progress(f"sockets: {number:,}, {kind}", done, len(size.sockets))
                found[kind, number] = await with_sockets(
                    "memory://", path, number, core
                )
    ours = tuple(_KINDS.values())[1:]
    return [
        _memory(_lines(size, found, tuple(_KINDS.values()), lambda one: one.memory)),
        _ends(_lines(size, found, ours, lambda one: one.end)),
    ]


def _lines(
    size: Size,
    found: dict[tuple[str, int], Found],
    kinds: tuple[str, ...],
    value: Callable[[Found], float],
) -> tuple[Line, ...]:
    return tuple(
        Line(
            kind,
            tuple(
                Point(number, exactly(max(0.0, value(found[kind, number]))))
                for number in size.sockets
            ),
        )
        for kind in kinds
    )


def _memory(lines: tuple[Line, ...]) -> Growth:
    plain, ours = (line.points[-1].measured.value for line in lines)
    return Growth(
        name="sockets",
        title="Memory of an open WebSocket",
        measured="bytes for each socket, its session not counted",
        across="open sockets",
        says=(
            f"At the most sockets, knowing its session costs a socket "
            f"{figure(ours - plain)} bytes above the {figure(plain)} it takes anyway: "
            "what is known of its session, a place in a registry, and a timer for the "
            "moment when it expires; no task. The limit is memory, and Tornado's share "
            "of it comes first."
        ),
        lines=lines,
    )


def _ends(lines: tuple[Line, ...]) -> Growth:
    last = lines[0].points[-1]
    return Growth(
        name="sockets-end",
        title=f"Until {THEIRS} sockets of a user who was logged out are closed",
        measured="ms until the last of them knew",
        across="open sockets",
        says=(
            f"With {last.at:,.0f} open sockets it takes {figure(last.measured.value)} "
            "ms: whose sessions end is looked up by principal, and which sockets are "
            "theirs by handle, so the others are not even looked at. What it takes is "
            "to write so many close frames."
        ),
        lines=lines,
    )
