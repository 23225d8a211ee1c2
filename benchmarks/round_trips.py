"""P7: how often a request asks the database, and how many requests ask together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from benchmarks.databases import REDIS, Database, NotThereError, cores, running
from benchmarks.load import Connection, connections, everybody
from benchmarks.process import server
from benchmarks.report import Progress, Row, missing
from benchmarks.server import Read, Untouched, Write
from benchmarks.spread import exactly
from benchmarks.traffic import Action, Seen, Traffic, traffic
from tornado_sessions import SessionManager, SessionMixin

DEVICES = 5
"""Sessions of the one user whose sessions are listed."""
CROWDS = (1, 16, 128)
FULL = 100
QUICK = 5
"""Requests of each connection of a crowd."""
_SOME_HOURS = 2 * 3600.0
_USER = "somebody"


class Login(SessionMixin, RequestHandler):
    """Logs in and counts."""

    def get(self) -> None:
        self.session.login(_USER)
        self.session["n"] = 1
        self.write("ok")


class Clock:
    """The time of day, and later if need be."""

    def __init__(self) -> None:
        self.later = 0.0

    def __call__(self) -> float:
        return time.time() + self.later


@dataclass(frozen=True)
class Step:
    """One thing that is counted, and how often it may ask."""

    what: str
    action: Action
    round_trips: int
    commands: int
    """At the most; a script makes one of many."""


async def measure(database: Database, requests: int, progress: Progress) -> list[Row]:
    """Count the round trips, and return the rows."""
    what = f"P7, {database.name}"
    try:
        progress(what, 0, 2)
        rows = await _counted(database)
        progress(what, 1, 2)
        return rows + await _crowds(database, requests)
    except NotThereError as hint:
        return missing(("P7",), database.name, hint)


async def _counted(database: Database) -> list[Row]:
    """Count, at one connection, what each kind of request asks."""
    clock, rows = Clock(), list[Row]()
    async with running(database) as url, traffic(url) as seen:
        manager = SessionManager(url)
        manager.store.clock = clock
        async with _serving(manager) as port, connections(port, 2 + DEVICES) as all_:
            for step in await _steps(manager, clock, database, all_):
                await step.action()  # from now on, Redis knows the script
                rows += _rows(database, step, await seen.during(step.action))
    return rows


@asynccontextmanager
async def _serving(manager: SessionManager) -> AsyncIterator[int]:
    """Serve in this process, for what is counted here takes no time."""
    socket, port = bind_unused_port()
    handlers = [("/read", Read), ("/write", Write), ("/login", Login)]
    application = Application(
        [*handlers, ("/untouched", Untouched)],
        cookie_secret="a secret for benchmarks only, and long enough",
        session_manager=manager,
    )
    http = HTTPServer(application)
    http.add_sockets([socket])
    async with manager:
        yield port
        http.stop()
        await http.close_all_connections()


async def _steps(
    manager: SessionManager,
    clock: Clock,
    database: Database,
    visitors: Sequence[Connection],
) -> list[Step]:
    """Begin the sessions, and return what is to be counted with them."""
    stranger, visitor, user, *devices = visitors
    await visitor.get("/write")
    for device in (user, *devices):
        await device.get("/login")

    async def sessions_of() -> None:
        assert len(await manager.sessions_of(_USER)) == DEVICES

    every = f"sessions_of with {DEVICES} sessions"
    trips = 2 if database is REDIS else 1  # its index by principal is another key
    later = partial(_later, clock)
    return [
        Step(
            "no cookie, session not touched", partial(stranger.get, "/untouched"), 0, 0
        ),
        Step("read", partial(visitor.get, "/read"), 1, 1),
        Step("read and write", partial(visitor.get, "/write"), 2, 2),
        Step("read that extends", partial(later, visitor, "/read"), 2, 2),
        Step("read and write that extends", partial(later, visitor, "/write"), 2, 2),
        Step("of a user, read", partial(user.get, "/read"), 1, 1),
        Step("of a user, read and write", partial(user.get, "/write"), 2, 2),
        Step("of a user, read that extends", partial(later, user, "/read"), 2, 2),
        Step(every, sessions_of, trips, 1 + DEVICES),
    ]


async def _later(clock: Clock, visitor: Connection, path: str) -> None:
    """Ask for *path* when the session is due for a longer life (E3)."""
    clock.later += _SOME_HOURS
    await visitor.get(path)


def _rows(database: Database, step: Step, seen: Seen) -> list[Row]:
    what = f"{database.scheme}://, {step.what}: "
    trips, commands = exactly(seen.round_trips), exactly(seen.commands)
    rows = [Row("P7", what + "round trips", trips, exactly=step.round_trips)]
    if commands != trips:
        rows.append(Row("P7", what + "commands", commands, at_most=step.commands))
    return rows


async def _crowds(database: Database, requests: int) -> list[Row]:
    """Count, with a server that has a core of its own, how many loads go together."""
    rows = []
    with cores() as core:
        async with (
            running(database) as url,
            traffic(url) as seen,
            server("--store", url, *core) as port,
        ):
            for number in CROWDS:
                loads = exactly(await _together(seen, port, number, requests))
                what = f"{database.scheme}://, loads in a round trip, {number} at once"
                rows.append(Row("P7", what, loads))
    return rows


async def _together(seen: Traffic, port: int, number: int, requests: int) -> float:
    async with connections(port, number) as visitors:
        await everybody(visitors, "/write", 1)
        await everybody(visitors, "/read", 1)  # all connections of the store are open
        before = await seen.round_trips()
        await everybody(visitors, "/read", requests)
        return number * requests / (await seen.round_trips() - before)
