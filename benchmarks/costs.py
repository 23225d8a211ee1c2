"""The page that says what sessions cost, made of what each part of the lab found.

Each part has a file of its own in the directory of results, so one part can be measured
again without the others, and the page can be made again without measuring.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks import (
    growth_parallel,
    growth_size,
    growth_sockets,
    growth_stored,
    pictures,
)
from benchmarks.contest import CONNECTIONS
from benchmarks.growth import Growth
from benchmarks.machine import Machine
from benchmarks.report import write_between
from benchmarks.standings import Standing, table
from benchmarks.summary import summary

PEERS = "peers"
_IN_SHORT = (
    "### In short\n\n"
    "What a session adds to a request, in processor time of the server; the spread is in "
    "the tables below. Many visitors at once share what one at a time pays for alone."
)
_IDLE = 1.0
"""Load average below which a machine counts as idle."""
GROWTHS: dict[str, ModuleType] = {
    "size": growth_size,
    "stored": growth_stored,
    "sockets": growth_sockets,
    "parallel": growth_parallel,
}
"""What measures how a cost grows, by the name of the part."""


def save(directory: Path, part: str, machine: Machine, found: Sequence[Any]) -> None:
    """Keep what *part* found, and on which machine."""
    directory.mkdir(parents=True, exist_ok=True)
    content = {"machine": asdict(machine), "found": [asdict(one) for one in found]}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (directory / f"{part}.json").write_text(text, encoding="utf-8")


def write_page(directory: Path, page: Path) -> None:
    """Put what the parts found into *page*, and its pictures next to it."""
    sections = [_peers(directory, page.parent)]
    sections += [_growths(directory, part, page.parent) for part in GROWTHS]
    write_between(page, "\n\n".join(filter(None, sections)))


def _load(directory: Path, part: str) -> tuple[Machine, list[dict[str, Any]]] | None:
    file = directory / f"{part}.json"
    if not file.exists():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    return Machine(**content["machine"]), content["found"]


def _peers(directory: Path, place: Path) -> str:
    loaded = _load(directory, PEERS)
    if loaded is None:
        return ""
    machine, found = loaded
    rows = [Standing.loaded(one) for one in found]
    return peers_page(rows, machine, pictures.of_peers(rows, place))


def _growths(directory: Path, part: str, place: Path) -> str:
    loaded = _load(directory, part)
    if loaded is None:
        return ""
    machine, found = loaded
    growths = [Growth.loaded(one) for one in found]
    images = [pictures.of_growth(one, place) for one in growths]
    return growths_page(growths, machine, images)


def growths_page(
    growths: Sequence[Growth], machine: Machine, images: Sequence[str] = ()
) -> str:
    """Return what each question found: a picture, a sentence, a table."""
    pictured = images or [""] * len(growths)
    sections = (
        "\n\n".join(
            filter(None, (f"### {one.title}", image, one.says, one.measured, one.table))
        )
        for one, image in zip(growths, pictured, strict=True)
    )
    return "\n\n".join((*sections, _measured_on(machine)))


def _measured_on(machine: Machine) -> str:
    """Describe the machine, and say so if it was not idle."""
    if machine.busy < _IDLE:
        return machine.sentence
    return (
        f"{machine.sentence} **The machine had other things to do**: processor time is "
        "a little too much here, and what was measured on the clock tells little."
    )


def peers_page(
    rows: Sequence[Standing], machine: Machine, images: Iterable[str] = ()
) -> str:
    """Return the pictures and tables of the contest."""
    tables = (
        f"#### {number} connection{'s' if number > 1 else ''}\n\n{table(rows, number)}"
        for number in CONNECTIONS
    )
    parts = (_in_short(rows), "### Beside its peers", *images, _measured_on(machine))
    return "\n\n".join(filter(None, (*parts, *tables)))


def _in_short(rows: Sequence[Standing]) -> str:
    """Say what a session adds in a few rows, if ours were measured."""
    table_of_ours = summary(rows)
    return f"{_IN_SHORT}\n\n{table_of_ours}" if table_of_ours else ""
