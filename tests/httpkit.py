"""A real server on a free port, handlers for it, and two kinds of client."""

import asyncio
import time
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import ClassVar

from tornado.httpclient import AsyncHTTPClient
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.netutil import bind_sockets
from tornado.web import (
    Application,
    RequestHandler,
    create_signed_value,
    decode_signed_value,
)

from httpkit_stores import PATIENCE, AsyncStore, Gate, soon
from tornado_sessions import SessionEvent, SessionManager, SessionMixin
from tornado_sessions.cookie import decode

SECRET = "a secret made up for the tests, and long enough"


class Page(SessionMixin, RequestHandler):
    """A handler with a session."""


class Counter(Page):
    """GET shows the number, POST raises it."""

    def get(self):
        self.write({"n": self.session.get("n")})

    def post(self):
        self.session["n"] = self.session.get("n", 0) + 1
        self.write({"n": self.session["n"]})


class Case(Page):
    """Raises a number in the session; how it answers is up to the subclass."""

    def bump(self):
        self.session["n"] = self.session.get("n", 0) + 1


class Acts(Page):
    """Does what the query says, in its order; ``wait`` parks at the gate of a name."""

    gates: ClassVar[dict[str, Gate]] = {}

    async def get(self):
        for action, values in self.request.query_arguments.items():
            for value in values:
                await getattr(self, f"act_{action}")(value.decode())
        self.write({key: self.session[key] for key in sorted(self.session)})

    async def act_wait(self, name):
        await soon(self.gates[name].pass_through())

    async def act_set(self, pair):
        key, _, value = pair.partition(":")
        self.session[key] = value

    async def act_touch(self, key):
        self.session.get(key)

    async def act_login(self, principal):
        self.session.login(principal)

    async def act_renew(self, _):
        self.session.regenerate_id()

    async def act_destroy(self, _):
        self.session.destroy()

    async def act_persist(self, choice):
        self.session.persistent = choice == "1"


def acting(**gates):
    """Return `Acts` with these gates to wait at."""
    return type("Acts", (Acts,), {"gates": gates})


async def answered(slow, gate, quick):
    """Start one request, complete another while it is parked; return both answers."""
    parked = asyncio.ensure_future(slow)
    await gate.arrival()
    second = await quick
    gate.open()
    return await soon(parked), second


class Site:
    """A running server."""

    def __init__(self, application, port):
        self.application = application
        self.port = port
        self.server: HTTPServer | None = None
        self.manager = SessionManager.of(application)
        self.store = self.manager.store
        self.access = []
        self.sockets = []
        """WebSockets that clients have opened; closed in the end."""
        self.events: list[SessionEvent] = []
        self.manager.subscribe(self.events.append)
        application.settings["log_function"] = self._note

    def _note(self, handler):
        self.access.append((handler.get_status(), handler.request.path))

    def visitor(self, **cookies):
        return Visitor(self, cookies)

    @property
    def kinds(self):
        """What happened to sessions, as (kind, reason)."""
        return [(event.kind, event.reason) for event in self.events]

    @property
    def cookie_name(self):
        return self.manager.config.full_cookie_name

    async def records(self):
        """Return every live record, wherever the store keeps it."""
        return await self.store.kept()

    async def record(self):
        """Return the only record there is."""
        (only,) = await self.records()
        return only

    async def values(self):
        """Return the encoded values of the only record."""
        return (await self.record()).values

    async def connect(self):
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def exchange(self, request):
        """Send bytes and return everything that comes until the server hangs up."""
        reader, writer = await self.connect()
        writer.write(request)
        answer = await soon(reader.read())
        writer.close()
        return answer


