"""The command ``python -m benchmarks``."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import (
    contest,
    costs,
    database_cost,
    encryption_cost,
    express_cost,
    latency,
    memory_store,
    open_sockets,
    request_cost,
    round_trips,
    sqlite_writes,
)
from benchmarks.databases import MONGO, REDIS
from benchmarks.machine import Machine, this_machine
from benchmarks.report import (
    Row,
    clear_progress,
    page,
    show_progress,
    write_docs,
    write_results,
)
from benchmarks.standings import standings

RESULTS = Path(__file__).parent / "results"
RULES = (
    *("P1", "P2", "P3", "P4", "P5", "P6", "P7", "M1", "M2"),
    *("A1", "A2", "W1", "S9", "L1", "X1"),
)
PARTS = (costs.PEERS, *costs.GROWTHS)
_TOGETHER = (
    "measure this rule (P1 and P2, M1 and M2, P3 and P4 come together), "
    "or this part of the page of costs"
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure what the library costs."
    )
    add = parser.add_argument
    add(
        "--quick",
        action="store_true",
        help="take a few minutes in all, and prove nothing",
    )
    add(
        "--long",
        action="store_true",
        help="with stored: a million files and ten million sessions in memory, "
        "which takes half an hour and ten gigabytes",
    )
    add("--only", choices=(*RULES, *PARTS), help=_TOGETHER)
    add(
        "--peers",
        nargs="+",
        default=(),
        metavar="NAME",
        help="only peers whose name has this in it, as Express, Redis or uvloop",
    )
    add(
        "--results",
        type=Path,
        help="write what was found there (by default a complete run does, "
        "in benchmarks/results)",
    )
    add(
        "--write-docs",
        type=Path,
        metavar="FILE",
        help="put the table between the two markers of this file",
    )
    add(
        "--write-costs",
        type=Path,
        metavar="FILE",
        help="put tables of all parts that were ever measured between the two markers "
        "of this file, and pictures into the folder images beside it",
    )
    add(
        "--directory",
        type=Path,
        default=RESULTS,
        help="where SQLite writes meanwhile: on the disk that matters, not a tmpfs",
    )
    return parser.parse_args()


async def measure(options: argparse.Namespace) -> list[Row]:
    """Measure what was asked for."""
    rows = await measure_databases(options)
    quick, only = options.quick, options.only
    if only in (None, "P3", "P4"):
        size = request_cost.QUICK if quick else request_cost.FULL
        rows += await request_cost.measure(size, show_progress)
    if only in (None, "P5"):
        writes = sqlite_writes.QUICK if quick else sqlite_writes.FULL
        rows += await sqlite_writes.measure(writes, options.directory, show_progress)
    if only in (None, "P6"):
        sessions = memory_store.QUICK if quick else memory_store.FULL
        runs = 1 if quick else memory_store.RUNS
        rows += await memory_store.measure(sessions, runs, show_progress)
    if only in (None, "W1"):
        sockets = open_sockets.QUICK if quick else open_sockets.FULL
        rows += await open_sockets.measure(sockets, show_progress)
    if only in (None, "S9"):
        size = encryption_cost.QUICK if quick else encryption_cost.FULL
        rows += await encryption_cost.measure(size, show_progress)
    return rows + await measure_goals(options)


async def measure_goals(options: argparse.Namespace) -> list[Row]:
    """Measure what is to be reached beyond the rules of the design."""
    rows: list[Row] = []
    quick, only = options.quick, options.only
    if only in (None, "L1"):
        size = latency.QUICK if quick else latency.FULL
        rows += await latency.measure(size, show_progress)
    if only in (None, "X1"):
        rounds = express_cost.QUICK if quick else express_cost.FULL
        rows += await express_cost.measure(rounds, options.directory, show_progress)
    return rows


async def measure_databases(options: argparse.Namespace) -> list[Row]:
    """Measure what needs a database server."""
    rows: list[Row] = []
    size = database_cost.QUICK if options.quick else database_cost.FULL
    for rules in database_cost.CASES:
        if options.only is None or options.only in rules:
            rows += await database_cost.measure(rules, size, show_progress)
    if options.only in (None, "P7"):
        requests = round_trips.QUICK if options.quick else round_trips.FULL
        for database in (REDIS, MONGO):
            rows += await round_trips.measure(database, requests, show_progress)
    return rows


async def measure_parts(options: argparse.Namespace, machine: Machine) -> None:
    """Measure the parts of the page of costs that were asked for, and keep each."""
    quick, only = options.quick, options.only
    if only in (None, costs.PEERS):
        size = contest.QUICK if quick else contest.FULL
        found = standings(
            await contest.measure(options.peers, size, options.directory, show_progress)
        )
        clear_progress()
        print(costs.peers_page(found, machine))
        keep(options, costs.PEERS, machine, found)
    for name, part in costs.GROWTHS.items():
        if only in (None, name):
            await measure_growth(options, name, part, machine)


async def measure_growth(
    options: argparse.Namespace, name: str, part: Any, machine: Machine
) -> None:
    """Measure how a cost grows, and keep it."""
    size = part.QUICK if options.quick else part.FULL
    if options.long:
        size = getattr(part, "LONG", size)
    growths = await part.measure(size, options.directory, show_progress)
    clear_progress()
    print(costs.growths_page(growths, machine))
    keep(options, name, machine, growths)


def keep(
    options: argparse.Namespace, part: str, machine: Machine, found: Sequence[Any]
) -> None:
    """Keep what a part found, unless it proves nothing."""
    where = options.results or (None if options.quick or options.peers else RESULTS)
    if where is not None:
        costs.save(where, part, machine, found)


def report_rules(
    options: argparse.Namespace, rows: Sequence[Row], machine: Machine
) -> None:
    """Print what was found of the rules, and write it where it is wanted."""
    print(page(rows, machine), end="")
    complete = not options.quick and options.only is None
    results = options.results or (RESULTS if complete else None)
    if results is not None:
        write_results(results, rows, machine)
    if options.write_docs is not None:
        write_docs(options.write_docs, rows, machine)


def main() -> None:
    options = arguments()
    machine = this_machine()
    options.directory.mkdir(parents=True, exist_ok=True)
    if options.only is None or options.only in RULES:
        rows = asyncio.run(measure(options))
        clear_progress()
        report_rules(options, rows, machine)
    if options.only is None or options.only in PARTS:
        asyncio.run(measure_parts(options, machine))
    if options.write_costs is not None:
        costs.write_page(options.results or RESULTS, options.write_costs)


if __name__ == "__main__":
    main()
