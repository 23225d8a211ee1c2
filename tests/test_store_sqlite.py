"""SQLiteStore, against the contract and against what databases do."""

import asyncio
import gc
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from itertools import chain
from pathlib import Path
from unittest import IsolatedAsyncioTestCase

import msgspec
import pytest

from diskkit import foreign_folder, tiny_disk
from httpkit_stores import PATIENCE
from tornado_sessions.errors import CodecError, ConfigurationError, StoreError
from tornado_sessions.stores import sqlite_pair
from tornado_sessions.stores.base import Apply, Create, Delete, Meta, Outcome
from tornado_sessions.stores.sqlite import SQLiteStore
from tornado_sessions.stores.sqlite_connection import Connection
from tornado_sessions.stores.sqlite_schema import MIGRATIONS
from tornado_sessions.testing import FakeClock, StoreConformance

APPLIED = Outcome.APPLIED
SCHEMA = '"tornado_sessions/schema"'


class TestSQLiteStore(StoreConformance, IsolatedAsyncioTestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "sessions.db"

    async def make_store(self, clock, namespace):
        return SQLiteStore(self.path, namespace=namespace, clock=clock)

    async def corrupt(self, store, handle):
        table = f'"{self.namespace}/records"'
        run(self.path, f"UPDATE {table} SET epoch = 'x' WHERE handle = ?", handle)


def run(path, statement, *parameters):
    """Run one statement on a connection of its own."""
    with closing(sqlite3.connect(path)) as db, db:
        return db.execute(statement, parameters).fetchall()


def create(handle, size=1, principal=None):
    now = FakeClock()()
    times = dict.fromkeys(("created_at", "last_seen_at", "epoch_at", "rotated_at"), now)
    meta = Meta(token=b"t", expires_at=now + 1000, principal=principal, **times)
    return Create(handle, meta, {"k": b"v" * size})


def change(size=1):
    return Apply(handle="h", set={"k": os.urandom(size)})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "sessions.db"


@pytest.fixture
async def store(path):
    async with SQLiteStore(path) as opened:
        await opened.commit([create("h", principal="p")])
        yield opened


async def test_wal_and_full_sync(store, path):
    """F2: the write-ahead log is on, and each commit waits for the disk."""
    asked = "PRAGMA journal_mode", "PRAGMA synchronous"
    found = await store._pair.write(lambda db: [*map(one_value(db), asked)])
    assert found == ["wal", 2]
    assert run(path, "PRAGMA journal_mode") == [("wal",)]


FORGETS = """
import asyncio, sys
from tornado_sessions.stores.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
asyncio.run(store.count())
"""


def test_nobody_closes_it(path):
    """F1: a store that is dropped closes its database, and so does the end of a process.

    Since Python 3.13 a database that is left to the collector is a ResourceWarning.
    """

    async def use():
        store = SQLiteStore(path)
        store.itself = store  # only the collector finds it, with all that it has open
        await store.commit([create("h")])
        await store.load(["h"])
        wal.append(wal_of(path).exists())

    wal: list[bool] = []
    asyncio.run(use())
    end = time.monotonic() + PATIENCE
    while wal_of(path).exists():  # the last who closes the database removes it
        gc.collect()
        assert time.monotonic() < end
    assert wal == [True]
    strict = [sys.executable, "-W", "error", "-c", FORGETS, path]
    ended = subprocess.run(strict, check=True, capture_output=True, text=True)
    assert ended.stderr == ""
    assert not wal_of(path).exists()


def wal_of(path):
    return path.with_name(f"{path.name}-wal")


def one_value(db):
    return lambda statement: db.execute(statement).fetchone()[0]


async def test_only_the_owner_can_read(store, path):
    """S9: the database file and what SQLite puts beside it are 0600."""
    modes = {
        one.name: stat.S_IMODE(one.stat().st_mode) for one in path.parent.iterdir()
    }
    assert set(modes.values()) == {0o600}
    assert path.name in modes


async def test_one_batch_is_one_transaction(store):
    """R1, P5: the changes of a batch share one commit."""
    statements = []
    await store._pair.write(lambda db: db.set_trace_callback(statements.append))
    await store.commit([create(f"h{number}") for number in range(50)])
    assert statements.count("COMMIT") == 1


async def test_a_principal_with_very_many_sessions(store):
    """R4: there may be more of them than SQLite takes parameters in one query."""
    await store.commit(
        [create(f"h{number}", principal="busy") for number in range(2500)]
    )
    if sys.version_info >= (3, 11):  # as low as some systems have it
        limit = sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER
        await store._pair.read(lambda db: db.setlimit(limit, 999))
    found = await store.find("busy")
    assert len(found) == 2500
    assert {len(record.values) for record in found} == {1}


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
async def test_an_older_schema_is_migrated(path, version):
    """R4, F2: a database of any older schema version is brought up to date."""
    names = ("records", "values", "by_expiry", "by_principal", "ends")
    tables = {name: f'"tornado_sessions/{name}"' for name in names}
    columns = "(namespace TEXT PRIMARY KEY, version INTEGER NOT NULL)"
    run(path, f"CREATE TABLE {SCHEMA} {columns}")
    if version:
        run(path, f"INSERT INTO {SCHEMA} VALUES ('tornado_sessions', ?)", version)
    for statement in chain.from_iterable(MIGRATIONS[:version]):
        run(path, statement.format(**tables))
    if version:
        row = "('old', 0, x'00', 1, 1, 4e9, 1, 'p', NULL, '', '', 1, NULL, NULL, NULL)"
        run(path, f"INSERT INTO {tables['records']} VALUES {row}")
    async with SQLiteStore(path) as store:
        assert await store.commit([create("h", principal="p")]) == [APPLIED]
        found = {record.handle: record.meta for record in await store.find("p")}
        assert found.keys() == ({"h", "old"} if version else {"h"})
        assert {meta.authenticated_at for meta in found.values()} == {None}
    assert run(path, f"SELECT version FROM {SCHEMA}") == [(len(MIGRATIONS),)]
    indexes = run(path, "SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE INDEX%'")
    assert len(indexes) == 2


async def test_a_newer_schema_is_refused(store, path):
    """F3: a database of a later release is left alone, and the error says why."""
    await store.close()
    run(path, f"UPDATE {SCHEMA} SET version = 99")
    with pytest.raises(StoreError, match="schema version 99"):
        await store.open()
    run(path, f"UPDATE {SCHEMA} SET version = ?", len(MIGRATIONS))
    assert await store.count() == 1


async def test_who_runs_goes_on_beside_a_newer_release(store, path):
    """F3: a process that has the database open goes on when another upgrades it."""
    run(path, 'ALTER TABLE "tornado_sessions/records" ADD COLUMN of_later REAL')
    run(path, f"UPDATE {SCHEMA} SET version = 99")
    assert await store.commit([create("new")]) == [APPLIED]
    assert await store.commit([Apply("h", set={"k": b"1"})]) == [APPLIED]
    old, new = await store.load(["h", "new"])
    assert (old.values, new.values) == ({"k": b"1"}, {"k": b"v"})


async def test_not_a_database(path):
    """F3: another file under that name is not touched, and the error says what to do."""
    path.write_text("Dear diary, " * 1000)
    with pytest.raises(StoreError, match="name another file") as info:
        await SQLiteStore(path).open()
    assert isinstance(info.value.__cause__, sqlite3.DatabaseError)
    assert path.read_text().startswith("Dear diary")


BAD_ROWS = (
    "UPDATE \"tornado_sessions/records\" SET token = 'a text' WHERE handle = 'b'",
    "UPDATE \"tornado_sessions/records\" SET epoch = x'00' WHERE handle = 'b'",
    "UPDATE \"tornado_sessions/records\" SET ip = CAST(x'ff' AS TEXT) WHERE handle = 'b'",
    "UPDATE \"tornado_sessions/values\" SET value = 'text' WHERE handle = 'b'",
    "UPDATE \"tornado_sessions/values\" SET name = x'ff' WHERE handle = 'b'",
    "UPDATE \"tornado_sessions/values\" SET name = 'text' WHERE handle = 'b'",
)


@pytest.mark.parametrize("damage", BAD_ROWS)
async def test_a_corrupt_row(store, path, damage):
    """S6, F3: it is a `CodecError` in its place, and its neighbours are untouched."""
    await store.commit([create(handle, principal="q") for handle in "abc"])
    run(path, damage)
    first, broken, last = await store.load(["a", "b", "c"])
    assert isinstance(broken, CodecError)
    assert (first.values, last.values) == ({"k": b"v"}, {"k": b"v"})
    assert sorted(record.handle for record in await store.find("q")) == ["a", "c"]
    assert len([record async for record in store.iterate()]) == 3


async def test_a_time_that_is_no_number(store, path):
    """S6, F3: the row is a `CodecError`, and can be ended, but not replaced."""
    await store.commit([create(handle) for handle in "abc"])
    run(
        path,
        "UPDATE \"tornado_sessions/records\" SET expires_at='soon' WHERE handle='b'",
    )
    assert isinstance((await store.load(["b"]))[0], CodecError)
    changes = [create("b"), Delete("b"), Delete("b"), create("b")]
    outcomes = await store.commit(changes)
    assert outcomes == [
        Outcome.CONFLICT,
        Outcome.APPLIED,
        Outcome.GONE,
        Outcome.APPLIED,
    ]


async def test_damaged_handles_do_not_end_a_listing(store, path):
    """R4, F3: the rows beside them are listed, whichever page they are on."""
    await store.clear()
    await store.commit([create(f"h{number:03}") for number in range(20)])
    damaged = "CAST(CAST(handle AS BLOB) || x'80' AS TEXT)"
    where = "handle IN ('h001', 'h002', 'h003', 'h007', 'h019')"
    run(path, f'UPDATE "tornado_sessions/records" SET handle = {damaged} WHERE {where}')
    run(
        path,
        'UPDATE "tornado_sessions/records" SET handle = CAST(handle AS BLOB) '
        "WHERE handle = 'h010'",
    )
    listed = [record.handle async for record in store.iterate(batch=2)]
    bad = {1, 2, 3, 7, 10, 19}
    assert listed == [f"h{number:03}" for number in range(20) if number not in bad]


async def test_a_corrupt_page(store, path):
    """F3: damage below SQLite is a `StoreError` that says what to do."""
    await store.commit([create(f"h{number}", 3000) for number in range(100)])
    await store.close()
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="restore it") as info:
        await store.load(["h"])
    assert isinstance(info.value.__cause__, sqlite3.DatabaseError)


