"""Where no loop runs, where loops change, and where processes fork (T8)."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

from tornado.testing import AsyncHTTPTestCase, AsyncTestCase, gen_test
from tornado.web import Application

from httpkit import SECRET, Counter, running, serving
from httpkit_stores import AsyncStore
from tornado_sessions import SessionManager

ROOT = Path(__file__).parents[1]


class OpenedStore(AsyncStore):
    """Notes in which loops it was opened."""

    def __init__(self):
        super().__init__()
        self.loops = []

    async def open(self):
        self.loops.append(asyncio.get_running_loop())


STORE = OpenedStore()
SHARED = Application([(r"/", Counter)], cookie_secret=SECRET, session_store=STORE)
"""One application for several tests, each with its own loop."""


class TestWithTornado(AsyncHTTPTestCase):
    def setUp(self):
        super().setUp()
        self.asyncio_loop = asyncio.get_event_loop()

    def get_app(self):
        SessionManager.of(SHARED)  # there is no running loop, and none is needed
        return SHARED

    def count(self, cookie=None):
        headers = {"Cookie": cookie} if cookie else {}
        answer = self.fetch("/", method="POST", body="", headers=headers)
        assert answer.code == 200
        assert STORE.loops.count(self.asyncio_loop) == 1
        cookie = cookie or answer.headers["Set-Cookie"].partition(";")[0]
        return answer.body, cookie

    def test_one_loop(self):
        """T8: sessions work in an AsyncHTTPTestCase."""
        body, cookie = self.count()
        assert body == b'{"n": 1}'
        assert self.count(cookie)[0] == b'{"n": 2}'

    def test_another_loop(self):
        """T8: the same application works again in the loop of another test."""
        body, cookie = self.count()
        assert body == b'{"n": 1}'
        assert self.count(cookie)[0] == b'{"n": 2}'

    def test_a_third_loop(self):
        """T8: sessions outlive the loop in which they began."""
        sessions = self.io_loop.run_sync(SessionManager.of(SHARED).count)
        self.count()
        assert self.io_loop.run_sync(SessionManager.of(SHARED).count) == sessions + 1


class TestWithGenTest(AsyncTestCase):
    @gen_test
    async def test_a_server_of_its_own(self):
        """T8: a server may be started in the loop of gen_test."""
        async with serving(Counter) as site:
            assert (await site.visitor().post()).body == b'{"n": 1}'


def test_an_application_outlives_its_loop():
    """T8: asyncio.run() after asyncio.run(), each closing or not, on one manager."""
    manager = SessionManager(AsyncStore())
    application = Application(
        [(r"/", Counter)], cookie_secret=SECRET, session_manager=manager
    )
    cookies: dict[str, str] = {}

    async def visit(expected):
        async with running(application) as site:
            visitor = site.visitor(**cookies)
            assert (await visitor.post()).body == expected
            cookies.update(visitor.cookies)

    for number in (1, 2, 3):
        asyncio.run(visit(b'{"n": %d}' % number))


def test_nothing_begins_before_the_first_use(tmp_path, monkeypatch):
    """T8: building a manager and an application starts no thread, task or loop."""
    monkeypatch.chdir(tmp_path)
    before = set(threading.enumerate())
    for url in ("memory://", "sqlite:///never.db", "file:never"):
        application = Application([(r"/", Counter)], session_store=url)
        SessionManager.of(application)
    assert set(threading.enumerate()) <= before
    assert list(tmp_path.iterdir()) == []


FORKING = """
    import asyncio, logging, os, sys
    from tornado.process import fork_processes, task_id
    from tornado.web import Application
    from tornado_sessions import SessionManager

    logging.basicConfig(format="%(levelname)s %(message)s", stream=sys.stdout)
    store = sys.argv[1]
    application = Application([], session_store=store)
    manager = SessionManager.of(application)
    fork_processes(2, max_restarts=0)

    async def main():
        async with manager:
            session = await manager.load([])
            session["n"] = 1
            await session.save()
            os.write(1, b"stored %d\\n" % await manager.count())

    asyncio.run(main())
    sys.stdout.flush()
    os._exit(0)
"""


USED_BEFORE = """
    import asyncio, os, sys
    from tornado.process import fork_processes
    from tornado_sessions import SessionManager, StoreError

    manager = SessionManager(sys.argv[1])

    async def add():
        session = await manager.load([])
        session["n"] = 1
        await session.save()
        os.write(1, b"stored %d\\n" % await manager.count())

    async def add_again():
        try:
            await add()
        except StoreError as error:
            os.write(1, str(error).encode())
            await manager.close()
            os.write(1, b"closed")

    asyncio.run(add())
    fork_processes(2, max_restarts=0)
    asyncio.run(add_again())
    os._exit(0)
"""


def forked(store, folder, code=FORKING):
    code = textwrap.dedent(code)
    run = subprocess.run(
        [sys.executable, "-c", code, store],
        check=False,
        capture_output=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        timeout=30,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_a_forked_server_warns_of_memory(tmp_path):
    """T8: memory:// works after fork_processes, and each process warns once."""
    output = forked("memory://", tmp_path)
    assert output.count("stored 1") == 2
    assert output.count("WARNING MemoryStore is used by one of several") == 2
    assert "sqlite:///sessions.db" in output


def test_a_forked_server_shares_other_stores(tmp_path):
    """T8: a store on disk works after fork_processes without a warning."""
    output = forked("sqlite:///sessions.db", tmp_path)
    assert "stored 2" in output
    assert "WARNING" not in output


def test_a_directory_that_was_used_before_the_fork(tmp_path):
    """T8, F1: and not closed. It begins anew in each process, as threads do not fork."""
    output = forked("file:///./sessions", tmp_path, USED_BEFORE)
    assert output.startswith("stored 1\n")
    assert "stored 3\n" in output


def test_a_database_that_was_used_before_the_fork(tmp_path):
    """T8, F2, F3: SQLite does not survive that, so the store says what to do."""
    output = forked("sqlite:///sessions.db", tmp_path, USED_BEFORE)
    assert output.startswith("stored 1\n")
    assert output.count("forked while the store was open") == 2
    assert output.count("closed") == 2
