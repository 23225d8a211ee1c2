"""The rows that a run gives, and the table and files that are made of them."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from benchmarks.machine import Machine
from benchmarks.spread import Estimate

BEGIN = "<!-- benchmark: begin -->"
END = "<!-- benchmark: end -->"
_HEADINGS = ("", "what", "measured", "95 % interval", "must reach", "reached?")


Cells: TypeAlias = "tuple[str, ...]"


class Progress(Protocol):
    """Tells how far a measurement is."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


@dataclass(frozen=True)
class Row:
    """One line of the table; without a bound it is there to be read."""

    rule: str
    what: str
    measured: Estimate | None
    """None: a part is missing, and the note says which."""
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None
    exactly: float | None = None
    note: str = ""

    @property
    def must_reach(self) -> str:
        if self.at_most is not None:
            return f"<= {self.at_most:g} {self.unit}"
        if self.at_least is not None:
            return f">= {self.at_least:g} {self.unit}"
        if self.exactly is not None:
            return f"= {self.exactly:g}"
        return ""

    @property
    def verdict(self) -> str:
        """Say whether the bound was reached; a wide spread decides nothing."""
        if self.measured is None:
            return ""
        low, high = self.measured.low, self.measured.high
        if self.at_most is not None:
            reached, missed = high <= self.at_most, low > self.at_most
        elif self.at_least is not None:
            reached, missed = low >= self.at_least, high < self.at_least
        elif self.exactly is not None:
            reached = low == high == self.exactly
            missed = not reached
        else:
            return ""
        return "yes" if reached else "no" if missed else "the spread hides it"

    def cells(self) -> tuple[str, ...]:
        if self.measured is None:
            return (self.rule, self.what + self.note, "not measured", "", "", "")
        value, low, high = (
            f"{number:,.{_digits(self.measured.value)}f}"
            for number in (self.measured.value, self.measured.low, self.measured.high)
        )
        interval = "" if low == high else f"{low} to {high}"
        measured = f"{value} {self.unit}"
        return (
            *(self.rule, self.what + self.note, measured, interval),
            *(self.must_reach, self.verdict),
        )


def missing(rules: Sequence[str], what: str, hint: object) -> list[Row]:
    """Return the rows of what cannot be measured until *hint* is installed."""
    return [Row(rule, what, None, note=f": install {hint}") for rule in rules]


def figure(value: float) -> str:
    """Return a number with as many digits as can be trusted."""
    return f"{value:,.{_digits(value)}f}"


def spread(estimate: Estimate, unit: str = "") -> str:
    """Return a value with its unit, and the interval if it has one."""
    value, low, high = map(figure, (estimate.value, estimate.low, estimate.high))
    interval = "" if low == high else f" ({low} to {high})"
    return f"{value} {unit}".strip() + interval


def _digits(value: float) -> int:
    if float(value).is_integer():  # counted, not measured
        return 0
    return 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    return markdown(_HEADINGS, [row.cells() for row in rows])


def markdown(headings: Cells, rows: Sequence[Cells]) -> str:
    """Return a Markdown table that can be read as it is."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = tuple("-" * width for width in widths)
    return "\n".join(
        "| " + " | ".join(map(str.ljust, line, widths)) + " |"
        for line in (lines[0], rule, *lines[1:])
    )


def page(rows: Sequence[Row], machine: Machine) -> str:
    """Return what it was measured on, what has a bound, and everything."""
    return (
        f"{machine.sentence}\n\n### The bounds\n\n{bounds(rows)}\n\n"
        f"### All figures\n\n{table(rows)}\n"
    )


def bounds(rows: Sequence[Row]) -> str:
    """Return the rows that have a bound; of counts the wrong ones, and how many are right."""
    right = [row for row in rows if row.exactly is not None and row.verdict == "yes"]
    lines = [row.cells() for row in rows if row.verdict and row not in right]
    for rule, number in Counter(row.rule for row in right).items():
        lines.append((rule, "what is counted", f"{number} right", "", "exactly", "yes"))
    return markdown(_HEADINGS, lines)


def write_results(directory: Path, rows: Sequence[Row], machine: Machine) -> None:
    """Write ``latest.md`` and ``latest.json``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "latest.md").write_text(page(rows, machine), encoding="utf-8")
    figures = [{**asdict(row), "reached": row.verdict or None} for row in rows]
    content = {"machine": asdict(machine), "rows": figures}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (directory / "latest.json").write_text(text, encoding="utf-8")


def write_docs(path: Path, rows: Sequence[Row], machine: Machine) -> None:
    """Put the table between the two markers of the file at *path*."""
    write_between(path, page(rows, machine))


def write_between(path: Path, content: str) -> None:
    """Replace what stands between the two markers of the file at *path*."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{path} must have the lines {BEGIN} and {END}")
    new = f"{before}{begin}\n\n{content.strip()}\n\n{end}{after}"
    path.write_text(new, encoding="utf-8")


_BAR = 24


def show_progress(what: str, done: int, total: int, /) -> None:
    """Keep one line of a terminal up to date; elsewhere say when something begins."""
    if sys.stderr.isatty():
        full = round(_BAR * done / total)
        bar = "#" * full + "-" * (_BAR - full)
        line = f"\r\x1b[K[{bar}] {done} of {total}  {what}"
        print(line, end="", file=sys.stderr, flush=True)
    elif done == 0:
        print(f"{what} ...", file=sys.stderr, flush=True)


def clear_progress() -> None:
    """Take that line away, before something is printed."""
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