async def test_a_damaged_file_can_be_moved_away(store, path):
    """F3: as the error says, and nobody has to restart the server."""
    await store.commit([create(f"h{number}", 3000) for number in range(100)])
    await store.close()
    await store.open()
    raw = bytearray(path.read_bytes())
    raw[4096:] = os.urandom(len(raw) - 4096)
    path.write_bytes(raw)
    with pytest.raises(StoreError, match="move it away"):
        await store.load(["h"])
    for file in path.parent.glob(f"{path.name}*"):
        file.rename(file.with_name(f"damaged-{file.name}"))
    assert await store.load(["h"]) == [None]
    assert await store.commit([create("h")]) == [APPLIED]


async def test_what_was_given_up_begins_no_more(store, path):
    """C1, F1: a change that waits for a lock when its time is over is not carried out."""
    begun = threading.Event()
    await store._pair.write(lambda db: db.set_trace_callback(lambda _: begun.set()))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        late = asyncio.ensure_future(store.commit([Apply("h", set={"k": b"late"})]))
        assert await asyncio.to_thread(begun.wait, PATIENCE)
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
    await store.close()  # which waits for the thread
    (record,) = await store.load(["h"])
    assert record.values == {"k": b"v"}


async def test_rows_with_damaged_handles_are_swept(path):
    """R4, F4: once, so that a sweep has an end."""
    clock = FakeClock()
    async with SQLiteStore(path, clock=clock) as store:
        await store.commit([create(f"h{number:03}") for number in range(30)])
        for table in ("records", "values"):
            damaged = "CAST(CAST(handle AS BLOB) || x'80' AS TEXT)"
            run(path, f'UPDATE "tornado_sessions/{table}" SET handle = {damaged}')
        clock.advance(2000)
        later = msgspec.structs.replace(create("x").meta, expires_at=clock() + 1000)
        await store.commit([Create("lives", later, {"k": b"v"})])
        assert [await store.sweep(20) for _ in range(3)] == [20, 10, 0]
        for table in ("records", "values"):
            (counted,) = run(path, f'SELECT COUNT(*) FROM "tornado_sessions/{table}"')
            assert counted == (1,)


