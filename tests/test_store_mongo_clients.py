"""MongoStore: URLs, clients that are handed in, event loops, and a driver that lacks."""

import asyncio
import gc
import socket
import subprocess
import sys
import time
import traceback
from contextlib import ExitStack, suppress
from typing import ClassVar

import pymongo
import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from motor.motor_tornado import MotorClient
from pymongo.message import _CursorAddress
from tornado.testing import AsyncHTTPTestCase
from tornado.web import Application

from httpkit import SECRET, Counter
from httpkit_stores import PATIENCE
from mongokit import (
    MongoServer,
    mongo_store,
    new_record,
    shared_mongo,
    shared_server,
    values,
)
from tornado_sessions.errors import ConfigurationError, StoreError
from tornado_sessions.stores.base import Apply, Outcome
from tornado_sessions.stores.mongo import MongoStore
from tornado_sessions.stores.mongo_calls import answer_of
from tornado_sessions.stores.url import store_from_url

KINDS = [pymongo.AsyncMongoClient, MotorClient, AsyncIOMotorClient]


def places(url, **kwargs):
    """Return where a store keeps its records, without asking any server."""

    async def found():
        store = MongoStore(url, **kwargs)
        collection = store._source.collection(store._namespace)
        await store.close()
        return collection

    return asyncio.run(found())


@pytest.mark.parametrize(
    ("url", "kwargs", "expected"),
    [
        ("mongodb://localhost", {}, "tornado_sessions.tornado_sessions"),
        ("mongodb://localhost/", {"namespace": "shop"}, "tornado_sessions.shop"),
        ("mongodb://localhost/web", {}, "web.tornado_sessions"),
        ("mongodb://localhost/web", {"database": "other"}, "other.tornado_sessions"),
        ("mongodb://u:p@a:1,b:2/web?replicaSet=rs", {}, "web.tornado_sessions"),
    ],
)
def test_where_the_records_are(url, kwargs, expected):
    """R5: the database is what the argument says, or the URL; the namespace is a collection."""
    assert places(url, **kwargs).full_name == expected


def test_the_options_are_the_drivers():
    """R5: the URL decides on everything, and on our own defaults too."""
    client = places("mongodb://localhost/").database.client
    # Less than `session_store_timeout`: what the driver says of it is heard.
    assert client.options.server_selection_timeout == 3
    url = "mongodb://localhost/?w=majority&serverselectiontimeoutms=700&appName=mine"
    collection = places(url)
    assert collection.write_concern.document == {"w": "majority"}
    options = collection.database.client.options
    assert options.server_selection_timeout == 0.7
    assert options.pool_options.appname == "mine"


def test_store_from_url():
    """R5: a namespace in the URL is ours, and every other option the driver's."""
    store = store_from_url("mongodb://localhost/web?namespace=shop&journal=true")
    assert isinstance(store, MongoStore)
    assert store._namespace == "shop"
    assert store._source._url == "mongodb://localhost/web?journal=true"
    assert isinstance(store_from_url("mongodb+srv://example.com/web"), MongoStore)
    several = store_from_url("mongodb://one,[::1]:27018/web?replicaSet=rs")
    assert several._source._url == "mongodb://one,[::1]:27018/web?replicaSet=rs"


