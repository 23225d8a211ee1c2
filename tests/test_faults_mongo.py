"""MongoDB stops answering, dies, elects and refuses, while visitors are being served."""

import asyncio
import gc
import re
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from faultkit import figure
from httpkit import Page, serving
from mongokit import MongoServer, mongo_replica_set
from tornado_sessions.stores.mongo import MongoStore

pytestmark = pytest.mark.slow

CONNECTIONS = 16
PATIENCE = 60.0
DRIVERS = {"AsyncPeriodicExecutor", "PyMongoProtocol", "_keep", "_poll_cancellation"}
"""Whose coroutines may run while a client is open."""
TIMEOUT = 2.0
"""The deadline of the store, in seconds: more than a busy machine needs."""


class Tally(Page):
    """Counts up, atomically; GET needs no session."""

    def get(self):
        self.write("hello")

    async def post(self):
        number = await self.session.mutate("n", lambda number: number + 1, 0)
        self.write(str(number))


class KeptAlive:
    """One HTTP connection, for one request after the other."""

    def __init__(self, site, cookie=None):
        self._site, self._cookie = site, cookie
        self._streams = None

    async def request(self, method):
        """Return the status of the answer, and how long it took in seconds."""
        began = time.monotonic()
        if self._streams is None:
            self._streams = await self._site.connect()
        reader, writer = self._streams
        cookie = f"Cookie: {self._cookie}\r\n" if self._cookie else ""
        head = f"{method} / HTTP/1.1\r\nHost: x\r\n{cookie}Content-Length: 0\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer.lower())
        await reader.readexactly(int(length[1]) if length else 0)
        return int(answer.split()[1]), time.monotonic() - began

    def close(self):
        if self._streams is not None:
            self._streams[1].close()