async def test_it_is_opened_once(path, monkeypatch):
    """F1: who opens it at the same moment leaves no connection behind."""
    made = []

    class Noted(Connection):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

    monkeypatch.setattr(sqlite_pair, "Connection", Noted)
    store = SQLiteStore(path)
    await asyncio.gather(*[store.open() for _ in range(3)])
    await store.load(["h"])
    used = [one for one in made if one._db is not None]
    assert set(used) == {store._pair.reader, store._pair._writer}
    await store.close()


async def test_a_missing_directory(tmp_path):
    """F3: opening says which directory to create, and creates nothing."""
    with pytest.raises(StoreError, match="create its directory first"):
        await SQLiteStore(tmp_path / "none" / "sessions.db").open()
    assert list(tmp_path.iterdir()) == []


async def test_a_read_only_file():
    """F3: a change is a `StoreError` that says what to allow; nothing is lost."""
    with foreign_folder() as (folder, read_only):
        path = folder / "sessions.db"
        async with SQLiteStore(path) as store:
            await store.commit([create("h")])
        with read_only(), pytest.raises(StoreError, match="let this process") as info:
            await SQLiteStore(path).commit([change()])
        assert str(path) in str(info.value)
        async with SQLiteStore(path) as store:
            (record,) = await store.load(["h"])
        assert record.values == {"k": b"v"}