BAD = {
    "another scheme": "redis://localhost",
    "no host": "mongodb://",
    "an option nobody knows": "mongodb://localhost/?nonsense=1",
    "an option that cannot be": "mongodb://localhost/?w=majority&maxPoolSize=many",
    "a port": "mongodb://localhost:http/",
    "a password to escape": "mongodb://user:pass/w0rd@localhost/",
    "another one": "mongodb://user:pass:w0rd@localhost/",
    "a bad port": "mongodb://user:passw0rd@localhost:x/",
    "a synchronous client": pymongo.MongoClient(connect=False),
    "nothing": None,
    "an asynchronous database": pymongo.AsyncMongoClient().get_database("x"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_cannot_be_a_place(bad):
    """F3, S9: it is refused at once, with what to do instead, and without a password."""
    with pytest.raises(ConfigurationError, match="mongodb://") as info:
        MongoStore(bad)
    for error in (info.value, info.value.__cause__, info.value.__context__):
        assert "w0rd" not in str(error)


@pytest.mark.parametrize(
    "bad", [{"database": ""}, {"database": "a.b"}, {"namespace": "a.b"}], ids=str
)
def test_names_that_cannot_be(bad):
    """R5, F3: an impossible database or namespace is refused at once."""
    with pytest.raises(ConfigurationError, match="name"):
        MongoStore("mongodb://localhost", **bad)


@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
async def test_a_certificate_that_is_not_there(scheme):
    """F3: what is wrong with an option is said, at once unless that needs the DNS."""
    url = f"{scheme}://db.example.com/?tls=true&tlsCAFile=/no/such/file"
    # Newer releases of the driver name the option, older ones the file.
    with pytest.raises(ConfigurationError, match=r"tlscafile|/no/such/file"):
        await MongoStore(url).open()


SILENT = {
    "a URL": "mongodb://localhost/?W=0",
    "a URL for the DNS": "mongodb+srv://db.example.com/web?retryWrites=true&w=0",
    **{f"a {kind.__name__}": kind("mongodb://localhost", w=0) for kind in KINDS},
}


@pytest.mark.parametrize("silent", SILENT.values(), ids=SILENT)
def test_writes_must_be_acknowledged(silent):
    """C2, F3: without an acknowledgement nobody knows what became of a change."""
    with pytest.raises(ConfigurationError, match="w=0"):
        MongoStore(silent)


@pytest.mark.parametrize("name", ["admin", "config", "local"])
def test_databases_of_the_servers_own(name):
    """F2, F3: sessions in "local" are on one member only, in the others they are in the way."""
    for place in [
        f"mongodb://u:p@h/{name}?w=1",
        f"mongodb+srv://db.example.com/{name}",
    ]:
        with pytest.raises(
            ConfigurationError, match=f"the database '{name}' for itself"
        ):
            MongoStore(place)
        assert MongoStore(place, database="web")  # it may be where the user is known
    for kind in KINDS:
        client = kind(f"mongodb://localhost/{name}")
        with pytest.raises(ConfigurationError, match="for itself"):
            MongoStore(client)
        assert MongoStore(client, database="web")
    with pytest.raises(ConfigurationError, match="for itself"):
        MongoStore("mongodb://localhost", database=name)


@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
@pytest.mark.parametrize("password", ["[w0rd", "w0rd]", "w0rd\u2100", "w0rd#"])
async def test_a_password_that_other_urls_could_not_have(scheme, password):
    """S9: the driver says what is wrong, if anything is, and nobody shows the password."""
    url = f"{scheme}://user:{password}@127.0.0.1:9/shop?serverSelectionTimeoutMS=1"
    with pytest.raises((ConfigurationError, StoreError)) as info:
        await MongoStore(url).open()
    assert "w0rd" not in "".join(traceback.format_exception(info.value))


@pytest.mark.parametrize("scheme", ["mongodb", "mongodb+srv"])
def test_a_url_that_names_a_collection(scheme):
    """R5, F3: what would be left out without a word is refused, and no password shown."""
    for place in ["db.example.com", "user:passw0rd@db.example.com"]:
        with pytest.raises(ConfigurationError, match="the namespace names") as info:
            MongoStore(f"{scheme}://{place}/shop.coll?w=1")
        assert "w0rd" not in str(info.value)


async def test_a_loop_whose_tasks_were_all_cancelled():
    """T8, F1: a client that ended with them is replaced, if the loop goes on and so do we."""
    async with mongo_store() as store:
        await store.commit([new_record()])
        mine = {asyncio.current_task()}
        for _ in range(2):
            tasks = asyncio.all_tasks() - mine
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert await values(store) == {"k": b"v"}
            assert await store.commit([Apply("h", {"k": b"v"})]) == [Outcome.APPLIED]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_client_that_is_handed_in_stays_open(kind):
    """R4: what others have made is theirs to close, and theirs to name a database."""
    client = kind(shared_mongo() + "theirs")
    store = MongoStore(client, namespace="handed_in")
    async with store:
        await store.clear()
        assert await store.commit([new_record()]) == [Outcome.APPLIED]
    found = await client["theirs"]["handed_in"].find_one()
    assert found["_id"] == "h"
    await client["theirs"].drop_collection("handed_in")
    closing = client.close()
    if closing is not None:
        await closing


async def test_a_client_with_ideas_of_its_own():
    """R4: codec options of a client do not reach our documents."""
    client = pymongo.AsyncMongoClient(
        shared_mongo(),
        tz_aware=True,
        document_class=dict,
        uuidRepresentation="standard",
    )
    async with client, MongoStore(client, namespace="ideas") as store:
        await store.clear()
        await store.commit([new_record("h", {"id": bytes(16)})])
        assert await values(store) == {"id": bytes(16)}
        await store._collection.drop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_of_another_loop(kind):
    """T8, F3: a client that is handed in serves one loop; the error says what to do."""

    async def use(client):
        async with MongoStore(client, namespace="two_loops") as store:
            await store.clear()

    async def close(client):
        closing = client.close()
        if closing is not None:
            await closing

    client = kind(shared_mongo())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(use(client))
    with pytest.raises(StoreError, match="give a URL instead"):
        asyncio.run(asyncio.wait_for(use(client), PATIENCE))
    loop.run_until_complete(close(client))
    loop.close()


async def test_a_client_of_our_own_leaves_nothing():
    """F1: after `close` there is no task and no connection of the store's client."""
    before = asyncio.all_tasks()
    async with mongo_store(shared := "standalone") as store:
        await store.commit([new_record()])
        assert await asyncio.to_thread(shared_server(shared).connections) > 0
    assert asyncio.all_tasks() == before
    end = time.monotonic() + PATIENCE
    while await asyncio.to_thread(shared_server(shared).connections):
        assert time.monotonic() < end


async def test_a_cursor_that_is_given_up_while_closing(caplog):
    """F1: the driver finds one that it can close no more; all else is closed."""
    before = asyncio.all_tasks()
    server = shared_server("standalone")
    store = MongoStore(server.url)
    await store.load(["h"])
    client = store._collection.database.client
    closed = client._topology.close

    async def close():
        await closed()
        address = _CursorAddress(("127.0.0.1", server.port), "db.collection")
        client._close_cursor_soon(7, address)

    client._topology.close = close
    await store.close()
    assert asyncio.all_tasks() == before
    assert caplog.messages == []


async def test_closing_while_the_server_hangs():
    """F1: a server that does not answer cannot hold up the end of the application."""
    before = asyncio.all_tasks()
    with MongoServer() as server:
        store = MongoStore(server.url)
        await store.commit([new_record()])
        server.pause()
        began = time.monotonic()
        await store.close()
        assert time.monotonic() - began < 5
    assert asyncio.all_tasks() == before


async def test_a_call_that_is_given_up():
    """F1: whoever stops waiting leaves no call behind, and the next one gets its own answer."""
    with MongoServer() as server:
        async with MongoStore(server.url) as store:
            creates = [new_record(f"h{n}", {"is": b"h%d" % n}) for n in range(9)]
            await store.commit(creates)
            before = len(asyncio.all_tasks())
            server.pause()
            calls = [
                lambda: store.load(["h1", "h2"]),
                lambda: store.commit([Apply("h3", {"k": b"1"})]),
                lambda: store.commit([Apply("h4"), new_record("new")]),
            ]
            for call in calls * 3:
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(call(), 0.05)
            server.resume()
            for number in range(9):
                handle = f"h{number}"
                assert (await values(store, handle))["is"] == handle.encode()
            assert len(asyncio.all_tasks()) <= before + 2
    gc.collect()


async def test_a_server_that_takes_no_connection():
    """F1: whoever gives up while the driver connects is let go, and nothing is left."""
    before = asyncio.all_tasks()
    with ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):  # more than wait to be accepted: the next ones hang
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        address = f"127.0.0.1:{full.getsockname()[1]}"
        store = MongoStore(f"mongodb://{address}/?serverSelectionTimeoutMS=60000")
        began = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(store.load(["h"]), 0.2)
        await store.close()
        assert time.monotonic() - began < PATIENCE
        assert asyncio.all_tasks() == before
        gc.collect()  # a socket that is left to the collector is a ResourceWarning


@pytest.mark.parametrize("ending", ["cancelled", "failed", "done"])
async def test_a_driver_that_forgets_to_end(ending):
    """F1: who gives up is not held up by a driver that swallows the cancellation."""
    over = []

    async def stubborn():
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(PATIENCE)
        try:
            await asyncio.sleep(0 if ending == "done" else PATIENCE)
        except asyncio.CancelledError:
            if ending == "failed":
                raise ConnectionError from None
            raise
        finally:
            over.append(True)

    began = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(answer_of(stubborn()), 0.05)
    assert time.monotonic() - began < PATIENCE / 2
    assert over == [True]


async def test_no_server():
    """F1, F3: a server that cannot be reached is a `StoreError` that names it."""
    url = "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=200"
    before = asyncio.all_tasks()
    with pytest.raises(StoreError, match=r"no server could be reached.*127\.0\.0\.1:9"):
        await MongoStore(url).load(["h"])
    assert asyncio.all_tasks() == before


async def test_no_server_within_the_time_of_a_request():
    """F1, F3: what the driver says about it comes before `session_store_timeout` is over."""
    store = MongoStore("mongodb://127.0.0.1:9/")
    with pytest.raises(StoreError, match="no server could be reached"):
        await asyncio.wait_for(store.load(["h"]), 4.5)


@pytest.mark.parametrize("kind", ["a URL", "a client"])
async def test_a_server_that_wants_a_user(caplog, kind):
    """F3: who names no user is told that one is wanted, not which rights it lacks."""
    with MongoServer(auth=True) as server:
        async with pymongo.AsyncMongoClient(server.url) as client:
            store = MongoStore(server.url if kind == "a URL" else client)
            for call in [store.open(), store.load(["h"]), store.commit([new_record()])]:
                with pytest.raises(StoreError, match="wants a user and a password"):
                    await call
    assert caplog.messages == []


async def test_a_wrong_password_is_not_shown():
    """F3, S9: the error says what is wrong; neither it nor its cause says the password."""
    with MongoServer(auth=True) as server:
        url = f"mongodb://root:s3cret@{server.address}/?authSource=admin"
        with pytest.raises(StoreError, match="password is wrong") as info:
            await MongoStore(url).load(["h"])
    assert "s3cret" not in f"{info.value} {info.value.__cause__!r}"
    assert isinstance(info.value.__cause__, pymongo.errors.OperationFailure)


class TestALoopForEachTest(AsyncHTTPTestCase):
    """T8: one store serves one loop after the other, as Tornado tests applications."""

    store: ClassVar[MongoStore]

    @classmethod
    def setUpClass(cls):
        cls.store = MongoStore(shared_mongo(), namespace="loops")

    def get_app(self):
        gc.collect()
        end = time.monotonic() + PATIENCE
        while shared_server("standalone").connections():  # those of the loop before
            assert time.monotonic() < end
        return Application(
            [("/", Counter)], cookie_secret=SECRET, session_store=self.store
        )

    def test_one(self):
        """T8: a request in a loop of its own, which nobody tells to close the store."""
        assert self.fetch("/", method="POST", body="").code == 200

    test_two = test_three = test_one


def test_without_the_driver():
    """F3: who lacks PyMongo is told what to install, and everything else works."""
    code = (
        "import sys; sys.modules.update({'pymongo': None, 'bson': None})\n"
        "from tornado_sessions.stores.url import store_from_url\n"
        "store_from_url('memory://')\n"
        "store_from_url('mongodb://localhost')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("tornado_sessions.errors.ConfigurationError")
    assert last.endswith('pip install "tornado-sessions[mongo]"')
