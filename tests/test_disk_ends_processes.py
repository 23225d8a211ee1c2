"""What another process ends, or dies of ending, closes the sockets in this one."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest

from backends import backend_url
from endkit import create, listening
from httpkit import serving, ticket_in
from httpkit_stores import until
from serverkit import PATIENCE, ROOT
from socketkit import a_socket, connect, routes
from tornado_sessions.stores.base import Delete
from tornado_sessions.stores.file import FileStore
from tornado_sessions.stores.url import store_from_url

POLICY_VIOLATION = 1008

REVOKES = """
import asyncio, os, signal, sys

sys.path.append(sys.argv[1])  # the working tree, unless it is installed

from tornado_sessions import SessionManager
from tornado_sessions.stores.file_records import RecordFiles
from tornado_sessions.stores.sqlite_ends import EndTable
from tornado_sessions.stores.url import store_from_url
from pathlib import Path

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def wait(*arguments):
    print("waits", flush=True)
    sys.stdin.readline()
    die()

places = {"before": (RecordFiles, "unlink"), "between": (Path, "rename"),
          "uncommitted": (EndTable, "_prune")}

async def main(url, moment):
    manager = SessionManager(store_from_url(url))
    await manager.start()
    print("ready", flush=True)
    handle, reason = sys.stdin.readline().rstrip("\\n").split(" ", 1)
    if moment in places:
        setattr(*places[moment], die)
    elif moment == "held up":
        Path.rename = wait
    print(await manager.revoke(handle, reason), flush=True)
    die()

asyncio.run(main(*sys.argv[2:]))
"""


@pytest.fixture(params=["sqlite", "file"])
def url(request, tmp_path):
    return backend_url(request.param, tmp_path)


@contextmanager
def revoker(url, moment="after"):
    """Start a process that revokes a session, and is killed at a moment; yield it."""
    command = [sys.executable, "-c", REVOKES, str(ROOT), url, moment]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
            assert process.wait(PATIENCE) == -signal.SIGKILL
        finally:
            process.kill()


def tell(process, handle, reason):
    """Say which session the process has to revoke, and why."""
    process.stdin.write(f"{handle} {reason}\n")
    process.stdin.flush()


async def test_revoked_by_another_process(url):
    """W1, W2, E6, F2: its sockets here close, with the exact reason.

    The other process is killed as soon as it knows that the session has ended.
    """
    async with serving(routes(a_socket()), store_from_url(url)) as site:
        visitor, other = site.visitor(), site.visitor()
        for one in (visitor, other):
            await one.get("/acts?login=alice")
        socket, stays = await connect(visitor), await connect(other)
        with revoker(url) as process:
            tell(process, ticket_in(visitor.cookie).handle, "lost: a phone")
            assert await asyncio.to_thread(process.stdout.readline) == "True\n"
            assert await socket.closed() == (POLICY_VIOLATION, "lost: a phone")
        assert await stays.say("who") == "alice"


@pytest.mark.parametrize(
    ("kind", "moment", "lives"),
    [
        ("sqlite", "uncommitted", True),
        ("sqlite", "after", False),
        ("file", "before", True),
        ("file", "between", False),
        ("file", "after", False),
    ],
)
async def test_killed_while_it_ends_a_session(kind, moment, lives, tmp_path):
    """W1, F2: at whatever moment the process dies, what has ended is heard of."""
    url = backend_url(kind, tmp_path)
    async with store_from_url(url) as store, listening(store) as (heard, _):
        await store.commit([create("h"), create("last")])
        with revoker(url, moment) as process:
            tell(process, "h", "why")
        loaded = await store.load(["h"])
        assert (loaded != [None]) == lives
        await store.commit([Delete("last", "last")])
        await until(lambda: ("last", "last") in heard.ends)
        assert (("h", "why") in heard.ends) != lives
        assert heard.connections == 1


async def test_ended_before_anybody_listened(url):
    """W2, W4: what ends after the first look, and before it is told, has its reason, too."""
    store, elsewhere = store_from_url(url), store_from_url(url)
    async with elsewhere, serving(routes(a_socket()), store) as site:
        visitor = site.visitor()
        await visitor.get("/acts?login=alice")
        handle = ticket_in(visitor.cookie).handle
        tell, parked, go_on = store._polling.tell, asyncio.Event(), asyncio.Event()

        async def held_up(listener, look):
            async def slow(place):
                news = await look(place)
                parked.set()
                await go_on.wait()
                return news

            await tell(listener, slow)

        store._polling.tell = held_up
        socket = await connect(visitor)
        await parked.wait()
        await elsewhere.commit([Delete(handle, "stolen")])
        go_on.set()
        assert await socket.closed() == (POLICY_VIOLATION, "stolen")


async def test_held_up_while_it_ends_a_session(tmp_path):
    """W1, W2: sockets close with the exact reason, though nobody gets to settle the note."""
    url = backend_url("file", tmp_path)
    async with serving(routes(a_socket()), store_from_url(url)) as site:
        visitor = site.visitor()
        await visitor.get("/acts?login=alice")
        socket = await connect(visitor)
        with revoker(url, "held up") as process:
            tell(process, ticket_in(visitor.cookie).handle, "lost: a phone")
            assert await asyncio.to_thread(process.stdout.readline) == "waits\n"
            assert await socket.closed() == (POLICY_VIOLATION, "lost: a phone")
            tell(process, "go", "on")


async def test_a_database_that_fails_for_a_while(url, caplog):
    """W4, F1: what ended meanwhile closes the sockets when it is back, with its reason."""
    store, elsewhere = store_from_url(url), store_from_url(url)
    async with elsewhere, serving(routes(a_socket()), store) as site:
        visitor, other = site.visitor(), site.visitor()
        for one in (visitor, other):
            await one.get("/acts?login=alice")
        socket, stays = await connect(visitor), await connect(other)
        news, failures = store._ends.news, []

        def fails(*arguments):
            failures.append(arguments)
            raise (OSError if isinstance(store, FileStore) else sqlite3.Error)("no")

        store._ends.news = fails
        await until(lambda: len(failures) == 1)
        await elsewhere.commit([Delete(ticket_in(visitor.cookie).handle, "stolen")])
        await until(lambda: len(failures) == 3)
        store._ends.news = news
        assert await socket.closed() == (POLICY_VIOLATION, "stolen")
        assert await stays.say("who") == "alice"
        assert caplog.text.count("the store does not tell of ends") == 1


async def test_one_look_for_all_sockets(url):
    """W2: however many sockets a process has, its store is asked once in an interval."""
    store = store_from_url(url)
    async with serving(routes(a_socket()), store) as site:
        visitor = site.visitor()
        await visitor.get("/acts?login=alice")
        looks = []
        news = store._ends.news

        def counted(*arguments):
            looks.append(time.monotonic())
            return news(*arguments)

        store._ends.news = counted
        sockets = [await connect(visitor) for _ in range(10)]
        await until(lambda: len(looks) >= 4)
        gaps = [b - a for a, b in pairwise(looks)]
        assert min(gaps[1:]) >= 0.49
        for socket in sockets:
            await socket.hang_up()
        await asyncio.sleep(0)
        site.sockets.clear()
        count = len(looks)
        for _ in range(12):
            await store.count()
            await asyncio.sleep(0.05)
        assert len(looks) == count
