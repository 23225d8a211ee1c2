"""A real server on a free port, a store that can be watched, and two kinds of client."""

import asyncio
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie
from typing import ClassVar

import pytest
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

from tornado_sessions import SessionManager, SessionMixin, StoreError
from tornado_sessions.cookie import decode
from tornado_sessions.stores.memory import MemoryStore

SECRET = "a secret made up for the tests"
PATIENCE = 10.0
"""Seconds after which a test gives up on what should happen at once."""


async def soon(awaitable):
    """Wait for something that is about to happen."""
    return await asyncio.wait_for(awaitable, PATIENCE)


async def until(condition):
    """Give the event loop its turn until the condition holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.001)


class FakeClock:
    """Time that stands still unless told to move."""

    def __init__(self):
        self.now = float(int(time.time()))

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


class Gate:
    """Holds whoever passes until it is opened, and tells when somebody has come."""

    def __init__(self):
        self._arrived = asyncio.Event()
        self._opened = asyncio.Event()

    async def pass_through(self):
        self._arrived.set()
        await self._opened.wait()

    async def arrival(self):
        await soon(self._arrived.wait())

    def open(self):
        self._opened.set()


class AsyncStore(MemoryStore):
    """Memory behind a suspension point, which notes what it is asked for."""

    immediate = False
    parallel = 16

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []
        self.changes = []

    async def load(self, handles):
        self.calls.append("load")
        await self.before("load")
        return await super().load(handles)

    async def commit(self, changes):
        self.calls.append("commit")
        self.changes.extend(changes)
        await self.before("commit")
        return await super().commit(changes)

    async def before(self, call):
        await asyncio.sleep(0)

    def forget(self):
        """Start counting anew."""
        self.calls.clear()
        self.changes.clear()

    @property
    def records(self):
        """Every record, expired or not."""
        return [record for shard in self._shards for record in shard.values()]

    @property
    def record(self):
        (only,) = self.records
        return only


class ImmediateStore(AsyncStore):
    """The same without the suspension point: commits run inside ``finish()``."""

    immediate = True

    async def before(self, call):
        pass


class FailingStore(AsyncStore):
    """Fails the calls named in ``failing``, as a database that is down."""

    def __init__(self, *failing, **kwargs):
        super().__init__(**kwargs)
        self.failing = set(failing)

    async def before(self, call):
        await asyncio.sleep(0)
        if call in self.failing:
            raise StoreError(f"no {call} today") from ConnectionError("refused")


class FailingImmediateStore(FailingStore):
    immediate = True

    async def before(self, call):
        if call in self.failing:
            raise StoreError(f"no {call} today") from ConnectionError("refused")


class SlowStore(AsyncStore):
    """Takes its time with each commit."""

    def __init__(self, delay, **kwargs):
        super().__init__(**kwargs)
        self.delay = delay

    async def before(self, call):
        await asyncio.sleep(self.delay if call == "commit" else 0)


class ParkedStore(AsyncStore):
    """Holds calls at gates: ``park(call)`` makes one for the next such call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._gates = defaultdict(list)

    def park(self, call):
        gate = Gate()
        self._gates[call].append(gate)
        return gate

    async def before(self, call):
        await asyncio.sleep(0)
        if self._gates[call]:
            await self._gates[call].pop(0).pass_through()


STORES = [ImmediateStore, AsyncStore]
on_both_paths = pytest.mark.parametrize(
    "make_store", STORES, ids=["immediate", "asynchronous"]
)
"""Commits run inside ``finish()``, or in a task that the response waits for."""


class Page(SessionMixin, RequestHandler):
    """A handler with a session."""


class Counter(Page):
    """GET shows the number, POST raises it."""

    def get(self):
        self.write({"n": self.session.get("n")})

    def post(self):
        self.session["n"] = self.session.get("n", 0) + 1
        self.write({"n": self.session["n"]})


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
        self.manager = SessionManager.of(application)
        self.store = self.manager.store
        self.access = []
        self.events = []
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
    try:
        yield site
    finally:
        server.stop()
        await server.close_all_connections()
        await site.manager.close()


class Visitor:
    """A browser of sorts: keeps cookies, follows no redirect."""

    def __init__(self, site, cookies):
        self._site = site
        self._http = AsyncHTTPClient(force_instance=True, max_clients=100)
        self.cookies = dict(cookies)

    @property
    def cookie(self):
        """The session cookie, or None."""
        return self.cookies.get(self._site.cookie_name)

    def twin(self):
        """Return a visitor that has the same cookies from now on."""
        return self._site.visitor(**self.cookies)

    async def get(self, path="/", **kwargs):
        return await self.fetch(path, **kwargs)

    async def post(self, path="/", body="", **kwargs):
        return await self.fetch(path, method="POST", body=body, **kwargs)

    async def fetch(self, path="/", headers=None, **kwargs):
        headers = HTTPHeaders(headers or {})
        if self.cookies and "Cookie" not in headers:
            pairs = [f"{name}={value}" for name, value in self.cookies.items()]
            headers["Cookie"] = "; ".join(pairs)
        response = await self._http.fetch(
            f"http://127.0.0.1:{self._site.port}{path}",
            headers=headers,
            raise_error=False,
            follow_redirects=False,
            request_timeout=PATIENCE,
            **kwargs,
        )
        self._keep(response)
        return response

    def _keep(self, response):
        for line in response.headers.get_list("Set-Cookie"):
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
    return decode(decode_signed_value(secret, name, value, min_version=2))


def signed(ticket, name="session", secret=SECRET, **kwargs):
    """Return a cookie value as the server would sign it."""
    return create_signed_value(secret, name, ticket, **kwargs).decode()
