"""A load that goes on while a database fails, and what is counted meanwhile.

``async with under_load(store_url) as load:`` serves the pages of `serverkit` in this
process to 16 keep-alive connections: people who read, set and count in their sessions,
and strangers without a cookie. Whatever goes wrong with a single answer is noted, and
fails the test at the end: somebody else's session, a lost or a doubled increment.
"""

import asyncio
import gc
import json
import logging
import secrets
import time
from collections import Counter
from contextlib import asynccontextmanager, closing
from pathlib import Path

from tornado.web import RequestHandler

from httpkit import serving, ticket_in
from httpkit_stores import PATIENCE
from serverkit import Count, Login, Logout, Read, Set
from tornado_sessions.testing import read_session

CONNECTIONS = 16
STRANGERS = 2
TIMEOUT = 2.0
"""Seconds that the server under load gives the store, unless a test says otherwise: more
than a busy machine needs."""
SLACK = 6
"""A request may take this many timeouts: it detects hanging, and measures nothing."""
HUNG = 20.0
"""Seconds after which a request counts as one that will never be answered."""
THINK = 0.01
"""Seconds between two requests of a connection; some more after a refusal."""
RECOVERY = 30.0


class Plain(RequestHandler):
    """A page that knows nothing of sessions."""

    def get(self):
        self.write("hello")


ROUTES = [
    ("/", Read),
    ("/plain", Plain),
    ("/set", Set),
    ("/count/(.+)", Count),
    ("/login/(.+)", Login),
    ("/logout", Logout),
]


class Tally:
    """What was answered to the requests of one phase, those that began in it."""

    def __init__(self, answers=()):
        self._answers = []
        self.known: Counter = Counter()
        """How often each status went to those with a cookie."""
        self.strangers: Counter = Counter()
        """The same for those without one."""
        for one in answers:
            self.add(*one)

    def add(self, person, status, wait):
        """Note an answer; *person* is None for those without a cookie."""
        self._answers.append((person, status, wait))
        (self.known if person else self.strangers)[status] += 1

    def of(self, people):
        """Return what these people were answered."""
        return Tally(one for one in self._answers if one[0] in people)

    @property
    def longest(self):
        """The longest wait for each status, in seconds."""
        longest: dict = {}
        for _, status, wait in self._answers:
            longest[status] = max(wait, longest.get(status, 0.0))
        return longest

    @property
    def longest_wait(self):
        return max(self.longest.values(), default=0.0)

    def __str__(self):
        waits = {status: round(wait, 3) for status, wait in self.longest.items()}
        return (
            f"with a cookie {dict(self.known)}, without {dict(self.strangers)}, "
            f"longest {waits}"
        )


class Browser:
    """A keep-alive connection that says a cookie."""

    def __init__(self, port, cookie=""):
        self._port = port
        self._stream = None
        self.cookie = cookie

    async def fetch(self, path, body=None):
        """Return status and body; the status is 0 if there was no answer at all."""
        try:
            return await asyncio.wait_for(self._exchange(path, body), HUNG)
        except asyncio.TimeoutError:
            self.close()
            return 0, b"no answer"

    async def _exchange(self, path, body):
        if self._stream is None:
            self._stream = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._stream
        writer.write(self.request(path, body))
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        start, *lines = head.strip().split("\r\n")
        headers = [line.split(": ", 1) for line in lines]
        length, keep = 0, True
        for name, value in headers:
            if name == "Content-Length":
                length = int(value)
            elif name == "Set-Cookie":
                self._keep(value)
            elif name == "Connection":
                keep = value != "close"
        content = await reader.readexactly(length)
        if not keep:
            self.close()
        return int(start.split()[1]), content

    def request(self, path, body=None):
        """Return the bytes of a request: a POST if there is a body."""
        verb = "GET" if body is None else "POST"
        lines = [f"{verb} {path} HTTP/1.1", "Host: localhost"]
        if self.cookie:
            lines.append(f"Cookie: {self.cookie}")
        if body is not None:
            lines.append("Content-Type: application/x-www-form-urlencoded")
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", body or ""]).encode()

    def _keep(self, value):
        pair = value.partition(";")[0]
        self.cookie = "" if pair.endswith(('="', '=""', "=")) else pair

    def close(self):
        if self._stream is not None:
            self._stream[1].close()
            self._stream = None


