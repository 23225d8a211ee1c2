"""The rights that the page about MongoDB lists: enough for everything, and needed."""

import asyncio
import logging
import re

import pytest

from docpages import ROOT
from mongokit import MongoServer, eventually, listening, new_record
from tornado_sessions import StoreError
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome
from tornado_sessions.stores.mongo import MongoStore

PAGE = (ROOT / "docs/stores/mongo.md").read_text(encoding="utf-8")
[_ACTIONS] = re.findall(r"^```text\n(find .+)$", PAGE, re.MULTILINE)
LEAST = _ACTIONS.split()
COLLECTION = "sessions"


@pytest.fixture(scope="module")
def server():
    with MongoServer(auth=True) as running:
        yield running


@pytest.fixture
def let_in(server):
    """Make users with these actions on a collection, and give their stores."""
    made = []

    def let_in(*actions):
        database = f"shop{len(made)}"
        made.append(database)
        on = {"db": database, "collection": COLLECTION}
        rights = [{"resource": on, "actions": actions}]
        server.run("createRole", "few", database=database, privileges=rights, roles=[])
        server.run("createUser", "u", database=database, pwd="p", roles=["few"])
        url = f"mongodb://u:p@{server.address}/{database}"
        return MongoStore(url, namespace=COLLECTION)

    yield let_in
    with server.client() as client:
        for database in made:
            client.drop_database(database)
            client[database].command("dropAllUsersFromDatabase")
            client[database].command("dropAllRolesFromDatabase")


async def everything(store):
    """Do with a store what sessions do; the last outcome tells whether it worked."""
    clocks = ("created_at", "last_seen_at", "epoch_at", "rotated_at")
    meta = Meta(token=b"t", expires_at=4e9, **dict.fromkeys(clocks, 1.0))
    await store.commit([Create("handle", meta, {"key": b"1"})])
    change = Apply("handle", expect={"key": b"1"}, meta={"principal": "ada"})
    await store.commit([change])
    assert len(await store.find("ada")) == await store.count() == 1
    assert len([one async for one in store.iterate()]) == 1
    assert await store.sweep(1) == 0
    [ended] = await store.commit([Delete("handle")])
    await store.clear()
    return ended


async def test_the_least_is_enough(let_in, caplog):
    """With the actions of the page all works, and nothing is warned of."""
    async with let_in(*LEAST) as store:
        assert await everything(store) is Outcome.APPLIED
        assert store.expires_natively
    assert caplog.messages == []


@pytest.mark.parametrize("lacking", [one for one in LEAST if one != "createIndex"])
async def test_less_is_not(let_in, lacking):
    """Without one of them something fails, and says what to grant."""
    async with let_in(*(one for one in LEAST if one != lacking)) as store:
        with pytest.raises((StoreError, AssertionError)) as failed:
            assert await everything(store) is Outcome.APPLIED
    if isinstance(failed.value, StoreError):
        assert "grant readWrite on the database" in str(failed.value)


@pytest.mark.slow
@pytest.mark.parametrize("streams", [True, False])
async def test_who_hears_of_ends(streams, tmp_path, caplog):
    """W2: with `changeStream` by a stream, without it by looking; nothing is warned of."""
    key = tmp_path / "key"
    key.write_text("madeupkey")
    key.chmod(0o600)
    with MongoServer("rs0", extra=["--keyFile", str(key)]) as server:
        member = {"_id": 0, "host": server.address}
        server.run("replSetInitiate", {"_id": "rs0", "members": [member]})
        eventually(lambda: server.run("hello")["isWritablePrimary"])
        server.make_administrator()
        on = {"db": "shop", "collection": COLLECTION}
        actions = [*LEAST, "changeStream"] if streams else LEAST
        rights = [{"resource": on, "actions": actions}]
        server.run("createRole", "few", database="shop", privileges=rights, roles=[])
        server.run("createUser", "u", database="shop", pwd="p", roles=["few"])
        url = f"mongodb://u:p@{server.address}/shop"
        store = MongoStore(url, namespace=COLLECTION)
        async with store, listening(store) as heard:
            with server.counting() as found:
                await store.commit([new_record("h"), Delete("h", "why")])
                assert await heard.end("h", "why") < 1
                await asyncio.sleep(1)
    assert ("getMore" in found) == streams
    assert caplog.messages == []


async def test_without_indexes(let_in, caplog):
    """Who may make no index gets a warning with what to run, and a sweeper."""
    actions = [one for one in LEAST if one != "createIndex"]
    with caplog.at_level(logging.WARNING, "tornado_sessions"):
        async with let_in(*actions) as store:
            assert await everything(store) is Outcome.APPLIED
            assert not store.expires_natively
    [message] = caplog.messages
    assert f'db.getCollection("{COLLECTION}").createIndex' in message