async def test_locked_by_another_process(path):
    """F1, F3: a commit waits for busy_timeout, then fails; reads go on all the time."""
    async with SQLiteStore(path, busy_timeout=0.3) as store:
        await store.commit([create("h")])
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(StoreError, match="another process holds it"):
                await store.commit([change()])
            assert 0.25 <= time.monotonic() - began < 5
            assert await store.count() == 1
            other.execute("ROLLBACK")
        assert await store.commit([change()]) == [APPLIED]


async def test_a_full_database(store):
    """F3: a batch that does not fit is refused as a whole; what was there stays."""
    await store._pair.write(lambda db: db.execute("PRAGMA max_page_count = 20"))
    with pytest.raises(StoreError, match="free some space"):
        await store.commit([change(), create("large", 200_000)])
    (record,) = await store.load(["h"])
    assert record.values == {"k": b"v"}
    assert await store.commit([change()]) == [APPLIED]


async def test_a_full_disk():
    """F3: an error that says what to do, and all is well once there is room."""
    with tiny_disk() as folder:
        async with SQLiteStore(folder / "sessions.db") as store:
            await store.commit([create("h")])
            with pytest.raises(StoreError, match=r"sessions\.db"):
                await store.commit([change(200_000)])
            (record,) = await store.load(["h"])
            assert record.values == {"k": b"v"}


def test_a_file_is_needed():
    """F3: no file, or an impossible namespace, is refused at once."""
    for bad in ("", ":memory:", "sqlite:///"):
        with pytest.raises(ConfigurationError):
            SQLiteStore(bad)
    with pytest.raises(ConfigurationError):
        SQLiteStore("sessions.db", namespace='x"; DROP TABLE')


async def test_namespaces_that_differ_in_case_only(path):
    """R5, F3: SQLite would take their tables for the same, so the second is refused."""
    async with SQLiteStore(path, namespace="shop") as store:
        with pytest.raises(StoreError, match="'shop', from which 'Shop' differs"):
            await SQLiteStore(path, namespace="Shop").open()
        assert await store.commit([create("h")]) == [APPLIED]
    async with SQLiteStore(path, namespace="shop") as store:
        assert await store.count() == 1