class Person:
    """Somebody with a session, in one or several tabs of a browser."""

    def __init__(self, load, number):
        self.load = load
        self.name = f"person-{number}"
        self.number = number
        self.cookie = ""
        self.sent = 0
        """Increments that were asked for."""
        self.acknowledged = 0
        """Those that the server said were done."""
        self.forgiven = 0
        """How many of them may be lost."""
        self.seen = 0
        """What the session said last."""
        self._set = 0

    @property
    def handle(self):
        """Under which the session is stored."""
        return ticket_in(self.cookie.partition("=")[2]).handle

    async def come(self):
        """Begin the session."""
        with closing(Browser(self.load.port)) as browser:
            await until_served(browser.fetch, "/set", f"who={self.name}&last=0")
            self.cookie = browser.cookie

    async def read(self, browser):
        least = self.acknowledged - self.forgiven
        status, body = await self.load.ask(browser, "/", by=self)
        if status == 200:
            self._check(least, json.loads(body)["values"])
        return status

    def _check(self, least, values):
        number, last = values.get("n", 0), int(values.get("last", -1))
        if values.get("who") != self.name or last not in range(self._set + 1):
            self.load.wrong.append(f"{self.name} was shown {values}")
        self.seen = number
        if not least <= number <= self.sent:
            between = f"between {least} and {self.sent}"
            self.load.wrong.append(f"{self.name}: n is {number}, not {between}")

    async def set(self, browser):
        self._set += 1
        return (await self.load.ask(browser, "/set", f"last={self._set}", by=self))[0]

    async def count(self, browser):
        self.sent += 1
        status, body = await self.load.ask(browser, "/count/n", "", by=self)
        if status == 200:
            self.acknowledged += 1
            counted = self.seen = json.loads(body)["counted"]
            if not 0 < counted <= self.sent:
                self.load.wrong.append(f"{self.name}: counted {counted}/{self.sent}")
        return status


class Tab:
    """One keep-alive connection of a person; how often it got all that it wanted."""

    def __init__(self, person):
        self.person = person
        self.rounds = 0

    async def live(self):
        person, load = self.person, self.person.load
        browser = Browser(load.port, person.cookie)
        try:
            while not load.over:
                acts = (person.read, person.set, person.count)
                statuses = [await self._act(browser, act) for act in acts]
                self.rounds += statuses == [200, 200, 200]
        finally:
            browser.close()

    async def _act(self, browser, act):
        status = await act(browser)
        if browser.cookie != self.person.cookie:
            self.person.load.wrong.append(f"{self.person.name} got another cookie")
            browser.cookie = self.person.cookie
        await asyncio.sleep(THINK if status == 200 else 5 * THINK)
        return status


class Load:
    """Sixteen connections with sessions, and a few without.

    Args:
        site: What `httpkit.serving` gives.
        people: How many there are; they share the connections evenly.
        suits: Tells whether a session will do; who has another begins again.
    """

    def __init__(self, site, people=CONNECTIONS, suits=None):
        self.site = site
        self.port = site.port
        self.tally = Tally()
        self.over = False
        self.wrong = []
        self.people = [Person(self, number) for number in range(people)]
        tabs = CONNECTIONS // people
        self.tabs = [Tab(person) for person in self.people for _ in range(tabs)]
        self._suits = suits
        self._tasks = []
        self._asking = 0
        self._may_ask = asyncio.Event()
        self._may_ask.set()

    async def open(self):
        """Use the store once: what it needs for good is there from then on."""
        await Person(self, -1).come()
        await gone(lambda: tasks()["HTTP1ServerConnection._server_request_loop"])

    async def start(self):
        await asyncio.gather(*(self._come(person) for person in self.people))
        work = [tab.live() for tab in self.tabs]
        work += [self._strange(path) for path in ("/", "/plain")[:STRANGERS]]
        self._tasks = [asyncio.create_task(one) for one in work]
        await self.served()

    async def _come(self, person):
        await person.come()
        while self._suits is not None and not self._suits(self.site, person):
            await person.come()

    async def _strange(self, path):
        """Be one without a cookie."""
        browser = Browser(self.port)
        try:
            while not self.over:
                await self.ask(browser, path)
                await asyncio.sleep(THINK)
        finally:
            browser.close()

    async def ask(self, browser, path, body=None, by=None):
        """Make a request that counts in the phase in which it began."""
        await self._may_ask.wait()
        tally, start = self.tally, time.monotonic()
        self._asking += 1
        status, content = await browser.fetch(path, body)
        self._asking -= 1
        wait = time.monotonic() - start
        tally.add(by, status, wait)
        return status, content

    async def objects(self):
        """Return what `objects` does while nobody asks, and no answer is noted."""
        self._may_ask.clear()
        await self.until(lambda: not self._asking)
        self.phase()
        try:
            return objects()
        finally:
            self._may_ask.set()

    def phase(self):
        """Begin a new phase; return its tally."""
        self.tally = Tally()
        return self.tally

    async def served(self, tabs=None):
        """Wait until each tab got all that it asked for, again; return the seconds."""
        start = time.monotonic()
        tabs = self.tabs if tabs is None else tabs
        goal = {tab: tab.rounds + 2 for tab in tabs}  # one may be under way
        await self.until(lambda: all(tab.rounds >= goal[tab] for tab in tabs))
        return time.monotonic() - start

    async def until(self, condition):
        """Wait until something holds, while the load goes on."""
        end = time.monotonic() + RECOVERY
        while not condition():
            for task in self._tasks:
                if task.done():
                    task.result()  # it should not be over
            assert time.monotonic() < end, f"it did not happen; {self.tally}"
            await asyncio.sleep(0.005)

    async def ended(self):
        """Let everybody finish."""
        self.over = True
        await asyncio.gather(*self._tasks)

    async def stop(self):
        """Let everybody finish, and compare with what is stored."""
        await self.ended()
        for person in self.people:
            with closing(Browser(self.port, person.cookie)) as browser:
                await until_served(self._read, person, browser)
        assert self.wrong == []

    async def _read(self, person, browser):
        return await person.read(browser), b"refused"

    def forgive(self, certain):
        """Let be lost what was acknowledged since; *certain* has it for each person."""
        for one, number in certain.items():
            one.forgiven = one.acknowledged - number

    def lost(self, person):
        """Return how many acknowledged increments are missing, as last seen."""
        return max(0, person.acknowledged - person.seen)

    async def counted(self, person):
        """Return how many increments of *person* are stored."""
        session = await read_session(self.site.application, person.cookie)
        return session.get("n", 0)

    async def cancel(self):
        """Give up; nothing is checked."""
        self.over = True  # wait_for() may swallow that it was cancelled
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def totals(self):
        """How many increments were acknowledged, and how many sent."""
        people = self.people
        return sum(p.acknowledged for p in people), sum(p.sent for p in people)