class Traffic:
    """Visitors on `CONNECTIONS` connections, two for each session, and one stranger."""

    def __init__(self, site):
        self._site = site
        self.visitors = [site.visitor() for _ in range(CONNECTIONS // 2)]
        self.sent: Counter[int] = Counter()
        self.acknowledged: Counter[int] = Counter()
        self.statuses: Counter[int] = Counter()
        self.good: Counter[int] = Counter()
        self.strangers: Counter[int] = Counter()
        self.slowest = self.slowest_stranger = 0.0
        self._tasks = []

    async def __aenter__(self):
        for number, visitor in enumerate(self.visitors):
            assert (await visitor.post()).code == 200
            self.sent[number] = self.acknowledged[number] = 1
        self._tasks = [
            asyncio.create_task(self._visit(number)) for number in range(CONNECTIONS)
        ]
        self._tasks.append(asyncio.create_task(self._pass_by()))
        await self.all_are_served()
        return self

    async def __aexit__(self, *_):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _visit(self, number):
        session = number // 2
        name = self._site.cookie_name
        cookie = f"{name}={self.visitors[session].cookie}"
        connection = KeptAlive(self._site, cookie)
        try:
            while True:
                self.sent[session] += 1
                status, took = await connection.request("POST")
                self.slowest = max(self.slowest, took)
                self.statuses[status] += 1
                if status == 200:
                    self.acknowledged[session] += 1
                    self.good[number] += 1
        finally:
            connection.close()

    async def _pass_by(self):
        connection = KeptAlive(self._site)
        try:
            while True:
                status, took = await connection.request("GET")
                self.strangers[status] += 1
                self.slowest_stranger = max(self.slowest_stranger, took)
                await asyncio.sleep(0.005)
        finally:
            connection.close()

    async def all_are_served(self):
        """Wait until each connection got some more good answers."""
        self.good.clear()
        await eventually_true(
            lambda: sum(n >= 3 for n in self.good.values()) == CONNECTIONS
        )

    async def some_are_refused(self):
        """Wait until so many got a 503 that all may have, and strangers were served."""
        refused, served = self.statuses[503], self.strangers[200]
        await eventually_true(lambda: self.statuses[503] >= refused + CONNECTIONS)
        await eventually_true(lambda: self.strangers[200] > served)

    async def assert_nothing_lost(self):
        """C2, F1: each session holds what was acknowledged, and no more than was sent."""
        assert set(self.statuses) <= {200, 503}
        assert set(self.strangers) == {200}
        figure("waited", person=self.slowest, stranger=self.slowest_stranger)
        for number, visitor in enumerate(self.visitors):
            stored = int((await visitor.post()).body) - 1
            assert self.acknowledged[number] <= stored <= self.sent[number]


async def eventually_true(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


def tasks():
    """Return the coroutines that run, the test's own apart."""
    mine = asyncio.current_task()
    return Counter(
        getattr(task.get_coro(), "__qualname__", "")
        for task in asyncio.all_tasks()
        if task is not mine
    )


async def connections(servers):
    """Return how many connections the store has to all servers together."""
    return await asyncio.to_thread(lambda: sum(one.connections() for one in servers))


@asynccontextmanager
async def traffic_on(url, servers):
    """Serve visitors; afterwards demand that nothing is lost and nothing left over."""
    before = tasks()
    async with MongoStore(url):
        pass  # makes the indexes, for which three members may need more than TIMEOUT
    store = MongoStore(url)
    async with serving(Tally, store, session_store_timeout=TIMEOUT) as site:
        async with Traffic(site) as traffic:
            yield traffic
        await traffic.assert_nothing_lost()
        gc.collect()
        # Two monitors for each server, and a connection for each batch under way.
        most = 2 * len(servers) + 2 * store.parallel
        assert await connections(servers) <= most
        assert {name.split(".")[0] for name in tasks() - before} <= DRIVERS
        assert (tasks() - before).total() <= 2 * most
    await eventually_true(lambda: tasks() == before)
    await all_closed(servers)


async def all_closed(servers):
    """Wait until the store has no connection any more."""
    end = time.monotonic() + PATIENCE
    while await connections(servers):
        gc.collect()
        assert time.monotonic() < end, "a connection is left"


async def test_a_server_that_hangs():
    """F1: SIGSTOP for 10 s is 503 at the deadline; strangers are served; it recovers."""
    with MongoServer() as server:
        async with traffic_on(f"{server.url}?journal=true", [server]) as traffic:
            server.pause()
            end = time.monotonic() + 10
            while time.monotonic() < end:
                await traffic.some_are_refused()
            server.resume()
            await traffic.all_are_served()


async def test_a_server_that_dies():
    """F1, F2: after kill -9 and a restart, what was acknowledged is there."""
    with MongoServer() as server:
        async with traffic_on(f"{server.url}?journal=true", [server]) as traffic:
            await asyncio.to_thread(server.kill)
            await traffic.some_are_refused()
            await asyncio.to_thread(server.restart)
            await traffic.all_are_served()


async def test_an_election():
    """F1, F3: the primary steps down, another takes over, and nothing is lost."""
    with mongo_replica_set(3) as members:
        async with traffic_on(f"{members.url}&w=majority", members.servers) as traffic:
            before = await asyncio.to_thread(members.step_down)
            await traffic.all_are_served()
            assert await asyncio.to_thread(lambda: members.primary) is not before


async def test_a_wrong_password(caplog):
    """F1, F3, S9: 503 for those with a cookie, a clear log, and all is well once it is right."""
    with MongoServer(auth=True) as server:
        server.run("createUser", "web", pwd="right", roles=["readWriteAnyDatabase"])
        url = f"mongodb://web:{{}}@{server.address}/?authSource=admin"
        async with serving(Tally, MongoStore(url.format("right"))) as site:
            visitor = site.visitor()
            assert (await visitor.post()).code == 200
        store = MongoStore(url.format("s3cret"))
        async with serving(Tally, store, session_store_timeout=TIMEOUT) as site:
            known = site.visitor(**visitor.cookies)
            assert (await known.post()).code == 503
            assert (await site.visitor().get()).code == 200
            assert "the user name or the password is wrong" in caplog.text
            assert "s3cret" not in caplog.text
            server.run("updateUser", "web", pwd="s3cret")
            assert (await known.post()).body == b"2"


async def test_a_server_that_is_not_there_yet():
    """F1: a server may start after the application, which serves all others meanwhile."""
    with MongoServer() as server:
        async with serving(Tally, MongoStore(f"{server.url}?journal=true")) as site:
            visitor = site.visitor()
            assert (await visitor.post()).code == 200
        server.kill()
        store = MongoStore(f"{server.url}?journal=true")
        async with serving(Tally, store, session_store_timeout=TIMEOUT) as site:
            known = site.visitor(**visitor.cookies)
            assert (await known.post()).code == 503
            assert (await site.visitor().get()).code == 200
            await asyncio.to_thread(server.start)
            assert (await known.post()).body == b"2"
