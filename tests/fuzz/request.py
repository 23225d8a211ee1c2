"""A whole request with any Cookie header: no 5xx, and no session (K2, S1)."""

import asyncio

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPServerRequest,
    RequestStartLine,
)
from tornado.web import Application, RequestHandler

from fuzz.cookie_values import SECRETS
from tornado_sessions import SessionMixin
from tornado_sessions.stores.memory import MemoryStore


class Page(SessionMixin, RequestHandler):
    def get(self):
        assert self.session.is_new
        self.write({"n": self.session.get("n")})


class Loads(MemoryStore):
    """Notes that somebody asked for a record."""

    asked = 0

    async def load(self, handles):
        self.asked += len(handles)
        return await super().load(handles)


class Connection(HTTPConnection):
    """Keeps what would have been sent."""

    no_keep_alive = True

    def __init__(self):
        self.answered = _LOOP.create_future()

    def set_close_callback(self, callback):
        pass

    def write_headers(self, start_line, headers, chunk=None):
        self.status, self.headers = start_line.code, headers
        return _SENT

    def write(self, chunk):
        return _SENT

    def finish(self):
        self.answered.set_result(None)


_LOOP = asyncio.new_event_loop()
_SENT = _LOOP.create_future()
_SENT.set_result(None)
STORES = [Loads() for _ in SECRETS]
APPLICATIONS = [
    Application(
        [(r"/", Page)],
        session_store=store,
        log_function=lambda handler: None,
        **secret,
    )
    for store, secret in zip(STORES, SECRETS, strict=True)
]


async def answer(application, header):
    """Return the connection after a request with that header has been answered."""
    connection = Connection()
    request = HTTPServerRequest(
        connection=connection,
        start_line=RequestStartLine("GET", "/", "HTTP/1.1"),
        headers=HTTPHeaders({"Cookie": header, "Host": "x"}),
    )
    request.protocol, request.remote_ip = "http", "::1"
    dispatcher = application.find_handler(request)
    dispatcher.request = request
    dispatcher.execute()
    await asyncio.wait_for(connection.answered, 5)
    return connection


def fuzz(data):
    header = data.decode("latin-1")
    for store, application in zip(STORES, APPLICATIONS, strict=True):
        said = _LOOP.run_until_complete(answer(application, header))
        assert said.status == 200
        assert "Set-Cookie" not in said.headers
        assert store.asked == 0