async def until_served(ask, *args):
    """Ask until the answer is a 200: a short deadline may be missed on a busy machine."""
    end = time.monotonic() + RECOVERY
    while True:
        status, body = await ask(*args)
        if status == 200:
            return
        assert time.monotonic() < end, (status, body)


def in_namespace(url):
    """Return *url* with a namespace that nobody has used yet, unless it has one."""
    if "namespace=" in url:
        return url
    option = f"namespace=t{secrets.token_hex(6)}"
    return f"{url}{'&' if '?' in url else '?'}{option}"


@asynccontextmanager
async def under_load(store, timeout=TIMEOUT, **load_options):
    """Serve with sessions in *store*, a URL or a `Store`, and keep that busy.

    At the end nobody may have been shown what is not theirs, every increment that was
    acknowledged is stored, none is stored twice, and no task is left.
    """
    store = in_namespace(store) if isinstance(store, str) else store
    async with serving(ROUTES, store, session_store_timeout=timeout) as site:
        load = Load(site, **load_options)
        await load.open()
        before = tasks()
        try:
            await load.start()
            yield load
            await load.stop()
        finally:
            await load.cancel()
        await gone(lambda: tasks() - before)


def tasks():
    """Count the tasks of this loop by their names, without those of a `Proxy`."""
    names = (
        str(getattr(one.get_coro(), "__qualname__", ""))
        for one in asyncio.all_tasks()
        if not one.done()
    )
    return Counter(name for name in names if not name.startswith("Proxy."))


async def gone(left):
    """Wait until *left* returns something empty."""
    end = time.monotonic() + PATIENCE
    while left():
        assert time.monotonic() < end, f"still there: {left()}"
        await asyncio.sleep(0.01)


def refused_in_time(tally, timeout=TIMEOUT):
    """Somebody was refused, nobody waited for long, and strangers were served."""
    assert set(tally.known) <= {200, 503}, tally
    assert tally.known[503] > 0, tally
    assert tally.longest_wait < SLACK * timeout, tally
    assert_strangers_served(tally)


def assert_strangers_served(tally):
    assert set(tally.strangers) == {200}, tally


def all_fine(tally):
    """Everybody was served."""
    assert set(tally.known) == {200}, tally
    assert_strangers_served(tally)


def objects():
    """Return how many objects there are, and the memory of this process in KiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(gc.get_objects()), pages * 4


@asynccontextmanager
async def unlogged():
    """Keep pytest from collecting the log: it holds on to every traceback."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def figure(what, **values):
    """Print what was measured; ``pytest -rP`` shows it."""
    each = ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
        for name, value in values.items()
    )
    print(f"FIGURE {what}: {each}")
