"""Shows where the time of a request goes: ``python -m benchmarks.profile_requests``.

The server of the benchmarks notes what it does while it is asked for one path again and
again, then for another. What the second takes is subtracted, so that what is left is
what the first adds. It tells where to look; ``python -m benchmarks`` tells what it takes.
"""

from __future__ import annotations

import argparse
import asyncio
import marshal
import sysconfig
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple, TypeAlias

from benchmarks.databases import DATABASES, cores, place_of
from benchmarks.load import Connection, connections, everybody
from benchmarks.notes import Function
from benchmarks.process import server


class Note(NamedTuple):
    """What one function takes of a request, by itself and with all that it calls."""

    calls: float
    own: float
    everything: float


Added: TypeAlias = "dict[Function, Note]"
_NOTHING = Note(0, 0, 0)

_BEGINS = {"/handwritten": "/handwritten", "/encrypted": "/encrypted/write"}
_PLACES = (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile_requests",
        description="Show where the time of a request goes.",
    )
    add = parser.add_argument
    add("store", help="redis or mongodb, which is started; or a URL of session_store")
    add(
        "paths",
        nargs="+",
        metavar="path",
        help="/read, /write, /encrypted/read, /bare …",
    )
    add("--against", default="/bare", help="another path, or '' for none")
    add("--no-cookie", action="store_true", help="from visitors who have no session")
    add("--connections", type=int, default=16)
    add("--requests", type=int, default=200, help="of each connection")
    add(
        "--count",
        action="store_true",
        help="instructions of the interpreter, which nothing disturbs, instead of µs",
    )
    add("--top", type=int, default=40, help="how many functions to show")
    return parser.parse_args()


async def noted(options: argparse.Namespace) -> dict[str, Added]:
    """Return what each path adds to the one that it is compared with."""
    async with AsyncExitStack() as stack:
        core = stack.enter_context(cores())
        url = await stack.enter_async_context(place_of(options.store))
        more = ["--handwritten", url] if options.store in DATABASES else []
        if any("/encrypted" in path for path in options.paths):
            more += ["--encrypted"]
        port = await stack.enter_async_context(server("--store", url, *more, *core))
        crowd = connections(port, options.connections)
        visitors = await stack.enter_async_context(crowd)
        against = await notes_of(visitors, options, options.against)
        return {
            path: difference(await notes_of(visitors, options, path), against)
            for path in options.paths
        }


def difference(mine: Added, theirs: Added) -> Added:
    """Return what *mine* takes more than *theirs*."""
    pairs = {
        function: (mine.get(function, _NOTHING), theirs.get(function, _NOTHING))
        for function in {**mine, **theirs}
    }
    return {
        function: Note(*(a - b for a, b in zip(*pair, strict=True)))
        for function, pair in pairs.items()
    }


async def notes_of(
    visitors: Sequence[Connection], options: argparse.Namespace, path: str
) -> Added:
    """Return what the server notes while all *visitors* ask for *path*."""
    if not path:
        return {}
    if not options.no_cookie:
        await everybody(visitors, begins(path), 1)
    requests = options.requests
    await everybody(visitors, path, 20)
    await visitors[0].get("/profile?count=1" if options.count else "/profile")
    await everybody(visitors, path, requests)
    stats = marshal.loads(await visitors[0].get("/profile"))
    number = requests * len(visitors)
    return {
        function: Note(calls / number, 1e6 * own / number, 1e6 * everything / number)
        for function, (_, calls, own, everything, _) in stats.items()
    }


def begins(path: str) -> str:
    """Return the path that begins the sessions which *path* is about."""
    for prefix, first in _BEGINS.items():
        if path.startswith(prefix):
            return first
    return "/write"


def place(file: str) -> str:
    """Return *file* as an import names it."""
    for folder in map(str, (*_PLACES, Path.cwd())):
        file = file.removeprefix(folder + "/")
    return file


def package(function: Function) -> str:
    """Return the package that *function* belongs to, or that it is built in."""
    file = place(function[0])
    if function[0] == "~":
        waits = "poll" in function[2]
        return "waiting for requests" if waits else "built in (C), sockets too"
    folder, _, rest = file.partition("/")
    return folder if rest else file


def show(path: str, notes: Added, unit: str, top: int) -> None:
    """Print the functions that take most by themselves."""
    packages: defaultdict[str, float] = defaultdict(float)
    for function, note in notes.items():
        packages[package(function)] += note.own
    print(f"{path}: {sum(packages.values()):.1f} {unit} a request\n")
    for name in sorted(packages, key=packages.__getitem__, reverse=True):
        if abs(packages[name]) >= 1:
            print(f"{packages[name]:8.1f}  {name}")
    print("\n     own   with all it calls   calls  function")
    for function in sorted(notes, key=lambda one: -notes[one].own)[:top]:
        file, line, name = function
        where = name if file == "~" else f"{place(file)}:{line} {name}"
        note = notes[function]
        print(f"{note.own:8.1f}  {note.everything:18.1f}  {note.calls:6.2f}  {where}")


def main() -> None:
    options = arguments()
    unit = "instructions" if options.count else "µs, with the noting,"
    for path, notes in asyncio.run(noted(options)).items():
        show(path, notes, unit, options.top)


if __name__ == "__main__":
    main()
