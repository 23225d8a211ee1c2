"""The server that is measured, a process of its own: ``python -m benchmarks.server``.

All variants are served by one process, each as an application with one route, so that
they differ in nothing but the code that is measured. It says its port on the first line
and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import marshal
import os
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any, TypeAlias

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPMessageDelegate, HTTPServerRequest
from tornado.routing import Router
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler

from benchmarks import handwritten
from benchmarks.notes import Instructions, Notes, Times
from tornado_sessions import SessionManager, SessionMixin
from tornado_sessions.stores.sqlite_connection import Transaction

Route: TypeAlias = "tuple[str, type[RequestHandler], dict[str, Any]]"

COOKIE = "session"
_DATABASES = ("redis", "mongodb")


class Bare(RequestHandler):
    """What everything else is compared with."""

    def get(self) -> None:
        self.write("ok")


class SignedCookie(RequestHandler):
    """The reference of P3: verifies the very cookie that the session comes by."""

    def get(self) -> None:
        if self.get_signed_cookie(COOKIE) is None:
            raise RuntimeError("the cookie does not verify")
        self.write("ok")


class Untouched(SessionMixin, RequestHandler):
    """P4: could use a session and does not."""

    def get(self) -> None:
        self.write("ok")


class Read(SessionMixin, RequestHandler):
    """P3: reads one value."""

    def get(self) -> None:
        if self.session["n"] < 1:
            raise RuntimeError("the session is not the one that was begun")
        self.write("ok")


class Write(SessionMixin, RequestHandler):
    """Reads, changes and writes one value; says what it wrote."""

    def get(self) -> None:
        self.session["n"] = self.session.get("n", 0) + 1
        self.write(str(self.session["n"]))


class Mutate(SessionMixin, RequestHandler):
    """Does the same so that no parallel request is lost (C2)."""

    async def get(self) -> None:
        self.write(str(await self.session.mutate("n", lambda n: n + 1, 0)))


class Fill(SessionMixin, RequestHandler):
    """Fills the session with so many bytes that nobody reads."""

    def get(self) -> None:
        for name, value in handwritten.filling(self).items():
            self.session[name] = value
        self.write("ok")


class Text(SessionMixin, RequestHandler):
    """S9: reads a text of so many characters."""

    def initialize(self, size: int) -> None:
        self.size = size

    def get(self) -> None:
        if len(self.session[self.name]) != self.size:
            raise RuntimeError("the text is not the one that was written")
        self.write("ok")

    @property
    def name(self) -> str:
        return f"text {self.size}"


class Rewrite(Text):
    """Reads such a text, which begins with a number, and writes it with the next one."""

    def get(self) -> None:
        text = self.session.get(self.name, "0" * self.size)
        number = int(text[:_NUMBER]) + 1
        self.session[self.name] = f"{number:0{_NUMBER}}{text[_NUMBER:]}"
        self.write(str(number))


class ProcessorTime(RequestHandler):
    """Says how many nanoseconds of processor this process took so far."""

    def get(self) -> None:
        self.write(str(time.process_time_ns()))


class Profile(RequestHandler):
    """Begins to note what this process does; asked again, says what that was."""

    notes: Notes | None = None

    def get(self) -> None:
        notes, Profile.notes = Profile.notes, None
        if notes is not None:
            self.write(marshal.dumps(notes.end()))
        else:
            Profile.notes = Instructions() if self.get_arguments("count") else Times()
            Profile.notes.begin()


TEXTS = (1024, 65536)
_NUMBER = 12
_TO_ENCRYPT: list[Route] = [("/read", Read, {}), ("/write", Write, {})]
for _size in TEXTS:
    _TO_ENCRYPT.append((f"/read/{_size}", Text, {"size": _size}))
    _TO_ENCRYPT.append((f"/write/{_size}", Rewrite, {"size": _size}))
"""What is served encrypted, under "/encrypted", and as it is."""


class ByPath(Router):
    """Gives each path an application of its own: no route stands behind another."""

    def __init__(
        self, store: str, handwritten_routes: Iterable[Route], *, encrypted: bool
    ) -> None:
        manager = SessionManager(store)
        self._applications = {
            path: _application(path, handler, arguments, manager)
            for path, handler, arguments in (
                ("/bare", Bare, {}),
                ("/signed-cookie", SignedCookie, {}),
                ("/untouched", Untouched, {}),
                ("/read", Read, {}),
                ("/write", Write, {}),
                ("/mutate", Mutate, {}),
                ("/fill", Fill, {}),
                ("/processor-time", ProcessorTime, {}),
                ("/profile", Profile, {}),
                *handwritten_routes,
            )
        }
        if encrypted:
            self._serve_encrypted(store, manager)

    def _serve_encrypted(self, store: str, plain: SessionManager) -> None:
        manager = SessionManager(store, encryption_keys=[bytes(range(32))])
        for path, handler, more in _TO_ENCRYPT:
            for prefix, owner in (("", plain), ("/encrypted", manager)):
                full = prefix + path
                self._applications[full] = _application(full, handler, more, owner)

    def find_handler(
        self, request: HTTPServerRequest, **_: object
    ) -> HTTPMessageDelegate | None:
        return self._applications[request.path].find_handler(request)


def _application(
    path: str,
    handler: type[RequestHandler],
    arguments: dict[str, Any],
    manager: SessionManager,
) -> Application:
    return Application(
        [(path, handler, arguments)],
        cookie_secret="a secret for benchmarks only, and long enough",
        session_manager=manager,
    )


async def handwritten_routes(place: str | None) -> list[Route]:
    """Return the routes that one writes by hand for a file or the URL *place*."""
    if place is None:
        return []
    scheme = place.partition(":")[0]
    module: Any = handwritten
    if scheme in _DATABASES:  # its driver may not be installed
        module = importlib.import_module(f"benchmarks.{scheme}_handwritten")
    routes: list[Route] = await module.routes(place)
    return routes


async def serve(
    store: str, place: str | None, *, encrypted: bool, freeze: bool
) -> None:
    socket, port = bind_unused_port()
    routes = await handwritten_routes(place)
    server = HTTPServer(ByPath(store, routes, encrypted=encrypted))
    server.add_sockets([socket])
    if freeze:
        gc.freeze()
    print(port, flush=True)
    await asyncio.Event().wait()


def slow_down_commits(seconds: float) -> None:
    """Make every transaction take longer by *seconds*, as ``fsync`` on another disk."""
    commit = Transaction.__exit__

    def slow_commit(self: Transaction, *error: object) -> None:
        commit(self, *error)
        if self.begin == Transaction.begin:
            time.sleep(seconds)

    Transaction.__exit__ = slow_commit  # type: ignore[method-assign]
    handwritten.after_commit = lambda: time.sleep(seconds)


def end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server")
    parser.add_argument("--store", default="memory://")
    parser.add_argument("--handwritten", help="file or URL of handwritten sessions")
    parser.add_argument("--core", type=int, help="run on this core only")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop")
    parser.add_argument("--slower-disk", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument(
        "--encrypted", action="store_true", help="serve encrypted sessions, too"
    )
    parser.add_argument(
        "--freeze", action="store_true", help="call gc.freeze() once it is built"
    )
    options = parser.parse_args()
    if options.slower_disk:
        slow_down_commits(options.slower_disk)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    threading.Thread(target=end_with_input, daemon=True).start()
    run: Any = asyncio.run
    if options.uvloop:  # not needed otherwise, and may not be installed
        run = importlib.import_module("uvloop").run
    encrypted, freeze = options.encrypted, options.freeze
    run(serve(options.store, options.handwritten, encrypted=encrypted, freeze=freeze))


if __name__ == "__main__":
    main()