@asynccontextmanager
async def serving(handlers=Counter, store=None, **settings):
    """Run an application on a real server.

    Args:
        handlers: One handler for every path, or a list of routes.
        store: Where the sessions are; memory with a suspension point by default.
        **settings: Settings of the application.
    """
    if isinstance(handlers, type):
        handlers = [(r"/.*", handlers)]
    settings.setdefault("cookie_secret", SECRET)
    if "session_manager" not in settings:
        settings["session_store"] = AsyncStore() if store is None else store
    async with running(Application(handlers, **settings)) as site:
        yield site


@asynccontextmanager
async def running(application):
    """Serve an application that is there already."""
    (socket,) = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(application, xheaders=True)
    server.add_socket(socket)
    site = Site(application, socket.getsockname()[1])
    site.server = server
    try:
        yield site
    finally:
        for socket in site.sockets:
            await socket.hang_up()
        server.stop()
        await server.close_all_connections()
        await site.manager.close()


class Visitor:
    """A browser of sorts: keeps cookies, follows no redirect."""

    def __init__(self, site, cookies):
        self.site = site
        self._http = AsyncHTTPClient(force_instance=True, max_clients=100)
        self.cookies = dict(cookies)

    @property
    def cookie(self):
        """The session cookie, or None."""
        return self.cookies.get(self.site.cookie_name)

    def twin(self):
        """Return a visitor that has the same cookies from now on."""
        return self.site.visitor(**self.cookies)

    async def get(self, path="/", **kwargs):
        return await self.fetch(path, **kwargs)

    async def post(self, path="/", body="", **kwargs):
        return await self.fetch(path, method="POST", body=body, **kwargs)

    async def fetch(self, path="/", headers=None, patience=PATIENCE, **kwargs):
        headers = HTTPHeaders(headers or {})
        if "Cookie" not in headers:
            headers.update(self.headers)
        response = await self._http.fetch(
            self.url(path),
            headers=headers,
            raise_error=False,
            follow_redirects=False,
            request_timeout=patience,
            **kwargs,
        )
        self.keep(response.headers)
        return response

    @property
    def headers(self):
        """What a request with these cookies says about them."""
        pairs = [f"{name}={value}" for name, value in self.cookies.items()]
        return {"Cookie": "; ".join(pairs)} if pairs else {}

    def url(self, path="/"):
        return f"http://127.0.0.1:{self.site.port}{path}"

    def keep(self, headers):
        """Keep the cookies that an answer sets."""
        for line in headers.get_list("Set-Cookie"):
            ((name, morsel),) = SimpleCookie(line).items()
            expires = morsel["expires"]
            if expires and parsedate_to_datetime(expires).timestamp() < time.time():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = morsel.value


def session_cookies(response, name="session"):
    """Return the morsels of the session cookies that a response sets."""
    lines = response.headers.get_list("Set-Cookie")
    morsels = [morsel for line in lines for morsel in SimpleCookie(line).values()]
    return [morsel for morsel in morsels if morsel.key == name]


def ticket_in(morsel, name="session", secret=SECRET):
    """Return the ticket that a signed cookie carries."""
    value = getattr(morsel, "value", morsel)
    inner = decode_signed_value(secret, name, value, min_version=2)
    assert inner is not None
    return decode(inner)


def signed(ticket, name="session", secret=SECRET, **kwargs):
    """Return a cookie value as the server would sign it."""
    return create_signed_value(secret, name, ticket, **kwargs).decode()


def named(parameter):
    """Return a name for a parameter of a test that is the same in every run."""
    return getattr(parameter, "__name__", str(parameter))


async def stored(site):
    """Return the number in the only session."""
    return site.manager.config.codec.decode((await site.values())["n"])


async def assert_counted(site, fetch, status):
    """Drive one case as a new visitor, then as a known one."""
    first = await fetch()
    assert first.code == status
    assert site.store.calls == ["commit"]
    assert len(session_cookies(first)) == 1
    assert await stored(site) == 1
    site.store.forget()
    second = await fetch()
    assert second.code == status
    assert site.store.calls == ["load", "commit"]
    assert session_cookies(second) == []
    assert await stored(site) == 2
    return second
