"""A server with WebSockets, a process of its own: ``python -m benchmarks.socket_server``.

It says its port on the first line and ends when its standard input does.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import threading
import time
from pathlib import Path

from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler

from benchmarks.server import end_with_input
from tornado_sessions import SessionMixin, WebSocketSessionMixin


class Plain(WebSocketHandler):
    """What everything else is compared with."""

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


class WithSession(WebSocketSessionMixin, WebSocketHandler):
    """Knows its session, and hears of its end."""

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message)


class Begin(SessionMixin, RequestHandler):
    """Logs the visitor in as whoever the path says."""

    def get(self, principal: str) -> None:
        self.session.login(principal)


class End(SessionMixin, RequestHandler):
    """Ends all sessions of a principal."""

    async def get(self, principal: str) -> None:
        self.write(str(await self.session_manager.revoke_all(principal)))


class Usage(RequestHandler):
    """Says how much memory and processor time this process has taken, but for this."""

    collecting = 0.0

    def get(self) -> None:
        began = time.process_time()
        gc.collect()
        Usage.collecting += time.process_time() - began
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
        resident = int(pages) * os.sysconf("SC_PAGE_SIZE")
        processor = time.process_time() - Usage.collecting
        self.write({"resident": resident, "processor": processor})


async def serve(store: str) -> None:
    application = Application(
        [
            (r"/plain", Plain),
            (r"/with-session", WithSession),
            (r"/begin/(.+)", Begin),
            (r"/end/(.+)", End),
            (r"/usage", Usage),
        ],
        cookie_secret="a secret for benchmarks only, and long enough",
        session_store=store,
        log_function=lambda _: None,
    )
    socket, port = bind_unused_port()
    HTTPServer(application).add_sockets([socket])
    print(port, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.socket_server")
    parser.add_argument("--store", default="memory://")
    parser.add_argument("--core", type=int, help="run on this core only")
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    threading.Thread(target=end_with_input, daemon=True).start()
    asyncio.run(serve(options.store))


if __name__ == "__main__":
    main()
