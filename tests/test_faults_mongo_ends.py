"""MongoDB stops, dies, elects and forgets who listens, while sockets are open."""

import asyncio
import gc
import time
from contextlib import asynccontextmanager, contextmanager

import pytest

from faultkit import figure, gone, tasks
from httpkit import serving, ticket_in
from httpkit_stores import PATIENCE
from mongokit import MongoServer, cursors, kill_cursors, mongo_replica_set
from socketkit import a_socket, connect, routes
from tornado_sessions import StoreError
from tornado_sessions.stores import mongo_client, mongo_listening
from tornado_sessions.stores.base import Delete, Outcome
from tornado_sessions.stores.mongo import MongoStore

pytestmark = pytest.mark.slow

DOWN = 1.0
"""Seconds for which a server that was killed is not there."""
HANGS = 8.0
"""Seconds for which a server hangs: until whoever listens has given up."""
VIOLATION = 1008


@contextmanager
def one_server(kind):
    """Run a server of that kind with a journal that loses nothing; give its members."""
    if kind == "standalone":
        with MongoServer() as server:
            yield [server], f"{server.url}?journal=true"
    else:
        with mongo_replica_set(int(kind[0])) as members:
            yield members.servers, f"{members.url}&journal=true&w=majority"


class People:
    """Visitors with a socket each, and somebody at another process who ends sessions."""

    def __init__(self, site, elsewhere):
        self.site, self.elsewhere = site, elsewhere
        self.open = []

    async def come(self, number):
        """Log *number* visitors in, and open a socket for each."""
        for _ in range(number):
            visitor = self.site.visitor()
            await visitor.get("/acts?set=k:v&login=alice")
            handle = ticket_in(visitor.cookie).handle
            self.open.append((handle, await connect(visitor)))

    async def end(self):
        """End a session elsewhere, however long it takes; return its socket."""
        handle, socket = self.open.pop()
        while True:
            try:
                [outcome] = await self.elsewhere.commit([Delete(handle, "elsewhere")])
            except StoreError:
                await asyncio.sleep(0.05)
            else:
                # GONE: the answer to the first attempt got lost.
                assert outcome in (Outcome.APPLIED, Outcome.GONE)
                return socket

    async def is_heard(self, socket):
        """The socket is closed, for the reason that was given elsewhere."""
        began = time.monotonic()
        assert await socket.closed() == (VIOLATION, "elsewhere")
        figure("heard", after=time.monotonic() - began)

    async def all_is_well(self):
        """What ends now is heard of, and the others are open."""
        await self.is_heard(await self.end())
        for _, socket in self.open:
            assert await socket.say("who") == "alice"


@asynccontextmanager
async def people_at(servers, url):
    """Serve people; afterwards demand that nothing is left over."""
    before = tasks()
    with pytest.MonkeyPatch.context() as patch:
        async with MongoStore(url) as elsewhere:
            store = MongoStore(url)
            async with serving(routes(a_socket()), store) as site:
                people = People(site, elsewhere)
                await people.come(6)
                await people.all_is_well()
                yield people
                await people.all_is_well()
                # From here on each server answers, in whatever time it takes.
                for module in (mongo_client, mongo_listening):
                    patch.setattr(module, "_GOODBYE", PATIENCE)
    await gone(lambda: tasks() - before)
    for server in servers:
        await gone(lambda server=server: cursors(server))
        await gone(lambda server=server: gc.collect() and server.connections())


KINDS = pytest.mark.parametrize("kind", ["standalone", "1 member"])


@KINDS
async def test_a_server_that_hangs(kind):
    """W4, F1: what ends when a server goes on after SIGSTOP closes sockets, no others."""
    with one_server(kind) as (servers, url):
        async with people_at(servers, url) as people:
            servers[0].pause()
            ending = asyncio.ensure_future(people.end())
            await asyncio.sleep(HANGS)
            assert not ending.done()
            servers[0].resume()
            await people.is_heard(await ending)


@KINDS
async def test_a_server_that_dies(kind):
    """W4, F2: what ends right after kill -9 and a restart is heard of."""
    with one_server(kind) as (servers, url):
        async with people_at(servers, url) as people:
            await asyncio.to_thread(servers[0].kill)
            ending = asyncio.ensure_future(people.end())
            await asyncio.sleep(DOWN)
            await asyncio.to_thread(servers[0].start)
            await people.is_heard(await ending)


@KINDS
async def test_a_server_that_dies_after_an_end(kind):
    """W4, F2: what ends right before a kill -9 is heard of after it, if not before."""
    with one_server(kind) as (servers, url):
        async with people_at(servers, url) as people:
            socket = await people.end()
            servers[0].kill()
            await asyncio.sleep(DOWN)
            await asyncio.to_thread(servers[0].start)
            await people.is_heard(socket)


async def test_an_election():
    """W4: what ends while the primary steps down is heard of."""
    with one_server("3 members") as (servers, url):
        async with people_at(servers, url) as people:
            [first] = [one for one in servers if one.run("hello")["isWritablePrimary"]]
            await asyncio.to_thread(first.run, "replSetStepDown", 5, force=True)
            await people.is_heard(await people.end())


async def test_a_primary_that_is_lost():
    """W4: after kill -9 of the primary, the next one tells of ends."""
    with one_server("3 members") as (servers, url):
        async with people_at(servers, url) as people:
            [first] = [one for one in servers if one.run("hello")["isWritablePrimary"]]
            await asyncio.to_thread(first.kill)
            await people.is_heard(await people.end())
            await asyncio.to_thread(first.start)


async def test_a_stream_that_is_killed():
    """W4: what ends at the moment when a cursor is killed is heard of."""
    with one_server("1 member") as (servers, url):
        async with people_at(servers, url) as people:
            for _ in range(4):
                killing = asyncio.to_thread(kill_cursors, servers[0], people.site.store)
                _, socket = await asyncio.gather(killing, people.end())
                await people.is_heard(socket)
                await people.come(1)
